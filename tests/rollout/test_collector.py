from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers.counting_env import SINGLE, VECTOR, mask_at
from helpers.policies import Policy, constant, never_asked
from helpers.tape import Tape
from numpy.typing import NDArray
from torch import Tensor

from lit_mtdqn.envs import TaskEnv, probe_tasks
from lit_mtdqn.rollout import Collector, EpsilonGreedy
from lit_mtdqn.types import StepRow, TaskSpec

Array = NDArray[Any]
NUM_ENVS = 3
PLAIN = TaskSpec(env=VECTOR)
# Three actions, one of which is forbidden at any moment.
MASKED = TaskSpec(env=SINGLE, action_mask_key="mask", kwargs={"num_actions": 3})


def _stream(
    tasks: dict[str, TaskSpec],
    policy: Policy,
    *epsilons: list[float],
    places: tuple[int, ...] = (),
    active: Sequence[Sequence[bool] | None] = (),
    labeller: Any = None,
) -> Iterator[StepRow]:
    """Return the rows of some tasks; the last epsilons hold for all later steps."""
    layout, infos = probe_tasks(tasks)
    mask = np.arange(layout.num_actions) < np.array([[info.num_actions] for info in infos])
    envs = [TaskEnv(name, spec, NUM_ENVS, layout) for name, spec in tasks.items()]
    remaining = list(epsilons)

    def epsilon() -> Array:
        return np.array(remaining.pop(0) if len(remaining) > 1 else remaining[0])

    acting = iter(active)

    def next_active() -> Array | None:
        chosen = next(acting, None)
        return None if chosen is None else np.array(chosen)

    collector = Collector(
        envs,
        policy,
        places or range(len(tasks)),
        mask,
        EpsilonGreedy(),
        epsilon,
        range(len(tasks)),
        next_active,
        labeller,
    )
    return collector.steps([100 * (place + 1) for place in range(len(tasks))])


def test_rows_of_all_tasks_are_stacked() -> None:
    rows = list(islice(_stream({"a": PLAIN, "b": PLAIN}, constant(0, 1), [0.0, 0.0]), 4))
    for row in rows:
        assert row.observation.shape == (2, NUM_ENVS, 3)
        for name in ("action", "reward", "terminated", "truncated", "valid"):
            assert getattr(row, name).shape == (2, NUM_ENVS)
        assert row.extra["success"].shape == (2, NUM_ENVS)
        assert row.action_mask is None
    assert rows[0].observation[:, :, 0].tolist() == [[100, 101, 102], [200, 201, 202]]


def test_each_row_starts_where_the_last_one_ended() -> None:
    rows = list(islice(_stream({"a": PLAIN, "b": MASKED}, constant(0, 1, 2), [0.5, 0.5]), 12))
    for row, following in pairwise(rows):
        np.testing.assert_array_equal(following.observation, row.next_observation)
        assert row.next_action_mask is not None
        np.testing.assert_array_equal(following.action_mask, row.next_action_mask)


def test_environments_are_reset_once_and_never_again() -> None:
    tape = Tape()
    tasks = {"a": TaskSpec(env=VECTOR, kwargs={"tape": tape})}
    stream = _stream(tasks, constant(0, 1), [0.0])
    assert not tape.named("reset")
    for _ in range(30):
        next(stream)
    assert len(tape.named("reset", seed=100)) == len(tape.named("reset")) == 1
    assert len(tape.named("step")) == 30


def test_a_task_that_does_not_act_stands_still_and_its_policy_is_not_asked() -> None:
    tape = Tape()
    tasks = {"a": MASKED, "b": TaskSpec(env=VECTOR, kwargs={"tape": tape})}
    policy = constant(0, 1, 2)
    active = [None, [True, False], [True, False], None]
    stream = _stream(tasks, policy, [0.0, 0.0], places=(2, 5), active=active)
    rows = list(islice(stream, 4))
    assert [task.tolist() for _, task in policy.asked] == [[2, 5], [2], [2], [2, 5]]
    assert len(tape.named("step")) == 2
    for row in rows[1:3]:
        assert not row.valid[1].any()
        assert not row.reward[1].any()
        assert not (row.terminated | row.truncated)[1].any()
        np.testing.assert_array_equal(row.observation[1], rows[0].next_observation[1])
        np.testing.assert_array_equal(row.next_observation[1], row.observation[1])
    assert rows[3].observation[1, :, 2].tolist() == [1, 1, 1]
    for row, following in pairwise(rows):
        np.testing.assert_array_equal(following.observation, row.next_observation)
        assert row.next_action_mask is not None
        np.testing.assert_array_equal(following.action_mask, row.next_action_mask)


class Double:
    """Labels what is seen with twice of it and the task."""

    label_sizes: ClassVar = {"double": 4}

    def labels_of(self, observation: Tensor, task: Tensor) -> dict[str, Tensor]:
        number = task.view(-1, 1, 1).expand(-1, observation.shape[1], 1)
        return {"double": torch.cat([2.0 * observation, number], -1)}


