"""Updates without numbers, which a run may skip."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from helpers.runs import COUNTING, NETWORK, fit, small_data
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from lit_mtdqn import PQN, MultiTaskDQN, RolloutDataModule
from lit_mtdqn.balancing import GradNorm, Scalarised
from lit_mtdqn.callbacks import SkippedUpdates, TargetNetworkSync
from lit_mtdqn.networks import MLPTorso, QNetwork
from lit_mtdqn.replay import Prioritisation
from lit_mtdqn.scaling import PopArt, ReturnNormaliser
from lit_mtdqn.types import Losses, NonFiniteError, Phase, Transition

# Of the 18 updates of a small run, from 0: the first one of all, and both of a later phase.
SPOILT = (0, 8, 9)
TASKS = {"left": COUNTING, "right": COUNTING}
DWA: Any = partial(Scalarised, scalarizer={"class_path": "torchjd.scalarization.DWA"})


def _spoil(column: Tensor, number: float) -> Tensor:
    spoilt = column.clone()
    spoilt[0, 0] = number
    return spoilt


class Spoilt(MultiTaskDQN):
    """Finds numbers that are none in some of its minibatches, or in their gradients."""

    column, number = "reward", math.nan
    places: tuple[int, ...] = SPOILT
    tried = 0

    def accumulate_gradients(self, losses: Losses, batch: Transition) -> None:
        super().accumulate_gradients(losses, batch)
        if self.column == "gradient" and self.tried in self.places:
            next(self.network.parameters()).grad[0] = self.number  # type: ignore[index]

    def update(self, batch: Transition, optimizer: LightningOptimizer) -> Losses:
        """Compare all that updates change with what it was before."""
        bad = self.tried in self.places
        if bad and self.column != "gradient":
            spoilt: Any = {self.column: _spoil(getattr(batch, self.column), self.number)}
            batch = batch._replace(**spoilt)
        before = self._all_that_changes()
        losses = super().update(batch, optimizer)
        self.tried += 1
        after = self._all_that_changes()
        if bad:
            assert_equal_tensors(after, before)
        else:
            assert after["updates"] == before["updates"] + 1
            assert not torch.equal(after["weights"], before["weights"])
        return losses

    def _all_that_changes(self) -> dict[str, Any]:
        (optimizer,) = self.trainer.optimizers
        state = {str(number): entry for number, entry in optimizer.state_dict()["state"].items()}
        balancer = {} if self.balancer is None else self.balancer.get_extra_state()
        return deepcopy(
            {
                "weights": torch.cat([p.detach().flatten() for p in self.network.parameters()]),
                "learner": dict(self.state_dict()),
                "balancer": {name: str(value) for name, value in balancer.items()},
                "optimizer": state,
                "updates": self._clock.updates,
                "global_step": self.trainer.global_step,
            }
        )


class Rows(Callback):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.rows.append({name: float(v) for name, v in trainer.callback_metrics.items()})


def _data(**options: Any) -> RolloutDataModule:
    return small_data(TASKS, total_env_steps=160, prioritisation=Prioritisation(), **options)


def _fit(folder: Path, data: RolloutDataModule, model: Any, *callbacks: Callback) -> None:
    fit(data, model, *callbacks, default_root_dir=folder, log_every_n_steps=1)


@pytest.mark.parametrize(
    ("column", "number", "balancer", "scale"),
    [
        ("reward", math.nan, None, None),
        ("observation", math.inf, None, None),
        ("gradient", math.nan, None, None),
        ("reward", math.nan, GradNorm, PopArt),
        ("reward", math.inf, DWA, PopArt),
    ],
    ids=["reward", "observation", "gradient", "balanced gradients", "balanced losses"],
)
def test_an_update_without_numbers_changes_nothing_and_is_counted(
    column: str, number: float, balancer: Any, scale: Any, tmp_path: Path
) -> None:
    data, rows = _data(), Rows()
    model = Spoilt(data.task_infos, NETWORK, balancer=balancer, scale=scale)
    model.column, model.number = column, number
    skipped = SkippedUpdates()
    with pytest.warns(UserWarning, match="in update 1[,;].* It is skipped, as others will be"):
        _fit(tmp_path, data, model, TargetNetworkSync(2), skipped, rows)
    assert skipped.total == len(SPOILT)
    assert data.clock.updates == model.tried - len(SPOILT)
    # One of the first phase, both of the fifth.
    counts = [row["train/skipped_updates"] for row in rows.rows]
    assert counts == [1.0] * 4 + [3.0] * (len(counts) - 4)
    assert all(math.isfinite(value) for row in rows.rows for value in row.values())
    saved = torch.load(tmp_path / "non_finite_batch.pt", weights_only=True)
    assert saved["update"] == 1
    assert column == "gradient" or not saved[column].isfinite().all()
    replays: list[Any] = [slot.replay for slot in data.slots]
    assert all(bool(replay._sampler._priority.isfinite().all()) for replay in replays)


def test_too_many_in_a_row_end_a_run(tmp_path: Path) -> None:
    data, skipped = _data(), SkippedUpdates(max_in_a_row=2)
    model = Spoilt(data.task_infos, NETWORK, scale=None)
    model.places = (1, 2, 4, 5, 6)
    with (
        pytest.warns(UserWarning, match="It is skipped"),
        pytest.raises(NonFiniteError, match=r"`td_error` of task left must be finite\. Got nan"),
    ):
        _fit(tmp_path, data, model, skipped)
    assert (model.tried, skipped.total) == (6, 5)


@pytest.mark.parametrize("place", [1, 4])
def test_without_it_the_last_gradient_of_a_phase_ends_a_run_too(place: int, tmp_path: Path) -> None:
    """Weights without numbers neither act nor reach a checkpoint."""

    class Steep(MultiTaskDQN):
        made = 0

        def accumulate_gradients(self, losses: Losses, batch: Transition) -> None:
            super().accumulate_gradients(losses, batch)
            if self.made == place:
                next(self.network.parameters()).grad.fill_(math.inf)  # type: ignore[union-attr]
            self.made += 1

    data = small_data()
    model = Steep(data.task_infos, NETWORK, scale=None)
    # In the last update of a phase the gradient tells, before it the errors after it.
    first = "`gradient` must be finite. Got one of norm inf in update 2, whose errors are finite"
    second = "Got nan in update 6, from the networks, not the data"
    with pytest.raises(NonFiniteError, match=first if place == 1 else second):
        _fit(tmp_path, data, model)
    assert data.clock.updates == (2 if place == 1 else 6)
    assert (tmp_path / "non_finite_batch.pt").is_file()


def test_counts_go_on_in_a_resumed_run() -> None:
    before, after = SkippedUpdates(max_in_a_row=1), SkippedUpdates(max_in_a_row=1)
    before.count()
    after.load_state_dict(before.state_dict())
    assert not after.are_too_many
    after.count()
    assert after.total == 2
    assert after.are_too_many


def test_a_return_that_is_no_number_leaves_the_scale_as_it_is(tmp_path: Path) -> None:
    class Told(PQN):
        """Hears of one return that is no number."""

        def prepare_phase(self, phase: Phase) -> Phase:
            bad = {name: sums._replace(returns=math.nan) for name, sums in phase.returns.items()}
            is_bad = self._clock.phases == 2
            return super().prepare_phase(phase._replace(returns=bad) if is_bad else phase)

    data = small_data(TASKS, total_env_steps=160, keeps_replays=False, warmup_env_steps=0)
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=[8], layer_norm=True))
    model = Told(data.task_infos, network, scale=ReturnNormaliser)
    _fit(tmp_path, data, model, SkippedUpdates())
    assert model.scale is not None
    assert model.scale.statistics.isfinite().all()
    assert model.scale.statistics.any()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=complaint("SkippedUpdates.max_in_a_row")):
        SkippedUpdates(limit)
