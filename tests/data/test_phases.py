from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.counting_env import SINGLE, VECTOR, identity_of
from helpers.failing_env import FAILING
from helpers.oracle import Expected, timeline, transitions
from helpers.policies import Policy, never_asked
from numpy.typing import NDArray
from torch import Tensor

from lit_mtdqn.data import EveryTask, TaskSampler
from lit_mtdqn.data.phases import PhaseSource
from lit_mtdqn.data.slots import Slot
from lit_mtdqn.envs import TaskEnv, probe_tasks
from lit_mtdqn.replay import Replay
from lit_mtdqn.rollout import Collector, EpisodeStatistics, EpsilonGreedy
from lit_mtdqn.types import Clock, Feedback, NonFiniteError, StepRow, TaskScores, TaskSpec

Array = NDArray[Any]
Told = dict[str, tuple[list[int], list[float]]]
NUM_ENVS = 3
CAPACITY = 300
SEEDS = {"left": 2**24, "right": 2**25, "still": 2**26, "faulty": 2**27}
TASKS = {
    "left": TaskSpec(env=VECTOR, gamma=0.9, n_step=2),
    "right": TaskSpec(env=SINGLE, gamma=0.5, reward_clip=(-1.0, 1.0)),
}


class Played(NamedTuple):
    """A source, and what it was built of."""

    source: PhaseSource
    slots: list[Slot]
    clock: Clock
    rows: list[StepRow]


def _played(
    tasks: dict[str, TaskSpec] = TASKS, *, capacity: int = CAPACITY, **options: Any
) -> Played:
    """Return a source that plays tasks at random."""
    layout, _ = probe_tasks(tasks)
    acting = [name for name, spec in tasks.items() if spec.acts]
    rows: list[StepRow] = []
    stream = None
    if acting:
        envs = [TaskEnv(name, tasks[name], NUM_ENVS, layout) for name in acting]
        mask = np.ones((len(acting), layout.num_actions), bool)
        epsilon = np.ones(len(acting))
        places = range(len(acting))
        collector = Collector(
            envs, Policy(never_asked), places, mask, EpsilonGreedy(), lambda: epsilon, places
        )
        seeds = [SEEDS[name] for name in acting]
        stream = _recorded(collector.steps(seeds), rows)
    slots = [
        Slot(name, place, spec, Replay(capacity, seed=place))
        for place, (name, spec) in enumerate(tasks.items())
    ]
    clock = Clock(dict.fromkeys(tasks, 0))
    settings: dict[str, Any] = {
        "sampler": EveryTask(),
        "scores": TaskScores(tasks),
        "vector_steps": 5,
        "updates": 4,
        "batch_size": 6,
        "warmup": 0,
        "world_size": 1,
        "sum_over_ranks": lambda count: count,
        "seed": 0,
    }
    source = PhaseSource(
        slots,
        stream,
        EpisodeStatistics(acting, NUM_ENVS, [False] * len(acting)),
        clock=clock,
        **{**settings, **options},
    )
    return Played(source, slots, clock, rows)


def _recorded(stream: Iterator[StepRow], rows: list[StepRow]) -> Iterator[StepRow]:
    for row in stream:
        rows.append(row)
        yield row


def _identities(task: str) -> list[int]:
    return [identity_of(SEEDS[task] + place) for place in range(NUM_ENVS)]


def _valid_steps(task: str, vector_steps: int) -> int:
    moments = [timeline(identity, vector_steps) for identity in _identities(task)]
    return sum(moment is not None for column in moments for moment in column)


def _expected(played: Played, place: int) -> list[Expected]:
    slot = played.slots[place]
    actions = np.stack([row.action[place] for row in played.rows])
    return transitions(_identities(slot.task), actions, slot.spec, num_actions=2)


def _as_tuples(columns: dict[str, Tensor]) -> set[tuple[Any, ...]]:
    """Return transitions as tuples that can be compared."""
    return set(
        zip(
            map(tuple, columns["observation"].tolist()),
            columns["action"].tolist(),
            columns["reward"].double().numpy().round(4).tolist(),
            columns["discount"].double().numpy().round(4).tolist(),
            map(tuple, columns["next_observation"].tolist()),
            strict=True,
        )
    )


def _expected_tuples(expected: Sequence[Expected]) -> set[tuple[Any, ...]]:
    return {
        (
            tuple(map(float, row.observation)),
            row.action,
            round(row.reward, 4),
            round(row.discount, 4),
            tuple(map(float, row.next_observation)),
        )
        for row in expected
    }


