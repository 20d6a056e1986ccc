"""Values of many policies under many rewards, from what the policies gather."""

from __future__ import annotations

from torch import Tensor


def improved_values(gathered: Tensor, weights: Tensor) -> Tensor:
    """Return the largest value that any of several policies gives each action, [..., A].

    `max over policies i of psi_i(s, a) . w` (generalised policy improvement). Acting greedily by it
    is nowhere worse than the best of the policies, whatever the weights, if `gathered` is exact.

    Args:
        gathered: Successor features psi, what each policy will have gathered of each cumulant after
            an action, discounted, [..., I, A, D].
        weights: What a unit of each cumulant is worth, [..., D].

    References:
        Barreto et al. 2017, "Successor Features for Transfer in Reinforcement Learning", theorem 1,
        https://arxiv.org/abs/1606.05312.
    """
    # No matrix product, which mixed precision would round.
    values: Tensor = (gathered * weights[..., None, None, :]).sum(-1)
    return values.amax(-2)
