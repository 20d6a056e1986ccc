"""The tensors that travel between rollout, replay, learner and evaluation.

Letters used in shapes: T tasks, S row groups of a batch, N environments per task, B transitions per
group, K updates per phase, A actions (the largest number over tasks), O the observation shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.types.returns import ReturnSums

# Of NumPy, or a tensor in runs that stay on a device; mypy has no common type for them.
Array = Any


class StepRow(NamedTuple):
    """One vector step of one task, arrays of leading shape [N], or of S tasks, [S, N].

    In runs that stay on a device they are tensors.

    Rows follow Gymnasium's `NEXT_STEP` autoreset: an episode's last row holds its real final
    observation in `next_observation`; the row after it is a reset row with `valid` false.

    Attributes:
        observation: What the agent saw, [..., *O].
        action: What it did, counted from 0, integers.
        reward: Raw reward, float32.
        terminated: True where the episode reached a terminal state; no bootstrapping.
        truncated: True where the episode was cut; bootstrapping goes on.
        next_observation: What it saw next, [..., *O].
        valid: False on rows that are no transitions: reset rows, and all copies of a task that did
            not act in this vector step.
        action_mask: Actions allowed at `observation`, [..., A], or None where all always are.
        next_action_mask: The same at `next_observation`.
        extra: Further arrays of the same leading shape, by name, such as `success`.
    """

    observation: Array
    action: Array
    reward: Array
    terminated: Array
    truncated: Array
    next_observation: Array
    valid: Array
    action_mask: Array | None = None
    next_action_mask: Array | None = None
    extra: dict[str, Array] = {}  # noqa: RUF012  a NamedTuple default, never written to


# Of a `StepRow`, the columns that are arrays in every row.
PLAIN_COLUMNS = slice(StepRow._fields.index("action_mask"))


class Transition(NamedTuple):
    """Transitions for learning, of leading shape [K, S, B] in a phase and [S, B] in one update.

    Fragments, of leading shape [L, S, N], are L vector steps as they were played; their `task` is
    [S] and rows that are no transitions have the weight 0.

    Attributes:
        observation: [..., *O].
        action: Integers, [...].
        reward: The rewards of n steps, folded with gamma, [...].
        discount: What multiplies the value of `next_observation`: gamma to the number of folded
            steps, zero where the episode terminated, [...]. No loss needs gamma or a flag.
        next_observation: [..., *O].
        weight: Importance times validity, [...].
        replay_index: Place in its replay, [...]; priorities are written back by it.
        task: Index of the task of each row group, [K, S] or [S].
        extra: Further tensors by name, such as `next_action_mask`.
        observed: Observations of tasks that do not learn, by the task's name, where an objective
            asks for them, [..., B, *O] without an axis of groups. Nothing else is known of them:
            neither what was done there nor what it brought.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_observation: Tensor
    weight: Tensor
    replay_index: Tensor
    task: Tensor
    extra: dict[str, Tensor]
    observed: dict[str, Tensor] = {}  # noqa: RUF012  a NamedTuple default, never written to

    def minibatches(self) -> Iterator[Transition]:
        """Yield the K minibatches of a phase, as views."""
        columns = [field.unbind(0) for field in self[:-2]]
        named = [
            {name: tensor.unbind(0) for name, tensor in tensors.items()} for tensors in self[-2:]
        ]
        for k, fields in enumerate(zip(*columns, strict=True)):
            own = ({name: views[k] for name, views in tensors.items()} for tensors in named)
            yield Transition._make((*fields, *own))

    def drawn(self, order: Tensor) -> Transition:
        """Return the rows of fragments by their numbers.

        Args:
            order: Numbers below L N of rows, by time and then by environment, [K, S, B].

        Returns:
            Leading shape [K, S, B].
        """
        group = torch.arange(order.shape[1], device=order.device).unsqueeze(-1)

        def rows(column: Tensor) -> Tensor:
            return column.transpose(0, 1).flatten(1, 2)[group, order]

        columns = [rows(column) for column in self[:-3]]
        extra = {name: rows(column) for name, column in self.extra.items()}
        return Transition._make((*columns, self.task.expand(order.shape[:2]), extra, {}))

    def to(self, device: torch.device) -> Transition:
        """Return the transitions on a device."""
        fields = [field.to(device) for field in self[:-2]]
        named = (
            {name: tensor.to(device) for name, tensor in tensors.items()} for tensors in self[-2:]
        )
        return Transition._make((*fields, *named))


