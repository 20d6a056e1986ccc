"""The gradient of an earlier run at its own parameters, added as formulas of transfer have it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.functional.precision import full_precision
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.networks.parts import begins
from lit_mtdqn.networks.transfer import plan_moves, received
from lit_mtdqn.objectives.base import Objective
from lit_mtdqn.objectives.match import says_values
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import (
    Schedule,
    TaskInfos,
    Transition,
    as_task_infos,
    bounds_of,
    require,
    value_at,
)

NAME = "LiteralSourceGradient.source"


class LiteralSourceGradient(Objective):
    """Moves a network along what still changes an earlier run's network, at that one's parameters.

    The literal reading of `theta <- theta - lr (grad J_t(theta) + beta grad J_s(theta_s))`: J_s is
    the temporal-difference loss of the source tasks' rows at the source's parameters theta_s, which
    stay as they are, and J_t the mean over those of the other learning tasks; of J_s counts what
    has a place in this network, by name and shape. Rows of source tasks do nothing else. Where the
    source has converged the gradient is noise around 0, and elsewhere it says little of theta: it
    is here to be compared with `SourceGradients`, which takes all gradients at theta.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        source: Checkpoint or folder of the earlier run, whose last network is taken.
        tasks_of_source: The source's name of a task, by the name of one that learns here from
            stored rows of the source; its loss here is left out.
        beta: Factor on the source's gradient, at least 0, or a schedule of it over updates.

    Raises:
        ValueError: If a value is out of range, or when a fit starts if the source does not fit or
            has other heads, if values have a scale there or here, under which gradients of two
            networks have two units, or if a balancer or `16-mixed` has a word in them.
    """

    needs_transitions = True
    needs_values = True

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        source: str,
        tasks_of_source: Mapping[str, str],
        beta: float | Schedule = 1.0,
    ) -> None:
        super().__init__()
        infos = as_task_infos(tasks)
        learning = [info.name for info in infos if info.learns]
        given = set(tasks_of_source)
        must = f"name some, and not all, of the tasks that learn, {learning}"
        is_some = bool(given) and given < set(learning)
        require(is_some, "LiteralSourceGradient.tasks_of_source", must, dict(tasks_of_source))
        require(bounds_of(beta)[0] >= 0.0, "LiteralSourceGradient.beta", "be at least 0", beta)
        self.beta = beta
        heads = {info.head: tasks_of_source[info.name] for info in infos if info.name in given}
        self._given = source, heads
        self._places = [place for place, info in enumerate(infos) if info.name in given]
        # In lists, lest they be taken for modules of this one.
        self._network = [network]
        self._frozen = [deepcopy(network)]
        self._learner: list[Any] = []
        self._shared: list[str] = []

    def bind(self, learner: Any) -> None:
        """Read the source."""
        scale = learner.scale and type(learner.scale).__name__
        require(learner.scale is None, "model.scale", "be null for LiteralSourceGradient", scale)
        balancer = learner.balancer and type(learner.balancer).__name__
        require(balancer is None, "model.balancer", "be null for LiteralSourceGradient", balancer)
        precision = str(learner.trainer.precision)
        must = "scale no losses under LiteralSourceGradient, as 32-true and bf16-mixed do not"
        require(precision != "16-mixed", "trainer.precision", must, precision)
        source, heads = self._given
        saved = learner.read_network(source, NAME, informed=False)
        _require_raw_values(saved, type(learner.network.head).__name__)
        frozen = self._frozen[0].to(learner.device)
        wanted, own = list(frozen.state_dict()), [name for name, _ in frozen.named_parameters()]
        asked = f"{NAME}: {saved.path}"
        moves = plan_moves(frozen, saved.weights, wanted, heads, {}, exact=False, name=asked)
        frozen.load_state_dict(received(frozen, saved.weights, moves, 1.0))
        came = {move.name for move in moves if move.comes}
        # Rows of tasks are saved one by one, by names below that of their module.
        starts = {name: name if name in wanted else name.rpartition(".")[0] for name in own}
        self._shared = [name for name in own if any(begins(one, starts[name]) for one in came)]
        frozen.eval()
        self._learner = [learner]

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return what leaves the other rows' loss alone, [S, B], and the source's gradient, []."""
        is_source = torch.isin(batch.task, torch.tensor(self._places, device=batch.task.device))
        # The mean over all groups becomes that over the groups that are not the source's.
        others = (~is_source).sum().clamp(min=1)
        factor = torch.where(is_source, 0.0, len(is_source) / others) - 1.0
        own = factor.unsqueeze(-1) * td.loss * batch.weight
        beta = value_at(self.beta, self._learner[0].source.clock.updates)
        parameters = dict(self._network[0].named_parameters())
        gradients = self._gradients(batch, is_source)
        pulls = [(parameters[name] * gradient).sum() for name, gradient in gradients.items()]
        term = torch.stack(pulls).sum() if pulls else td.loss.new_zeros(())
        return {"source_rows": own, "source_gradient": beta * term}

    def _gradients(self, batch: Transition, is_source: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the source's own loss at its own parameters, by name."""
        if not bool(is_source.any()):
            return {}
        (frozen,), (learner,) = self._frozen, self._learner
        parameters = dict(frozen.named_parameters())
        with torch.enable_grad():
            loss = learner.objective(batch, frozen, frozen).loss * batch.weight
            chosen = [parameters[name] for name in self._shared]
            with full_precision(batch.task.device):
                found = torch.autograd.grad(loss[is_source].mean(), chosen, allow_unused=True)
        pairs = zip(self._shared, found, strict=True)
        return {name: gradient.detach() for name, gradient in pairs if gradient is not None}


def _require_raw_values(saved: Any, head: str) -> None:
    """Refuse a source whose losses are of something else than raw values of such heads."""
    said = "values" if says_values(saved.hyperparameters) else "logits of a policy"
    under = f" under {saved.scale}" if saved.scale else ""
    fits = saved.head == head and said == "values" and not under
    given = f"{saved.path}: {said} of {saved.head}{under}"
    require(fits, NAME, f"have learned raw values by {head}", given)
