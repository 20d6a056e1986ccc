"""From a trained network to something that acts elsewhere: saved runs, exported policies."""

from lit_mtdqn.deployment.acting import Actor
from lit_mtdqn.deployment.description import KEY
from lit_mtdqn.deployment.exporting import FORMATS, Exported, check_export, export_policy
from lit_mtdqn.deployment.greedy_policy import GreedyPolicy
from lit_mtdqn.deployment.parity import Parity
from lit_mtdqn.deployment.saved_run import SavedRun, SavedTasks, read_run
from lit_mtdqn.deployment.watching import watch

__all__ = [
    "FORMATS",
    "KEY",
    "Actor",
    "Exported",
    "GreedyPolicy",
    "Parity",
    "SavedRun",
    "SavedTasks",
    "check_export",
    "export_policy",
    "read_run",
    "watch",
]
