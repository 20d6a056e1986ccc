"""Heads at inner layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lit_mtdqn.networks import Head, QNetwork
from lit_mtdqn.objectives.base import Objective, layer_sizes
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import Prediction, TaskInfos, Transition, as_task_infos, require


class DeepSupervision(Objective):
    """Lets every inner layer predict action values by a head of its own, towards the same targets.

    Inner layers then get a gradient that later layers cannot thin out. The extra heads are of the
    network's kind and act nowhere.
    `L = L_last + sum over inner layers l of weights[l] L_l`, every term balanced with its task.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        weights: Weight of each inner layer's loss, first layer first, or one for all. Larger lets
            them shape the layers more, at the expense of what later layers need.

    Raises:
        ValueError: If a weight is negative, or their number is not that of the inner layers.

    References:
        Lee et al. 2015, "Deeply-Supervised Nets", equation 3, https://arxiv.org/abs/1409.5185.
    """

    needs_target = True

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        weights: float | Sequence[float] = 0.2,
    ) -> None:
        super().__init__()
        infos = as_task_infos(tasks)
        sizes = layer_sizes(network, infos)[:-1]
        given = [weights] * len(sizes) if isinstance(weights, int | float) else list(weights)
        must = f"hold one weight for each of the {len(sizes)} inner layers"
        require(len(given) == len(sizes) > 0, "DeepSupervision.weights", must, given)
        require(min(given) >= 0.0, "DeepSupervision.weights", "be at least 0", given)
        self.weights = given
        self.heads = nn.ModuleList(network.make_head(size) for size in sizes)

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return the weighted loss of each inner layer, [S, B]."""
        rows = batch.action.shape[1]
        terms = {}
        pairs = zip(self.heads, self.weights, td.prediction.layers[:-1], strict=True)
        for place, (head, weight, layer) in enumerate(pairs):
            assert isinstance(head, Head)
            output, taus = head(layer, batch.task), head.fractions(rows)
            prediction = Prediction(layer, td.prediction.layers, output, taus=taus)
            loss, _ = head.loss(prediction, batch.action, td.target)
            terms[f"deep_supervision_{place}"] = weight * loss * batch.weight
        return terms
