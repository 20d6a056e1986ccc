"""Learners: LightningModules that turn phases into better networks."""

from lit_mtdqn.algorithms.base import ValueLearner
from lit_mtdqn.algorithms.distillation import PolicyDistillation
from lit_mtdqn.algorithms.dqn import DQN
from lit_mtdqn.algorithms.multitask import MultiTaskDQN
from lit_mtdqn.algorithms.optimizers import Adam
from lit_mtdqn.algorithms.pqn import PQN

__all__ = ["DQN", "PQN", "Adam", "MultiTaskDQN", "PolicyDistillation", "ValueLearner"]