class Phase(NamedTuple):
    """What one training step receives: the batch of K updates and what the rollout has seen.

    Attributes:
        transitions: Leading shape [K, S, B]; fragments [L, S, N] where `order` says what the
            updates take of them.
        rollout: Metrics of the episodes that training finished lately, by their full name.
        returns: What happened since the last phase, by task, for learners that scale values by it.
        order: Numbers of the fragments' rows in each minibatch, [K, S, B]; None where transitions
            were drawn from replays.
    """

    transitions: Transition
    rollout: dict[str, float]
    returns: dict[str, ReturnSums] = {}  # noqa: RUF012  a NamedTuple default, never written to
    order: Tensor | None = None

    def to(self, device: torch.device) -> Phase:
        """Return the phase with its tensors on a device."""
        order = None if self.order is None else self.order.to(device)
        return self._replace(transitions=self.transitions.to(device), order=order)


class Feedback(NamedTuple):
    """What the learner tells the replay once after each phase.

    Attributes:
        task: Task of each row group, [K, S].
        replay_index: Rows of the replays, [K, S, B].
        priority: Absolute TD errors, [K, S, B]; unweighted and not squared.
        scores: Normalised scores by task, where the learner has measured any: 0 as a random policy,
            1 as the reference.
    """

    task: Tensor
    replay_index: Tensor
    priority: Tensor
    scores: dict[str, float]


class Prediction(NamedTuple):
    """Everything one forward pass of a Q-network offers to objectives.

    Attributes:
        features: Input of the head, [S, B, F].
        layers: Outputs of the layers below the head, first to last, each [S, B, its width].
        output: The head's output, [S, B, A] for scalar heads, [S, B, A, Z] for distributional ones.
        router: Weights over experts, [S, B, E], or None without experts.
        taus: Fractions whose quantiles `output` holds, [B, Z], or [1, Z] where all rows have the
            same; None for other heads.
        prior: Logits of the policy that tasks share, [S, B, A], or None where they share none.
    """

    features: Tensor
    layers: tuple[Tensor, ...]
    output: Tensor
    router: Tensor | None = None
    taus: Tensor | None = None
    prior: Tensor | None = None


class Losses(NamedTuple):
    """The terms of one update, unreduced.

    Attributes:
        td: Value loss, [S, B].
        td_error: Target minus prediction, [S, B], without gradient; for categorical heads the
            loss.
        auxiliary: Further terms by name; [S, B] and [S] are balanced with their task, [] is added
            after balancing.
        metrics: Tensors worth logging, without gradient.
        target: What the prediction is drawn to, [S, B] or [S, B, Z] as the head has it, or None.
    """

    td: Tensor
    td_error: Tensor
    auxiliary: dict[str, Tensor]
    metrics: dict[str, Tensor]
    target: Tensor | None = None


class Episodes(NamedTuple):
    """Finished evaluation episodes of one task; arrays of shape [E].

    Attributes:
        task: The task's name.
        episode_return: Sums of raw rewards.
        episode_length: Numbers of env steps.
        success: Whether the episode succeeded, or None if the task does not report it.
        q_bias: Value predicted for the first state and action minus the discounted return that
            followed; positive means overestimation.
    """

    task: str
    episode_return: np.ndarray
    episode_length: np.ndarray
    success: np.ndarray | None
    q_bias: np.ndarray
