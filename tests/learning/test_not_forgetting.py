"""What a network knows of a first chain while it learns a second one."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.chain import ChainEnv
from helpers.runs import quiet_trainer
from helpers.tabular import Floats, optimal_q

from lit_mtdqn import Adam, MultiTaskDQN, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import (
    EpsilonDecay,
    FisherInformation,
    ReplayCheckpoint,
    TargetNetworkSync,
    WeightTransfer,
)
from lit_mtdqn.networks import MLPTorso, QNetwork
from lit_mtdqn.objectives import Anchor, Guidance

STATES = 6
FIRST = TaskSpec(env="helpers.chain:ChainEnv", kwargs={"states": STATES}, gamma=0.8)
SECOND = TaskSpec(
    env="helpers.chain:ChainEnv",
    kwargs={"states": STATES, "actions": 3, "endless": True},
    gamma=0.5,
    time_limit=10,
)
EARLIER = replace(FIRST, acts=False, learns=False)


def _learned(tasks: dict[str, TaskSpec], folder: Path, *callbacks: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    data = RolloutDataModule(
        tasks,
        num_envs=8,
        phase_vector_steps=16,
        replay_ratio=1 / 16,
        batch_size=64,
        replay_capacity=5_000,
        warmup_env_steps=500,
        total_env_steps=None,
        total_updates=400,
        seed=0,
    )
    model = MultiTaskDQN(
        data.task_infos,
        network=partial(QNetwork, torso=partial(MLPTorso, hidden=(24,))),
        optimizer=partial(Adam, lr=5e-3),
        scale=None,
        **options,
    )
    every = [TargetNetworkSync(20), EpsilonDecay(1.0, 1.0, 1_000), *callbacks]
    trainer = quiet_trainer(*every, limit_val_batches=0, default_root_dir=folder)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    return model


def _values(model: MultiTaskDQN, task: str) -> Floats:
    place = [info.name for info in model.tasks].index(task)
    observation = torch.eye(STATES)[None]
    values = model.action_values(observation, torch.tensor([place]))[0]
    return values[:, : model.tasks[place].num_actions].double().numpy()


def _optimal(spec: TaskSpec) -> Floats:
    return optimal_q(ChainEnv(**spec.kwargs).mdp(spec.gamma))


class Earlier(NamedTuple):
    """A run on the first chain."""

    folder: str
    values: Floats


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    folder = tmp_path_factory.mktemp("earlier")
    callbacks = FisherInformation(kind="values"), ReplayCheckpoint()
    model = _learned({"first": FIRST}, folder, *callbacks)
    return Earlier(str(folder), _values(model, "first"))


def _forgotten(earlier: Earlier, folder: Path, first: TaskSpec, *objectives: Any) -> float:
    """Return how far the first chain's values are from what they were after the second run."""
    tasks = {"first": first, "second": SECOND}
    start = WeightTransfer(earlier.folder)
    model = _learned(tasks, folder, start, objectives=list(objectives))
    np.testing.assert_allclose(_values(model, "second"), _optimal(SECOND), rtol=0.0, atol=0.05)
    return float(np.abs(_values(model, "first") - earlier.values).max())


def test_fine_tuning_forgets_and_anchors_guidance_and_rehearsal_do_not(
    earlier: Earlier, tmp_path: Path
) -> None:
    assert _forgotten(earlier, tmp_path / "plain", EARLIER) > 0.2
    anchor = partial(Anchor, sources=[earlier.folder], strength=1.0)
    assert _forgotten(earlier, tmp_path / "anchored", EARLIER, anchor) < 0.05
    guidance = partial(Guidance, teachers={"first": earlier.folder}, kind="mse")
    assert _forgotten(earlier, tmp_path / "guided", EARLIER, guidance) < 0.05
    rehearsed = replace(FIRST, replay=str(Path(earlier.folder) / "replay" / "rank_0" / "first"))
    # It goes on learning: what it knows gets better.
    _forgotten(earlier, tmp_path / "rehearsed", rehearsed)
    model = MultiTaskDQN.load_from_checkpoint(tmp_path / "rehearsed" / "checkpoints" / "last.ckpt")
    np.testing.assert_allclose(_values(model, "first"), _optimal(FIRST), rtol=0.0, atol=0.05)
