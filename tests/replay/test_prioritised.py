import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asserts import complaint
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.replay import Prioritisation, PrioritisedSampler, Replay, StorageKind
from lit_mtdqn.types import Clock, Linear

# What a chi-square variable of so many degrees of freedom exceeds once in 10 000 draws.
CHI_SQUARE = {3: 21.1, 4: 23.5, 5: 25.7}


def _replay(
    capacity: int = 4, storage: StorageKind = "ram", seed: int = 0, **options: Any
) -> Replay:
    prioritisation = Prioritisation(**{"alpha": 1.0, "beta": 1.0, "epsilon": 1e-12, **options})
    sampler = PrioritisedSampler(capacity, prioritisation, Clock())
    return Replay(capacity, seed, storage, sampler=sampler)


def _extend(replay: Replay, first: int, behind_last: int) -> None:
    replay.extend({"action": np.arange(first, behind_last)})


def _report(replay: Replay, errors: dict[int, float]) -> None:
    replay.update_priority(torch.tensor(list(errors)), torch.tensor(list(errors.values())))


def _shares(replay: Replay, rows: int, draws: int = 20_000) -> torch.Tensor:
    return torch.bincount(replay.sample(draws)["replay_index"], minlength=rows) / draws


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_rows_are_drawn_in_proportion_to_powers_of_their_errors(alpha: float) -> None:
    replay = _replay(6, alpha=alpha)
    _extend(replay, 0, 6)
    errors = torch.tensor([0.5, 1.0, 2.0, 4.0, 1.0, 3.0])
    replay.update_priority(torch.arange(6), errors)
    # One row at a time, because draws of one call are stratified and scatter less.
    counts = torch.bincount(torch.cat([replay.sample(1)["replay_index"] for _ in range(6_000)]))
    expected = 6_000 * errors**alpha / (errors**alpha).sum()
    assert float(((counts - expected) ** 2 / expected).sum()) < CHI_SQUARE[5]


def test_a_draw_is_stratified() -> None:
    replay = _replay()
    _extend(replay, 0, 4)
    _report(replay, {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0})
    counts = torch.bincount(replay.sample(1_000)["replay_index"])
    assert bool(((counts - torch.tensor([100, 200, 300, 400])).abs() <= 1).all())


def test_the_order_of_a_draw_is_random_so_that_minibatches_are_alike() -> None:
    replay = _replay(1_000)
    _extend(replay, 0, 1_000)
    means = replay.sample(8_192)["replay_index"].double().view(8, -1).mean(1)
    # Five standard deviations of the mean of 1024 uniform numbers below 1000.
    assert bool(((means - 499.5).abs() < 5 * 289 / 32).all())


def test_weights_follow_from_the_probabilities_and_the_largest_is_one() -> None:
    replay = _replay(beta=0.5)
    _extend(replay, 0, 4)
    _report(replay, {0: 1.0, 1: 1.0, 2: 2.0, 3: 4.0})
    sample = replay.sample(400)
    assert sample["weight"].dtype == torch.float32
    # N P = 4 x (1, 1, 2, 4) / 8; (N P)^-1/2 = (sqrt 2, sqrt 2, 1, 1 / sqrt 2), divided by sqrt 2.
    by_row = torch.tensor([1.0, 1.0, 0.5**0.5, 0.5])
    torch.testing.assert_close(sample["weight"], by_row[sample["replay_index"]])


def test_weights_are_relative_to_the_rows_that_were_drawn() -> None:
    replay = _replay()
    _extend(replay, 0, 4)
    _report(replay, {0: 1e-9, 1: 1.0, 2: 2.0, 3: 2.0})
    sample = replay.sample(10)
    assert 0 not in sample["replay_index"].tolist()
    by_row = torch.tensor([1.0, 1.0, 0.5, 0.5])
    torch.testing.assert_close(sample["weight"], by_row[sample["replay_index"]])


