"""A field on which tasks differ in nothing but what things are worth."""

import gymnasium

from lit_mtdqn.envs.suites.gathering.single import GatheringEnv as GatheringEnv
from lit_mtdqn.envs.suites.gathering.vector import GatheringVectorEnv as GatheringVectorEnv

ENV_ID = "lit_mtdqn/Gathering-v0"

if ENV_ID not in gymnasium.registry:
    gymnasium.register(
        ENV_ID,
        entry_point=f"{__name__}:GatheringEnv",
        vector_entry_point=f"{__name__}:GatheringVectorEnv",
    )