def test_each_replay_holds_exactly_its_tasks_transitions() -> None:
    played = _played()
    for _ in range(4):
        played.source.next_phase()
        for place, slot in enumerate(played.slots):
            expected = _expected(played, place)
            assert len(slot.replay) == len(expected)
            assert _as_tuples(slot.replay.sample(2_000)) == _expected_tuples(expected)


def test_a_batch_has_update_group_and_row_axes() -> None:
    transitions_ = _played().source.next_phase().transitions
    assert transitions_.observation.shape == transitions_.next_observation.shape == (4, 2, 6, 3)
    for name in ("action", "reward", "discount", "weight", "replay_index"):
        assert getattr(transitions_, name).shape == (4, 2, 6)
    assert transitions_.task.tolist() == [[0, 1]] * 4
    assert transitions_.extra == {}
    assert torch.equal(transitions_.weight, torch.ones(4, 2, 6))


def test_a_row_group_comes_whole_from_the_replay_of_its_task() -> None:
    played = _played()
    for _ in range(3):
        batch = played.source.next_phase().transitions
        for group in range(2):
            names = ("observation", "action", "reward", "discount", "next_observation")
            rows = {name: getattr(batch, name)[:, group].flatten(0, 1) for name in names}
            assert _as_tuples(rows) <= _expected_tuples(_expected(played, group))


def test_a_look_shows_rows_of_every_learning_task_and_changes_no_later_phase() -> None:
    phases = []
    for looks in (False, True):
        source, slots, *_ = _played()
        source.next_phase()
        if looks:
            found = source.look(200)
            assert found.task.tolist() == [0, 1]
            assert found.reward.shape == (2, 200)
            assert (found.weight == 1.0).all()
            for slot, index in zip(slots, found.replay_index, strict=True):
                assert set(index.tolist()) == set(range(len(slot.replay)))
            assert torch.equal(source.look(200).replay_index, found.replay_index)
        phases.append(source.next_phase().transitions)
    for own, other in zip(*(phase[:-2] for phase in phases), strict=True):
        assert torch.equal(own, other)


def test_updates_get_unlike_rows() -> None:
    batch = _played(warmup=100).source.next_phase().transitions
    for first in range(4):
        for second in range(first):
            assert not torch.equal(batch.replay_index[first], batch.replay_index[second])


@pytest.mark.parametrize("warmup", [0, 1, 14, 15, 16, 100])
def test_the_first_phase_acts_until_every_learning_task_is_warm(warmup: int) -> None:
    played = _played(warmup=warmup)
    played.source.next_phase()
    held = [len(slot.replay) for slot in played.slots]
    assert min(held) >= warmup
    rows = len(played.rows)
    assert rows % 5 == 0
    before = [len(_played_for(rows - 5, place)) for place in range(2)] if rows > 5 else [-1]
    assert min(before) < warmup
    played.source.next_phase()
    assert len(played.rows) == rows + 5


def _played_for(vector_steps: int, place: int) -> list[Expected]:
    """Return the transitions that some vector steps would have completed."""
    task = list(TASKS)[place]
    actions = np.zeros((vector_steps, NUM_ENVS), int)
    return transitions(_identities(task), actions, TASKS[task], num_actions=2)


def test_a_replay_smaller_than_the_warm_up_is_warm_when_it_is_full() -> None:
    played = _played(capacity=20, warmup=1_000)
    played.source.next_phase()
    assert [len(slot.replay) for slot in played.slots] == [20, 20]


def test_before_the_first_transition_no_phase_is_handed_out() -> None:
    tasks = {"left": TaskSpec(env=VECTOR, n_step=12, kwargs={"pattern": (40,)})}
    played = _played(tasks, vector_steps=5)
    played.source.next_phase()
    assert len(played.rows) == 15
    assert len(played.slots[0].replay) == 4 * NUM_ENVS


def test_a_task_that_does_not_learn_is_stored_but_delays_and_fills_nothing() -> None:
    tasks = {**TASKS, "right": TaskSpec(env=SINGLE, learns=False, n_step=40)}
    played = _played(tasks, warmup=15)
    batch = played.source.next_phase().transitions
    assert batch.task.tolist() == [[0]] * 4
    assert batch.observation.shape == (4, 1, 6, 3)
    assert len(played.slots[1].replay) == len(_expected(played, 1))


def test_a_source_without_acting_tasks_samples_what_it_has() -> None:
    played = _played({"still": TaskSpec(env=VECTOR, acts=False)})
    observation = np.ones((3, 3), np.float32)
    number = np.arange(3)
    played.slots[0].replay.extend(
        {
            "observation": observation,
            "action": number,
            "reward": number.astype(np.float32),
            "discount": number.astype(np.float32),
            "next_observation": observation,
        }
    )
    phase = played.source.next_phase()
    assert phase.transitions.action.shape == (4, 1, 6)
    assert phase.rollout == {}
    assert played.clock == Clock({"still": 0}, phases=1)


