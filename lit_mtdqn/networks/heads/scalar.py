"""Heads of one number per action: the expected return."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from lit_mtdqn.functional.td import follow, gather_actions, regression_loss, td_target
from lit_mtdqn.networks.heads.base import LayeredHead
from lit_mtdqn.types import Prediction, TaskInfos, require


class _ScalarHead(LayeredHead):
    """One number per action."""

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        *,
        loss: str,
        huber_delta: float,
        **layers: Any,
    ) -> None:
        super().__init__(tasks, in_features, None, **layers)
        require(loss in ("mse", "huber"), "loss", "be mse or huber", loss)
        require(huber_delta > 0.0, "huber_delta", "be above 0", huber_delta)
        self.huber_delta = huber_delta if loss == "huber" else None

    def q_values(self, prediction: Prediction) -> Tensor:
        return prediction.output

    def target(
        self, reward: Tensor, discount: Tensor, next_prediction: Prediction, next_action: Tensor
    ) -> Tensor:
        next_value = follow(next_prediction.output.float(), next_action)
        return td_target(reward, discount, next_value)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        chosen_q = gather_actions(prediction.output, action).float()
        loss = regression_loss(chosen_q, target, huber_delta=self.huber_delta)
        return loss, target - chosen_q.detach()


class LinearHead(_ScalarHead):
    """Action values by one linear layer per head.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        loss: `mse`, or `huber`, which limits the pull of large errors.
        huber_delta: Error at which the Huber loss turns linear, in units of the return.
        init_scale: Factor on the usual initial weights. Near 0 all values start near 0, so that
            early targets are rewards and not noise.
        noisy_sigma: Initial scale of noise on the layer's weights, in units of the return, by which
            acting explores (Fortunato et al. 2018); 0.5 is usual. Null has no noise.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        loss: Literal["mse", "huber"] = "mse",
        huber_delta: float = 1.0,
        init_scale: float = 0.01,
        noisy_sigma: float | None = None,
    ) -> None:
        super().__init__(
            tasks,
            in_features,
            loss=loss,
            huber_delta=huber_delta,
            dueling=False,
            hidden=0,
            init_scale=init_scale,
            noisy_sigma=noisy_sigma,
        )


class DuelingHead(_ScalarHead):
    """Action values as a state value plus centred advantages.

    `Q(s, a) = V(s) + A(s, a) - mean of A(s, .)`, the mean over the task's own actions. Each stream
    has a hidden layer that all heads share and a linear layer per head. The gradient that enters
    the torso is scaled by 1/sqrt(2), as two streams add theirs.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        hidden: Width of each stream's hidden layer; 0 has none.
        loss: `mse`, or `huber`, which limits the pull of large errors.
        huber_delta: Error at which the Huber loss turns linear, in units of the return.
        init_scale: Factor on the usual initial weights of the last layers.
        noisy_sigma: Initial scale of noise on the weights of all layers, in units of the return, by
            which acting explores (Fortunato et al. 2018); 0.5 is usual. Null has no noise.

    References:
        Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning",
        equation 9, https://arxiv.org/abs/1511.06581.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        hidden: int = 0,
        loss: Literal["mse", "huber"] = "mse",
        huber_delta: float = 1.0,
        init_scale: float = 0.01,
        noisy_sigma: float | None = None,
    ) -> None:
        super().__init__(
            tasks,
            in_features,
            loss=loss,
            huber_delta=huber_delta,
            dueling=True,
            hidden=hidden,
            init_scale=init_scale,
            noisy_sigma=noisy_sigma,
        )
