"""Several torsos that tasks mix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from lit_mtdqn.functional.routing import (
    expert_usage,
    gram_schmidt,
    load_balance_loss,
)
from lit_mtdqn.networks.copies import Between, Copies
from lit_mtdqn.networks.sharing.base import (
    Shared,
    Sharing,
    TorsoFactory,
    require_layers,
    sizes_of_layers,
)
from lit_mtdqn.networks.sharing.routers import (
    AttentionRouter,
    GumbelRouter,
    LinearRouter,
    ObservationGate,
    Router,
    SoftmaxRouter,
)
from lit_mtdqn.types import (
    Clock,
    Prediction,
    Schedule,
    TaskInfo,
    TaskInfos,
    as_task_infos,
    require,
    value_at,
)

ROUTERS = ("softmax", "gumbel", "attention", "linear")
MOST_EXPERTS = 1024  # each is a trunk, built one after the other


class Experts(Sharing):
    """Several torsos, the experts, of which each task takes a mixture.

    All experts see all observations, in batched products: the cost is that of `num_experts` trunks,
    also for the router that chooses one expert.

    Args:
        tasks: The tasks; given by the learner.
        torso: Makes one expert; given by the network.
        num_experts: Number of experts, E, in [2, 1024]. More can keep more apart.
        router: What the weights are. `softmax`: a gate per task on the observation (mixture of
            experts with several gates). `gumbel`: one expert per task; in training each update
            draws it from the task's logits, else it is the likeliest. `attention`: the task's
            embedding attends to the experts' outputs, by several heads. `linear`: learned weights
            of each task, of any sign and sum.
        orthogonal: Whether the experts' outputs are made orthonormal for each observation before
            they are mixed, which keeps experts unlike. With `linear` this is MOORE.
        per_layer: Whether experts mix after every layer, and not only at the end: each expert's
            next input is a mixture of its own, by gates like those of `softmax`, for which alone it
            is. A reading of soft modularisation with gates that do not see one another.
        num_heads: Heads of `attention`, each for an equal part of the features.
        embedding_dim: Size of the task's embedding for `attention`.
        temperature: Divides logits before the softmax, above 0; a schedule counts updates. Larger
            mixes more evenly. For `gumbel` it shapes the gradient alone: low values make it less
            biased and noisier.
        balance_weight: Weight of the loss that keeps experts equally used, at least 0. Not used by
            `linear`, whose weights are no shares.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If `per_layer` meets a torso that does not name its layers.

    References:
        Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate
        Mixture-of-Experts", https://doi.org/10.1145/3219819.3220007; Jang et al. 2017,
        "Categorical Reparameterization with Gumbel-Softmax", https://arxiv.org/abs/1611.01144;
        Sodhani et al. 2021, "Multi-Task Reinforcement Learning with Context-based
        Representations" (CARE), https://arxiv.org/abs/2102.06177, whose contexts are sentences and
        whose attention has one head; Hendawy et al. 2024, "Multi-Task Reinforcement Learning with
        Mixture of Orthogonal Experts" (MOORE), https://arxiv.org/abs/2311.11385; Yang et al. 2020,
        "Multi-Task Reinforcement Learning with Soft Modularization",
        https://arxiv.org/abs/2003.13661.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        torso: TorsoFactory,
        num_experts: int = 4,
        router: Literal["softmax", "gumbel", "attention", "linear"] = "softmax",
        orthogonal: bool = False,
        per_layer: bool = False,
        num_heads: int = 4,
        embedding_dim: int = 32,
        temperature: float | Schedule = 1.0,
        balance_weight: float = 0.01,
    ) -> None:
        super().__init__()
        must = f"lie in [2, {MOST_EXPERTS}]"
        require(2 <= num_experts <= MOST_EXPERTS, "num_experts", must, num_experts)
        require(router in ROUTERS, "router", f"be one of {', '.join(ROUTERS)}", router)
        require(balance_weight >= 0.0, "balance_weight", "be at least 0", balance_weight)
        infos = as_task_infos(tasks)
        names = [f"expert_{index:02d}" for index in range(num_experts)]
        torsos = [torso(infos) for _ in names]
        self.experts = Copies(names, torsos, shared=True)
        self.num_features = self.experts.num_features
        inner = sizes_of_layers(torsos[0])[:-1]
        self.layer_sizes = (*(num_experts * size for size in inner), self.num_features)
        must = f"be at most the {self.num_features} features if orthogonal"
        require(
            not orthogonal or num_experts <= self.num_features, "num_experts", must, num_experts
        )
        self.num_experts, self.orthogonal, self.per_layer = num_experts, orthogonal, per_layer
        self.balance_weight = balance_weight
        self.router = self._router(router, infos, num_heads, embedding_dim)
        if per_layer:
            require(router == "softmax", "router", "be softmax where experts mix per layer", router)
            layers = len(require_layers(torsos[0], "`per_layer: true`", "false").layer_sizes)
            self.gates = ObservationGate(infos, (layers - 1) * num_experts**2)
        self._names = [info.name for info in infos]
        self._temperature = temperature
        self._set_temperature(0)

    def _router(
        self, kind: str, infos: list[TaskInfo], num_heads: int, embedding_dim: int
    ) -> Router:
        match kind:
            case "softmax":
                return SoftmaxRouter(infos, self.num_experts)
            case "gumbel":
                return GumbelRouter(infos, self.num_experts)
            case "attention":
                return AttentionRouter(infos, self.num_features, num_heads, embedding_dim)
        return LinearRouter(infos, self.num_experts)

    def forward(self, observation: Tensor, task: Tensor) -> Shared:
        """Return the mixtures, the layers of all experts side by side, and the router's weights."""
        everyone = observation.flatten(0, 1).expand(self.num_experts, -1, *observation.shape[2:])
        between = self._mixing(observation, task) if self.per_layer else None
        layers = self.experts(everyone, between=between)
        outputs = layers[-1]
        if self.orthogonal:
            outputs = gram_schmidt(outputs).to(outputs.dtype)
        outputs = outputs.unflatten(1, observation.shape[:2])
        weights = self.router(observation, task, outputs)
        parts = outputs.unflatten(-1, (weights.shape[-1], -1))
        # A sum of products: batched products of single rows are far slower, above all backwards.
        features = (weights.permute(2, 0, 1, 3).unsqueeze(-1) * parts).sum(0).flatten(-2)
        side_by_side = (
            layer.movedim(0, 1).reshape(*features.shape[:2], -1) for layer in layers[:-1]
        )
        return Shared((*side_by_side, features), weights.mean(-1))

    def _mixing(self, observation: Tensor, task: Tensor) -> Between:
        experts = self.num_experts
        logits = self.gates(observation, task).flatten(0, 1) / self.router.temperature
        mixtures = logits.unflatten(-1, (-1, experts, experts)).softmax(-1)
        last = mixtures.shape[1]

        def mix(layer: int, outputs: Tensor, before: Sequence[Tensor]) -> Tensor:
            if layer == last:
                return outputs
            weights = mixtures[:, layer].permute(1, 2, 0)  # to, from, row
            weights = weights.reshape(*weights.shape, *[1] * (outputs.dim() - 2))
            mixed: Tensor = (weights * outputs).sum(1)
            return mixed

        return mix

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        """Set the temperature of the next update."""
        if isinstance(self._temperature, Schedule):
            self._set_temperature(clock.updates)

    def _set_temperature(self, updates: int) -> None:
        value = value_at(self._temperature, updates)
        require(value > 0.0, "temperature", "be above 0", value)
        self.router.temperature.fill_(value)

    def auxiliary(self, prediction: Prediction, task: Tensor) -> dict[str, Tensor]:
        """Return the loss of unequal use."""
        if self.balance_weight == 0.0 or not self.router.is_share:
            return {}
        assert prediction.router is not None
        return {"load_balance": self.balance_weight * load_balance_loss(prediction.router)}

    def metrics(self, prediction: Prediction, task: Tensor) -> dict[str, Tensor]:
        """Return each task's weight of each expert.

        If weights are shares, also their entropy and how unevenly experts are used, from 1 to E.
        """
        router = prediction.router
        assert router is not None
        usage = expert_usage(router, task, len(self._names))
        found = {"load_imbalance": load_balance_loss(router)} if self.router.is_share else {}
        for index in sorted(set(task.tolist())):
            name = self._names[index]
            for expert in range(self.num_experts):
                found[f"expert_usage/{name}/{expert}"] = usage[index, expert]
            if self.router.is_share:
                entropy = self.router.entropy(router, task)
                found[f"router_entropy/{name}"] = entropy[task == index].mean()
        return found
