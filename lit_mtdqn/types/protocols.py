"""What the parts ask of one another; they meet here and in the Trainer, not by import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from lit_mtdqn.types.batch import Feedback, Transition
from lit_mtdqn.types.clock import Clock
from lit_mtdqn.types.schedule import Schedule
from lit_mtdqn.types.task import TaskSpec
from lit_mtdqn.types.task_scores import TaskScores


@runtime_checkable
class ActionValues(Protocol):
    """Anything that can act: a learner, a network, a teacher, a mixture."""

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return unmasked float values [S, N, A] for observations [S, N, *O] of tasks [S]."""


@runtime_checkable
class ShowsLayers(ActionValues, Protocol):
    """Something that can act and shows what it sees on the way."""

    def layers(self, observation: Tensor, task: Tensor) -> tuple[Tensor, ...]:
        """Return outputs for observations [S, N, *O] of tasks [S], first layer to features.

        Those of convolutions are [S, N, C, P] with P places, others [S, N, F]; on whatever device
        it is asked.
        """


@runtime_checkable
class ExploringValues(ActionValues, Protocol):
    """Something that can act and whose noise explores."""

    def exploring_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return what `action_values` does, under noise of this call alone."""


@runtime_checkable
class LabelsTransitions(Protocol):
    """A learner that has something to be stored with each transition, in `extra`."""

    @property
    def label_sizes(self) -> Mapping[str, int]:
        """Count the float32 numbers of each label, by name; empty if nothing is to be stored."""

    def labels_of(self, observation: Tensor, task: Tensor) -> dict[str, Tensor]:
        """Return the labels [S, N, size] of observations [S, N, *O] of tasks [S], by name."""


@runtime_checkable
class HasTargetNetwork(Protocol):
    """A learner with an online network and a frozen copy of it."""

    @property
    def network(self) -> nn.Module:
        """What learns and acts."""

    @property
    def target_network(self) -> nn.Module:
        """What targets come from."""


@runtime_checkable
class HasCompilableUpdates(Protocol):
    """A learner whose updates may call other forms of what they compute."""

    def compile_updates(self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Let updates call what `compiled` makes of what they compute."""

    def release_updates(self) -> None:
        """Let updates compute as they did."""


@runtime_checkable
class UpdateCallback(Protocol):
    """A callback that acts after single updates, which the Trainer's own hooks do not see."""

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        """React to the update that `clock.updates` has just counted."""


@runtime_checkable
class PhaseCallback(Protocol):
    """A callback that acts between two phases, when all of the last one is done and logged.

    The Trainer's own hooks come before its row of metrics is written, or after the next one was
    played.
    """

    def on_phase_start(self, trainer: Any) -> None:
        """React before a phase is played."""


class Exploration(Protocol):
    """How a collector explores."""

    epsilon: float | Schedule


class ExperienceSource(Protocol):
    """What a learner and its callbacks ask of the data module."""

    tasks: Mapping[str, TaskSpec]
    clock: Clock
    exploration: Exploration
    scores: TaskScores
    keeps_replays: bool

    @property
    def is_finished(self) -> bool:
        """Whether the budget is used up."""

    def on_feedback(self, feedback: Feedback) -> None:
        """Take what the learner found out about the last phase."""

    def require_scores(self, tasks: Sequence[str], what: str, *, in_training: bool = False) -> None:
        """Refuse tasks whose scores are raw returns, for something that follows scores."""

    def look(self, rows: int) -> Transition:
        """Return rows [S, B] of all that is learned from; nothing changes."""
