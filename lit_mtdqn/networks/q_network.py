"""The whole network: what tasks share, then their heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lit_mtdqn.functional.masking import padded_action_mask
from lit_mtdqn.networks.heads import Head, LinearHead
from lit_mtdqn.networks.noise import DrawsNoise
from lit_mtdqn.networks.prior import Prior
from lit_mtdqn.networks.rows import TaskRows, shared_parameters
from lit_mtdqn.networks.sharing import Sharing, TorsoFactory
from lit_mtdqn.networks.sharing.base import sizes_of_layers
from lit_mtdqn.networks.torsos import MLPTorso
from lit_mtdqn.types import Prediction, TaskInfos, as_task_infos, require


class QNetwork(nn.Module):
    """Action values of every task: a torso makes features of observations, a head values of them.

    By default all tasks share one torso and each has a head of its own. With one task this is an
    ordinary Q-network. A task that does not learn uses all that belongs to the learning task whose
    head it has, if there is one.

    Args:
        tasks: The tasks; given by the learner.
        torso: What turns observations into features.
        head: What turns features into action values.
        sharing: What tasks share below their heads: `SharedTrunk`, `Experts` or `Columns`. None
            shares one torso and nothing else changes.
        prior: A policy that all tasks share and are drawn to; None has none.

    Attributes:
        num_features: Size of the features.
        layer_sizes: Units or channels of each layer; none where the torso does not name its layers.

    References:
        Caruana 1997, "Multitask Learning" (hard parameter sharing).
    """

    action_mask: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        torso: TorsoFactory = MLPTorso,
        head: Callable[[TaskInfos, int], Head] = LinearHead,
        sharing: Callable[[TaskInfos, TorsoFactory], Sharing] | None = None,
        prior: Callable[[TaskInfos, TorsoFactory], Prior] | None = None,
    ) -> None:
        super().__init__()
        infos = as_task_infos(tasks)
        self._infos, self._head_factory = infos, head
        self.sharing: Sharing | None = None
        if sharing is None:
            self.torso = torso(infos)
            self.num_features = self.torso.num_features
            self.layer_sizes = sizes_of_layers(self.torso)
        else:
            self.sharing = sharing(infos, torso)
            self.num_features = self.sharing.num_features
            self.layer_sizes = self.sharing.layer_sizes
            if self.sharing.one_head:
                self._infos = [replace(info, head="shared") for info in infos]
        self.head = self.make_head(self.num_features)
        must = f"be null under {type(self.head).__name__}, whose policies see the same features"
        fits = sharing is None or not self.head.spans_tasks
        require(fits, "network.sharing", must, type(self.sharing).__name__)
        self.prior = None if prior is None else prior(infos, torso)
        mask = padded_action_mask([info.num_actions for info in infos])
        self.register_buffer("action_mask", mask, persistent=False)
        self._is_padded = not bool(mask.all())
        learning = [place for place, info in enumerate(infos) if info.learns]
        for module in self.modules():
            if isinstance(module, TaskRows):
                module.share_among(learning)
        self._noisy = [module for module in self.modules() if isinstance(module, DrawsNoise)]
        self._exploring = [module for module in self._noisy if module.explores]

    def make_head(self, in_features: int) -> Head:
        """Return a new head of this network's kind for features of some size."""
        return self._head_factory(self._infos, in_features)

    @property
    def head_names(self) -> list[str]:
        """Name of each task's head."""
        return [info.head for info in self._infos]

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
        router = None
        if self.sharing is None:
            layers = self.torso(observation)
        else:
            layers, router = self.sharing(observation, task)
        output = self.head(layers[-1], task)
        taus = self.head.fractions(observation.shape[1])
        prior = None if self.prior is None else self.prior(observation, task)
        return Prediction(layers[-1], layers, output, router, taus, prior)

    def shaped_layers(self, prediction: Prediction) -> tuple[Tensor, ...]:
        """Return a prediction's layers: convolutions' [S, B, C, P] with P places, others flat."""
        sizes = self.layer_sizes or [layer.shape[-1] for layer in prediction.layers]
        return tuple(
            layer if layer.shape[-1] == size else layer.view(*layer.shape[:2], size, -1)
            for layer, size in zip(prediction.layers, sizes, strict=True)
        )

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that several tasks use."""
        return shared_parameters(self)

    def auxiliary(
        self, prediction: Prediction, task: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return what the sharing adds to the loss, [], and what the prior does, [S, B], by name.

        Args:
            prediction: Of the network, with gradient.
            task: [S].
            mask: What the states themselves allow, [S, B, A]; None allows all that the tasks have.
        """
        terms = {} if self.sharing is None else self.sharing.auxiliary(prediction, task)
        if self.prior is None:
            return terms
        distance = self.prior.distance(self.q_values(prediction), prediction, mask)
        return {**terms, "prior": distance}

    def metrics(self, prediction: Prediction, task: Tensor) -> dict[str, Tensor]:
        """Return numbers about the sharing that are worth logging, [] by name."""
        return {} if self.sharing is None else self.sharing.metrics(prediction, task)

    def allowed_actions(self, task: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """Return which actions are allowed, [S, 1, A] or [S, B, A], or None if all are.

        Args:
            task: [S].
            mask: What the states themselves allow, [S, B, A]; None allows all that the tasks have.
        """
        if mask is not None:
            return mask
        return self.action_mask[task].unsqueeze(1) if self._is_padded else None

    def q_values(self, prediction: Prediction) -> Tensor:
        """Return the action values [S, B, A] of a prediction, padded actions included."""
        return self.head.q_values(prediction)

    def preferences(self, prediction: Prediction) -> Tensor:
        """Return that by which tasks act, float32 [S, B, A], padded actions included.

        These are the action values of a prediction; with a prior, what tasks prefer under it.
        """
        q_values = self.q_values(prediction).float()
        if self.prior is None or prediction.prior is None:
            return q_values
        return self.prior.preferences(q_values, prediction.prior)

    @torch.no_grad()
    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return unmasked `preferences` [S, N, A] for acting, without gradient."""
        prediction: Prediction = self(observation, task)
        return self.preferences(prediction)

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


def predict_by_group(
    network: QNetwork, copies: Mapping[str, Tensor], observation: Tensor, task: Tensor
) -> Prediction:
    """Return a network's prediction in which each row group uses parameters of its own.

    Args:
        network: Supplies all parameters that `copies` does not name.
        copies: Parameters by name, [S, ...].
        observation: [S, B, *O].
        task: [S].
    """
    present: list[bool] = []

    def one(own: dict[str, Tensor], rows: Tensor, number: Tensor) -> tuple[Any, ...]:
        call = functional_call(network, own, (rows.unsqueeze(0), number.unsqueeze(0)))
        present[:] = [field is not None for field in call]
        return tuple(field for field in call if field is not None)

    found = iter(vmap(one, randomness="different")(dict(copies), observation, task))
    by_field = [next(found) if here else None for here in present]
    prediction = Prediction._make(by_field)
    # All fields but the fractions, which groups share, had an axis for their single group.
    return prediction._replace(
        taus=None if prediction.taus is None else prediction.taus[0],
        features=prediction.features.squeeze(1),
        layers=tuple(layer.squeeze(1) for layer in prediction.layers),
        output=prediction.output.squeeze(1),
        router=None if prediction.router is None else prediction.router.squeeze(1),
        prior=None if prediction.prior is None else prediction.prior.squeeze(1),
    )
