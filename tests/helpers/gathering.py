"""The gathering field as tables."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from helpers.tabular import FiniteMDP, Floats, policy_value

from lit_mtdqn.envs.suites.gathering import GatheringVectorEnv


class Field(NamedTuple):
    """All states of a field, and what every action does there.

    Attributes:
        observation: [S, O].
        transition: Probability of each next state, [S, A, S]; none where the episode ends.
        cumulants: [S, A, D].
    """

    observation: Floats
    transition: Floats
    cumulants: Floats

    def mdp(self, worth: Floats, gamma: float) -> FiniteMDP:
        """Return the process in which each cumulant has some worth, [D]."""
        return FiniteMDP(self.transition, self.cumulants @ worth, gamma)

    def gathered(self, policy: np.ndarray, gamma: float) -> Floats:
        """Return the successor features of a deterministic policy, [S, A, D]."""
        by_kind = []
        for kind in np.eye(self.cumulants.shape[-1]):
            mdp = self.mdp(kind, gamma)
            by_kind.append(mdp.backup(policy_value(mdp, policy)))
        return np.stack(by_kind, -1)


def tabulate(field: tuple[str, ...]) -> Field:
    """Return the tables of a field, found by stepping every state by every action."""
    kinds = len(set("".join(field)) - {"."})
    probe = GatheringVectorEnv(1, [0.0] * kinds, field)
    things = len(probe._things)
    states = [
        (cell, left)
        for cell in range(probe.shape[0] * probe.shape[1])
        for left in product([False, True], repeat=things)
        if any(left) and not any(np.array(left) & (probe._things == cell))
    ]
    actions = int(probe.single_action_space.n)  # type: ignore[attr-defined]
    rows = [(state, action) for state in states for action in range(actions)]
    env = GatheringVectorEnv(len(rows), [0.0] * kinds, field)
    env.reset(seed=0)
    env._cell[:] = [state[0] for state, _ in rows]
    env._left[:] = [state[1] for state, _ in rows]
    observation = env._observe()[::actions].astype(np.float64)
    following, _, ended, _, info = env.step(np.array([action for _, action in rows]))
    number = {tuple(row): place for place, row in enumerate(observation)}
    transition = np.zeros((len(rows), len(states)))
    for place in np.flatnonzero(~ended):
        transition[place, number[tuple(following[place])]] = 1.0
    shape = (len(states), actions, -1)
    cumulants = info["cumulants"].astype(np.float64)
    return Field(observation, transition.reshape(shape), cumulants.reshape(shape))
