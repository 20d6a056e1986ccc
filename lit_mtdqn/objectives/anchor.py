"""Staying near what was learned before."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_mtdqn.functional.anchoring import Penalty, penalty_around
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.networks.flat import flat_from_saved, flat_parameters, saved_from_flat
from lit_mtdqn.networks.parts import modules_of, names_of_parts
from lit_mtdqn.networks.transfer import Move, describe, names_of_heads, names_of_tasks, plan_moves
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

Importance = Literal["fisher", "equal"]
SOURCES = "Anchor.sources"


class Anchor(Objective):
    """Holds a network near those of earlier runs, each parameter by how much it mattered there.

    Adds `strength / 2 * sum over sources and parameters of importance (theta - theta_source)^2`.
    With `importance: equal` that is L2-SP: all parameters alike. With `fisher` it is elastic weight
    consolidation: what an earlier task depends on stays, what it does not may change. It needs
    `fisher.pt` beside each source's checkpoint, which the callback `FisherInformation` has written
    there. Under its `decay` that is online EWC, whose last run stands for all before it.

    Parameters find one another by name, those of single tasks by the task's name, as in
    `WeightTransfer`, which usually starts such a run. What one of the two does not have, and what
    has another shape, is free; so is what is of single tasks that learn here and did not in the
    source: it lies there as it was drawn. All others are held in the networks' own unit, so heads
    are free where the source has another kind of head or scale or one of the two is a student of
    policies, and those of learning tasks under a scale that rewrites them, as `PopArt` does. What
    is held and what is not is printed when a fit starts. Running statistics of a torso are not
    held. The first layer of a run whose observations are larger has another shape, and is free:
    name all tasks of a sequence from its first run on, those still to come with `acts: false` and
    `learns: false`.

    Sources are read when a fit starts, a resumed one included, and are no part of checkpoints. The
    term is added after balancing. In YAML:

        model:
          class_path: lit_mtdqn.MultiTaskDQN
          init_args:
            objectives:
            - class_path: lit_mtdqn.objectives.Anchor
              init_args: {sources: [runs/first, runs/second], importance: fisher, strength: 10}

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        sources: Checkpoints or folders of runs, whose last networks are taken. The network is held
            near all of them at once, at the cost of one.
        importance: `fisher`, or `equal`, which is 1.
        strength: Factor on the penalty, over updates, at least 0. Larger forgets less and learns
            less that is new. Fisher information has mean 1 over what tasks share, for each task of
            a source, unless its callback did not normalise it: strengths of both kinds compare.
        floor: Least importance of what is held, at least 0. Units that never fire in an earlier
            task have no Fisher information at all: free to move, they fire there later. 0 is EWC as
            published. Larger is nearer to L2-SP.
        parts: What is held: `all`, `trunk` (all but the heads), `heads`, or beginnings of names.

    Raises:
        ValueError: If a value is out of range, or when a fit starts if a source is missing, of
            another package or without Fisher information, if a part is unknown, or if nothing would
            be held.

    References:
        Li et al. 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks",
        section 3, https://arxiv.org/abs/1802.01483 (L2-SP); Kirkpatrick et al. 2017, "Overcoming
        catastrophic forgetting in neural networks", equation 3, https://arxiv.org/abs/1612.00796
        (EWC); Schwarz et al. 2018, "Progress & Compress", https://arxiv.org/abs/1805.06370 (online
        EWC); Wolczyk et al. 2021, "Continual World", https://arxiv.org/abs/2105.10919 (a least
        importance).
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        sources: Sequence[str],
        importance: Importance = "fisher",
        strength: float | Schedule = 1.0,
        floor: float = 0.01,
        parts: Sequence[str] = ("all",),
    ) -> None:
        super().__init__()
        known = get_args(Importance)
        require(importance in known, "Anchor.importance", f"be one of {known}", importance)
        is_strength = bounds_of(strength)[0] >= 0.0
        require(is_strength, "Anchor.strength", "be at least 0 throughout", strength)
        require(floor >= 0.0, "Anchor.floor", "be at least 0", floor)
        is_list = len(sources) >= 1 and not isinstance(sources, str)
        require(is_list, SOURCES, "be a list of at least one checkpoint or run", sources)
        is_list = len(parts) >= 1 and not isinstance(parts, str)
        require(is_list, "Anchor.parts", "be a list of at least one part", parts)
        self.importance, self.strength, self.floor = importance, strength, floor
        self._infos = as_task_infos(tasks)
        self._given = list(sources), list(parts)
        # In a list, lest its parameters be taken for this module's.
        self._network = [network]
        self._learner: list[Any] = []
        self._penalty: Penalty | None = None
        self._importance: Tensor | None = None

    @property
    def held(self) -> Tensor:
        """Importance of parameters in the order of `flat_parameters`, without the floor, [P]."""
        assert self._importance is not None, "`bind` comes first"
        return self._importance

    def bind(self, learner: Any) -> None:
        """Read the sources."""
        self._learner = [learner]
        sources, parts = self._given
        (network,) = self._network
        parameters = saved_from_flat(network, flat_parameters(network))
        wanted = names_of_parts(network, parts, None, "Anchor")
        names = [name for name in wanted if name in parameters]
        informed = self.importance == "fisher"
        saved = [learner.read_network(source, SOURCES, informed=informed) for source in sources]
        pulls = [self._pull(one, names, parameters) for one in saved]
        centres, importances, pulling = (torch.stack(rows) for rows in zip(*pulls, strict=True))
        self._importance = importances.sum(0)
        self._penalty = penalty_around(centres, pulling)

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return the penalty, []."""
        assert self._penalty is not None, "`bind` comes first"
        strength = value_at(self.strength, self._learner[0].source.clock.updates)
        return {"anchor": strength * self._penalty(flat_parameters(self._network[0]))}

    def _pull(
        self, saved: Any, names: Sequence[str], parameters: Container[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what of a source the network is held to, its importance, and that with the floor.

        Args:
            saved: The source.
            names: Parameters that are to be held.
            parameters: All that the network has, by their saved names.

        Returns:
            Three of [P].
        """
        (network,) = self._network
        asked = f"{SOURCES}: {saved.path}"
        moves = plan_moves(network, saved.weights, names, {}, {}, exact=False, name=asked)
        reasons = self._reasons(saved)
        own = [move for move in moves if move.outcome != "ignored" and move.name in parameters]
        fates = [_fate(move, reasons) for move in own]
        rank_zero_info(f"Anchored to {saved.path}:\n{describe(fates)}")
        held = [move.name for move in fates if move.outcome == "anchored"]
        must = "have some parameters of the model, by name, shape and unit"
        require(bool(held), asked, must, modules_of(saved.weights))
        weights = {name: saved.weights[name] for name in held}
        alike = {name: torch.ones_like(tensor) for name, tensor in weights.items()}
        found = {name: saved.importance.get(name, alike[name]) for name in held}
        pulling = {name: tensor.clamp_min(self.floor) for name, tensor in found.items()}
        flat = (flat_from_saved(network, named) for named in (weights, found, pulling))
        centre, importance, raised = flat
        return centre, importance, raised

    def _reasons(self, saved: Any) -> dict[str, str]:
        """Return why what belongs to heads is free, by name."""
        (network,), scale = self._network, self._learner[0].scale
        every, head = set(network.head_names), type(network.head).__name__
        own = "" if scale is None else type(scale).__name__
        of_head = [name for name in network.state_dict() if name.startswith("head.")]
        there = as_task_infos(saved.hyperparameters["tasks"])
        learning = {info.head for info in self._infos if info.learns}
        new_heads = learning - {info.head for info in there if info.learns}
        tasks = {info.name for info in self._infos if info.learns}
        new_tasks = tasks - {info.name for info in there if info.learns}
        new = names_of_heads(network, new_heads) | names_of_tasks(network, new_tasks)
        reasons = dict.fromkeys(new, "its task has not learned in the source")
        if scale is not None and scale.follows_targets:
            reasons |= dict.fromkeys(names_of_heads(network, learning), f"{own} rewrites it")
        if saved.scale != own:
            told = (
                f"its unit is another: {own or 'no scale'}, in the source {saved.scale or 'none'}"
            )
            reasons |= dict.fromkeys(names_of_heads(network, every), told)
        if saved.head != head:
            reasons |= dict.fromkeys(of_head, f"{head}, in the source {saved.head}")
        theirs = says_values(saved.hyperparameters)
        if theirs != self._learner[0].predicts_values:
            says = {True: "values", False: "logits of a policy"}
            reasons |= dict.fromkeys(of_head, f"{says[not theirs]}, in the source {says[theirs]}")
        return reasons


def _fate(move: Move, reasons: Mapping[str, str]) -> Move:
    """Return whether what could be moved is held."""
    if move.outcome != "moved":
        return move._replace(outcome="free")
    reason = reasons.get(move.name, "")
    return move._replace(outcome="free" if reason else "anchored", reason=reason)
