"""Runs whose training is played by a process of its own."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from helpers.asserts import assert_same_state, complaint
from helpers.runs import NETWORK, fit, quiet_trainer, small_data, small_model

from lit_mtdqn import DQN, PolicyDistillation, RolloutDataModule
from lit_mtdqn.callbacks import EpsilonDecay
from lit_mtdqn.data import FixedShares
from lit_mtdqn.rollout import Boltzmann
from lit_mtdqn.types import TaskSpec

TASKS = {"cartpole": TaskSpec(env="CartPole-v1"), "acrobot": TaskSpec(env="Acrobot-v1", n_step=2)}


PLAIN = {"cartpole": TaskSpec(env="lit_mtdqn/ContextualCartPole-v0")}


def background_data(**settings: Any) -> RolloutDataModule:
    return small_data(TASKS, **{"background": True, **settings})


def trained(data: RolloutDataModule) -> DQN:
    torch.manual_seed(3)
    model = small_model(data)
    fit(data, model, EpsilonDecay(start=0.0, end=0.0))
    return model


def test_a_run_is_repeated_bit_for_bit_and_is_not_the_run_without() -> None:
    runs = [background_data(total_env_steps=300, background=b) for b in (True, True, False)]
    first, second, without = (trained(data) for data in runs)
    assert_same_state(first, second)
    assert runs[0].clock.state_dict() == runs[1].clock.state_dict()
    ours, theirs = (runs[place].clock.updates for place in (0, 2))
    assert ours == theirs
    pairs = zip(first.parameters(), without.parameters(), strict=True)
    assert not all(torch.equal(own, other) for own, other in pairs)


def test_a_later_fit_and_a_resumed_run_start_new_episodes(
    caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    data = background_data()
    model = small_model(data)
    trainer = fit(data, model)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    data.total_env_steps = 200
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        quiet_trainer().fit(model, data)
        assert "New episodes start in cartpole, acrobot: a process of its own" in caplog.text
        assert data.clock.total_env_steps >= 200
        caplog.clear()
        resumed = background_data(total_env_steps=200)
        quiet_trainer().fit(small_model(resumed), resumed, ckpt_path=tmp_path / "last.ckpt")
        assert "New episodes start in cartpole, acrobot: a process of its own" in caplog.text
    assert resumed.clock.total_env_steps >= 200


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"keeps_replays": False, "batch_size": 4}, "keeps_replays"),
        ({"device_resident": True, "replay_storage": "device"}, "device_resident"),
        ({"boltzmann": Boltzmann()}, "boltzmann"),
        ({"sampler": FixedShares({"cartpole": 2}, steers="env_steps")}, "sampler.steers"),
        (
            {"tasks": {"slow": TaskSpec(env="CartPole-v1", backend="async")}},
            "tasks.slow.backend",
        ),
    ],
)
def test_what_needs_more_than_a_network_is_refused(settings: Any, name: str) -> None:
    settings = {"tasks": PLAIN, **settings}
    with pytest.raises(ValueError, match=complaint(name)):
        small_data(background=True, **settings)


@pytest.mark.parametrize("options", [{"teacher_share": 0.5}, {"labels": "stored"}])
def test_teachers_that_act_or_label_what_is_played_are_refused(options: Any) -> None:
    data = background_data()
    student = PolicyDistillation(data.task_infos, network=NETWORK, **options)
    student.use_teachers(dict.fromkeys(TASKS, small_model(data)))
    with pytest.raises(ValueError, match=complaint("model")):
        quiet_trainer().fit(student, data)
