"""Q-learning without replay and without a target network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_mtdqn.algorithms.multitask import MultiTaskDQN
from lit_mtdqn.balancing import Balancer
from lit_mtdqn.callbacks import EpsilonDecay
from lit_mtdqn.functional.td import gather_actions, greedy_actions
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives import Objective, QLambda
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import Phase, Schedule, TaskInfos, Transition, require


class PQN(MultiTaskDQN):
    """Parallelised Q-network: learns at once from what many environments have just played.

    Returns of a phase are folded once, by the network as it is before the updates (Q(lambda)); then
    its rows are learned from in random order and forgotten. There is neither a replay nor a target
    network: layers normalised before their activation (`layer_norm` of the torso) keep it stable.
    Needs `data.keeps_replays: false`, many environments and phases of tens of steps. Tasks, heads,
    sharings, balancers and objectives are those of `MultiTaskDQN`, but for objectives that look at
    single env steps or at tasks that do not learn.

    Args:
        tasks: The tasks, as `RolloutDataModule.task_infos` has them; linked on the command line.
        network: Makes the Q-network from the tasks.
        objective: Makes the temporal-difference objective, a `QLambda`.
        balancer: Makes the way in which tasks share one update; None weighs their losses by
            `TaskSpec.weight` alone.
        objectives: Make auxiliary objectives, from the tasks and the network.
        optimizer: Makes the optimiser from the parameters.
        learning_rate_schedule: Factor on the learning rate over updates; None keeps it.
        max_grad_norm: Norm to which the gradient of all parameters together is clipped; None does
            not clip.
        scale: Makes what brings the tasks' values to one scale; None learns raw values, as
            published.

    Raises:
        ValueError: If a value is out of range, an objective needs replays, or when a fit starts if
            the data keeps replays.

    References:
        Gallici et al. 2025, "Simplifying Deep Temporal Difference Learning", algorithm 1,
        https://arxiv.org/abs/2407.04811.
    """

    needs_replays = False
    needed_callbacks = (EpsilonDecay,)

    def __init__(
        self,
        tasks: TaskInfos,
        network: Callable[[TaskInfos], QNetwork] = QNetwork,
        objective: Callable[[], QLambda] = QLambda,
        balancer: Callable[[TaskInfos, QNetwork], Balancer] | None = None,
        objectives: Sequence[Callable[[TaskInfos, QNetwork], Objective]] = (),
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer] = torch.optim.RAdam,
        learning_rate_schedule: Schedule | None = None,
        max_grad_norm: float | None = 10.0,
        scale: Callable[[TaskInfos], Scale] | None = None,
    ) -> None:
        super().__init__(
            tasks,
            network,
            objective,
            balancer,
            objectives,
            optimizer,
            learning_rate_schedule,
            max_grad_norm,
            scale,
        )
        must = "be a QLambda for PQN"
        name = type(self.objective).__name__
        require(isinstance(self.objective, QLambda), "model.objective", must, name)
        needing = [type(part).__name__ for part in self.objectives if part.needs_transitions]
        must = "need no single env steps, which PQN folds to returns"
        require(not needing, "model.objectives", must, needing)
        must = "need no tasks that do not learn, whose observations come from replays"
        require(not self.observes, "model.objectives", must, self.observes)

    def make_target_network(self) -> None:
        """Make nothing: targets come from the network itself."""

    # No attribute, lest checkpoints hold the one network under two names.
    @property
    def target_network(self) -> QNetwork:  # type: ignore[override]
        """The network itself."""
        return self.network

    def setup(self, stage: str) -> None:
        """Warn where nothing keeps it stable."""
        super().setup(stage)
        names = [type(module).__name__ for module in self.network.modules()]
        if stage == "fit" and not any("Norm" in name for name in names):
            rank_zero_warn(
                "PQN has no target network and is unstable without normalised layers: set "
                "`layer_norm: true` in the torso."
            )

    def prepare_phase(self, phase: Phase) -> Phase:
        """Return the phase with its returns folded, as minibatches."""
        assert isinstance(self.objective, QLambda)
        assert phase.order is not None
        fragments = phase.transitions
        folded = self.objective.folded(fragments, self._next_values(fragments))
        return phase._replace(transitions=folded.drawn(phase.order), order=None)

    @torch.no_grad()
    def _next_values(self, fragments: Transition) -> Tensor:
        """Return the raw values of the next states of fragments, [L, S, N]."""
        following = fragments.next_observation.transpose(0, 1)
        values = self.action_values(following.flatten(1, 2), fragments.task)
        mask = fragments.extra.get("next_action_mask")
        if mask is not None:
            mask = mask.transpose(0, 1).flatten(1, 2)
        allowed = self.network.allowed_actions(fragments.task, mask)
        # Where a state allows nothing, as a last one may, some finite value stands.
        best = gather_actions(values, greedy_actions(values, allowed))
        return best.view(following.shape[:3]).transpose(0, 1)
