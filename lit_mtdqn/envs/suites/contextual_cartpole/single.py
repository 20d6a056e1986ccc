"""Single CartPole with contexts."""

from collections.abc import Sequence

from lit_mtdqn.envs.suites.batch_of_one import BatchOfOne
from lit_mtdqn.envs.suites.contextual_cartpole.context import Context
from lit_mtdqn.envs.suites.contextual_cartpole.vector import (
    MAX_EPISODE_STEPS,
    METADATA,
    ContextualCartPoleVectorEnv,
)


class ContextualCartPoleEnv(BatchOfOne):
    """Balances one pole, as a batch of one of `ContextualCartPoleVectorEnv`.

    Unlike the batch it waits for `reset` after the end of an episode, every reset draws the context
    anew, and `info["success"]` is a bool.

    Args:
        context: What differs from CartPole-v1; of a list every episode draws one.
        observe_context: Whether observations tell the context.
        max_episode_steps: Time limit, at least 1. The one that `gymnasium.make` adds comes on top.
        render_mode: `rgb_array` or None.
    """

    metadata = METADATA

    def __init__(
        self,
        context: Context | Sequence[Context] | None = None,
        observe_context: bool = False,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
    ) -> None:
        batch = ContextualCartPoleVectorEnv(
            1,
            context,
            observe_context=observe_context,
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
        )
        super().__init__(batch)