@pytest.mark.parametrize(("updates", "weight"), [(0, 1.0), (50, 0.5**0.5), (100, 0.5), (900, 0.5)])
def test_beta_may_follow_the_updates(updates: int, weight: float) -> None:
    clock = Clock()
    beta = Linear(start=0.0, end=1.0, duration=100)
    sampler = PrioritisedSampler(2, Prioritisation(alpha=1.0, beta=beta, epsilon=1e-12), clock)
    replay = Replay(2, seed=0, sampler=sampler)
    _extend(replay, 0, 2)
    _report(replay, {0: 1.0, 1: 2.0})
    clock.updates = updates
    sample = replay.sample(100)
    found = sample["weight"][sample["replay_index"] == 1]
    torch.testing.assert_close(found, torch.full_like(found, weight))


def test_before_the_first_report_all_rows_are_alike() -> None:
    replay = _replay()
    _extend(replay, 0, 4)
    sample = replay.sample(400)
    assert torch.bincount(sample["replay_index"]).tolist() == [100] * 4
    assert bool((sample["weight"] == 1.0).all())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rows_without_an_error_count_as_having_the_largest_whatever_the_scale(scale: float) -> None:
    replay = _replay()
    _extend(replay, 0, 3)
    _report(replay, {0: scale, 1: 2 * scale})
    _extend(replay, 3, 4)
    counts = torch.bincount(replay.sample(700)["replay_index"])
    assert bool(((counts - torch.tensor([100, 200, 200, 200])).abs() <= 1).all())


def test_the_largest_error_is_remembered_when_its_row_has_gone_down() -> None:
    replay = _replay()
    _extend(replay, 0, 3)
    _report(replay, {0: 8.0, 1: 1.0, 2: 1.0})
    _report(replay, {0: 1.0})
    _extend(replay, 3, 4)
    counts = torch.bincount(replay.sample(1_100)["replay_index"])
    assert bool(((counts - torch.tensor([100, 100, 100, 800])).abs() <= 1).all())


def test_of_several_errors_of_one_row_the_largest_counts() -> None:
    index, errors = torch.tensor([1, 0, 1, 1]), torch.tensor([2.0, 1.0, 3.0, 0.5])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 1, 0]):
        replay = _replay(2)
        _extend(replay, 0, 2)
        replay.update_priority(index[order], errors[order])
        assert torch.bincount(replay.sample(400)["replay_index"]).tolist() == [100, 300]


def test_an_error_of_zero_keeps_its_row_alive() -> None:
    replay = _replay(2, epsilon=1.0)
    _extend(replay, 0, 2)
    _report(replay, {0: 0.0, 1: 2.0})
    assert torch.bincount(replay.sample(400)["replay_index"]).tolist() == [100, 300]


def test_no_report_changes_nothing() -> None:
    replay = _replay(2)
    _extend(replay, 0, 2)
    _report(replay, {})
    assert torch.bincount(replay.sample(400)["replay_index"]).tolist() == [200, 200]


