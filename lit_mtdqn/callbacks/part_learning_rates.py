"""Parts of the network that learn slower, faster or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from lit_mtdqn.balancing import IndependentSteps
from lit_mtdqn.networks.parts import names_of_parts, parts_of_parameters
from lit_mtdqn.types import Clock, HasTargetNetwork, Schedule, require, value_at


class PartLearningRates(Callback):
    """Multiplies the learning rate of parts of the network; 0 freezes them.

    A frozen part keeps its weights and the optimiser's moments to the last bit, under weight decay,
    soft sharing and task balancing, too; its gradient counts neither in clipping nor where a
    balancer compares tasks. PopArt goes on rewriting a frozen head, whose raw values stay as they
    are. Factors follow from the count of updates alone, so a resumed run continues where it was.
    Fine-tuning of the heads alone, in YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.WeightTransfer
            init_args: {source: runs/source}
          - class_path: lit_mtdqn.callbacks.PartLearningRates
            init_args: {parts: {trunk: 0.0}}

    and a trunk that thaws between update 2000 and 3000, its first layer 2000 updates later:

        - class_path: lit_mtdqn.callbacks.PartLearningRates
          init_args:
            parts:
              trunk:
                class_path: lit_mtdqn.types.Linear
                init_args: {start: 0.0, end: 1.0, duration: 1000, begin: 2000}
        - class_path: lit_mtdqn.callbacks.PartLearningRates
          init_args:
            layers: 1
            parts:
              trunk:
                class_path: lit_mtdqn.types.Linear
                init_args: {start: 0.0, end: 1.0, duration: 1000, begin: 4000}

    Several instances multiply. The optimiser must treat every number by itself and step in
    proportion to its learning rate, as SGD and the Adam family do. What tasks have to themselves
    lies in one tensor with what other tasks have, whose count of steps goes on where a row of it is
    frozen: Adam's first steps after a sudden thaw are some six times as long as usual, after a
    gradual one they are not. Frozen parts still cost their backward pass.

    Args:
        parts: Factor on the learning rate over updates, at least 0, by part: `all`, `trunk` (all
            but the heads), `heads`, the name of a task for all that it has to itself, or beginnings
            of the names under which weights are saved, such as `torso` or `head.values.cartpole`.
            What belongs to several has the factor of the last one; what belongs to none has 1.
        layers: Only the first so many layers of torsos; None takes all.

    Raises:
        ValueError: If a factor is negative; at the start of a fit if a part is unknown, or keeps
            running statistics, which no learning rate holds back.

    References:
        Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text Classification",
        section 3.2 and 3.3, https://arxiv.org/abs/1801.06146; Rusu et al. 2016, "Progressive Neural
        Networks", section 4, https://arxiv.org/abs/1606.04671, for what frozen trunks cost.
    """

    def __init__(self, parts: Mapping[str, float | Schedule], layers: int | None = None) -> None:
        require(len(parts) >= 1, "PartLearningRates.parts", "name at least one part", dict(parts))
        self.parts, self.layers = dict(parts), layers
        for part, factor in self.parts.items():
            _require_factor(part, value_at(factor, 0))
        self._part_of: dict[nn.Parameter, list[str | None]] = {}
        self._factors: dict[str, float] = {}
        self._held: list[_Held] = []
        self._before: list[tuple[Tensor, dict[str, Tensor]]] = []

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Find the parts."""
        if stage != "fit":
            return
        if not isinstance(pl_module, HasTargetNetwork):
            raise TypeError(
                "`model` must have a `network` for PartLearningRates. "
                f"Got {type(pl_module).__name__}."
            )
        network = pl_module.network
        names = {
            part: names_of_parts(network, [part], self.layers, "PartLearningRates")
            for part in self.parts
        }
        for part, found in names.items():
            kept = [name for name in found if name.endswith(("running_mean", "running_var"))]
            must = "keep no running statistics to be held back"
            require(not kept, f"PartLearningRates.parts.{part}", must, kept)
        self._part_of = parts_of_parameters(network, names)
        self._factors, self._held = {}, []

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Hold parts back from the first update on."""
        learner: Any = pl_module
        self._hold(trainer, learner, learner.source.clock.updates)

    @torch.no_grad()
    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Drop the gradients of what is frozen, before they are clipped, and note what was."""
        for held in self._held:
            held.drop_gradient()
        # PopArt has rewritten the heads by now.
        self._before = [held.copies(optimizer) for held in self._held]

    @torch.no_grad()
    def on_update_end(self, trainer: lightning.Trainer, learner: Any, clock: Clock) -> None:
        """Take back what was too much of the update."""
        (optimizer,) = trainer.optimizers
        for held, (weights, moments) in zip(self._held, self._before, strict=True):
            held.take_back(weights, moments, optimizer)
        self._before = []
        self._hold(trainer, learner, clock.updates)

    def _hold(self, trainer: lightning.Trainer, learner: Any, updates: int) -> None:
        """Set what the next update may do."""
        factors = {part: value_at(factor, updates) for part, factor in self.parts.items()}
        if factors == self._factors:
            return
        for part, factor in factors.items():
            _require_factor(part, factor)
        self._factors = factors
        by_row = {
            parameter: [1.0 if part is None else factors[part] for part in parts]
            for parameter, parts in self._part_of.items()
        }
        self._held = [
            _Held.of(parameter, _by_row(parameter, rows))
            for parameter, rows in by_row.items()
            if set(rows) != {1.0}
        ]
        balancer = getattr(learner, "balancer", None)
        if balancer is None or not balancer.by_task:
            return
        if isinstance(balancer, IndependentSteps):
            frozen = learner.mask_of_shared(_frozen(self._held))
            self._held.append(_Held.of(balancer.steps, ~frozen))
        callbacks: Sequence[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        every = [held for c in callbacks if isinstance(c, PartLearningRates) for held in c._held]
        mask = learner.mask_of_shared(_frozen(every))
        # Of tasks without any gradient a balancer would have nothing to compare.
        learner.frozen_shared = mask if mask.any() and not mask.all() else None


class _Held(NamedTuple):
    """A parameter that follows its gradient more, less or not at all.

    Attributes:
        parameter: The parameter.
        factor: Factor on its learning rate, of a shape that broadcasts to the parameter's.
        frozen: Where the factor is 0.
        is_frozen: Whether it is 0 everywhere.
        is_partly_frozen: Whether it is 0 in some places and not in others.
    """

    parameter: nn.Parameter
    factor: Tensor
    frozen: Tensor
    is_frozen: bool
    is_partly_frozen: bool

    @classmethod
    def of(cls, parameter: nn.Parameter, factor: Tensor) -> _Held:
        """Return a parameter with a factor."""
        factor = factor.to(parameter)
        frozen = factor == 0.0
        every = bool(frozen.all())
        return cls(parameter, factor, frozen, every, not every and bool(frozen.any()))

    def drop_gradient(self) -> None:
        """Leave no gradient where it is frozen."""
        if self.is_frozen:
            # The optimiser then passes by: moments and count of steps stay.
            self.parameter.grad = None
        elif self.is_partly_frozen and self.parameter.grad is not None:
            self.parameter.grad.masked_fill_(self.frozen, 0.0)

    def copies(self, optimizer: torch.optim.Optimizer) -> tuple[Tensor, dict[str, Tensor]]:
        """Return copies of the weights, and of the moments that must stay in part."""
        moments = {name: moment.clone() for name, moment in self._moments(optimizer).items()}
        return self.parameter.detach().clone(), moments

    def _moments(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Return what an optimiser remembers of each number, if some of that must stay."""
        if not self.is_partly_frozen:
            return {}
        state = optimizer.state.get(self.parameter, {})
        return {name: value for name, value in state.items() if self._is_of_numbers(value)}

    def take_back(
        self, weights: Tensor, moments: dict[str, Tensor], optimizer: torch.optim.Optimizer
    ) -> None:
        """Go the factor's share of the way from what was, and of frozen moments none."""
        moved = torch.lerp(weights, self.parameter, self.factor)
        self.parameter.copy_(torch.where(self.frozen, weights, moved))
        for name, now in self._moments(optimizer).items():
            # Those that the first step has made start at 0.
            was = moments.get(name, torch.zeros_like(now))
            now.copy_(torch.where(self.frozen, was, now))

    def _is_of_numbers(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.shape == self.parameter.shape


def _by_row(parameter: nn.Parameter, factors: Sequence[float]) -> Tensor:
    """Return one factor, [], or one for each row of a parameter, [R, 1, ...]."""
    shape = [len(factors), *[1] * (parameter.dim() - 1)] if len(factors) > 1 else []
    return torch.tensor(factors).view(shape)


def _frozen(held: Sequence[_Held]) -> dict[nn.Parameter, Tensor]:
    """Return where parameters are frozen."""
    frozen: dict[nn.Parameter, Tensor] = {}
    for one in held:
        frozen[one.parameter] = one.frozen | frozen.get(one.parameter, one.frozen)
    return frozen


def _require_factor(part: str, factor: float) -> None:
    require(factor >= 0.0, f"PartLearningRates.parts.{part}", "be at least 0", factor)