def test_labels_are_of_what_was_seen_and_zeros_where_a_task_stands_still() -> None:
    active = [None, [True, False], None]
    given: dict[str, Any] = {"places": (2, 5), "active": active, "labeller": Double()}
    # Random actions ask no policy, and are labelled like all others.
    stream = _stream({"a": PLAIN, "b": PLAIN}, Policy(never_asked), [1.0, 1.0], **given)
    for row, acts in zip(islice(stream, 3), active, strict=True):
        labels = row.extra["double"]
        np.testing.assert_array_equal(labels[0, :, :3], 2.0 * row.observation[0])
        assert (labels[0, :, 3] == 2.0).all()
        assert (labels[1, :, 3] == (5.0 if acts is None else 0.0)).all()
        if acts is None:
            np.testing.assert_array_equal(labels[1, :, :3], 2.0 * row.observation[1])
        assert "success" in row.extra


def test_the_policy_sees_all_tasks_at_once_and_which_they_are() -> None:
    policy = constant(0, 1)
    stream = _stream({"a": PLAIN, "b": PLAIN}, policy, [0.0, 0.0], places=(2, 5))
    row = next(stream)
    ((observation, task),) = policy.asked
    assert torch.equal(observation, torch.from_numpy(row.observation))
    assert task.tolist() == [2, 5]


def test_the_greedy_actions_of_the_policy_are_taken() -> None:
    def values(observation: Tensor, task: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(observation[..., 2].long() % 2, 2).float()

    for row in islice(_stream({"a": PLAIN}, Policy(values), [0.0]), 20):
        np.testing.assert_array_equal(row.action, row.observation[..., 2] % 2)


def test_the_policy_is_asked_anew_at_every_step() -> None:
    bias = torch.tensor([1.0, 0.0])
    policy = Policy(lambda observation, _: bias.expand(*observation.shape[:2], 2))
    stream = _stream({"a": PLAIN}, policy, [0.0])
    assert (next(stream).action == 0).all()
    bias.copy_(torch.tensor([0.0, 1.0]))
    assert (next(stream).action == 1).all()


class Exploring(Policy):
    """Acts otherwise while it explores."""

    def exploring_values(self, observation: Tensor, task: Tensor) -> Tensor:
        return -self.action_values(observation, task)


def test_a_policy_that_can_explore_by_itself_does() -> None:
    row = torch.tensor([0.0, 1.0])
    policy = Exploring(lambda observation, _: row.expand(*observation.shape[:2], 2))
    stream = _stream({"a": PLAIN}, policy, [0.0])
    assert (next(stream).action == 0).all()


def test_the_policy_is_not_asked_while_every_task_acts_at_random() -> None:
    tasks = {"a": PLAIN, "b": MASKED}
    rows = list(islice(_stream(tasks, Policy(never_asked), [1.0, 1.0]), 20))
    actions = np.stack([row.action for row in rows])
    assert set(actions[:, 0].ravel()) == {0, 1}
    assert set(actions[:, 1].ravel()) == {0, 1, 2}


def test_epsilon_is_asked_at_every_step_and_holds_by_task() -> None:
    policy = constant(0, 1)
    epsilons = [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    rows = list(islice(_stream({"a": PLAIN, "b": PLAIN}, policy, *epsilons), 3))
    assert len(policy.asked) == 2
    assert (rows[1].action[1] == 1).all()
    assert (rows[2].action == 1).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_padded_and_forbidden_actions_are_never_taken(epsilon: float) -> None:
    # The largest values belong to the action that task "a" does not have and to the forbidden one.
    def values(observation: Tensor, task: Tensor) -> Tensor:
        forbidden = (observation[..., 0] + observation[..., 2]).long() % 3
        return torch.nn.functional.one_hot(forbidden, 3) + torch.tensor([0.0, 0.5, 0.9])

    for row in islice(_stream({"a": PLAIN, "b": MASKED}, Policy(values), [epsilon, epsilon]), 60):
        assert (row.action[0] < 2).all()
        triples = zip(row.observation[1], row.action[1], row.valid[1], strict=True)
        for (identity, _, step), action, valid in triples:
            assert mask_at(int(identity), int(step), 3)[action] or not valid


def test_a_task_without_dynamic_mask_allows_its_own_actions_beside_one_with() -> None:
    row = next(_stream({"a": PLAIN, "b": MASKED}, constant(0, 1, 2), [0.0, 0.0]))
    assert row.action_mask is not None
    assert row.next_action_mask is not None
    assert row.action_mask[0].tolist() == [[True, True, False]] * NUM_ENVS
    assert row.next_action_mask[0].tolist() == [[True, True, False]] * NUM_ENVS


def test_the_seed_of_exploration_decides_random_actions() -> None:
    layout, _ = probe_tasks({"a": PLAIN})
    actions = []
    for seed in (1, 1, 2):
        env = TaskEnv("a", PLAIN, NUM_ENVS, layout)
        mask = np.ones((1, 2), bool)
        collector = Collector(
            [env], Policy(never_asked), [0], mask, EpsilonGreedy(), lambda: np.ones(1), [seed]
        )
        rows = islice(collector.steps([0]), 20)
        actions.append([row.action.tolist() for row in rows])
    assert actions[0] == actions[1] != actions[2]
