"""What has been experienced: folding of steps into transitions, and their storage."""

from lit_mtdqn.replay.accumulator import CUMULANTS, MASKS, TransitionAccumulator
from lit_mtdqn.replay.buffer import Replay, StorageKind
from lit_mtdqn.replay.folders import set_aside, whole_folder
from lit_mtdqn.replay.fragments import FragmentAccumulator
from lit_mtdqn.replay.memory import check_folder, check_memory, replay_bytes
from lit_mtdqn.replay.prioritised import Prioritisation, PrioritisedSampler
from lit_mtdqn.replay.room import is_out_of_room

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
    "is_out_of_room",
    "replay_bytes",
    "set_aside",
    "whole_folder",
]
