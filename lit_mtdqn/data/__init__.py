"""The Trainer's data: environments that are played while training."""

from lit_mtdqn.data.datamodule import RolloutDataModule
from lit_mtdqn.data.sampling import (
    EveryTask,
    FixedShares,
    GumbelTopK,
    SoftmaxTasks,
    TaskSampler,
)

__all__ = [
    "EveryTask",
    "FixedShares",
    "GumbelTopK",
    "RolloutDataModule",
    "SoftmaxTasks",
    "TaskSampler",
]
