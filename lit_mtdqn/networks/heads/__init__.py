"""From features to action values, and the loss in each head's own space."""

from lit_mtdqn.networks.heads.base import Head, LayeredHead
from lit_mtdqn.networks.heads.categorical import C51Head, HLGaussHead
from lit_mtdqn.networks.heads.implicit import ImplicitQuantileHead
from lit_mtdqn.networks.heads.quantile import QuantileHead
from lit_mtdqn.networks.heads.scalar import DuelingHead, LinearHead
from lit_mtdqn.networks.heads.successor import SuccessorHead

__all__ = [
    "C51Head",
    "DuelingHead",
    "HLGaussHead",
    "Head",
    "ImplicitQuantileHead",
    "LayeredHead",
    "LinearHead",
    "QuantileHead",
    "SuccessorHead",
]
