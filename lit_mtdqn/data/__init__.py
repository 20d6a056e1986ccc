"""The Trainer's data: environments that are played while training."""

from lit_mtdqn.data.datamodule import RolloutDataModule
from lit_mtdqn.data.sampling import EveryTask, TaskSampler

__all__ = ["EveryTask", "RolloutDataModule", "TaskSampler"]
