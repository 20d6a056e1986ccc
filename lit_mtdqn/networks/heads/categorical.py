"""Heads that classify the return: probabilities on a fixed support."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.functional.distributional import (
    LARGEST,
    cross_entropy,
    expected_value,
    project_categorical,
    project_hl_gauss,
)
from lit_mtdqn.functional.td import follow, td_target
from lit_mtdqn.networks.heads.base import LayeredHead
from lit_mtdqn.types import Prediction, TaskInfos, require


def _require_support(v_min: float, v_max: float) -> None:
    must = f"be below v_max, {v_max}, and at least {-LARGEST:g}"
    require(-LARGEST <= v_min < v_max, "v_min", must, v_min)
    require(v_max <= LARGEST, "v_max", f"be at most {LARGEST:g}", v_max)


class _CategoricalHead(LayeredHead):
    """Logits of Z values per action."""

    support: Tensor
    can_rescale = False

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        support: Tensor,
        **layers: Any,
    ) -> None:
        super().__init__(tasks, in_features, len(support), **layers)
        self.register_buffer("support", support, persistent=False)

    def q_values(self, prediction: Prediction) -> Tensor:
        """Return the expected values [S, B, A]."""
        return expected_value(prediction.output.float().softmax(-1), self.support)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy [S, B], which is the error as well, without gradient."""
        loss = cross_entropy(follow(prediction.output, action), target)
        return loss, loss.detach()


class C51Head(_CategoricalHead):
    """The distribution of the return, as probabilities of equally spaced atoms.

    Learned by the cross-entropy to the moved distribution of the next state, projected on the same
    atoms; this loss is also the error by which a replay ranks transitions. Action values are
    expectations. They start at the middle of the support, which lies at 0 by default: a support
    around another value starts with optimistic or pessimistic targets.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        num_atoms: Number of atoms, at least 2. More resolve finer and cost more.
        v_min: Smallest atom, in units of the return, at least -1e6; smaller returns count as it.
        v_max: Largest atom. A support wider than the returns wastes atoms, a narrower one cuts
            values off and is the graver error.
        dueling: Whether logits are those of a state plus centred ones of actions.
        hidden: Width of a layer before the last one, shared by all heads, one per stream if
            dueling; 0 has none.
        init_scale: Factor on the usual initial weights of the last layers.
        noisy_sigma: Initial scale of noise on the weights of all layers, in units of logits, by
            which acting explores (Fortunato et al. 2018); 0.5 is usual. Null has no noise.

    Raises:
        ValueError: If the support is empty or has a single atom.

    References:
        Bellemare et al. 2017, "A Distributional Perspective on Reinforcement Learning",
        https://arxiv.org/abs/1707.06887.
    """

    meant_by = ("num_atoms", "v_min", "v_max")

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        num_atoms: int = 51,
        v_min: float = -10.0,
        v_max: float = 10.0,
        dueling: bool = False,
        hidden: int = 0,
        init_scale: float = 0.01,
        noisy_sigma: float | None = None,
    ) -> None:
        require(num_atoms >= 2, "num_atoms", "be at least 2", num_atoms)
        _require_support(v_min, v_max)
        super().__init__(
            tasks,
            in_features,
            torch.linspace(v_min, v_max, num_atoms),
            dueling=dueling,
            hidden=hidden,
            init_scale=init_scale,
            noisy_sigma=noisy_sigma,
        )

    def target(
        self, reward: Tensor, discount: Tensor, next_prediction: Prediction, next_action: Tensor
    ) -> Tensor:
        """Return probabilities [S, B, Z]; a policy mixes the distributions of its actions."""
        logits = next_prediction.output.float()
        if next_action.is_floating_point():
            probabilities = follow(logits.softmax(-1), next_action)
        else:
            probabilities = follow(logits, next_action).softmax(-1)
        return project_categorical(probabilities, reward, discount, self.support)


class HLGaussHead(_CategoricalHead):
    """The expected return, learned by classification into bins.

    A target becomes a normal distribution around it, cut into bins; the loss is the cross-entropy
    to it, which is also the error by which a replay ranks transitions. Its least value is the
    entropy of such a distribution, not 0. Action values are means of the bins' middles, and start
    at the middle of the support. Targets within three `sigma` of an end of the support come out
    further inside, so that it should be a little wider than the returns: by default it has this
    margin around [-10, 10], to which `ReturnNormaliser` brings them.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        num_bins: Number of bins, at least 2. More resolve finer and cost more.
        v_min: Lower edge of the first bin, in units of the return, at least -1e6; smaller targets
            count as this.
        v_max: Upper edge of the last bin, at most 1e6.
        sigma_ratio: Standard deviation of a target in widths of a bin, above 0. Larger smooths
            more; 0.75 spreads a target over about six bins.
        dueling: Whether logits are those of a state plus centred ones of actions.
        hidden: Width of a layer before the last one, shared by all heads, one per stream if
            dueling; 0 has none.
        init_scale: Factor on the usual initial weights of the last layers.
        noisy_sigma: Initial scale of noise on the weights of all layers, in units of logits, by
            which acting explores (Fortunato et al. 2018); 0.5 is usual. Null has no noise.

    Raises:
        ValueError: If the support is empty or has a single bin, or `sigma_ratio` is not positive.

    References:
        Farebrother et al. 2024, "Stop Regressing: Training Value Functions via Classification for
        Scalable Deep RL", https://arxiv.org/abs/2403.03950.
    """

    meant_by = ("num_bins", "v_min", "v_max")
    edges: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        num_bins: int = 51,
        v_min: float = -11.0,
        v_max: float = 11.0,
        sigma_ratio: float = 0.75,
        dueling: bool = False,
        hidden: int = 0,
        init_scale: float = 0.01,
        noisy_sigma: float | None = None,
    ) -> None:
        require(num_bins >= 2, "num_bins", "be at least 2", num_bins)
        _require_support(v_min, v_max)
        require(sigma_ratio > 0.0, "sigma_ratio", "be above 0", sigma_ratio)
        edges = torch.linspace(v_min, v_max, num_bins + 1)
        super().__init__(
            tasks,
            in_features,
            (edges[1:] + edges[:-1]) / 2.0,
            dueling=dueling,
            hidden=hidden,
            init_scale=init_scale,
            noisy_sigma=noisy_sigma,
        )
        self.register_buffer("edges", edges, persistent=False)
        self.sigma = sigma_ratio * (v_max - v_min) / num_bins

    def target(
        self, reward: Tensor, discount: Tensor, next_prediction: Prediction, next_action: Tensor
    ) -> Tensor:
        """Return probabilities [S, B, Z]."""
        output = next_prediction.output
        if next_action.is_floating_point():
            next_value = follow(self.q_values(next_prediction), next_action)
        else:
            probabilities = follow(output, next_action).float().softmax(-1)
            next_value = expected_value(probabilities, self.support)
        return project_hl_gauss(td_target(reward, discount, next_value), self.edges, self.sigma)