def test_labels_of_another_run_are_not_handed_out() -> None:
    """Of two stored replays one has what this run has not asked for."""
    tasks = {name: TaskSpec(env=VECTOR, acts=False) for name in ("left", "right")}
    for labels in ([], ["teacher_values"]):
        played = _played(tasks, labels=labels)
        row: dict[str, Array] = {
            "observation": np.ones((3, 3), np.float32),
            "action": np.arange(3),
            "reward": np.ones(3, np.float32),
            "discount": np.ones(3, np.float32),
            "next_observation": np.ones((3, 3), np.float32),
            "teacher_values": np.ones((3, 2), np.float32),
        }
        for slot in played.slots:
            kept = row if labels or slot.task == "right" else dict(list(row.items())[:-1])
            slot.replay.extend(kept)
        assert list(played.source.look(2).extra) == labels
        assert list(played.source.next_phase().transitions.extra) == labels


def test_the_clock_counts_phases_and_each_tasks_env_steps_without_reset_rows() -> None:
    played = _played()
    for phases in (1, 2, 3):
        played.source.next_phase()
        steps = {task: _valid_steps(task, 5 * phases) for task in TASKS}
        ended = [(row.terminated | row.truncated).sum(1) for row in played.rows]
        episodes = dict(zip(TASKS, np.sum(ended, 0).tolist(), strict=True))
        assert played.clock == Clock(steps, phases=phases, episodes=episodes)
    assert min(played.clock.episodes.values()) > 0


def test_the_clock_counts_the_sum_over_ranks_and_guesses_it_in_between() -> None:
    """Three ranks, the other two of which stand still."""
    seen: list[int] = []
    played = _played({"left": TASKS["left"]}, world_size=3)
    stream = played.source._stream
    assert stream is not None

    def watched() -> Iterator[StepRow]:
        for row in stream:
            seen.append(played.clock.env_steps["left"])
            yield row

    played.source._stream = watched()
    for _ in range(2):
        played.source.next_phase()
    local = [_valid_steps("left", steps) for steps in range(11)]
    guessed = [3 * steps for steps in local[:5]]
    guessed += [local[5] + 3 * (steps - local[5]) for steps in local[5:10]]
    assert seen == guessed
    assert played.clock.env_steps["left"] == local[10]


def test_the_clock_counts_the_episodes_of_all_ranks() -> None:
    played = _played(sum_over_ranks=lambda count: 3 * count)
    for _ in range(2):
        played.source.next_phase()
    own = played.source.statistics.episodes
    assert played.clock.episodes == {task: 3 * own[task] for task in TASKS}


def test_ranks_that_warm_up_unevenly_act_equally_often() -> None:
    """On one rank every second row is a reset row; the other is warm after its first round."""
    inboxes: list[SimpleQueue[Tensor | None]] = [SimpleQueue(), SimpleQueue()]

    def play(rank: int, length: int) -> int:
        def sum_over_ranks(count: Tensor) -> Tensor:
            inboxes[1 - rank].put(count.clone())
            other = inboxes[rank].get()
            assert other is not None, "the other rank has gone on"
            return count + other

        tasks = {"left": TaskSpec(env=VECTOR, kwargs={"pattern": (length,)})}
        played = _played(tasks, warmup=12, world_size=2, sum_over_ranks=sum_over_ranks)
        try:
            played.source.next_phase()
        finally:
            inboxes[1 - rank].put(None)
        return len(played.rows)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(play, [0, 1], [1, 40])) == [10, 10]


class Scripted(TaskSampler):
    """Fills row groups as it is told."""

    def __init__(self, groups: list[list[int]]) -> None:
        self._groups = groups
        self.asked: list[tuple[int, int]] = []

    def draw(self, updates: int, slots: int, generator: torch.Generator) -> Tensor:
        self.asked.append((updates, slots))
        return torch.tensor(self._groups)


@pytest.mark.parametrize(
    "groups",
    [[[0, 1], [1, 0], [1, 1], [0, 0]], [[1, 1]] * 4, [[0], [1], [1], [1]], [[0, 0, 1]] * 4],
    ids=["mixed", "one task only", "one group", "three groups"],
)
def test_a_task_sampler_decides_which_task_fills_which_group(groups: list[list[int]]) -> None:
    sampler = Scripted(groups)
    played = _played(sampler=sampler)
    batch = played.source.next_phase().transitions
    assert sampler.asked == [(4, 2)]
    assert batch.task.tolist() == groups
    assert batch.reward.shape == (4, len(groups[0]), 6)
    identities = [_identities(task) for task in TASKS]
    for update, row in enumerate(groups):
        for group, place in enumerate(row):
            seen = set(batch.observation[update, group, :, 0].int().tolist())
            assert seen <= set(identities[place])


