"""What is minimised."""

from lit_mtdqn.objectives.align import Align
from lit_mtdqn.objectives.anchor import Anchor
from lit_mtdqn.objectives.base import Objective
from lit_mtdqn.objectives.deep_supervision import DeepSupervision
from lit_mtdqn.objectives.features import AttentionTransfer, FeatureRegression
from lit_mtdqn.objectives.guidance import Guidance
from lit_mtdqn.objectives.importance import ImportanceWeights
from lit_mtdqn.objectives.literal_source import LiteralSourceGradient
from lit_mtdqn.objectives.match import Match
from lit_mtdqn.objectives.q_lambda import QLambda
from lit_mtdqn.objectives.successor import RewardRegression, SuccessorTD
from lit_mtdqn.objectives.td import TD, Predict, TDLoss

__all__ = [
    "TD",
    "Align",
    "Anchor",
    "AttentionTransfer",
    "DeepSupervision",
    "FeatureRegression",
    "Guidance",
    "ImportanceWeights",
    "LiteralSourceGradient",
    "Match",
    "Objective",
    "Predict",
    "QLambda",
    "RewardRegression",
    "SuccessorTD",
    "TDLoss",
]
