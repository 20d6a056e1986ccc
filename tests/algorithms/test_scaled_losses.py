"""Losses under a scaler, as `16-mixed` has on a GPU; here with one for the CPU."""

from functools import partial
from typing import Any

import pytest
import torch
from helpers.distributed_balancing import INFOS, UPDATES, GivenData
from helpers.runs import quiet_trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from lit_mtdqn import Adam, MultiTaskDQN
from lit_mtdqn.callbacks import TargetNetworkSync
from lit_mtdqn.types import Clock

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
OPTIMIZERS = {
    "plain": partial(torch.optim.SGD, lr=1.0),
    "fused": partial(torch.optim.SGD, lr=1.0, fused=True),
    "ours": partial(Adam, lr=0.01),
}
# So large that the gradients of two updates overflow: then 2**7.
OVERFLOWING: dict[str, Any] = {"init_scale": 2.0**127, "backoff_factor": 2.0**-60}


class Watch(Callback):
    """Notes the weights at the start and after every update, and the count of updates."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.updates: list[int] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(pl_module)

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        self._note(learner)
        self.updates.append(clock.updates)

    def _note(self, learner: Any) -> None:
        self.weights.append(torch.cat([p.detach().flatten() for p in learner.network.parameters()]))

    @property
    def steps(self) -> list[Tensor]:
        return [b - a for a, b in zip(self.weights[:-1], self.weights[1:], strict=True)]


def _run(optimizer: Any, scaler: dict[str, Any], **options: Any) -> tuple[Watch, MultiTaskDQN]:
    torch.manual_seed(0)
    given: dict[str, Any] = {"scale": None, "max_grad_norm": 0.01, **options}
    model, watch = MultiTaskDQN(INFOS, optimizer=optimizer, **given), Watch()
    own: Any = torch.amp.GradScaler("cpu", **scaler)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=own)
    trainer = quiet_trainer(watch, TargetNetworkSync(UPDATES - 2), max_epochs=1, plugins=plugin)
    trainer.fit(model, GivenData())
    return watch, model


@pytest.mark.parametrize("kind", ["plain", "fused"])
def test_gradients_are_clipped_as_they_are_without_the_scale(kind: str) -> None:
    watch, _ = _run(OPTIMIZERS[kind], {"init_scale": 2.0**10})
    lengths = [float(step.norm()) for step in watch.steps]
    assert lengths == pytest.approx([0.01] * UPDATES, rel=1e-3)


def test_our_optimiser_steps_as_far_under_any_scale() -> None:
    # Its epsilon would damp gradients that were clipped before they were unscaled.
    (one, _), (other, _) = (
        _run(OPTIMIZERS["ours"], {"init_scale": scale}) for scale in (1.0, 2.0**10)
    )
    torch.testing.assert_close(one.weights[-1], other.weights[-1], rtol=0.0, atol=1e-3)
    assert float((one.weights[-1] - one.weights[0]).abs().max()) > 0.02


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_update_that_overflows_is_none(kind: str) -> None:
    watch, model = _run(OPTIMIZERS[kind], OVERFLOWING)
    assert watch.updates == [1, 2, 3, 4]
    assert all(step.any() and step.isfinite().all() for step in watch.steps)
    # Synchronised after the fourth.
    for ours, target in zip(
        model.network.parameters(), model.target_network.parameters(), strict=True
    ):
        assert torch.equal(ours, target)
