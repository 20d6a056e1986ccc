"""Learning to see what a teacher sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.functional.features import attention_distance, attention_map, missed_share
from lit_mtdqn.networks import QNetwork, TaskLinear
from lit_mtdqn.objectives.taught import Taught
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import Schedule, TaskInfo, TaskInfos, Transition, require


class FeatureRegression(Taught):
    """Lets a linear map find the teacher's features in the student's.

    Adds `weight * |f_i(h) - h_i|^2` for task i, with the student's features h, its teacher's h_i
    and a linear map f_i per task that learns along: whatever the teacher tells apart, the student's
    features do. Unlike the paper it divides by the mean of `|h_i|^2` in the minibatch, so that one
    weight suits teachers of any size and scale. Of use beside a `Match` of what they say, or
    beside rewards. Tasks without a teacher are left alone.

    Args:
        tasks: The tasks; given by the learner.
        network: The student's network; given by the learner.
        teachers: Checkpoint or folder of a run by task; None takes those of `PolicyDistillation`.
        teacher_tasks: A teacher's name for a task, by the learner's, where a teacher of several
            tasks has another.
        weight: Factor on the distances, over updates, at least 0. Larger spends more of the student
            on what its teachers see than on what they say.

    Raises:
        ValueError: If a value is out of range, or when a fit starts if a teacher does not fit or
            shows no layers, or none is of a task that learns.

    References:
        Parisotto et al. 2016, "Actor-Mimic", sections 3.2 and 3.3,
        https://arxiv.org/abs/1511.06342.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        teachers: Mapping[str, str] | None = None,
        teacher_tasks: Mapping[str, str] | None = None,
        weight: float | Schedule = 0.1,
    ) -> None:
        super().__init__(tasks, teachers, teacher_tasks, weight)
        self._in_features = network.num_features
        # Made when teachers tell their sizes, or a checkpoint does.
        self.regressors: TaskLinear | None = None
        self._sizes: dict[str, int] = {}

    def prepare(self, learner: Any) -> None:
        """Load the teachers and make a map to the features of each."""
        super().prepare(learner)
        sizes = {
            self.infos[number].name: layers[-1].shape[-1]
            for numbers, layers in _layers_of_teachers(
                self.infos, self._teachers, "FeatureRegression"
            )
            for number in numbers
        }
        if self.regressors is None:
            self._make_regressors(sizes)
        must = f"have as many features as those before, {self._sizes}"
        require(sizes == self._sizes, "teachers", must, sizes)

    def _make_regressors(self, sizes: dict[str, int]) -> None:
        """Make a linear map for each task with a teacher, to so many features."""
        self._sizes = sizes
        if not sizes:
            return
        # Tasks without a teacher need a row to name; nothing comes of it.
        rows = [info.name if info.name in sizes else min(sizes) for info in self.infos]
        self.regressors = TaskLinear(rows, self._in_features, [sizes[row] for row in rows])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **options: Any
    ) -> None:
        if self.regressors is None:
            names = {info.name: f"{prefix}regressors.{info.name}.bias" for info in self.infos}
            saved = {name: key for name, key in names.items() if key in state_dict}
            self._make_regressors({name: len(state_dict[key]) for name, key in saved.items()})
        super()._load_from_state_dict(state_dict, prefix, *rest, **options)

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return the weighted distances, [S, B]; 0 for tasks without a teacher."""
        assert self.regressors is not None, "`prepare` comes first"
        found = self.regressors(td.prediction.features, batch.task)
        wanted = torch.zeros_like(found)
        for groups, layers in self._teachers.layers(batch.observation, batch.task):
            features = layers[-1].to(wanted)
            wanted[groups, :, : features.shape[-1]] = features
        weight = self.weights(batch.task).unsqueeze(-1)
        return {"feature_regression": weight * missed_share(found, wanted) * batch.weight}


class AttentionTransfer(Taught):
    """Lets the student's layers be active where the teacher's are.

    Adds `weight` times the squared distance between normalised maps of squared activations, the
    mean over the matched layers. A map of a convolution has a number for each place, summed over
    its channels: student and teacher need equally large outputs there, with any number of channels.
    A layer without places has one for each unit: both need equally many units, and the student
    learns which of its units are strong together. Unlike the paper it squares the distance, which
    then has a gradient that fades as maps agree, and bounds it by 2 whatever a layer's size.

    Args:
        tasks: The tasks; given by the learner.
        network: The student's network; given by the learner.
        teachers: Checkpoint or folder of a run by task; None takes those of `PolicyDistillation`.
        teacher_tasks: A teacher's name for a task, by the learner's, where a teacher of several
            tasks has another.
        weight: Factor on the distances, over updates, at least 0. Larger spends more of the student
            on where its teachers look than on what they say.
        layers: Numbers of the layers to match with those of the same number, from 0 at the input;
            None takes all convolutions, or all layers where there are none.

    Raises:
        ValueError: If a value is out of range, or when a fit starts if a teacher does not fit,
            shows no layers, its maps are of other sizes, or none is of a task that learns.

    References:
        Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", equation 2,
        https://arxiv.org/abs/1612.03928.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        teachers: Mapping[str, str] | None = None,
        teacher_tasks: Mapping[str, str] | None = None,
        weight: float | Schedule = 1.0,
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__(tasks, teachers, teacher_tasks, weight)
        # In a list, lest its parameters be taken for this module's.
        self._network = [network]
        shaped = _layers_of_zeros(network, self.infos)
        places = [place for place, layer in enumerate(shaped) if layer.dim() == 4]
        every = range(len(shaped))
        self.layers = list(places or every) if layers is None else list(layers)
        must = f"name layers among 0 to {len(shaped) - 1}"
        are_layers = bool(self.layers) and set(self.layers) <= set(every)
        require(are_layers, "AttentionTransfer.layers", must, layers)
        self._sizes = [attention_map(shaped[place]).shape[-1] for place in self.layers]

    def prepare(self, learner: Any) -> None:
        """Load the teachers and compare the sizes of maps."""
        super().prepare(learner)
        name = "AttentionTransfer"
        for numbers, layers in _layers_of_teachers(self.infos, self._teachers, name):
            sizes = [
                attention_map(layers[place]).shape[-1] if place < len(layers) else 0
                for place in self.layers
            ]
            must = f"have maps of sizes {self._sizes} in layers {self.layers}, as the student's"
            require(sizes == self._sizes, f"teachers.{self.infos[numbers[0]].name}", must, sizes)

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return the weighted distances, [S, B]; 0 for tasks without a teacher."""
        own = self._network[0].shaped_layers(td.prediction)
        distance = torch.zeros_like(td.loss)
        for groups, layers in self._teachers.layers(batch.observation, batch.task):
            found = [attention_distance(own[k][groups], layers[k]) for k in self.layers]
            distance[groups] = torch.stack(found).mean(0)
        weight = self.weights(batch.task).unsqueeze(-1)
        return {"attention_transfer": weight * distance * batch.weight}


def _layers_of_teachers(
    infos: Sequence[TaskInfo], teachers: Any, name: str
) -> list[tuple[list[int], tuple[Tensor, ...]]]:
    """Return the layers that teachers make of nothing, each with the numbers of its tasks."""
    learning = torch.tensor([place for place, info in enumerate(infos) if info.learns])
    task = learning[teachers.knows(learning)]
    names = [infos[number].name for number in learning.tolist()]
    require(len(task) >= 1, f"{name}.teachers", f"teach a task that learns, {names}", "none")
    shown = teachers.layers(torch.zeros(len(task), 1, *infos[0].observation_shape), task)
    return [(task[groups].tolist(), layers) for groups, layers in shown]


@torch.no_grad()
def _layers_of_zeros(network: QNetwork, infos: Sequence[TaskInfo]) -> tuple[Tensor, ...]:
    """Return the layers that a network makes of nothing."""
    observation = torch.zeros(1, 1, *infos[0].observation_shape)
    task = torch.tensor([next(place for place, info in enumerate(infos) if info.learns)])
    return network.shaped_layers(network(observation, task))
