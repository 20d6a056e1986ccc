from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from helpers.asserts import assert_same_state, complaint
from helpers.runs import fit, quiet_trainer, small_data, small_model
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_mtdqn import DQN
from lit_mtdqn.callbacks import TargetNetworkSync
from lit_mtdqn.types import Clock

UPDATES: dict[str, Any] = {"total_env_steps": None, "total_updates": 24, "replay_ratio": 0.5}


def _flat(network: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


class Watch(Callback):
    """Notes both networks after every update; stands behind the callback that it watches."""

    def __init__(self) -> None:
        self.online: dict[int, Tensor] = {}
        self.target: dict[int, Tensor] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.note(pl_module, trainer.datamodule.clock)  # type: ignore[attr-defined]

    def on_update_end(self, trainer: lightning.Trainer, learner: DQN, clock: Clock) -> None:
        self.note(learner, clock)

    def note(self, learner: DQN, clock: Clock) -> None:
        self.online[clock.updates] = _flat(learner.network)
        self.target[clock.updates] = _flat(learner.target_network)

    @property
    def changes(self) -> list[int]:
        """Updates after which the target network was another than before."""
        updates = sorted(self.target)
        pairs = pairwise(updates)
        return [now for old, now in pairs if not torch.equal(self.target[old], self.target[now])]


@pytest.mark.parametrize(
    ("every", "changes"),
    [(1, list(range(1, 25))), (3, [3, 6, 9, 12, 15, 18, 21, 24]), (7, [7, 14, 21]), (25, [])],
)
def test_the_target_is_copied_after_every_nth_update_within_a_phase_of_four(
    every: int, changes: list[int]
) -> None:
    data = small_data(**UPDATES)
    assert data.updates_per_phase == 4
    watch = Watch()
    fit(data, small_model(data), TargetNetworkSync(every), watch)
    assert watch.changes == changes
    for update in changes:
        assert torch.equal(watch.target[update], watch.online[update])


def test_polyak_averaging_goes_its_share_of_the_way_at_each_sync() -> None:
    data = small_data(**UPDATES)
    watch = Watch()
    fit(data, small_model(data), TargetNetworkSync(every_n_updates=5, polyak_tau=0.25), watch)
    assert watch.changes == [5, 10, 15, 20]
    expected = watch.target[0]
    for update in range(1, 25):
        if update % 5 == 0:
            expected = 0.75 * expected + 0.25 * watch.online[update]
        torch.testing.assert_close(watch.target[update], expected)


def test_a_resumed_run_syncs_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    data = small_data(**{**UPDATES, "total_updates": 12})
    first, second = Watch(), Watch()
    trainer = fit(data, small_model(data), TargetNetworkSync(9), first)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = small_data(**{**UPDATES, "total_updates": 32})
    trainer = quiet_trainer(TargetNetworkSync(9), second)
    path = str(tmp_path / "last.ckpt")
    trainer.fit(small_model(resumed), resumed, ckpt_path=path, weights_only=True)
    assert torch.equal(second.target[12], first.target[12])
    assert first.changes + second.changes == [9, 18, 27]


def test_buffers_of_the_target_network_follow_too() -> None:
    learner: Any = small_model(small_data())
    learner.network.register_buffer("statistic", torch.tensor(3.0))
    learner.target_network.register_buffer("statistic", torch.tensor(1.0))
    TargetNetworkSync(2).on_update_end(quiet_trainer(), learner, Clock(updates=4))
    assert_same_state(learner.target_network, learner.network)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"every_n_updates": 0}, "TargetNetworkSync.every_n_updates"),
        ({"polyak_tau": 0.0}, "TargetNetworkSync.polyak_tau"),
        ({"polyak_tau": 1.1}, "TargetNetworkSync.polyak_tau"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        TargetNetworkSync(**arguments)


def test_a_model_without_target_network_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^`model` must have `network` and `target_network` .+Got"):
        TargetNetworkSync().setup(quiet_trainer(), lightning.LightningModule(), "fit")
