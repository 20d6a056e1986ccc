from collections import Counter
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.data import EveryTask, FixedShares, GumbelTopK, SoftmaxTasks, TaskSampler
from lit_mtdqn.types import Clock, Linear, TaskScores

TASKS = ["left", "middle", "right"]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _bound(sampler: TaskSampler, gaps: tuple[float, ...] = (0.0, 0.0, 0.0)) -> TaskScores:
    """Bind a sampler to three tasks that learn and act; return their scores."""
    scores = TaskScores(TASKS)
    for task, gap in zip(TASKS, gaps, strict=True):
        scores.add_score(task, 1.0 - gap)
    sampler.bind(TASKS, TASKS, scores, Clock())
    return scores


def test_every_slot_gets_one_row_group_of_every_update() -> None:
    assert EveryTask().draw(2, 3, torch.Generator()).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_nothing_is_drawn_where_nothing_is_random() -> None:
    generator = _generator()
    before = generator.get_state()
    fixed = FixedShares(dict.fromkeys(TASKS, 1.0))
    _bound(fixed)
    for sampler in (EveryTask(), fixed):
        sampler.draw(2, 3, generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    "sampler",
    [EveryTask(), FixedShares(dict.fromkeys(TASKS, 1.0)), SoftmaxTasks(), GumbelTopK(2)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_all_tasks_are_played_alike_unless_the_sampler_steers_that(sampler: TaskSampler) -> None:
    _bound(sampler)
    assert sampler.vector_steps(8) is None


@pytest.mark.parametrize(
    "sampler",
    [
        FixedShares({"left": 1.0, "middle": 2.0, "right": 3.0}, steers="env_steps"),
        SoftmaxTasks(steers="env_steps"),
        GumbelTopK(1, steers="env_steps"),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_sampler_that_steers_env_steps_alone_trains_every_task(sampler: TaskSampler) -> None:
    _bound(sampler)
    assert sampler.draw(2, 3, _generator()).tolist() == [[0, 1, 2], [0, 1, 2]]
    steps = sampler.vector_steps(8)
    assert steps is not None
    assert sum(steps) == 24


@given(
    shares=st.lists(st.floats(0.01, 10.0), min_size=3, max_size=3),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=30),
)
@settings(max_examples=50, deadline=None)
def test_fixed_shares_are_kept_exactly_over_many_phases(
    shares: list[float], lengths: list[int]
) -> None:
    sampler = FixedShares(dict(zip(TASKS, shares, strict=True)), steers="both")
    _bound(sampler)
    groups: Counter[int] = Counter()
    steps = [0, 0, 0]
    for length in lengths:
        drawn = sampler.draw(length, 3, _generator())
        assert drawn.shape == (length, 3)
        groups.update(drawn.flatten().tolist())
        played = sampler.vector_steps(length)
        assert played is not None
        assert sum(played) == 3 * length
        steps = [before + new for before, new in zip(steps, played, strict=True)]
    for place, share in enumerate(shares):
        expected = 3 * sum(lengths) * share / sum(shares)
        assert abs(groups[place] - expected) < 1.5
        assert abs(steps[place] - expected) < 1.5


def test_a_share_may_fade_over_updates_and_end_at_nothing() -> None:
    clock = Clock()
    sampler = FixedShares({"left": Linear(start=1.0, end=0.0, duration=100), "middle": 1.0})
    sampler.bind(TASKS[:2], TASKS[:2], TaskScores(TASKS), clock)
    filled = []
    for clock.updates in (0, 50, 75, 100, 200):
        groups = sampler.draw(60, 2, _generator())
        filled.append(int((groups == 0).sum()))
    assert filled == pytest.approx([60, 40, 24, 0, 0], abs=1)
    assert sampler.shares(["left", "middle"]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("late", [0.0, -1.0])
def test_a_schedule_that_leaves_no_share_is_refused_when_it_does(late: float) -> None:
    clock = Clock()
    sampler = FixedShares({"left": Linear(start=1.0, end=late, duration=10)})
    sampler.bind(TASKS[:1], TASKS[:1], TaskScores(TASKS), clock)
    sampler.draw(1, 1, _generator())
    clock.updates = 10
    with pytest.raises(ValueError, match=complaint("shares")):
        sampler.draw(1, 1, _generator())


def test_a_large_share_is_spread_evenly_over_updates() -> None:
    sampler = FixedShares({"left": 4.0, "middle": 1.0, "right": 1.0})
    _bound(sampler)
    assert [sorted(row) for row in sampler.draw(2, 3, _generator()).tolist()] == [
        [0, 0, 1],
        [0, 0, 2],
    ]


def test_equal_gaps_give_equal_shares_and_unlike_gaps_a_softmax_with_a_floor() -> None:
    sampler = SoftmaxTasks(temperature=0.5, floor=0.4)
    _bound(sampler)
    assert sampler.shares(TASKS).tolist() == pytest.approx([1 / 3] * 3)
    gaps = torch.tensor([1.0, 2.0, 5.0]).log() / 2
    _bound(sampler, tuple(gaps.tolist()))
    expected = [0.4 / 3 + 0.6 * share / 8 for share in (1, 2, 5)]
    assert sampler.shares(TASKS).tolist() == pytest.approx(expected)


def test_softmax_draws_have_the_shares_as_frequencies() -> None:
    sampler = SoftmaxTasks(floor=0.0)
    _bound(sampler, tuple(torch.tensor([1.0, 2.0, 5.0]).log().tolist()))
    groups = sampler.draw(8_000, 3, _generator())
    assert groups.shape == (8_000, 3)
    counts = torch.bincount(groups.flatten())
    expected = torch.tensor([3_000.0, 6_000.0, 15_000.0])
    # Three kinds: a chi-square variable of two degrees exceeds 18.4 once in 10 000 draws.
    assert float(((counts - expected) ** 2 / expected).sum()) < 18.4


@pytest.mark.parametrize("floor", [0.5, 0.9])
@pytest.mark.parametrize("kind", ["softmax", "gumbel"])
def test_a_task_that_needs_nothing_is_still_drawn_as_often_as_the_floor_says(
    kind: str, floor: float
) -> None:
    options: dict[str, Any] = {"temperature": 1e-3, "floor": floor}
    sampler = SoftmaxTasks(**options) if kind == "softmax" else GumbelTopK(1, **options)
    _bound(sampler, (0.0, 0.0, 1.0))
    shares = torch.bincount(sampler.draw(20_000, 3, _generator()).flatten()).double()
    shares /= shares.sum()
    assert bool((shares[:2] > 0.95 * floor / 3).all())
    assert bool((sampler.shares(TASKS) >= floor / 3 - 1e-12).all())


@pytest.mark.parametrize(("k", "groups"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_top_k_tasks_are_unlike_and_never_more_than_there_are(k: int, groups: int) -> None:
    sampler = GumbelTopK(k)
    _bound(sampler, (0.1, 0.5, 0.9))
    drawn = sampler.draw(50, 3, _generator())
    assert drawn.shape == (50, groups)
    assert all(len(set(row)) == groups for row in drawn.tolist())


@pytest.mark.parametrize(
    ("score", "needs_scores"), [("gap", True), ("progress", True), ("td_error", False)]
)
def test_shares_follow_the_chosen_score_as_it_changes(score: Any, needs_scores: bool) -> None:
    sampler = SoftmaxTasks(score)
    scores = TaskScores(TASKS)
    sampler.bind(TASKS, TASKS, scores, Clock())
    assert sampler.needs_scores == needs_scores
    assert sampler.shares(TASKS).tolist() == pytest.approx([1 / 3] * 3)
    for task, rise in (("left", 0.0), ("middle", 0.2), ("right", -0.5)):
        for step in range(20):
            scores.add_score(task, 0.5 + rise * step / 20)
            scores.add_td_error(task, 1.0 + rise * step / 20)
    order = sampler.shares(TASKS).argsort().tolist()
    assert order == {"gap": [1, 0, 2], "progress": [0, 1, 2], "td_error": [2, 0, 1]}[score]


@pytest.mark.parametrize("kind", ["fixed", "softmax", "gumbel"])
def test_a_loaded_sampler_goes_on_as_the_saved_one(kind: str) -> None:
    def make() -> TaskSampler:
        shares = {"left": 1.0, "middle": 2.0, "right": 4.0}
        samplers: dict[str, TaskSampler] = {
            "fixed": FixedShares(shares, steers="both"),
            "softmax": SoftmaxTasks(steers="both"),
            "gumbel": GumbelTopK(2, steers="both"),
        }
        _bound(samplers[kind], (0.1, 0.5, 0.9))
        return samplers[kind]

    first, second = make(), make()
    first.draw(4, 3, _generator())
    first.vector_steps(7)
    second.load_state_dict(first.state_dict())
    for seed in range(3):
        expected, actual = (one.draw(4, 3, _generator(seed)) for one in (first, second))
        assert torch.equal(actual, expected)
        assert first.vector_steps(7) == second.vector_steps(7)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FixedShares({"left": 0.0}), "shares"),
        (lambda: FixedShares({"left": 1.0, "right": -0.1}), "shares"),
        (lambda: FixedShares({"left": 1.0}, steers="both ways"), "steers"),  # type: ignore[arg-type]
        (lambda: SoftmaxTasks("luck"), "score"),  # type: ignore[arg-type]
        (lambda: SoftmaxTasks(temperature=0.0), "temperature"),
        (lambda: SoftmaxTasks(floor=-0.1), "floor"),
        (lambda: SoftmaxTasks(floor=1.1), "floor"),
        (lambda: SoftmaxTasks(steers="both ways"), "steers"),  # type: ignore[arg-type]
        (lambda: GumbelTopK(0), "k"),
    ],
)
def test_an_argument_out_of_range_is_refused(make: Any, name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        make()


@pytest.mark.parametrize(
    "shares", [{"left": 1.0, "middle": 1.0}, dict.fromkeys([*TASKS, "up"], 1.0)]
)
def test_shares_must_name_the_tasks_that_they_rule(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=complaint("shares")):
        _bound(FixedShares(shares))
