"""What is compared with peers is the same work, and is summed up as it says."""

import math
import time
from pathlib import Path
from typing import Any

import compare
import measuring
import pytest
import torch
import works
import yaml
from built_run import build
from hand_written import HandWrittenLoop
from loop_overhead import settings_of
from measuring import Goal, Stopwatch
from one_run import PROGRAMS, run
from works import Work

from lit_mtdqn.types import Losses, Transition

NAMES = list(yaml.safe_load(works.WORKS.read_text()))
SMALL = {
    "total_env_steps": 512,
    "warmup_env_steps": 64,
    "cycle_env_steps": 64,
    "cycle_updates": 4,
    "target_updates": 8,
    "hidden": [8],
    "batch_size": 8,
    "episodes": 2,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_work_says_all_that_each_of_its_programs_needs(name: str) -> None:
    for program in works.programs_of(name):
        work = works.load(name, program, {})
        assert program.split("_")[0] in PROGRAMS
        if work.config is not None:
            assert Path(work.config).exists()
            continue
        assert work.hidden
        assert min(work.lr, work.batch_size, work.replay_capacity, work.gamma) > 0
        assert work.cycle_vector_steps * work.num_envs == work.cycle_env_steps
        assert max(work.target_updates, work.target_env_steps) > 0
        assert work.epsilon(0) == work.epsilon_start >= work.epsilon(10**7) == work.epsilon_end


def test_programs_of_one_work_learn_from_the_same_numbers() -> None:
    alike = ("hidden", "lr", "batch_size", "replay_capacity", "gamma", "loss", "max_grad_norm")
    for name in ("cartpole", "lunarlander", "breakout", "breakout_memory"):
        found = [works.load(name, program, {}) for program in works.programs_of(name)]
        assert len(found) == 6
        assert len({tuple(getattr(work, key) for key in alike) for work in found}) == 1
        assert len({work.replay_ratio for work in found}) == 1


@pytest.mark.parametrize("program", ["ours", "hand"])
def test_a_program_makes_the_env_steps_and_updates_of_its_work(program: str) -> None:
    row = run(program, "cartpole", seed=0, flags=True, replaced=SMALL)
    assert 512 <= row["env_steps"] < 640
    # Four of every 64 steps, reset rows included, once there are 64 transitions.
    assert 24 <= row["updates"] <= 36
    assert row["threads"] == torch.get_num_threads() == 1
    assert row["final"] > 1.0
    assert row["seconds"] > 0.0
    assert row["imported_megabytes"] <= row["built_megabytes"] <= row["peak_megabytes"]


def test_training_ends_at_its_threshold() -> None:
    replaced = {**SMALL, "threshold": 1.0, "evaluate_every_env_steps": 200}
    row = run("ours", "cartpole", seed=0, flags=True, replaced=replaced)
    assert row["reached"]
    assert 200 <= row["env_steps"] < 300


def test_evaluations_are_off_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def play(*_: Any) -> list[float]:
        nonlocal now
        now += 100.0
        return [1.0]

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(time, "process_time", lambda: now)
    monkeypatch.setattr(measuring, "evaluate", play)
    stopwatch = Stopwatch()
    work = Work(name="", envs=("",), total_env_steps=10, threshold=2.0, evaluate_every_env_steps=10)
    goal = Goal(work, stopwatch)
    stopwatch.start()
    for env_steps in (4, 8, 12, 16, 20):
        now += 1.0
        assert not goal.look(env_steps, lambda observation, task: observation)
    stopwatch.stop()
    assert goal.evaluations == 2
    assert stopwatch.wall == stopwatch.cpu == 5.0


def test_counts_of_another_work_are_refused() -> None:
    work = works.load("cartpole", "ours", {})
    work.check(50_100, 24_500)
    with pytest.raises(ValueError, match="`updates` must be near 24550"):
        work.check(50_100, 50_100)
    with pytest.raises(ValueError, match="`env_steps` must be near 50000"):
        work.check(60_000, 29_500)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config=configs/driving/three_tasks.yaml"],
        [
            "--config=configs/dqn/cartpole.yaml",
            "--model.objective.bootstrap=max",
            "--model.network.head.loss=huber",
        ],
    ],
    ids=["many, double", "one, Huber"],
)
def test_an_update_of_the_hand_written_loop_is_an_update_of_the_learner(
    arguments: list[str], tmp_path: Path
) -> None:
    cli = build([*arguments, f"--run_dir={tmp_path}", "--model.optimizer.eps=1e-3"])
    loop, learner = HandWrittenLoop(settings_of(cli), seed=0), cli.model
    with torch.no_grad():
        for mine, yours in (
            (loop.online, learner.network),
            (loop.target, learner.target_network),
        ):
            pairs = zip(mine.trunk.parameters(), yours.torso.parameters(), strict=True)
            for parameter, same in pairs:
                parameter.copy_(same)
            # Heads are laid out differently; at zero they are the same.
            heads = [p for name, p in mine.named_parameters() if not name.startswith("trunk")]
            for parameter in [*heads, *yours.head.parameters()]:
                parameter.zero_()
    tasks, rows = loop.tasks, 32
    batch: dict[str, Any] = {
        "observation": torch.rand(tasks, rows, *loop.observation.shape[2:]),
        "action": torch.randint(0, loop.actions, (tasks, rows)),
        "reward": 3.0 * torch.randn(tasks, rows),
        "discount": torch.full((tasks, rows), 0.9),
        "next_observation": torch.rand(tasks, rows, *loop.observation.shape[2:]),
    }
    optimizer = learner.configure_optimizers()
    transition = Transition(
        **batch,
        weight=torch.ones(tasks, rows),
        replay_index=torch.zeros(tasks, rows, dtype=torch.int64),
        task=torch.arange(tasks),
        extra={},
    )
    # The first moves the heads alone, as those were zero.
    for _ in range(2):
        losses: Losses = learner.losses(transition)
        optimizer.zero_grad()
        learner.total_loss(losses, transition).backward()
        torch.nn.utils.clip_grad_norm_(learner.network.parameters(), learner.max_grad_norm)
        optimizer.step()
        loop._update(batch)
    seen = torch.rand(tasks, 5, *loop.observation.shape[2:])
    with torch.no_grad():
        mine = loop.online(seen)
    yours = learner.action_values(seen, torch.arange(tasks))
    assert mine.abs().max() > 1e-4
    torch.testing.assert_close(mine, yours)


