"""What has been experienced: folding of steps into transitions, and their storage."""

from lit_mtdqn.replay.accumulator import MASKS, TransitionAccumulator
from lit_mtdqn.replay.buffer import Replay, StorageKind
from lit_mtdqn.replay.memory import check_folder, check_memory, replay_bytes

__all__ = [
    "MASKS",
    "Replay",
    "StorageKind",
    "TransitionAccumulator",
    "check_folder",
    "check_memory",
    "replay_bytes",
]
