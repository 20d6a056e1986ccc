"""One network on many tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lit_mtdqn.algorithms.base import Parameters
from lit_mtdqn.algorithms.dqn import DQN
from lit_mtdqn.algorithms.factories import as_factory
from lit_mtdqn.algorithms.optimizers import Adam, build_optimizer
from lit_mtdqn.algorithms.teachers import Teachers, TeacherSources
from lit_mtdqn.analysis.checkpoints import SavedNetwork, read_network
from lit_mtdqn.balancing import Balancer, TaskGradients, TaskLosses
from lit_mtdqn.functional.gradients import (
    GroupParameters,
    as_gradients,
    as_matrix,
    group_means,
    look_ahead_affinity,
    look_ahead_steps,
    sums_by_task,
)
from lit_mtdqn.functional.precision import full_precision
from lit_mtdqn.networks import DrawsNoise, Head, QNetwork
from lit_mtdqn.objectives import TD, Objective, TDLoss
from lit_mtdqn.scaling import PopArt, Scale
from lit_mtdqn.types import Losses, Prediction, Schedule, TaskInfos, Transition, require


class MultiTaskDQN(DQN):
    """Deep Q-network on many tasks: how they share one update, what else they learn.

    With its defaults it is `DQN` with a shared torso, a head per task and equal weights, whose
    values `PopArt` keeps on one scale: tasks with small rewards are not drowned by others.

    Args:
        tasks: The tasks, as `RolloutDataModule.task_infos` has them; linked on the command line.
        network: Makes the Q-network from the tasks.
        objective: Makes the temporal-difference objective.
        balancer: Makes the way in which tasks share one update, from the tasks and the network;
            None weighs their losses by `TaskSpec.weight` alone.
        objectives: Make auxiliary objectives, from the tasks and the network.
        optimizer: Makes the optimiser from the parameters.
        learning_rate_schedule: Factor on the learning rate over updates; None keeps it.
        max_grad_norm: Norm to which the gradient of all parameters together is clipped, after
            balancing; None does not clip. Smaller is steadier and slower.
        scale: Makes what brings the tasks' values to one scale; None learns raw values. Heads of
            bounded support and heads that tasks share take `ReturnNormaliser`.

    References:
        Caruana 1997, "Multitask Learning".
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: Callable[[TaskInfos], QNetwork] = QNetwork,
        objective: Callable[[], TD] = TD,
        balancer: Callable[[TaskInfos, QNetwork], Balancer] | None = None,
        objectives: Sequence[Callable[[TaskInfos, QNetwork], Objective]] = (),
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer] = Adam,
        learning_rate_schedule: Schedule | None = None,
        max_grad_norm: float | None = 10.0,
        scale: Callable[[TaskInfos], Scale] | None = PopArt,
    ) -> None:
        super().__init__(
            tasks, network, objective, optimizer, learning_rate_schedule, max_grad_norm, scale
        )
        self.balancer: Balancer | None = (
            None if balancer is None else as_factory(balancer)(self.tasks, self.network)
        )
        self.objectives = nn.ModuleList(
            as_factory(make)(self.tasks, self.network) for make in objectives
        )
        self._shared: dict[str, nn.Parameter] = {}
        self._own: list[nn.Parameter] = []
        self._copies = GroupParameters()
        self._group_task = torch.zeros(0, dtype=torch.int64)
        # Where what tasks share stands still, [P]: no balancer compares tasks there.
        self.frozen_shared: Tensor | None = None

    def heads_of_values(self) -> list[Head]:
        """Return all heads that predict values in the unit of the scale, inner ones included."""
        inner = [module for module in self.objectives.modules() if isinstance(module, Head)]
        return [*super().heads_of_values(), *inner]

    def trained_modules(self) -> list[nn.Module]:
        """Return the network and the objectives."""
        return [*super().trained_modules(), *self.objectives]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the one optimiser; a balancer's parameters are a group of their own."""
        return build_optimizer(
            self._optimizer_factory, self.trained_modules(), self._balancer_groups()
        )

    def _balancer_groups(self) -> list[dict[str, Any]]:
        if self.balancer is None:
            return []
        parameters = [p for p in self.balancer.parameters() if p.requires_grad]
        rate = {} if self.balancer.lr is None else {"lr": self.balancer.lr}
        return [{"params": parameters, **rate}] if parameters else []

    @property
    def observes(self) -> list[str]:
        """Tasks that do not learn whose observations objectives need."""
        asking = (part for part in self.objectives if isinstance(part, Objective))
        return [name for objective in asking for name in objective.observes]

    def auxiliary_losses(self, batch: Transition, td: TDLoss) -> dict[str, Tensor]:
        """Return the terms of all objectives."""
        terms = super().auxiliary_losses(batch, td)
        for objective in self.objectives:
            terms.update(objective(batch, td, self.target_network))
        return terms

    def batch_metrics(self, batch: Transition, prediction: Prediction) -> dict[str, Tensor]:
        """Return what objectives have to say of a minibatch."""
        metrics = super().batch_metrics(batch, prediction)
        for objective in self.objectives:
            assert isinstance(objective, Objective)
            metrics.update(objective.batch_metrics(batch, prediction))
        return metrics

    def resample_noise(self) -> None:
        """Draw the noise of an update, that of objectives included."""
        super().resample_noise()
        for module in self.objectives.modules():
            if isinstance(module, DrawsNoise):
                module.resample_noise()

    def setup(self, stage: str) -> None:
        """Let objectives make what they need, before the optimiser is made."""
        super().setup(stage)
        if stage == "fit":
            for objective in self.objectives:
                assert isinstance(objective, Objective)
                objective.prepare(self)

    def on_fit_start(self) -> None:
        """Find out what tasks share, and let objectives prepare."""
        super().on_fit_start()
        for objective in self.objectives:
            assert isinstance(objective, Objective)
            objective.bind(self)
        shared = set(self.network.shared_parameters())
        named = {n: p for n, p in self.network.named_parameters() if p in shared}
        self._shared = {name: p for name, p in named.items() if p.requires_grad}
        self._own = [p for p in self._trained if p not in shared]
        self.frozen_shared = None
        if self.balancer is None or not self.balancer.by_task:
            return
        name = type(self.balancer).__name__
        must = f"share parameters between tasks, whose gradients {name} needs"
        require(bool(self._shared), "model.network", must, "none shared")
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        must = f"scale no losses under {name}, as 32-true and bf16-mixed do not"
        require(scaler is None, "trainer.precision", must, self.trainer.precision)

    def load_teachers(
        self, sources: TeacherSources | None, names: Mapping[str, str] | None = None
    ) -> Teachers:
        """Return the teachers of its tasks, frozen and on its device.

        Args:
            sources: Teachers by task; None takes its own, which `PolicyDistillation` alone has.
            names: A teacher's name for a task, by its own.

        Raises:
            ValueError: If it has none of its own, or a teacher does not fit.
        """
        must = f"name teachers of objectives, as {type(self).__name__} has none of its own"
        require(sources is not None, "teachers", must, sources)
        assert sources is not None
        teachers = Teachers(self.tasks, sources, names)
        teachers.to(self.device)
        return teachers

    def read_network(self, source: str, name: str, *, informed: bool) -> SavedNetwork:
        """Return the network that another run has left, for objectives that look back.

        Args:
            source: Checkpoint, or folder of a run.
            name: What the user calls it, for complaints.
            informed: Whether its Fisher information is asked for.
        """
        return read_network(source, name, informed=informed)

    def update_parameters(self, batch: Transition) -> Parameters | None:
        """Return a copy of the shared parameters per row group, where a balancer needs them."""
        if self.balancer is None or not self.balancer.by_task:
            return None
        return self._copy_shared(batch)

    def _copy_shared(self, batch: Transition) -> GroupParameters:
        self._copies = GroupParameters.of(self._shared, len(batch.task))
        return self._copies

    def accumulate_gradients(self, losses: Losses, batch: Transition) -> None:
        """Back-propagate as the balancer says."""
        if self.balancer is None:
            super().accumulate_gradients(losses, batch)
            return
        self.balancer.accumulate(self._task_losses(losses, batch), self)

    def on_update_end(self, batch: Transition) -> None:
        """Let the balancer see what the update did."""
        if self.balancer is not None:
            self.balancer.on_update_end(batch, self)

    def further_metrics(self) -> dict[str, Tensor]:
        """Return the tasks' weights in the last update over their mean, where a balancer has some.

        Of `TaskSpec.weight` they know nothing.
        """
        weights = None if self.balancer is None else self.balancer.task_weights()
        if self.balancer is None or weights is None:
            return {}
        shares = (weights / weights.mean()).unbind()
        names = [self.tasks[index].name for index in self.balancer.learning]
        return {f"train/task_weight/{n}": share for n, share in zip(names, shares, strict=True)}

    def _task_losses(self, losses: Losses, batch: Transition) -> TaskLosses:
        by_group, unbalanced = self.group_losses(losses, batch)
        loss, task = group_means(by_group, batch.task)
        self._group_task = batch.task
        return TaskLosses(loss, task, unbalanced)

    def backpropagate_by_task(
        self, losses: TaskLosses, weight: Tensor | None = None
    ) -> TaskGradients:
        """Return the gradients of shared parameters; fill those of all other parameters."""
        loss = losses.loss if weight is None else losses.loss * weight
        gradients, own = self._differentiate(losses._replace(loss=loss), self._own)
        self._fill(self._own, own)
        return gradients if self.frozen_shared is None else gradients.without(self.frozen_shared)

    def mask_of_shared(self, masks: Mapping[nn.Parameter, Tensor]) -> Tensor:
        """Return masks of parameters, false of all others, side by side as the shared ones, [P]."""
        none = torch.zeros((), dtype=torch.bool, device=self.device)
        shared = self._shared.values()
        return torch.cat([masks.get(p, none).expand_as(p).flatten() for p in shared])

    def tasks_over_ranks(self, batch: Transition) -> list[int]:
        """Return the tasks in the batches of all ranks, rising; all ranks must ask."""
        found: list[int] = self._part_of_ranks(batch.task).nonzero().flatten().tolist()
        return found

    def task_gradients(self, batch: Transition) -> TaskGradients:
        """Return the gradients of `tasks_over_ranks`; nothing but the result changes.

        Of each task they are means over the ranks that have it; without what is added to losses
        after balancing.
        """
        batch = self.in_own_unit(batch)
        losses = self._task_losses(self.losses(batch, self._copy_shared(batch)), batch)
        return self._compared_gradients(losses)

    def task_affinity(self, batch: Transition, share: float = 0.01) -> Tensor:
        """Return what a step for each task alone does to every task's loss; nothing else changes.

        The step moves the shared parameters down the gradient of task i, as far as lowers its loss
        by `share` to first order. Entry [i, j] is the part of task j's loss that this takes away,
        over `share`: near 1 for j = i, negative where it does harm.

        Args:
            batch: Leading shape [S, B].
            share: Part of a task's own loss, in (0, 1).

        Returns:
            [T, T] for `tasks_over_ranks`; of means over the ranks that have a task.

        References:
            Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning",
            equation 1, https://arxiv.org/abs/2109.04617.
        """
        batch = self.in_own_unit(batch)
        losses = self._task_losses(self.losses(batch, self._copy_shared(batch)), batch)
        gradients = self._compared_gradients(losses)
        before = self._mean_by_task(losses.loss.detach(), losses.task)
        steps = look_ahead_steps(before, gradients.by_task, share)
        after = torch.stack([self._task_losses_after(step, batch).loss for step in steps], dim=1)
        return look_ahead_affinity(before, self._mean_by_task(after, losses.task).T, share)

    def _compared_gradients(self, losses: TaskLosses) -> TaskGradients:
        mean = partial(self._mean_by_task, task=losses.task)
        return self._differentiate(losses._replace(unbalanced=None), [], mean)[0]

    def _mean_by_task(self, values: Tensor, task: Tensor) -> Tensor:
        """Return the means of values over the ranks that have a task.

        Args:
            values: [T, ...].
            task: Tasks of this rank, integers [T], rising.

        Returns:
            [U, ...] for the tasks that any rank has, rising.
        """
        if self.world_size == 1:
            return values
        part = self._part_of_ranks(task)
        every = part.nonzero().flatten()
        spread = values.new_zeros(len(every), *values.shape[1:])
        spread[torch.searchsorted(every, task)] = values
        # In place, because there may be as many numbers as parameters for each task.
        return self.mean_over_ranks(spread).div_(part[every].view(-1, *[1] * (values.dim() - 1)))

    def _part_of_ranks(self, task: Tensor) -> Tensor:
        """Return the part of the ranks that have each of all tasks, [number of tasks]."""
        has = torch.zeros(len(self.tasks), device=task.device).index_fill_(0, task, 1.0)
        return self.mean_over_ranks(has)

    def _differentiate(
        self,
        losses: TaskLosses,
        own: list[nn.Parameter],
        mean_by_task: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[TaskGradients, list[Tensor]]:
        """Return gradients of shared parameters by task, and of others of the mean over tasks.

        Args:
            losses: The losses.
            own: The other parameters.
            mean_by_task: Averages rows of this rank's tasks over ranks; None where all ranks have
                the same tasks.
        """
        copies, rest = list(self._copies.values()), losses.unbalanced
        inputs = [*copies, *own]
        found = self._gradients(losses.loss.sum(), inputs, retain_graph=rest is not None)
        by_group = as_matrix(found[: len(copies)])
        sums = sums_by_task(by_group, self._group_task, losses.task)
        by_task = (mean_by_task or self.mean_over_ranks)(sums)
        others = [gradient / len(losses.loss) for gradient in found[len(copies) :]]
        unbalanced = None
        shared = list(self._shared.values())
        if rest is not None:
            # Penalties on parameters know nothing of their copies.
            extra = iter(self._gradients(rest, [*copies, *shared, *own]))
            by_copy = as_matrix(islice(extra, len(copies))).sum(0)
            direct = torch.cat([next(extra).flatten() for _ in shared])
            unbalanced = self.mean_over_ranks(by_copy + direct)
            others = [a + b for a, b in zip(others, extra, strict=True)]
        return TaskGradients(by_task, unbalanced, shared), others

    def fill_shared(self, gradient: Tensor) -> None:
        """Fill the gradients of the shared parameters with a row [P]."""
        shared = list(self._shared.values())
        for parameter, piece in zip(shared, as_gradients(gradient, shared), strict=True):
            parameter.grad = piece

    def move_shared(self, step: Tensor) -> None:
        """Add a row [P] to the shared parameters."""
        shared = [parameter.data for parameter in self._shared.values()]
        torch._foreach_add_(shared, as_gradients(step, shared))

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return int(self.trainer.world_size)

    @property
    def updates(self) -> int:
        """Updates made so far, for coefficients on a schedule."""
        return self._clock.updates

    def task_losses_of(self, batch: Transition) -> TaskLosses:
        """Return the losses of a batch under the parameters as they are now, without gradient."""
        # Routers draw noise where gradients are wanted: without it losses would not compare.
        with torch.enable_grad():
            losses = self._task_losses(self.losses(batch), batch)
        return losses._replace(loss=losses.loss.detach())

    @torch.no_grad()
    def _task_losses_after(self, step: Tensor, batch: Transition) -> TaskLosses:
        """Return the losses of a batch where a row [P] is added to the shared parameters."""
        pieces = as_gradients(step, list(self._shared.values()))
        moved = zip(self._shared.items(), pieces, strict=True)
        parameters = {name: parameter + piece for (name, parameter), piece in moved}
        return self._task_losses(self.losses(batch, parameters), batch)

    def _fill(self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
        """Set gradients to their means over ranks, in one message."""
        if self.world_size > 1 and parameters:
            row = torch.cat([gradient.flatten() for gradient in gradients])
            gradients = as_gradients(self.mean_over_ranks(row), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def _gradients(
        self, loss: Tensor, inputs: list[Tensor], *, retain_graph: bool = False
    ) -> list[Tensor]:
        """Return the gradient of a number with respect to each input, zeros where it has none."""
        # Diagnostics come here without the update around it.
        with full_precision(self.device):
            found = torch.autograd.grad(
                loss, inputs, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
            )
        return list(found)
