"""CartPole with other physics: one task per context, or contexts that change between episodes."""

import gymnasium

from lit_mtdqn.envs.suites.contextual_cartpole.context import CONTEXT_NAMES as CONTEXT_NAMES
from lit_mtdqn.envs.suites.contextual_cartpole.context import DEFAULT_CONTEXT as DEFAULT_CONTEXT
from lit_mtdqn.envs.suites.contextual_cartpole.single import (
    ContextualCartPoleEnv as ContextualCartPoleEnv,
)
from lit_mtdqn.envs.suites.contextual_cartpole.vector import (
    ContextualCartPoleVectorEnv as ContextualCartPoleVectorEnv,
)

ENV_ID = "lit_mtdqn/ContextualCartPole-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        ENV_ID,
        entry_point=f"{__name__}:ContextualCartPoleEnv",
        vector_entry_point=f"{__name__}:ContextualCartPoleVectorEnv",
    )
