"""Value-based deep reinforcement learning on many tasks at once, as PyTorch Lightning parts."""

from lit_mtdqn.algorithms import DQN, PQN, Adam, MultiTaskDQN, PolicyDistillation, ValueLearner
from lit_mtdqn.data import RolloutDataModule
from lit_mtdqn.types import TaskInfo, TaskSpec

__version__ = "0.1.0"

__all__ = [
    "DQN",
    "PQN",
    "Adam",
    "MultiTaskDQN",
    "PolicyDistillation",
    "RolloutDataModule",
    "TaskInfo",
    "TaskSpec",
    "ValueLearner",
]
