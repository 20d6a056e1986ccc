"""Folders of runs with a checkpoint, without a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.runs import quiet_trainer, small_data

from lit_mtdqn import DQN
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import as_task_specs

OWN = """
import pathlib
from lit_mtdqn.networks import MLPTorso
pathlib.Path(__file__).with_suffix(".imported").touch()
class Own(MLPTorso): ...
"""
# What a configuration says of a model with that torso.
NAMES_OWN_TORSO = {
    "init_args": {"network": {"init_args": {"torso": {"class_path": "own_torso.Own"}}}}
}


def save_run(
    folder: Path, tasks: Mapping[str, Any], learner: Any = DQN, model: Any = None, **options: Any
) -> Path:
    """Write what `fit` leaves of a learner that has learned nothing.

    Args:
        folder: Of the run.
        tasks: Plain mappings of task specs.
        learner: Makes the learner from the tasks.
        model: What the configuration says of it.
        **options: Further arguments of the learner.
    """
    data = small_data(as_task_specs(tasks))
    trainer = quiet_trainer()
    trainer.strategy.connect(learner(data.task_infos, **options))
    (folder / "checkpoints").mkdir(parents=True)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    config = {"data": {"tasks": dict(tasks), "eval_max_steps": 30}, "model": model}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def save_run_of_own_torso(
    folder: Path, tasks: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch, model: Any = None
) -> tuple[Path, Path]:
    """Write a run whose torso is a user's, and forget that its module was imported.

    Args:
        folder: Where the module lies, and the run.
        tasks: Plain mappings of task specs.
        monkeypatch: Lets the module be found.
        model: What the configuration says of it.

    Returns:
        The run's folder, and the module; a file `.imported` beside it tells that it was imported.
    """
    module = folder / "own_torso.py"
    module.write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop(module.stem, None)
    own: Any = __import__(module.stem)
    network = partial(QNetwork, torso=partial(own.Own, hidden=[8]))
    run = save_run(folder / "run", tasks, model=model, network=network)
    module.with_suffix(".imported").unlink()
    del sys.modules[module.stem]
    return run, module
