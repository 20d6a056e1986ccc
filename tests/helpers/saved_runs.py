"""Folders of runs with a checkpoint, without a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from helpers.runs import quiet_trainer, small_data

from lit_mtdqn import DQN
from lit_mtdqn.types import as_task_specs


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
