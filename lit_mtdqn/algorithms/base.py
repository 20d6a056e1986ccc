"""The one update loop."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import lightning
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar, TQDMProgressBar
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from lit_mtdqn.algorithms.diagnostics import means_by_name, phase_metrics
from lit_mtdqn.algorithms.factories import as_factory, as_plain, from_plain
from lit_mtdqn.algorithms.loading import build_to_hold
from lit_mtdqn.algorithms.numbers import of_finite_losses, report_non_finite
from lit_mtdqn.algorithms.optimizers import Adam, build_optimizer
from lit_mtdqn.analysis.checkpoints import read_checkpoint
from lit_mtdqn.analysis.saved_tensors import file_of_rank
from lit_mtdqn.analysis.scores import evaluation_metrics
from lit_mtdqn.callbacks import (
    DistributedTraining,
    EnvStepProgressBar,
    EpsilonDecay,
    PartLearningRates,
    SkippedUpdates,
    TargetNetworkSync,
)
from lit_mtdqn.functional.parameters import clip_gradients_, freeze_
from lit_mtdqn.functional.precision import full_precision
from lit_mtdqn.functional.ranks import sum_over_ranks
from lit_mtdqn.networks import Head, QNetwork
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import (
    Clock,
    Episodes,
    ExperienceSource,
    Feedback,
    Losses,
    NonFiniteError,
    Phase,
    Prediction,
    ReturnSums,
    Schedule,
    TaskInfos,
    Transition,
    UpdateCallback,
    as_task_infos,
    require,
)

# Targets are float32, whatever the networks compute in.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
NetworkFactory = Callable[[TaskInfos], QNetwork]
OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]
ScaleFactory = Callable[[TaskInfos], Scale]
Parameters = Mapping[str, Tensor]


class ValueLearner(lightning.LightningModule, ABC):
    """Base of all learners: owns the networks and the loop of updates.

    A subclass states its losses; the loop, the events after each update, logging, saving and
    loading are here.

    Args:
        tasks: The tasks, as `RolloutDataModule.task_infos` has them.
        network: Makes the Q-network from the tasks.
        optimizer: Makes the optimiser from the parameters.
        learning_rate_schedule: Factor on the learning rate over updates; None keeps it.
        max_grad_norm: Norm to which the gradient of all parameters together is clipped; None does
            not clip.
        scale: Makes what brings the tasks' values to one scale; None learns raw values.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a part could not be named by a checkpoint, such as a lambda.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: NetworkFactory = QNetwork,
        optimizer: OptimizerFactory = Adam,
        learning_rate_schedule: Schedule | None = None,
        max_grad_norm: float | None = 10.0,
        scale: ScaleFactory | None = None,
    ) -> None:
        super().__init__()
        self._save_plain_hyperparameters()
        require(
            max_grad_norm is None or max_grad_norm > 0.0,
            "max_grad_norm",
            "be above 0 or null",
            max_grad_norm,
        )
        self.automatic_optimization = False
        self.tasks = as_task_infos(tasks)
        self.network: QNetwork = as_factory(network)(self.tasks)
        self.network.eval()
        self.make_target_network()
        self.scale = None if scale is None else as_factory(scale)(self.tasks)
        if self.scale is not None:
            self.scale.bind(self.network)
            if self.scale.follows_targets:
                name, must = type(self).__name__, "be defined for a scale that follows targets"
                defined = type(self).target is not ValueLearner.target
                require(defined, f"{name}.target", must, type(self.scale).__name__)
        self.max_grad_norm = max_grad_norm
        self.learning_rate_schedule = learning_rate_schedule
        self._optimizer_factory = as_factory(optimizer)
        weights = torch.tensor([info.weight for info in self.tasks])
        self.register_buffer("task_weight", weights, persistent=False)
        self._has_task_weights = bool((weights != 1.0).any())
        self._update_callbacks: list[UpdateCallback] = []
        self._evaluations: list[Episodes] = []
        self._has_noise, self._explores = self.network.has_noise, self.network.explores
        self._direct = False
        self._clock = Clock()
        self._grad_norm: Tensor | None = None
        self._rows_are_weighted = True
        # None ends a run at the first update without numbers.
        self._skipped: SkippedUpdates | None = None
        self._trained: list[nn.Parameter] = []
        self._stepped: list[nn.Parameter] = []
        # What updates call in place of `losses` and `target`.
        self._losses_of_update: Callable[..., Losses] | None = None
        self._target_of_update: Callable[[Transition], Tensor] | None = None

    task_weight: Tensor
    # What metrics call the loss that `losses` gives for each row.
    loss_name = "td_loss"
    # Whether it learns from replays, and not from what it has just played.
    needs_replays = True
    # What a run needs, and is given where its Trainer lacks it.
    needed_callbacks: tuple[type[Callback], ...] = (TargetNetworkSync, EpsilonDecay)

    def make_target_network(self) -> None:
        """Make what targets come from: a frozen copy of the network."""
        self.target_network: QNetwork = deepcopy(self.network)
        freeze_(self.target_network)

    @property
    def predicts_values(self) -> bool:
        """Whether the network's outputs are action values, and not logits of a policy."""
        return True

    @property
    def acting_network(self) -> QNetwork | None:
        """The network by which alone training acts; None where others act, too."""
        return self.network

    @abstractmethod
    def losses(
        self,
        batch: Transition,
        parameters: Parameters | None = None,
        target: Tensor | None = None,
    ) -> Losses:
        """Return the unreduced losses of a minibatch; nothing but the result changes.

        Args:
            batch: Leading shape [S, B].
            parameters: Parameters of the online network by name, in place of its own; or None.
            target: What `target` returns of the minibatch, where that is known; or None.
        """

    def target(self, batch: Transition) -> Tensor:
        """Return what the predictions of a minibatch are drawn to, in the space of the head.

        Only scales that follow targets ask for it.
        """
        raise NotImplementedError

    def group_losses(self, losses: Losses, batch: Transition) -> tuple[Tensor, Tensor | None]:
        """Return each group's weighted mean over rows, [S], and what is added after balancing, [].

        Auxiliary terms of shape [S, B] and [S] are weighted with their task, those of [] added.
        """
        loss = (losses.td * batch.weight).mean(-1)
        unbalanced = None
        for term in losses.auxiliary.values():
            if term.dim() == 0:
                unbalanced = term if unbalanced is None else unbalanced + term
            else:
                loss = loss + (term if term.dim() == 1 else term.mean(-1))
        if self._has_task_weights:
            loss = loss * self.task_weight[batch.task]
        factor = None if self.scale is None else self.scale.loss_weight(batch.task)
        return loss if factor is None else loss * factor, unbalanced

    def total_loss(self, losses: Losses, batch: Transition) -> Tensor:
        """Return the number to minimise: the mean over groups, and what is added."""
        weighs = self.scale is not None and self.scale.loss_weight(batch.task) is not None
        if not (losses.auxiliary or self._has_task_weights or weighs):
            # The same in fewer operations, each a hundredth of an update of a small network.
            return (losses.td * batch.weight if self._rows_are_weighted else losses.td).mean()
        loss, unbalanced = self.group_losses(losses, batch)
        total = loss.mean()
        return total if unbalanced is None else total + unbalanced

    def update_parameters(self, batch: Transition) -> Parameters | None:
        """Return the parameters that an update differentiates by; None for the network's own."""
        return None

    def accumulate_gradients(self, losses: Losses, batch: Transition) -> None:
        """Back-propagate; gradient aggregation overrides this and nothing else of the loop."""
        self.backpropagate(self.total_loss(losses, batch))

    def backpropagate(self, loss: Tensor) -> None:
        """Fill all gradients with those of a loss, reduced over ranks."""
        if self._direct:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.manual_backward(loss)

    def mean_over_ranks(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks."""
        ranks = self.trainer.world_size
        return tensor if ranks == 1 else sum_over_ranks(tensor) / ranks

    def metrics_over_ranks(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of metrics over the ranks that have them; all ranks must ask."""
        if self.trainer.world_size == 1:
            return metrics
        # By name, because ranks may have learned unlike tasks.
        own = {name: float(value) for name, value in metrics.items()}
        by_rank: list[dict[str, float]] = [{} for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(by_rank, own)
        return means_by_name(by_rank)

    def on_update_end(self, batch: Transition) -> None:
        """React to an update that has been made, before callbacks do."""

    def resample_noise(self) -> None:
        """Draw the noise of an update, where the network has noise."""
        self.network.resample_noise()
        if self.target_network is not self.network:
            self.target_network.resample_noise()

    def batch_metrics(self, batch: Transition, prediction: Prediction) -> dict[str, Tensor]:
        """Return what a subclass has to say of a minibatch [S, B]; asked when a row is due."""
        return {}

    def further_metrics(self) -> dict[str, Tensor]:
        """Return what a subclass adds to a row of training metrics, by full name."""
        return {}

    def update(self, batch: Transition, optimizer: LightningOptimizer) -> Losses:
        """Make one update and tell the callbacks."""
        if self._has_noise:
            self.resample_noise()
        given = batch
        batch, target = self._in_unit_of_update(given)
        compute = self._losses_of_update or self.losses
        losses = compute(batch, self.update_parameters(batch), target)
        errors = self.raw_errors(losses.td_error, batch.task)
        # Sooner than `optimizer.zero_grad`, for the same effect (`benchmarks/speed_ups.py`).
        for parameter in self._stepped:
            parameter.grad = None
        if self._has_gradients(losses, batch, given) and self._step(optimizer):
            self._count_update(batch)
        # Without their graph, which would otherwise live until the end of the phase.
        detached = losses._replace(td=losses.td.detach(), td_error=errors)
        if not losses.auxiliary:
            return detached
        auxiliary = {name: term.detach() for name, term in losses.auxiliary.items()}
        return detached._replace(auxiliary=auxiliary)

    def _has_gradients(self, losses: Losses, batch: Transition, given: Transition) -> bool:
        """Back-propagate; return whether an update may follow: it has numbers, or need not.

        Args:
            losses: Of the minibatch.
            batch: The minibatch in the unit of the networks.
            given: The same as it came.
        """
        skips = self._skipped is not None
        # Before balancers see losses, which some remember and some refuse.
        if skips and not self._are_finite(losses.td, losses.td_error, *losses.auxiliary.values()):
            self._skip(losses, given)
            return False
        with full_precision(self.device):
            self.accumulate_gradients(losses, batch)
        # A scaler needs to see gradients that overflow.
        if skips and self._scaler is None:
            norm = clip_gradients_(self._stepped, None)
            if not self._are_finite(norm):
                self._skip(losses, given, norm)
                return False
        return True

    def _are_finite(self, *tensors: Tensor) -> bool:
        """Return whether all numbers are finite, on all ranks."""
        finite = torch.stack([tensor.isfinite().all() for tensor in tensors]).all()
        return bool(self.mean_over_ranks(finite.float()) >= 1.0)

    def _skip(self, losses: Losses, batch: Transition, norm: Tensor | None = None) -> None:
        """Count an update that is not made, and tell of the first, and of one too many."""
        assert self._skipped is not None
        self._skipped.count()
        if self._skipped.total > 1 and not self._skipped.are_too_many:
            return
        errors = self.raw_errors(losses.td_error.detach(), batch.task).unsqueeze(0)
        error = self._non_finite_error(errors, [batch], self._clock.updates + 1, norm)
        if self._skipped.are_too_many:
            raise error
        rank_zero_warn(f"{error} It is skipped, as others will be: see `train/skipped_updates`.")

    def _count_update(self, batch: Transition) -> None:
        clock = self._clock
        clock.updates += 1
        self.on_update_end(batch)
        for callback in self._update_callbacks:
            callback.on_update_end(self.trainer, self, clock)

    def compile_updates(self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Let updates call what `compiled` makes of `losses` and `target`; all others do not."""
        self._losses_of_update = compiled(self.losses)
        self._target_of_update = compiled(self.target)

    def release_updates(self) -> None:
        """Let updates call `losses` and `target` again."""
        self._losses_of_update = self._target_of_update = None

    def in_own_unit(self, batch: Transition) -> Transition:
        """Return a minibatch with rewards in the unit that the networks learn in."""
        return batch if self.scale is None else self.scale.normalised(batch)

    def _in_unit_of_update(self, batch: Transition) -> tuple[Transition, Tensor | None]:
        """Return a minibatch in the unit that its targets have left, and the targets if known."""
        own = self.in_own_unit(batch)
        if self.scale is None or not self.scale.follows_targets:
            return own, None
        heads, target = self.heads_of_values(), (self._target_of_update or self.target)(own)
        if self._skipped is not None and not self._are_finite(target):
            return own, target
        target = self.scale.on_target(target, batch.task, heads, self.mean_over_ranks)
        return self.in_own_unit(batch), target

    def heads_of_values(self) -> list[Head]:
        """Return all heads that predict values in the unit of the scale."""
        return list(dict.fromkeys([self.network.head, self.target_network.head]))

    def raw_errors(self, errors: Tensor, task: Tensor) -> Tensor:
        """Return errors [S, B] of tasks [S] in the unit of rewards, where they are of values.

        A scale that moves on changes neither what was large nor what will be.
        """
        if self.scale is None or not self.network.head.can_rescale:
            return errors
        restored: Tensor = self.scale.restored_errors(errors, task)
        return restored

    def prepare_phase(self, phase: Phase) -> Phase:
        """Return the phase as the updates shall see it."""
        return phase

    def training_step(self, phase: Phase, batch_idx: int) -> None:
        """Make the K updates of a phase, report errors to the replay and log when due."""
        phase = self.prepare_phase(phase)
        if self.needs_returns:
            self._learn_returns(phase.returns)
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        batches = list(phase.transitions.minibatches())
        first_update = self._clock.updates + 1
        self._rows_are_weighted = bool((phase.transitions.weight != 1.0).any())
        self.network.train()
        losses = [self.update(batch, optimizer) for batch in batches]
        self.network.eval()
        self._rows_are_weighted = True
        if self._has_noise:
            self.target_network.eval()
        transitions = phase.transitions
        errors = torch.stack([loss.td_error for loss in losses]).abs_()
        # One decision of all ranks: one that stopped alone would leave the others waiting.
        if self.mean_over_ranks(self._is_sound(errors).float()) < 1.0:
            if self._skipped is None:
                raise self._non_finite_error(errors, batches, first_update, self._grad_norm)
            errors.nan_to_num_(0.0, 0.0, 0.0)
        self.source.on_feedback(Feedback(transitions.task, transitions.replay_index, errors, {}))
        if self.source.is_finished:
            self.trainer.should_stop = True
        if self.logging_is_due():
            metrics = self._metrics_of_updates(batches, losses)
            metrics.update(self.further_metrics())
            metrics.update({} if self.scale is None else self.scale.metrics())
            metrics = self.metrics_over_ranks(metrics)
            self.log_dict({**metrics, **phase.rollout, **self._clock_metrics()})

    def _is_sound(self, errors: Tensor) -> Tensor:
        """Return whether the errors of a phase and its last gradient are numbers, [].

        Gradients before the last show in the errors after them.
        """
        finite = errors.isfinite().all()
        if self._grad_norm is None or self._scaler is not None:
            return finite
        return finite & self._grad_norm.isfinite()

    def _metrics_of_updates(
        self, batches: list[Transition], losses: list[Losses]
    ) -> dict[str, Tensor]:
        if self._skipped is None:
            return phase_metrics(self, batches, losses, self._grad_norm)
        batches, losses = of_finite_losses(batches, losses)
        found = phase_metrics(self, batches, losses, self._grad_norm) if batches else {}
        return {**found, **self._skipped.metrics()}

    def _non_finite_error(
        self,
        errors: Tensor,
        batches: list[Transition],
        first_update: int,
        grad_norm: Tensor | None,
    ) -> NonFiniteError:
        file = file_of_rank(self.trainer, "non_finite_batch")
        return report_non_finite(errors, batches, self.tasks, first_update, file, grad_norm)

    @property
    def needs_returns(self) -> bool:
        """Whether phases should say what training episodes returned."""
        return self.scale is not None and self.scale.needs_returns

    def _learn_returns(self, returns: dict[str, ReturnSums]) -> None:
        assert self.scale is not None
        rows = [returns.get(info.name, ReturnSums()) for info in self.tasks]
        sums = torch.tensor(rows, dtype=torch.float64, device=self.device)
        if self.trainer.world_size > 1:
            by_rank = self.all_gather(sums)
            assert isinstance(by_rank, Tensor)
            # All are sums but the last, which is a maximum.
            sums = torch.cat([by_rank[..., :-1].sum(0), by_rank[..., -1:].amax(0)], -1)
        if self._skipped is not None:
            # Statistics that have seen one such reward would never have numbers again.
            sums = sums.where(sums.isfinite().all(-1, keepdim=True), 0.0)
        self.scale.on_returns(sums)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip, after mixed precision has unscaled the gradients, and set the learning rate."""
        if self.max_grad_norm is not None or self.logging_is_due():
            self._grad_norm = clip_gradients_(self._trained, self.max_grad_norm)
        if self.learning_rate_schedule is not None:
            factor = self.learning_rate_schedule(self._clock.updates)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the one optimiser; the target network is in none."""
        return build_optimizer(self._optimizer_factory, self.trained_modules())

    def trained_modules(self) -> list[nn.Module]:
        """Return the modules that updates change and clip."""
        return [self.network]

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks that a run needs and its Trainer lacks.

        Of several that do the same the last stays, so that an overlay replaces one by appending.
        """
        present: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        needed = (*self.needed_callbacks, DistributedTraining)
        for kind in needed:
            for replaced in [c for c in present if isinstance(c, kind)][:-1]:
                present.remove(replaced)
        missing: list[Callback] = [
            default()
            for default in needed
            if not any(isinstance(callback, default) for callback in present)
        ]
        stock = [bar for bar in present if type(bar) in (TQDMProgressBar, RichProgressBar)]
        for bar in stock:
            present.remove(bar)
            missing.append(EnvStepProgressBar())
        return missing

    def setup(self, stage: str) -> None:
        """Check that the data is of this model's tasks."""
        # The target network is in evaluation mode by intent.
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        # What is logged is equal on all ranks by then.
        warnings.filterwarnings("ignore", message=r"It is recommended to use `self\.log\(")
        precision = self.trainer.precision
        must = f"be one of {', '.join(PRECISIONS)}"
        require(precision in PRECISIONS, "trainer.precision", must, precision)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        infos = getattr(data, "task_infos", None)
        require(infos is not None, "datamodule", "be a RolloutDataModule", type(data).__name__)
        assert infos is not None
        if stage == "fit":
            kept, wanted = getattr(data, "keeps_replays", True), self.needs_replays
            must = f"be {str(wanted).lower()} for {type(self).__name__}"
            require(kept == wanted, "datamodule.keeps_replays", must, kept)
        names, known = [info.name for info in infos], [info.name for info in self.tasks]
        require(names == known, "datamodule.tasks", f"be the model's tasks {known}", names)
        for theirs, ours in zip(infos, self.tasks, strict=True):
            sizes = [(i.observation_shape, i.num_actions) for i in (theirs, ours)]
            must = f"have the model's observation shape and number of actions {sizes[1]}"
            require(sizes[0] == sizes[1], f"datamodule.tasks.{ours.name}", must, sizes[0])

    def on_fit_start(self) -> None:
        """Decide what the loop will call."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        # Parts of the network come first, then what holds them back: a target network copies what
        # they leave.
        first = [callback for callback in callbacks if isinstance(callback, PartLearningRates)]
        others = [callback for callback in callbacks if callback not in first]
        parts = [*self.network.modules(), *first, *others]
        self._update_callbacks = [part for part in parts if isinstance(part, UpdateCallback)]
        skipped = [callback for callback in callbacks if isinstance(callback, SkippedUpdates)]
        self._skipped = skipped[-1] if skipped else None
        self._grad_norm = None
        self._direct = self._may_step_directly()
        self._clock = self.source.clock
        modules = self.trained_modules()
        self._trained = [p for m in modules for p in m.parameters() if p.requires_grad]
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        self._stepped = [p for group in optimizer.param_groups for p in group["params"]]
        if self.network.sharing is not None:
            self.network.sharing.require_learning_rate(optimizer.param_groups[0]["lr"])

    def _may_step_directly(self) -> bool:
        """Return whether updates may go past Lightning's dispatch, a part of their time.

        Under data-parallel strategies that would skip the reduction of gradients without a word,
        with a scaler the scaling, and with a callback on gradients the callback.
        """
        hooks = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        own = (*hooks[:2], "backward", "optimizer_step")
        return (
            isinstance(self.trainer.strategy, SingleDeviceStrategy)
            and self._scaler is None
            and not any(is_overridden(hook, c, Callback) for hook in hooks for c in callbacks)
            and not any(is_overridden(hook, self, lightning.LightningModule) for hook in own)
        )

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """What scales losses under `16-mixed`, so that small gradients are not rounded to 0."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _step(self, optimizer: LightningOptimizer) -> bool:
        """Return whether a step was made: gradients that overflow under a scaler are dropped."""
        if self._direct:
            # What `LightningOptimizer.step` does around its dispatch: `trainer.global_step` counts.
            optimizer._on_before_step()
            self.on_before_optimizer_step(optimizer.optimizer)
            optimizer.optimizer.step()
            optimizer._on_after_step()
            return True
        scaler = self._scaler
        if scaler is None:
            optimizer.step()
            return True
        scale = scaler.get_scale()
        if getattr(optimizer.optimizer, "_step_supports_amp_scaling", False):
            # Lightning leaves it to fused optimisers, which do it after the clipping.
            scaler.unscale_(optimizer.optimizer)
        optimizer.step()
        # It falls after an overflow, and at no other time.
        return scaler.get_scale() >= scale

    def on_train_start(self) -> None:
        """Stop at once if a resumed run was finished already."""
        if self.source.is_finished:
            self.trainer.should_stop = True

    def validation_step(self, episodes: Episodes, batch_idx: int) -> None:
        """Take the episodes of one task."""
        self._evaluations.append(episodes)

    def test_step(self, episodes: Episodes, batch_idx: int) -> None:
        """Take the episodes of one task."""
        self._evaluations.append(episodes)

    def on_validation_epoch_start(self) -> None:
        """Forget what an interrupted validation left."""
        self._evaluations = []

    def on_validation_epoch_end(self) -> None:
        """Log returns, scores and successes by task."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log returns, scores and successes by task."""
        self._log_evaluation("test")

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return unmasked float32 action values [S, N, A] of the online network.

        Args:
            observation: [S, N, *O], on any device.
            task: Index of each group's task, [S].
        """
        return self._values_by(self.network.action_values, observation, task)

    def exploring_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return `action_values` under fresh noise, where the network has noise that explores."""
        if not self._explores:
            return self.action_values(observation, task)
        return self._values_by(self.network.exploring_values, observation, task)

    def _values_by(
        self, ask: Callable[[Tensor, Tensor], Tensor], observation: Tensor, task: Tensor
    ) -> Tensor:
        device = self.device
        task = task.to(device)
        return self.raw_values(ask(observation.to(device), task), task)

    def raw_values(self, values: Tensor, task: Tensor) -> Tensor:
        """Return values [S, ...] of the network, of tasks [S], in the unit of rewards."""
        return values if self.scale is None else self.scale.restored(values, task)

    def values_in_unit(self, values: Tensor, task: Tensor) -> Tensor:
        """Return raw values [S, ...], of tasks [S], in the unit of the network."""
        return values if self.scale is None else self.scale.in_unit(values, task)

    def train(self, mode: bool = True) -> Self:
        """Set training mode everywhere but in the networks.

        The target network is never in it, the online network only while it is updated: what acts
        must not drop or normalise by batch.
        """
        super().train(mode)
        self.network.eval()
        self.target_network.eval()
        return self

    @property
    def learning_rate(self) -> float:
        """Step size of the last update, of the first group of parameters."""
        rate: float = self.trainer.optimizers[0].param_groups[0]["lr"]
        return rate

    @property
    def source(self) -> ExperienceSource:
        """The data module, as the learner sees it."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: torch.device | str | None = None,
        strict: bool = True,
        **arguments: Any,
    ) -> Self:
        """Build a learner as a checkpoint describes it and load its weights.

        Only classes of this package and of PyTorch are imported on a checkpoint's word; others must
        be passed.

        Args:
            checkpoint_path: File that a Trainer saved.
            map_location: Device for the weights; None takes the CPU.
            strict: Whether all names must agree.
            **arguments: Constructor arguments that replace the checkpoint's.

        Raises:
            TypeError: If a part is not of this package and was not passed; it says which one.
            ValueError: If the file is no checkpoint of this package, or its weights are not those
                of the learner that it describes.
        """
        checkpoint = read_checkpoint(Path(checkpoint_path), "checkpoint_path")
        saved = {
            name: value
            for name, value in checkpoint["hyper_parameters"].items()
            if not name.startswith("_") and name not in arguments
        }
        built = {name: from_plain(value, name) for name, value in saved.items()}
        learner = build_to_hold(
            lambda: cls(**built, **arguments),
            checkpoint["state_dict"],
            "checkpoint_path",
            checkpoint_path,
            strict=strict,
        )
        return learner.to(map_location or "cpu")

    def _save_plain_hyperparameters(self) -> None:
        """Record the constructor's arguments, however they were given, as plain values."""
        self.save_hyperparameters()
        # A base's constructor may have arguments that a subclass has settled.
        own = inspect.signature(type(self).__init__).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
        known = {k: v for k, v in self.hparams.items() if takes_any or k in own}
        given = {k: v for k, v in known.items() if not k.startswith("_")}
        self.hparams.clear()
        self.save_hyperparameters({name: as_plain(value, name) for name, value in given.items()})

    def logging_is_due(self) -> bool:
        """Return whether a row of metrics is to be logged with the phase at hand."""
        done: int = self.trainer.fit_loop.epoch_loop.total_batch_idx + 1
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and done % every == 0

    def _clock_metrics(self) -> dict[str, Tensor]:
        clock = self.source.clock
        counts = {"env_steps": clock.total_env_steps, "updates": clock.updates}
        # `step` is the x-axis of every logger; float32 would round it above 16 million.
        counts["step"] = clock.total_env_steps
        for task, steps in clock.env_steps.items():
            if steps > 0:
                counts[f"rollout/env_steps/{task}"] = steps
                counts[f"rollout/episodes/{task}"] = clock.episodes.get(task, 0)
        return {name: torch.tensor(n, dtype=torch.float64) for name, n in counts.items()}

    def _log_evaluation(self, stage: str) -> None:
        episodes, self._evaluations = self._evaluations, []
        metrics = {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in evaluation_metrics(episodes, self.tasks, stage).items()
            if self.predicts_values or not name.startswith(f"{stage}/q_bias/")
        }
        # Equal on every rank, which all have the episodes of all.
        self.log_dict({**metrics, **self._clock_metrics()}, rank_zero_only=False)
