"""MinAtar's five games, many copies in one environment; needs the extra `minatar`.

The package leaves registration to its users, and so its ids have no batched form until
`register_envs` was called.
"""

import gymnasium
import minatar.gym

from lit_mtdqn.envs.suites.minatar.vector import MinAtarVectorEnv as MinAtarVectorEnv

PREFIX = "MinAtar/"


def register_envs() -> None:
    """Register MinAtar's ids, each with the batched form beside MinAtar's own single one."""
    minatar.gym.register_envs()
    for env_id, spec in gymnasium.registry.items():
        if env_id.startswith(PREFIX):
            spec.vector_entry_point = f"{__name__}:MinAtarVectorEnv"
