"""A policy as one function of tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.masking import mask_actions
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.scaling import Scale


class GreedyPolicy(nn.Module):
    """Takes the best allowed action of every observation, as evaluation does.

    It is deterministic: noisy layers have their mean weights, implicit quantiles their fixed
    fractions, Gumbel routers their likeliest expert. Frozen in evaluation mode, as it is needed for
    `torch.export`.

    Args:
        network: The network; it is set to evaluation mode.
        scale: What gives its values the unit of rewards; None has none.
    """

    def __init__(self, network: QNetwork, scale: Scale | None = None) -> None:
        super().__init__()
        self.network = network
        # In a list: its saved state is that of a learner.
        self._scale = [scale]
        self.eval()

    def forward(self, observation: Tensor, task: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions [S, N] and the values [S, N, A] by which they were taken.

        Args:
            observation: [S, N, *O].
            task: Number of each group's task, [S].
            allowed: True where the state allows an action, [S, N, A]; actions that a task does not
                have are forbidden anyway.

        Returns:
            Integers, the first of equally good actions; float32, minus infinity where an action is
            forbidden. With students of policies these are logits.
        """
        values = self.network.preferences(self.network(observation, task))
        (scale,) = self._scale
        if scale is not None:
            values = scale.restored(values, task)
        own = self.network.action_mask[task].unsqueeze(1)
        values = mask_actions(values, torch.logical_and(allowed, own))
        return values.argmax(-1), values
