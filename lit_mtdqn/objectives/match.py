"""Learning to say what a teacher says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.distillation import (
    MatchKind,
    agreement,
    match_loss,
    relative_temperature,
)
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import (
    Prediction,
    Schedule,
    TaskInfos,
    Transition,
    bounds_of,
    require,
    value_at,
)

KINDS: tuple[str, ...] = get_args(MatchKind)
# Those after which the student's outputs are values and not the logits of a policy.
OF_VALUES = ("value_kl", "mse", "softened_mse")
DEFAULT: MatchKind = "policy_kl"


def says_values(hyperparameters: Mapping[str, Any]) -> bool:
    """Return whether the outputs of the learner that a checkpoint describes are values.

    Those of a policy student are logits.
    """
    match = hyperparameters.get("match")
    if not isinstance(match, Mapping):
        return True
    return (match.get("init_args") or {}).get("kind", DEFAULT) in OF_VALUES


class Match(nn.Module):
    """Draws a student's action values to a teacher's.

    In a network with a `Prior`, on either side, these are the preferences by which it acts. The
    student's prior does not learn from it.

    Args:
        tasks: The tasks; given by the learner.
        network: The student's network; given by the learner.
        kind: The distance, of `match_loss`. `policy_kl` and `nll` make a policy student: only the
            teacher's values are sharpened by the temperature, and the student's outputs are logits.
            `value_kl`, `mse` and `softened_mse` make a value student, which may go on learning
            from rewards.
        temperature: Above 0, over updates. Lower takes the teacher's best action more for granted;
            higher also teaches how the others compare. `mse` and `nll` have none.
        relative: Whether the temperature is a multiple of each task's median action gap in the
            minibatch, as the teacher sees it, so that one value serves tasks of any scale.

    Raises:
        ValueError: If a value is unknown or out of range.

    References:
        Rusu et al. 2015, "Policy Distillation", https://arxiv.org/abs/1511.06295.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        kind: MatchKind = DEFAULT,
        temperature: float | Schedule = 0.5,
        relative: bool = True,
    ) -> None:
        super().__init__()
        require(kind in KINDS, "match.kind", f"be one of {', '.join(KINDS)}", kind)
        is_positive = bounds_of(temperature)[0] > 0.0
        require(is_positive, "match.temperature", "be above 0 throughout", temperature)
        self.kind, self.temperature, self.relative = kind, temperature, relative
        # In a list, lest its parameters be taken for this module's.
        self._network = [network]

    @property
    def makes_values(self) -> bool:
        """Whether the student's outputs are values."""
        return self.kind in OF_VALUES

    def distance(
        self,
        batch: Transition,
        prediction: Prediction,
        teacher: Tensor,
        updates: int = 0,
        is_policy: Tensor | None = None,
    ) -> Tensor:
        """Return how far the student is from the teacher, [S, B].

        Args:
            batch: Leading shape [S, B].
            prediction: Of the student at `observation`.
            teacher: Values [S, B, A] at `observation`, in the student's unit.
            updates: Made so far, for a temperature on a schedule.
            is_policy: Where the teacher says logits of a policy, which are sharp already, [S]; None
                for nowhere.
        """
        mask = self.mask(batch)
        factor = value_at(self.temperature, updates)
        temperature: Tensor | float = factor
        if self.relative:
            temperature = relative_temperature(teacher, factor, mask)
        if is_policy is not None:
            temperature = torch.where(is_policy.view(-1, 1, 1), 1.0, temperature)
        return match_loss(self.kind, self._values(prediction), teacher, temperature, mask)

    @torch.no_grad()
    def agreement(self, batch: Transition, prediction: Prediction, teacher: Tensor) -> Tensor:
        """Return in which share of the rows both would act alike, [S].

        Rows count alike: under prioritised replay, those of large errors more often.
        """
        return agreement(self._values(prediction), teacher, self.mask(batch))

    def _values(self, prediction: Prediction) -> Tensor:
        prior = None if prediction.prior is None else prediction.prior.detach()
        return self._network[0].preferences(prediction._replace(prior=prior))

    def mask(self, batch: Transition) -> Tensor | None:
        """Return which actions count, [S, 1, A] or [S, B, A]; None for all."""
        return self._network[0].allowed_actions(batch.task, batch.extra.get("action_mask"))