def row(program: str, flags: str, seed: int, seconds: float, **other: Any) -> dict[str, Any]:
    found = {"program": program, "flags": flags, "seed": seed, "cpu_seconds": seconds}
    found |= {"import_seconds": 1.0, "build_seconds": 1.0}
    found |= {"env_steps": 128, "updates": 64, "peak_megabytes": 1.0, "final": 1.0, "reached": ""}
    return {**found, "seconds": seconds, **other}


def test_ratios_are_those_of_one_repeat_per_env_step() -> None:
    rows = [
        row("ours", "on", 0, 10.0),
        row("ours", "on", 1, 20.0),
        row("ours", "off", 0, 40.0),
        row("sb3", "off", 0, 30.0),
        row("sb3", "off", 1, 80.0, env_steps=256),
    ]
    assert compare.ratios(rows, ("sb3", "off"), "on", "seconds") == [3.0, 2.0]
    assert compare.ratios(rows, ("sb3", "off"), "off", "seconds") == [0.75]
    assert compare.summarise(rows)["ours", "off"] == [4.0]


def test_a_threshold_is_reached_in_seconds_or_never() -> None:
    rows = [
        row("ours", "on", 0, 10.0, reached=True),
        row("sb3", "on", 0, 50.0, reached=True, env_steps=1),
        row("sb3", "on", 1, 9.0, reached=False),
        row("ours", "on", 1, 10.0, reached=True),
    ]
    found = compare.summarise(rows)
    assert found["sb3", "on"] == [5.0, math.inf]
    figure = compare.draw(found, "work")
    (panel,) = figure.axes
    (bar,) = panel.patches
    assert bar.get_extents().width == panel.transData.transform((1.0, 0.0))[0] - panel.bbox.x0
    assert [text.get_text() for text in panel.texts] == ["threshold reached 1 of 2 times"]