def test_feedback_reaches_the_prioritised_replays_and_the_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = TaskScores(TASKS)
    played = _played(scores=scores)
    told: Told = {}
    for slot in played.slots:
        monkeypatch.setattr(slot.replay, "update_priority", _teller(told, slot.task))
    played.slots[1].replay.is_prioritised = True
    index = torch.arange(8).view(2, 2, 2)
    played.source.on_feedback(
        Feedback(torch.tensor([[0, 1], [1, 0]]), index, index / 2, {"left": 0.25})
    )
    assert told == {"right": ([2, 3, 4, 5], [1.0, 1.5, 2.0, 2.5])}
    assert [scores.td_error(task) for task in TASKS] == [1.75, 1.75]
    assert [scores.score(task) for task in TASKS] == [0.25, 0.0]


def _teller(told: Told, task: str) -> Callable[[Tensor, Tensor], None]:
    def update_priority(index: Tensor, priority: Tensor) -> None:
        told[task] = (index.tolist(), priority.tolist())

    return update_priority


def test_a_phase_reports_the_episodes_that_were_finished() -> None:
    played = _played()
    first = played.source.next_phase().rollout
    assert first == played.source.statistics.metrics()
    assert set(first) == {
        f"rollout/{name}/{task}" for name in ("episode_return", "episode_length") for task in TASKS
    }


FAULTY = {"how": "reward", "when": "step", "only_in": None, "parent": 0, "after": 7}


def _faulty(file: Path | None, **options: Any) -> PhaseSource:
    faulty = TaskSpec(env=FAILING, gamma=0.5, kwargs=FAULTY)
    return _played(
        {"left": TASKS["left"], "faulty": faulty}, wrong_steps=lambda: file, **options
    ).source


def test_a_step_that_is_no_number_is_told_with_its_place_and_reaches_no_replay(
    tmp_path: Path,
) -> None:
    file = tmp_path / "steps.pt"
    source = _faulty(file)
    source.next_phase()
    with pytest.raises(NonFiniteError) as raised:
        source.next_phase()
    # The eighth step of copy 0 comes with the ninth vector step, earlier than that of others; of
    # ten times three copies seven began an episode anew.
    assert str(raised.value) == (
        "`reward` of task faulty must be finite. Got inf from its environment 0 (the first is 0), "
        f"after 23 env steps and 0 updates; its part of the phase is in {file}."
    )
    saved = torch.load(file, weights_only=True)
    step = saved["step"]
    assert saved["observation"].shape == (5, 3)
    assert saved["reward"][:step].isfinite().all()
    assert (step, float(saved["reward"][step])) == (3, torch.inf)
    assert saved["observation"][0, 0] == identity_of(SEEDS["faulty"])
    assert saved["valid"].tolist() == [True, True, True, True, False]
    assert source.is_spoilt
    replays = [slot.replay for slot in source.learning]
    assert all(replay.sample(50)["reward"].isfinite().all() for replay in replays)


def test_a_rank_whose_steps_are_numbers_stops_with_one_whose_are_not(tmp_path: Path) -> None:
    played = _played(
        wrong_steps=lambda: tmp_path / "steps.pt",
        world_size=2,
        sum_over_ranks=lambda count: count + (count.ndim == 2) * torch.tensor([[0], [0], [1]]),
    )
    said = "`data` of task left must be finite on all ranks. Got others on another one, which says"
    with pytest.raises(NonFiniteError, match=said):
        played.source.next_phase()
    assert not (tmp_path / "steps.pt").exists()


def test_where_updates_are_skipped_steps_without_numbers_pass() -> None:
    source = _faulty(None)
    phases = [source.next_phase() for _ in range(3)]
    assert phases[-1].transitions.reward.isinf().any()


def test_a_task_that_does_not_learn_may_have_rewards_that_are_no_numbers(tmp_path: Path) -> None:
    domain = TaskSpec(env=FAILING, gamma=0.5, kwargs={**FAULTY, "after": 0}, learns=False)
    tasks = {"left": TASKS["left"], "faulty": domain}
    source = _played(tasks, wrong_steps=lambda: tmp_path / "steps.pt").source
    assert source.next_phase().transitions.reward.isfinite().all()
