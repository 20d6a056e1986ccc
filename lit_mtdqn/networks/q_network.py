"""The whole network: what tasks share, then their heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.masking import padded_action_mask
from lit_mtdqn.networks.heads import Head, LinearHead
from lit_mtdqn.networks.rows import shared_parameters
from lit_mtdqn.networks.sharing import SharedTrunk, Sharing, TorsoFactory
from lit_mtdqn.networks.torsos import MLPTorso
from lit_mtdqn.types import Prediction, TaskInfos, as_task_infos


class QNetwork(nn.Module):
    """Action values of every task: a sharing makes features of observations, a head values of them.

    By default all tasks share one torso and each has a head of its own. With one task this is an
    ordinary Q-network.

    Args:
        tasks: The tasks; given by the learner.
        torso: What turns observations into features.
        head: What turns features into action values.
        sharing: What tasks share below their heads: `SharedTrunk`, `Experts` or `Columns`.

    References:
        Caruana 1997, "Multitask Learning" (hard parameter sharing).
    """

    action_mask: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        torso: TorsoFactory = MLPTorso,
        head: Callable[[TaskInfos, int], Head] = LinearHead,
        sharing: Callable[[TaskInfos, TorsoFactory], Sharing] = SharedTrunk,
    ) -> None:
        super().__init__()
        infos = as_task_infos(tasks)
        self.sharing = sharing(infos, torso)
        heads = [replace(i, head="shared") for i in infos] if self.sharing.one_head else infos
        self.head = head(heads, self.sharing.num_features)
        mask = padded_action_mask([info.num_actions for info in infos])
        self.register_buffer("action_mask", mask, persistent=False)
        self._is_padded = not bool(mask.all())

    def forward(self, observation: Tensor, task: Tensor) -> Prediction:
        """Return the prediction for observations [S, B, *O] of the tasks of S groups, [S]."""
        features, layers, router = self.sharing(observation, task)
        return Prediction(features, layers, self.head(features, task), router)

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that several tasks use: what gradients are aggregated for.

        A stack counts as soon as several tasks use one of its rows.
        """
        return [*self.sharing.shared_parameters(), *shared_parameters(self.head)]

    def allowed_actions(self, task: Tensor) -> Tensor | None:
        """Return which actions the tasks [S] have, [S, 1, A], or None if all have all of them."""
        return self.action_mask[task].unsqueeze(1) if self._is_padded else None

    def q_values(self, prediction: Prediction) -> Tensor:
        """Return the action values [S, B, A] of a prediction, padded actions included."""
        return self.head.q_values(prediction)

    @torch.no_grad()
    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return unmasked float32 action values [S, N, A] for acting, without gradient."""
        return self.q_values(self(observation, task)).float()
