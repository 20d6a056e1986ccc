"""Q-networks: torsos make features of observations, as tasks share them, heads action values."""

from lit_mtdqn.networks.heads import (
    C51Head,
    DuelingHead,
    Head,
    HLGaussHead,
    ImplicitQuantileHead,
    LayeredHead,
    LinearHead,
    QuantileHead,
    SuccessorHead,
)
from lit_mtdqn.networks.matching import matched_width
from lit_mtdqn.networks.noise import DrawsNoise, NoisyLinear, NoisyTaskLinear
from lit_mtdqn.networks.prior import Prior
from lit_mtdqn.networks.q_network import QNetwork, predict_by_group
from lit_mtdqn.networks.sharing import Columns, Experts, Shared, SharedTrunk, Sharing
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.networks.torsos import ConvTorso, LayeredTorso, MinAtarTorso, MLPTorso, Torso

__all__ = [
    "C51Head",
    "Columns",
    "ConvTorso",
    "DrawsNoise",
    "DuelingHead",
    "Experts",
    "HLGaussHead",
    "Head",
    "ImplicitQuantileHead",
    "LayeredHead",
    "LayeredTorso",
    "LinearHead",
    "MLPTorso",
    "MinAtarTorso",
    "NoisyLinear",
    "NoisyTaskLinear",
    "Prior",
    "QNetwork",
    "QuantileHead",
    "Shared",
    "SharedTrunk",
    "Sharing",
    "SuccessorHead",
    "TaskLinear",
    "Torso",
    "matched_width",
    "predict_by_group",
]
