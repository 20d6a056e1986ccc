"""Transitions of another task, weighted by how likely they are in this one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.base import Objective
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import TaskInfos, Transition, as_task_infos, require

Reduce = Callable[[Tensor], Tensor]
# In standard deviations: a rare reward is far from all others.
FARTHEST = 10.0
TINY = 1e-6
# Least share of an update in the moments of columns.
SHARE = 0.01


class ImportanceWeights(Objective):
    """Weighs the transitions of a source task by how likely its target task would make them.

    The loss of a row (s, a, r, d, s') of the source is multiplied by
    `w = min((p_target(r, d, s' | s, a) / p_source(r, d, s' | s, a))^power, largest)`: what follows
    an action in both tasks alike counts in full, what never follows it in the target task counts
    for nothing. How often either task comes to (s, a) does not matter. The ratio is that of the
    odds of two classifiers, one of (s, a, r, d, s') and one of (s, a), which learn along with the
    network to tell the rows of both tasks apart, from updates that hold rows of both. They begin
    undecided: all weights are 1.

    Where a deterministic task differs a little everywhere, exact weights are 0 everywhere; a
    `power` below 1 then keeps what is nearly right. Where the target task never comes the ratio is
    a guess. Prioritised replay works against it: wrong transitions keep large errors, are drawn
    most and count least. With n-step returns it tells apart what both policies did in between, too.
    Observations are seen flat, which is costly for large images.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        sources: The target task by source task; both learn and have one `head`.
        power: Flattens the weights, in [0, 1]. 1 removes the bias of wrong transitions, 0 makes all
            weights 1.
        largest: Bound of the weights, at least 1. Larger is less biased and follows single rows
            more.
        hidden: Width of the classifiers' hidden layers. Larger tells apart more.

    Raises:
        ValueError: If a value is out of range.

    References:
        Tirinzoni et al. 2018, "Importance Weighted Transfer of Samples in Reinforcement Learning",
        section 4, https://arxiv.org/abs/1805.10886 (the weights, there by Gaussian processes);
        Eysenbach et al. 2021, "Off-Dynamics Reinforcement Learning: Training for Transfer with
        Domain Classifiers", section 4.2, https://arxiv.org/abs/2006.13916 (the classifiers); Niu et
        al. 2022, "When to Trust Your Simulator: Dynamics-Aware Hybrid Offline-and-Online
        Reinforcement Learning", https://arxiv.org/abs/2206.13464 (their ratio as a weight of
        temporal differences); Shimodaira 2000, "Improving predictive inference under covariate
        shift by weighting the log-likelihood function" (the power).
    """

    needs_transitions = True

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        sources: Mapping[str, str],
        power: float = 1.0,
        largest: float = 10.0,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        infos = as_task_infos(tasks)
        heads = {info.name: info.head for info in infos if info.learns}
        name, must = "ImportanceWeights.sources", f"map tasks that learn, among {list(heads)}"
        is_known = {*sources, *sources.values()} <= set(heads)
        require(bool(sources) and is_known, name, must, dict(sources))
        apart = [old for old, new in sources.items() if old == new or heads[old] != heads[new]]
        require(not apart, name, "map tasks to others of the same `head`", dict(sources))
        require(0.0 <= power <= 1.0, "ImportanceWeights.power", "lie in [0, 1]", power)
        require(largest >= 1.0, "ImportanceWeights.largest", "be at least 1", largest)
        require(hidden >= 1, "ImportanceWeights.hidden", "be at least 1", hidden)
        self.power, self.largest = power, largest
        self.sources = dict(sources)
        self._names = [info.name for info in infos]
        self._num_actions = max(info.num_actions for info in infos)
        observation = math.prod(infos[0].observation_shape)
        sizes = observation + self._num_actions, observation + 2
        self.classifiers = nn.ModuleDict({old: _Classifiers(*sizes, hidden) for old in sources})
        self._mean_over_ranks: Reduce = _alone

    def bind(self, learner: Any) -> None:
        """Take how ranks tell one another of their rows."""
        self._mean_over_ranks = learner.mean_over_ranks

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return what weights add to the rows' losses, [S, B], and the classifiers' loss, []."""
        names = [self._names[number] for number in batch.task.tolist()]
        weighted = td.loss * batch.weight
        correction, loss = torch.zeros_like(weighted), weighted.new_zeros(())
        for old, new in self.sources.items():
            is_old, is_new = (
                torch.tensor([name == one for name in names], device=weighted.device)
                for one in (old, new)
            )
            rows = torch.cat([self._rows(batch, is_old), self._rows(batch, is_new)])
            classifiers = self.classifiers[old]
            assert isinstance(classifiers, _Classifiers)
            if torch.is_grad_enabled():
                # Ranks that draw unlike tasks wait for one another all the same.
                has_both = old in names and new in names
                classifiers.columns.learn(rows if has_both else rows[:0], self._mean_over_ranks)
            log_odds = classifiers(rows).float()
            of_old, of_new = log_odds.split([names.count(old), names.count(new)], 1)
            correction[is_old] = (self._weights(*of_old.detach()) - 1.0) * weighted[is_old]
            loss = loss + _cross_entropy(of_old, of_new, batch.weight[is_old], batch.weight[is_new])
        return {"importance_correction": correction, "domain_classifiers": loss}

    def _rows(self, batch: Transition, groups: Tensor) -> Tensor:
        """Return what classifiers see of some groups, [.., B, F], what is given before the rest."""
        observation, following = (
            column[groups].flatten(2).float()
            for column in (batch.observation, batch.next_observation)
        )
        action = F.one_hot(batch.action[groups], self._num_actions)
        numbers = torch.stack([batch.reward[groups], batch.discount[groups]], -1)
        return torch.cat([observation, action, numbers, following - observation], -1)

    def _weights(self, joint: Tensor, given: Tensor) -> Tensor:
        """Return the weights of rows with some log-odds."""
        return (self.power * (joint - given)).exp().clamp(max=self.largest)


class _Classifiers(nn.Module):
    """Two classifiers, one of all numbers of a row and one of the first.

    Args:
        given: How many are the first.
        rest: How many follow.
        hidden: Width of the hidden layers.
    """

    def __init__(self, given: int, rest: int, hidden: int) -> None:
        super().__init__()
        self.size = given
        self.columns = _Columns(given + rest)
        self.joint, self.given = _undecided(given + rest, hidden), _undecided(given, hidden)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the log-odds of the target task, [2, ...], for rows [..., given + rest]."""
        rows = self.columns(rows)
        found = [self.joint(rows), self.given(rows[..., : self.size])]
        return torch.stack(found).squeeze(-1)


def _undecided(size: int, hidden: int) -> nn.Sequential:
    """Return a classifier that says 0 of everything, until it learns."""
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), last)


class _Columns(nn.Module):
    """Brings columns to mean 0 and deviation 1, and constant ones to 0, by moving moments.

    Those of the rows at hand would depend on which tasks an update holds.

    Args:
        size: Number of columns, F.
    """

    mean: Tensor
    variance: Tensor
    updates: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.zeros(size))
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows [..., F] in standard deviations from the mean."""
        deviation = self.variance.sqrt() + TINY
        return ((rows - self.mean) / deviation).clamp(-FARTHEST, FARTHEST)

    @torch.no_grad()
    def learn(self, rows: Tensor, mean_over_ranks: Reduce) -> None:
        """Mix in the moments of rows [G, B, F] of all ranks; at first all updates count alike.

        Args:
            rows: Of this rank; it may have none, G = 0.
            mean_over_ranks: Averages a tensor over ranks.
        """
        has_rows = self.updates.new_full((1,), float(len(rows) > 0))
        flat = rows.flatten(0, 1) if len(rows) else self.mean.unsqueeze(0)
        variance, own_mean = torch.var_mean(flat, 0, correction=0)
        sums = mean_over_ranks(torch.cat([has_rows, has_rows * own_mean]))
        # The share of ranks that have rows, and the mean over these ranks.
        part = sums[:1].clamp(min=TINY)
        mean = sums[1:] / part
        spread = variance + (own_mean - mean).square()
        variance = mean_over_ranks(has_rows * spread) / part
        seen = part[0] > TINY
        self.updates += seen
        share = seen * (1.0 / self.updates).clamp(min=SHARE, max=1.0)
        between = share * (1.0 - share) * (mean - self.mean).square()
        self.variance.copy_(torch.lerp(self.variance, variance, share) + between)
        self.mean.copy_(torch.lerp(self.mean, mean, share))


def _alone(tensor: Tensor) -> Tensor:
    """Return what one process has."""
    return tensor


def _cross_entropy(old: Tensor, new: Tensor, old_weight: Tensor, new_weight: Tensor) -> Tensor:
    """Return the loss of log-odds [2, ., B] with both tasks equally likely; 0 where one is absent.

    With a graph even then, as data-parallel training expects of all parameters.
    """
    if not (old.numel() and new.numel()):
        return 0.0 * (old.sum() + new.sum())
    losses = F.softplus(old) * old_weight, F.softplus(-new) * new_weight
    return sum((loss.mean((1, 2)).sum() for loss in losses), old.new_zeros(()))
