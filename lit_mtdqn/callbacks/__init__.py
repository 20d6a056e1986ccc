"""When things change: one behaviour a file, all on the same clock."""

from lit_mtdqn.callbacks.epsilon_decay import EpsilonDecay
from lit_mtdqn.callbacks.progress_bar import EnvStepProgressBar
from lit_mtdqn.callbacks.target_sync import TargetNetworkSync

__all__ = ["EnvStepProgressBar", "EpsilonDecay", "TargetNetworkSync"]
