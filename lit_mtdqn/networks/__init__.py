"""Q-networks: a torso makes features of observations, a head makes action values of features."""

from lit_mtdqn.networks.heads import (
    C51Head,
    DuelingHead,
    Head,
    HLGaussHead,
    ImplicitQuantileHead,
    LayeredHead,
    LinearHead,
    QuantileHead,
)
from lit_mtdqn.networks.noise import DrawsNoise, NoisyLinear, NoisyTaskLinear
from lit_mtdqn.networks.q_network import QNetwork
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.networks.torsos import ConvTorso, MinAtarTorso, MLPTorso, Torso

__all__ = [
    "C51Head",
    "ConvTorso",
    "DrawsNoise",
    "DuelingHead",
    "HLGaussHead",
    "Head",
    "ImplicitQuantileHead",
    "LayeredHead",
    "LinearHead",
    "MLPTorso",
    "MinAtarTorso",
    "NoisyLinear",
    "NoisyTaskLinear",
    "QNetwork",
    "QuantileHead",
    "TaskLinear",
    "Torso",
]
