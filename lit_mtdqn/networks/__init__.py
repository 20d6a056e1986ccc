"""Q-networks: a torso makes features of observations, a head makes action values of features."""

from lit_mtdqn.networks.heads import DuelingHead, Head, LinearHead
from lit_mtdqn.networks.q_network import QNetwork, predict_by_group
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.networks.torsos import ConvTorso, MinAtarTorso, MLPTorso, Torso

__all__ = [
    "ConvTorso",
    "DuelingHead",
    "Head",
    "LinearHead",
    "MLPTorso",
    "MinAtarTorso",
    "QNetwork",
    "TaskLinear",
    "Torso",
    "predict_by_group",
]
