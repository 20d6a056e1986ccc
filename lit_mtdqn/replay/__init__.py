"""What has been experienced: folding of steps into transitions, and their storage."""

from lit_mtdqn.replay.accumulator import CUMULANTS, MASKS, TransitionAccumulator
from lit_mtdqn.replay.buffer import Replay, StorageKind
from lit_mtdqn.replay.folders import fresh_folder, set_aside, take_place
from lit_mtdqn.replay.fragments import FragmentAccumulator
from lit_mtdqn.replay.memory import check_folder, check_memory, replay_bytes
from lit_mtdqn.replay.prioritised import Prioritisation, PrioritisedSampler

__all__ = [
    "CUMULANTS",
    "MASKS",
    "FragmentAccumulator",
    "Prioritisation",
    "PrioritisedSampler",
    "Replay",
    "StorageKind",
    "TransitionAccumulator",
    "check_folder",
    "check_memory",
    "fresh_folder",
    "replay_bytes",
    "set_aside",
    "take_place",
]
