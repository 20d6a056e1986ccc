"""The whole network: torso, then head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.masking import padded_action_mask
from lit_mtdqn.networks.heads import Head, LinearHead
from lit_mtdqn.networks.noise import DrawsNoise
from lit_mtdqn.networks.torsos import MLPTorso, Torso
from lit_mtdqn.types import Prediction, TaskInfos, as_task_infos


class QNetwork(nn.Module):
    """Action values of every task by one torso that all tasks share and one head per task.

    With one task this is an ordinary Q-network.

    Args:
        tasks: The tasks; given by the learner.
        torso: What turns observations into features.
        head: What turns features into action values.

    References:
        Caruana 1997, "Multitask Learning" (hard parameter sharing).
    """

    action_mask: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        torso: Callable[[TaskInfos], Torso] = MLPTorso,
        head: Callable[[TaskInfos, int], Head] = LinearHead,
    ) -> None:
        super().__init__()
        infos = as_task_infos(tasks)
        self.torso = torso(infos)
        self.head = head(infos, self.torso.num_features)
        mask = padded_action_mask([info.num_actions for info in infos])
        self.register_buffer("action_mask", mask, persistent=False)
        self._is_padded = not bool(mask.all())
        self._noisy = [module for module in self.modules() if isinstance(module, DrawsNoise)]
        self._exploring = [module for module in self._noisy if module.explores]

    @property
    def has_noise(self) -> bool:
        """Whether some module draws noise."""
        return bool(self._noisy)

    @property
    def explores(self) -> bool:
        """Whether some module's noise is for exploring, as that of noisy layers is."""
        return bool(self._exploring)

    def forward(self, observation: Tensor, task: Tensor) -> Prediction:
        """Return the prediction for observations [S, B, *O] of the tasks of S groups, [S]."""
        layers = self.torso(observation)
        output = self.head(layers[-1], task)
        taus = self.head.fractions(observation.shape[1])
        return Prediction(layers[-1], layers, output, taus=taus)

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

    @torch.no_grad()
    def exploring_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return action values for acting under noise of this call alone; without any if none is.

        All rows act on one draw, as they do when they learn.
        """
        for module in self._exploring:
            module.resample_noise()
        values = self.action_values(observation, task)
        for module in self._exploring:
            module.drop_noise()
        return values

    def resample_noise(self, generator: torch.Generator | None = None) -> None:
        """Draw the noise of the following forward passes, until evaluation mode is set.

        Args:
            generator: Source of the draws, on the network's device; None takes PyTorch's.
        """
        for module in self._noisy:
            module.resample_noise(generator)
