"""When things change: one behaviour a file, all on the same clock."""

from lit_mtdqn.callbacks.compiled_updates import CompiledUpdates
from lit_mtdqn.callbacks.distributed_training import DistributedTraining
from lit_mtdqn.callbacks.episode_videos import EpisodeVideos
from lit_mtdqn.callbacks.epsilon_decay import EpsilonDecay
from lit_mtdqn.callbacks.fisher_information import FisherInformation
from lit_mtdqn.callbacks.graceful_stop import GracefulStop
from lit_mtdqn.callbacks.gradient_agreement import GradientAgreement
from lit_mtdqn.callbacks.initial_evaluation import InitialEvaluation
from lit_mtdqn.callbacks.inspection import Inspection
from lit_mtdqn.callbacks.network_health import NetworkHealth
from lit_mtdqn.callbacks.part_learning_rates import PartLearningRates
from lit_mtdqn.callbacks.progress_bar import EnvStepProgressBar
from lit_mtdqn.callbacks.replay_checkpoint import ReplayCheckpoint
from lit_mtdqn.callbacks.run_report import RunReport
from lit_mtdqn.callbacks.skipped_updates import SkippedUpdates
from lit_mtdqn.callbacks.target_sync import TargetNetworkSync
from lit_mtdqn.callbacks.task_affinity import TaskAffinity
from lit_mtdqn.callbacks.weight_transfer import WeightTransfer

__all__ = [
    "CompiledUpdates",
    "DistributedTraining",
    "EnvStepProgressBar",
    "EpisodeVideos",
    "EpsilonDecay",
    "FisherInformation",
    "GracefulStop",
    "GradientAgreement",
    "InitialEvaluation",
    "Inspection",
    "NetworkHealth",
    "PartLearningRates",
    "ReplayCheckpoint",
    "RunReport",
    "SkippedUpdates",
    "TargetNetworkSync",
    "TaskAffinity",
    "WeightTransfer",
]
