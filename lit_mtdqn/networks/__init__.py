"""Q-networks: a sharing makes features of observations, heads make action values of features."""

from lit_mtdqn.networks.heads import DuelingHead, Head, LinearHead
from lit_mtdqn.networks.matching import matched_width
from lit_mtdqn.networks.q_network import QNetwork
from lit_mtdqn.networks.sharing import Columns, Experts, Shared, SharedTrunk, Sharing, TorsoFactory
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.networks.torsos import ConvTorso, LayeredTorso, MinAtarTorso, MLPTorso, Torso

__all__ = [
    "Columns",
    "ConvTorso",
    "DuelingHead",
    "Experts",
    "Head",
    "LayeredTorso",
    "LinearHead",
    "MLPTorso",
    "MinAtarTorso",
    "QNetwork",
    "Shared",
    "SharedTrunk",
    "Sharing",
    "TaskLinear",
    "Torso",
    "TorsoFactory",
    "matched_width",
]
