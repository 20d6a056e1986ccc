"""A task that is evaluated, but neither played nor learned, through a whole run."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.counting_env import SINGLE
from helpers.runs import COUNTING, fit, small_data, small_model
from helpers.tape import Tape

from lit_mtdqn import TaskSpec
from lit_mtdqn.cli import main
from lit_mtdqn.envs import TaskEnv
from lit_mtdqn.rollout import make_evaluation_env, play_episodes

HELD_OUT = TaskSpec(env=SINGLE, kwargs={"pattern": (4,)}, head="count", acts=False, learns=False)
TASKS = {"far": HELD_OUT, "count": COUNTING}


def test_it_is_played_in_evaluation_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = Tape()
    step = TaskEnv.step

    def taped(self: TaskEnv, action: object) -> object:
        tape.record(self.task, num_envs=self.num_envs)
        return step(self, action)

    monkeypatch.setattr(TaskEnv, "step", taped)
    data = small_data(TASKS)
    fit(data, small_model(data))
    assert tape.named("far", num_envs=3)
    assert not tape.named("far", num_envs=2)
    assert tape.named("count", num_envs=2)
    assert data.clock.env_steps["far"] == 0
    assert {slot.task: len(slot.replay) > 0 for slot in data.slots} == {"far": False, "count": True}


def test_it_changes_nothing_in_what_the_others_learn() -> None:
    weights = []
    for tasks in ({"count": COUNTING}, TASKS):
        torch.manual_seed(0)
        data = small_data(tasks)
        model = small_model(data)
        fit(data, model)
        weights.append(model.state_dict())
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, msg=name)


def test_a_held_out_context_is_played_with_the_head_that_the_others_train() -> None:
    near = TaskSpec(env="lit_mtdqn/ContextualCartPole-v0", head="cartpole", success_key="success")
    far_context = {"context": {"length": 2.0, "gravity": 20.0}}
    far = replace(near, kwargs=far_context, acts=False, learns=False)
    data = small_data({"near": near, "far": far})
    model = small_model(data)
    fit(data, model)
    held_out = data.play("far", episodes=20, seed=5)
    # The same physics as a task of its own, played by a network that never heard of a second one.
    alone = small_data({"near": replace(near, kwargs=far_context)})
    twin = small_model(alone)
    twin.network.load_state_dict(model.network.state_dict())
    env = make_evaluation_env("near", alone.tasks["near"], 20, alone.layout)
    expected = play_episodes(twin, env, 0, num_actions=2, epsilon=0.0, seed=5, max_steps=10_000)
    np.testing.assert_array_equal(held_out.episode_return, expected.episode_return)
    np.testing.assert_array_equal(held_out.success, expected.success)
    nominal = data.play("near", episodes=20, seed=5)
    assert not np.array_equal(held_out.episode_return, nominal.episode_return)


def test_its_score_is_kept_apart_from_those_that_select_networks() -> None:
    data = small_data(TASKS)
    metrics = fit(data, small_model(data)).callback_metrics
    assert float(metrics["val/score/mean"]) == float(metrics["val/score/count"])
    assert float(metrics["val/score/held_out"]) == float(metrics["val/score/far"])


def test_it_asks_for_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        "lit_mtdqn.data.datamodule.check_memory", lambda needed, *_, **__: asked.append(needed)
    )
    for tasks in ({"count": COUNTING}, TASKS):
        data = small_data(tasks)
        fit(data, small_model(data))
    assert asked[0] == asked[1]


def test_it_is_reported_and_resumed_with_its_empty_replay(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tasks = (
        "{count: {env: 'helpers.counting_env:CountingVectorEnv'}, "
        "far: {env: 'helpers.counting_env:CountingEnv', head: count, acts: false, learns: false}}"
    )
    options = [
        "--model=lit_mtdqn.DQN",
        f"--data.tasks={tasks}",
        "--data.warmup_env_steps=20",
        "--data.replay_capacity=500",
        "--data.test_episodes=3",
        "--trainer.callbacks+=lit_mtdqn.callbacks.ReplayCheckpoint",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]
    main(["fit", *options, "--data.total_env_steps=400", f"--run_dir={folder}"])
    with (folder / "report" / "test_scores.csv").open() as file:
        assert [row["task"] for row in csv.DictReader(file)] == ["count", "far"]
    again = ["fit", f"--config={folder / 'config.yaml'}", f"--run_dir={folder}"]
    main([*again, "--ckpt_path=last", "--data.total_env_steps=800"])
