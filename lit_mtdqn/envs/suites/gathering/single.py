"""Single gathering."""

from collections.abc import Sequence

from lit_mtdqn.envs.suites.batch_of_one import BatchOfOne
from lit_mtdqn.envs.suites.gathering.vector import (
    FIELD,
    MAX_EPISODE_STEPS,
    METADATA,
    GatheringVectorEnv,
)


class GatheringEnv(BatchOfOne):
    """Gathers on one field, as a batch of one of `GatheringVectorEnv`.

    Unlike the batch it waits for `reset` after the end of an episode.

    Args:
        worth: Reward of a thing of each kind, in alphabetical order.
        field: Rows of one length, a letter for each thing and `.` for each free cell.
        max_episode_steps: Time limit, at least 1. The one that `gymnasium.make` adds comes on top.
        render_mode: `rgb_array` or None.
    """

    metadata = METADATA

    def __init__(
        self,
        worth: Sequence[float] = (1.0, 0.0),
        field: Sequence[str] = FIELD,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(GatheringVectorEnv(1, worth, field, max_episode_steps, render_mode))
