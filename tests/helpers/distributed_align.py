"""A short run on two ranks that draw their tasks apart: `python distributed_align.py FOLDER`.

Each rank writes what it ended with, and in which updates it had a source, into FOLDER.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from helpers.counting_env import SINGLE, VECTOR
from helpers.runs import NETWORK, quiet_trainer, small_data
from lightning.pytorch.callbacks import Callback
from torchjd import aggregation

from lit_mtdqn import MultiTaskDQN, TaskSpec
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.data import GumbelTopK, SoftmaxTasks
from lit_mtdqn.objectives import Align, ImportanceWeights
from lit_mtdqn.process import configure_process
from lit_mtdqn.types import Phase

TASKS = {
    "near": TaskSpec(env=VECTOR),
    "other": TaskSpec(env=VECTOR),
    "far": TaskSpec(env=SINGLE, head="near", learns=False),
}
OF_ONE_HEAD = {"near": TASKS["near"], "other": TaskSpec(env=VECTOR, head="near")}
ALIGN: list[Any] = [partial(Align, kind=kind, sources=["near"]) for kind in ("dann", "mmd")]
# A rank may have both tasks of `ImportanceWeights` in an update while the other has one alone.
DRAWN = {"drawn": GumbelTopK(k=1, score="td_error"), "weighted": SoftmaxTasks("td_error")}
# Without a source on a rank now and then, and with copies of what is shared, which all tasks need.
OPTIONS: dict[str, dict[str, Any]] = {
    "drawn": {"objectives": ALIGN},
    "by_task": {
        "objectives": ALIGN,
        "balancer": partial(Aggregated, aggregator=aggregation.Mean),
    },
    "weighted": {
        "objectives": [partial(ImportanceWeights, sources={"other": "near"})],
        "scale": None,
    },
}


class Tasks(Callback):
    """Keeps the task that each update learned."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Phase, batch_idx: int
    ) -> None:
        self.seen += batch.transitions.task.flatten().tolist()


def run(name: str) -> dict[str, Any]:
    """Fit a learner that aligns on two processes and return what this rank knows of it."""
    torch.manual_seed(0)
    tasks_played = OF_ONE_HEAD if name == "weighted" else TASKS
    brief = {"batch_size": 8, "total_env_steps": 150, "eval_episodes": 1}
    data = small_data(tasks_played, sampler=DRAWN.get(name), **brief)
    model = MultiTaskDQN(data.task_infos, NETWORK, **OPTIONS[name])
    tasks = Tasks()
    trainer = quiet_trainer(tasks, devices=2, strategy="ddp", log_every_n_steps=1)
    trainer.fit(model, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {"weights": model.state_dict(), "tasks": tasks.seen, "metrics": metrics}


if __name__ == "__main__":
    configure_process()
    found = {name: run(name) for name in OPTIONS}
    rank = torch.distributed.get_rank()
    torch.save(found, Path(sys.argv[1]) / f"rank_{rank}.pt")
