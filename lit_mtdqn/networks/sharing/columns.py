"""One torso per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lit_mtdqn.functional.parameters import pull_to_mean_
from lit_mtdqn.networks.copies import Copies
from lit_mtdqn.networks.rows import TaskRows, owners
from lit_mtdqn.networks.sharing.base import (
    Shared,
    Sharing,
    TorsoFactory,
    require_layers,
    sizes_of_layers,
)
from lit_mtdqn.networks.sharing.couplings import CrossStitch, Lateral
from lit_mtdqn.networks.torsos import Torso
from lit_mtdqn.types import Clock, TaskInfos, as_task_infos, require

STRENGTHS = {"none": 0.0, "pull": 0.01, "cross_stitch": 0.1, "lateral": 0.1}


class Columns(Sharing):
    """One torso per task, which may be coupled.

    Args:
        tasks: The tasks; given by the learner.
        torso: Makes the torso of one task; given by the network.
        coupling: What passes between the columns of T tasks. `none`: nothing, they are independent
            networks. `pull`: after every update each column moves towards the mean of all columns
            (soft parameter sharing), at the cost of T copies of the parameters and nothing else.
            `cross_stitch`: the outputs of each layer are learned mixtures of all columns' outputs;
            every observation passes through all columns, T^2 B rows instead of T B. `lateral`:
            columns and heads receive from the columns before them, through adapters, and pass them
            no gradient (progressive networks, whose columns learn one after another; here they
            learn together unless `PartLearningRates` freezes those that `WeightTransfer` has
            brought from another run); as costly as `cross_stitch`.
        strength: For `pull` the weight lambda of the penalty
            `lambda * sum over i != j of |theta_i - theta_j|^2`, which the move stands for; larger
            keeps columns closer, and `4 T strength * learning rate` must be below 2. For
            `cross_stitch` the initial weight of all other columns together, in [0, 1]; for
            `lateral` the initial scale of what is received. None takes 0.01, 0.1 and 0.1.
        adapter_size: Width of the adapters of `lateral`, at most that of what they receive.
        order: Names of tasks from the first column on, for `lateral`; those that it does not name
            follow in the order of tasks.

    Raises:
        ValueError: If a value is out of range; at the start of a fit if `pull` would diverge, or at
            an update if a schedule raises the learning rate so far.
        TypeError: If `cross_stitch` or `lateral` meets a torso that does not name its layers.

    References:
        Duong et al. 2015, "Low Resource Dependency Parsing: Cross-lingual Parameter Sharing in a
        Neural Network Parser" (soft sharing), https://doi.org/10.3115/v1/P15-2139; Misra et al.
        2016, "Cross-stitch Networks for Multi-task Learning", https://arxiv.org/abs/1604.03539;
        Rusu et al. 2016, "Progressive Neural Networks", https://arxiv.org/abs/1606.04671.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        torso: TorsoFactory,
        coupling: Literal["none", "pull", "cross_stitch", "lateral"] = "none",
        strength: float | None = None,
        adapter_size: int = 32,
        order: Sequence[str] = (),
    ) -> None:
        super().__init__()
        require(coupling in STRENGTHS, "coupling", f"be one of {', '.join(STRENGTHS)}", coupling)
        self.coupling = coupling
        self.strength = STRENGTHS[coupling] if strength is None else strength
        require(self.strength >= 0.0, "strength", "be at least 0", strength)
        require(adapter_size >= 1, "adapter_size", "be at least 1", adapter_size)
        infos = as_task_infos(tasks)
        self.column_of_task = TaskRows(owners(infos))
        names = list(dict.fromkeys(owners(infos)))
        self.num_columns = len(names)
        torsos = [torso(infos) for _ in names]
        self.columns = Copies(names, torsos, shared=coupling == "cross_stitch")
        self.num_features = self.columns.num_features
        self.layer_sizes = sizes_of_layers(torsos[0])
        self.mixing: CrossStitch | Lateral | None = None
        if coupling in ("none", "pull"):
            return
        layered = require_layers(torsos[0], f"`coupling: {coupling}`", "pull")
        if coupling == "cross_stitch":
            require(self.strength <= 1.0, "strength", "be at most 1", strength)
            self.mixing = CrossStitch(names, len(layered.layer_sizes), self.strength)
        else:
            every = [*order, *(name for name in names if name not in order)]
            must = f"hold names among {names}, each once"
            require(sorted(every) == sorted(names), "order", must, list(order))
            widths = _widths(layered, infos[0].observation_shape)
            self.mixing = Lateral(every, layered, widths, adapter_size, self.strength)

    def forward(self, observation: Tensor, task: Tensor) -> Shared:
        """Return the features of observations [S, B, *O] of tasks [S]."""
        if self.mixing is None:
            outputs = self.columns(observation, self.column_of_task.rows_of(task))
        else:
            outputs = self._mixed(observation, task)
        return Shared(tuple(output.flatten(2) for output in outputs))

    def _mixed(self, observation: Tensor, task: Tensor) -> list[Tensor]:
        """Pass all observations through all columns and keep what each task's own column makes."""
        everyone = observation.flatten(0, 1).expand(self.num_columns, -1, *observation.shape[2:])
        own = self.column_of_task.row_of_task[task]
        groups = torch.arange(task.shape[0], device=task.device)
        layers = list(self.columns(everyone, between=self.mixing))
        if isinstance(self.mixing, Lateral):
            layers[-1] = self.mixing(len(layers), layers[-1], layers)
        return [layer.unflatten(1, observation.shape[:2])[own, groups] for layer in layers]

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        """Pull the columns together, if they are."""
        if self.coupling == "pull":
            self.pull(learner.learning_rate)

    def pull(self, learning_rate: float) -> None:
        """Move the columns towards their mean, as one step at a learning rate would.

        Raises:
            ValueError: If the step is so large that columns would fly apart.
        """
        self.require_learning_rate(learning_rate)
        if self.num_columns > 1:
            pull_to_mean_(list(self.columns.parameters()), self._pulled_share(learning_rate))

    def require_learning_rate(self, learning_rate: float) -> None:
        """Refuse a pull by which columns would fly apart."""
        if self.coupling != "pull":
            return
        tasks = self.num_columns
        must = f"keep 4 * {tasks} tasks * strength * learning rate {learning_rate:g} below 2"
        require(self._pulled_share(learning_rate) < 2.0, "strength", must, self.strength)

    def _pulled_share(self, learning_rate: float) -> float:
        return 4.0 * self.num_columns * self.strength * learning_rate


@torch.no_grad()
def _widths(torso: Torso, observation_shape: tuple[int, ...]) -> list[int]:
    """Return how many numbers each layer puts out."""
    return [layer.shape[-1] for layer in torso(torch.zeros(1, *observation_shape))]
