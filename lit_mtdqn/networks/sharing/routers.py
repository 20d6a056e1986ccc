"""How much of each expert a task takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.routing import router_entropy, straight_through_one_hot
from lit_mtdqn.networks.noise import DrawsNoise
from lit_mtdqn.networks.rows import TaskEmbedding, TaskVectors, owners, select
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.types import TaskInfo, require

NEAR_UNIFORM = 0.01


class Router(nn.Module):
    """Base of all routers.

    Attributes:
        temperature: Divides what the softmax sees. A buffer, so that a checkpoint acts as it was
            trained.
        is_share: Whether weights are at least 0 and sum to 1.
    """

    temperature: Tensor
    is_share = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, observation: Tensor, task: Tensor, experts: Tensor) -> Tensor:
        """Return the weights [S, B, E, H] of H equal parts of the features.

        Args:
            observation: [S, B, *O].
            task: [S].
            experts: Their outputs, [E, S, B, F].
        """
        raise NotImplementedError

    def entropy(self, weights: Tensor, task: Tensor) -> Tensor:
        """Return how undecided tasks [S] are at weights [S, B, E] that are shares, [S, B].

        In nats: 0 is one expert, log E all alike.
        """
        return router_entropy(weights)


class ObservationGate(nn.Module):
    """Logits from the observation, by one linear layer per task that starts near 0.

    Images are flattened and divided by their largest value.

    Args:
        tasks: The tasks.
        outputs: Number of logits.
    """

    def __init__(self, tasks: Sequence[TaskInfo], outputs: int) -> None:
        super().__init__()
        size = math.prod(tasks[0].observation_shape)
        is_image = tasks[0].observation_kind == "image"
        self.scale = 1.0 / tasks[0].observation_high if is_image else 1.0
        names = owners(tasks)
        self.gate = TaskLinear(names, size, [outputs] * len(names), NEAR_UNIFORM)

    def forward(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return the logits [S, B, outputs]."""
        flat = observation.flatten(2)
        if not flat.is_floating_point():
            flat = flat.to(torch.float32) * self.scale
        logits: Tensor = self.gate(flat, task)
        return logits.float()


class SoftmaxRouter(Router):
    """A gate per task on the observation (Ma et al. 2018, equations 6 and 7)."""

    def __init__(self, tasks: Sequence[TaskInfo], num_experts: int) -> None:
        super().__init__()
        self.logits = ObservationGate(tasks, num_experts)

    def forward(self, observation: Tensor, task: Tensor, experts: Tensor) -> Tensor:
        """Return the weights [S, B, E, 1]."""
        logits: Tensor = self.logits(observation, task)
        return (logits / self.temperature).softmax(-1).unsqueeze(-1)


class GumbelRouter(DrawsNoise, Router):
    """One expert per task: drawn where a gradient is taken, the likeliest one otherwise.

    Logits belong to tasks and do not depend on the observation. Noise is one number per task and
    expert: a task uses one expert for a whole update. Neither acting nor any part of a target, such
    as the online network's choice of an action for it, has noise.

    References:
        Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax", section 2,
        https://arxiv.org/abs/1611.01144.
    """

    noise: Tensor

    def __init__(self, tasks: Sequence[TaskInfo], num_experts: int) -> None:
        super().__init__()
        self.logits = TaskVectors(owners(tasks), num_experts, std=NEAR_UNIFORM)
        self.register_buffer("noise", torch.zeros_like(self.logits.weight), persistent=False)

    def forward(self, observation: Tensor, task: Tensor, experts: Tensor) -> Tensor:
        """Return the weights [S, B, E, 1]."""
        logits: Tensor = self.logits(task)
        if self._is_noisy and torch.is_grad_enabled():
            logits = logits + select(self.noise, self.logits.rows_of(task))
        weights = straight_through_one_hot(logits, self.temperature)
        return weights[:, None, :, None].expand(-1, observation.shape[1], -1, -1)

    def entropy(self, weights: Tensor, task: Tensor) -> Tensor:
        """Return the entropy of the distribution that experts are drawn from, nats [S, 1]."""
        return router_entropy(self.logits(task).softmax(-1)).unsqueeze(-1)

    def _draw(self, generator: torch.Generator | None) -> None:
        # Minus the logarithm of an exponential variable is a standard Gumbel variable.
        self.noise.exponential_(generator=generator).log_().neg_()


class AttentionRouter(Router):
    """Heads of attention, with the task's embedding asking and the experts' outputs answering.

    Each head weighs its own part of the features. Queries start near 0, so weights start near
    uniform.
    """

    def __init__(
        self,
        tasks: Sequence[TaskInfo],
        num_features: int,
        num_heads: int,
        embedding_dim: int,
    ) -> None:
        super().__init__()
        require(num_heads >= 1, "num_heads", "be at least 1", num_heads)
        for name, size in (("features", num_features), ("embedding_dim", embedding_dim)):
            must = f"divide the {size} numbers of {name}"
            require(size % num_heads == 0, "num_heads", must, num_heads)
        self.num_heads = num_heads
        self.embedding = TaskEmbedding(owners(tasks), embedding_dim)
        self.query = nn.Linear(embedding_dim, embedding_dim)
        self.key = nn.Linear(num_features, embedding_dim, bias=False)
        nn.init.zeros_(self.query.bias)
        with torch.no_grad():
            self.query.weight.mul_(NEAR_UNIFORM)

    def forward(self, observation: Tensor, task: Tensor, experts: Tensor) -> Tensor:
        """Return the weights [S, B, E, H]."""
        query = self.query(self.embedding(task)).unflatten(-1, (self.num_heads, -1))
        key = self.key(experts).unflatten(-1, (self.num_heads, -1))
        similarity = (key * query.unsqueeze(1)).sum(-1).float() / math.sqrt(query.shape[-1])
        weights: Tensor = (similarity / self.temperature).softmax(0)
        return weights.permute(1, 2, 0, 3)


class LinearRouter(Router):
    """Learned weights of each task, of any sign and sum (Hendawy et al. 2024)."""

    is_share = False

    def __init__(self, tasks: Sequence[TaskInfo], num_experts: int) -> None:
        super().__init__()
        names = owners(tasks)
        self.weights = TaskVectors(names, num_experts, mean=1.0 / num_experts, std=NEAR_UNIFORM)

    def forward(self, observation: Tensor, task: Tensor, experts: Tensor) -> Tensor:
        """Return the weights [S, B, E, 1]."""
        weights: Tensor = self.weights(task)
        return weights[:, None, :, None].expand(-1, observation.shape[1], -1, -1)