@pytest.mark.parametrize("error", [float("nan"), float("inf"), -1.0])
def test_an_error_that_is_no_size_is_refused(error: float) -> None:
    replay = _replay(2)
    _extend(replay, 0, 2)
    with pytest.raises(ValueError, match=complaint("priority")):
        _report(replay, {0: 1.0, 1: error})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"alpha": -0.1}, "prioritisation.alpha"),
        ({"beta": -0.1}, "prioritisation.beta"),
        ({"beta": 1.1}, "prioritisation.beta"),
        ({"beta": Linear(start=0.4, end=1.1, duration=10)}, "prioritisation.beta"),
        ({"epsilon": 0.0}, "prioritisation.epsilon"),
    ],
)
def test_an_argument_out_of_range_is_refused(options: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        Prioritisation(**options)


class _Naive:
    """The same by lists: what each row weighs, and which transition it holds."""

    def __init__(self, capacity: int, alpha: float, epsilon: float) -> None:
        self.capacity, self.alpha, self.epsilon = capacity, alpha, epsilon
        self.held: list[int] = []
        self.errors: list[float | None] = []
        self.largest: float | None = None
        self.cursor = 0

    def extend(self, count: int, first: int) -> None:
        for number in range(first, first + count):
            if len(self.held) < self.capacity:
                self.held.append(number)
                self.errors.append(self.largest)
            else:
                self.held[self.cursor] = number
                self.errors[self.cursor] = self.largest
            self.cursor = (self.cursor + 1) % self.capacity

    def report(self, errors: list[tuple[int, float]]) -> None:
        top = max(error for _, error in errors)
        if self.largest is None:
            self.errors = [top] * len(self.errors)
        self.largest = max(self.largest or 0.0, top)
        for row in {row for row, _ in errors}:
            self.errors[row] = max(error for place, error in errors if place == row)

    def shares(self) -> list[float]:
        powers = [
            ((1.0 if error is None else error) + self.epsilon) ** self.alpha
            for error in self.errors
        ]
        return [power / sum(powers) for power in powers]


EVENTS = st.lists(
    st.one_of(
        st.integers(1, 4),
        st.lists(st.tuples(st.integers(0, 99), st.floats(0.0, 8.0)), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=12,
)


@given(events=EVENTS, alpha=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_priorities_are_those_of_a_naive_list_also_around_the_ring(
    events: list[Any], alpha: float
) -> None:
    replay, naive = _replay(5, alpha=alpha, epsilon=0.5), _Naive(5, alpha, 0.5)
    written = 0
    for event in [1, *events]:
        if isinstance(event, int):
            _extend(replay, written, written + event)
            naive.extend(event, written)
            written += event
        else:
            reported = [(row % len(naive.held), float(np.float32(error))) for row, error in event]
            replay.update_priority(*map(torch.tensor, zip(*reported, strict=True)))
            naive.report(reported)
        sample = replay.sample(1_000)
        expected = torch.tensor(naive.shares(), dtype=torch.float64)
        counts = torch.bincount(sample["replay_index"], minlength=len(expected))
        # A row's share of the sum touches at most two strata that it does not fill.
        assert bool(((counts - 1_000 * expected).abs() <= 2.0).all())
        held = torch.tensor(naive.held)
        assert torch.equal(sample["action"], held[sample["replay_index"]])


@pytest.mark.parametrize("storage", ["ram", "disk", "device"])
def test_a_loaded_replay_goes_on_as_the_dumped_one(storage: StorageKind, tmp_path: Path) -> None:
    replay, loaded = _replay(5, storage), _replay(5, storage, seed=9)
    _extend(replay, 0, 7)
    _report(replay, {0: 3.0, 2: 0.1, 4: 1.0})
    replay.sample(3)
    replay.dump(tmp_path / "replay")
    loaded.load(tmp_path / "replay", draws_on=True)
    for after in (7, 9):
        expected, actual = replay.sample(10), loaded.sample(10)
        assert {"weight", "replay_index", "action"} == expected.keys() == actual.keys()
        for name in expected:
            assert torch.equal(actual[name], expected[name]), name
        for one in (replay, loaded):
            _report(one, {after - 6: 5.0})
            _extend(one, after, after + 2)


def test_the_rows_of_a_replay_without_priorities_are_new_ones(tmp_path: Path) -> None:
    plain = Replay(4, seed=0)
    _extend(plain, 0, 4)
    plain.dump(tmp_path / "replay")
    replay = _replay()
    _extend(replay, 0, 4)
    _report(replay, {0: 5.0})
    replay.load(tmp_path / "replay")
    assert torch.bincount(replay.sample(400)["replay_index"]).tolist() == [100] * 4


def test_a_replay_without_priorities_takes_the_rows_of_one_that_has_them(tmp_path: Path) -> None:
    replay, plain = _replay(), Replay(4, seed=0)
    _extend(replay, 0, 4)
    _report(replay, {0: 5.0})
    replay.dump(tmp_path / "replay")
    plain.load(tmp_path / "replay")
    assert "weight" not in plain.sample(10)


def test_draws_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    draws = []
    for seed in (1, 1, 2):
        replay = _replay(100, seed=seed)
        _extend(replay, 0, 100)
        before = torch.get_rng_state()
        draws.append(replay.sample(10)["action"].tolist())
        assert torch.equal(torch.get_rng_state(), before)
    assert draws[0] == draws[1] != draws[2]


def test_a_phase_of_a_full_replay_costs_milliseconds() -> None:
    """100 000 rows, 3072 drawn and written back: well below the updates of a phase."""
    replay = _replay(100_000)
    _extend(replay, 0, 100_000)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        index = replay.sample(3_072)["replay_index"]
        replay.update_priority(index, torch.rand(3_072))
        took.append(time.perf_counter() - start)
    assert min(took) < 0.02
