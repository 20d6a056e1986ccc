"""Training that a process of its own plays, one phase ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from lit_mtdqn.data.slots import Slot, is_acting
from lit_mtdqn.envs import Layout, TaskEnv
from lit_mtdqn.rollout import BackgroundSteps, Collector, EpsilonGreedy
from lit_mtdqn.types import ActionValues, Array, LabelsTransitions, StepRow, TaskSpec, require

WHEN = "where `background` is true"


def background_steps(
    acting: Sequence[Slot],
    layout: Layout,
    num_envs: int,
    action_mask: Array,
    epsilon: Callable[[], Array],
    learner: Any,
    block: int,
    exploration_seeds: Sequence[int],
    seeds: Sequence[int],
    noise_seed: int,
) -> BackgroundSteps:
    """Return the vector steps of all acting slots, from a process that builds their environments.

    Args:
        acting: The slots.
        layout: Padded shapes of the run.
        num_envs: Copies of each environment.
        action_mask: Actions that each of the slots has, [S, A].
        epsilon: Returns the probabilities of random actions, [S].
        learner: Whose `acting_network` acts.
        block: Vector steps of a phase.
        exploration_seeds: Seed of each slot's exploration, [S].
        seeds: Seed of each slot's environments, [S].
        noise_seed: Of what a network draws.

    Raises:
        ValueError: If others than one network act, or transitions are to be stored with labels.
    """
    network: nn.Module | None = getattr(learner, "acting_network", None)
    must = f"act by its own network alone {WHEN}"
    require(network is not None, "model", must, type(learner).__name__)
    assert network is not None
    labels = learner.label_sizes if isinstance(learner, LabelsTransitions) else {}
    must = f"store nothing with transitions {WHEN}"
    require(not labels, "model", must, sorted(labels))
    tasks = [(slot.task, slot.index, slot.spec) for slot in acting]
    make = partial(_played, tasks, layout, num_envs, action_mask, exploration_seeds, seeds)
    return BackgroundSteps(make, network, epsilon, block, noise_seed)


def check_background(tasks: Mapping[str, TaskSpec]) -> None:
    """Refuse tasks that no process of its own could play.

    Raises:
        ValueError: If there is one.
    """
    for name, spec in tasks.items():
        # A process that ends with its parent may start none.
        is_free = spec.backend != "async" or not is_acting(spec)
        require(is_free, f"tasks.{name}.backend", f"be no process of its own {WHEN}", spec.backend)


def _played(
    tasks: Sequence[tuple[str, int, TaskSpec]],
    layout: Layout,
    num_envs: int,
    action_mask: Array,
    exploration_seeds: Sequence[int],
    seeds: Sequence[int],
    policy: ActionValues,
    epsilon: Callable[[], Array],
) -> Iterator[StepRow]:
    envs = [TaskEnv(task, spec, num_envs, layout) for task, _, spec in tasks]
    numbers = [number for _, number, _ in tasks]
    collector = Collector(
        envs, policy, numbers, action_mask, EpsilonGreedy(), epsilon, exploration_seeds
    )
    return collector.steps(seeds)
