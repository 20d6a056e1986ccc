"""What a counting environment must have left in a replay, by plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from helpers.counting_env import PATTERN, mask_at, reward_at, signed_length

from lit_mtdqn.types import TaskSpec


class Expected(NamedTuple):
    """One transition; `completed` is the vector step at which its last reward was seen."""

    completed: int
    start: int
    env: int
    observation: tuple[int, int, int]
    action: int
    reward: float
    discount: float
    next_observation: tuple[int, int, int]
    action_mask: tuple[bool, ...]
    next_action_mask: tuple[bool, ...]


def timeline(
    identity: int, vector_steps: int, pattern: Sequence[int] = PATTERN
) -> list[tuple[int, int] | None]:
    """Return the (episode, step) that each vector step starts from; None is a reset row."""
    moments: list[tuple[int, int] | None] = []
    episode = 0
    while len(moments) < vector_steps:
        length = abs(signed_length(pattern, identity, episode))
        moments.extend((episode, step) for step in range(length))
        moments.append(None)
        episode += 1
    return moments[:vector_steps]


def transitions(
    identities: Sequence[int], actions: np.ndarray, spec: TaskSpec, num_actions: int
) -> list[Expected]:
    """Return every transition that some vector steps complete, by start and then by environment.

    Args:
        identities: Identity of each copy, [N].
        actions: Actions taken, [L, N].
        spec: The task.
        num_actions: Padded number of actions.
    """
    found = []
    pattern = spec.kwargs.get("pattern", PATTERN)
    low, high = spec.reward_clip or (-float("inf"), float("inf"))
    for env, identity in enumerate(identities):
        for start, moment in enumerate(timeline(identity, len(actions), pattern)):
            if moment is None:
                continue
            episode, step = moment
            signed = signed_length(pattern, identity, episode)
            folded = min(spec.n_step, abs(signed) - step)
            if start + folded > len(actions):
                continue
            reward = 0.0
            for k in range(folded):
                raw = reward_at(identity, episode, step + k)
                reward += spec.gamma**k * min(max(raw, low), high)
            terminated = signed > 0 and step + folded == abs(signed)
            found.append(
                Expected(
                    completed=start + folded - 1,
                    start=start,
                    env=env,
                    observation=(identity, episode, step),
                    action=int(actions[start, env]),
                    reward=reward,
                    discount=0.0 if terminated else spec.gamma**folded,
                    next_observation=(identity, episode, step + folded),
                    action_mask=tuple(mask_at(identity, step, num_actions).tolist()),
                    next_action_mask=tuple(mask_at(identity, step + folded, num_actions).tolist()),
                )
            )
    return sorted(found, key=lambda transition: (transition.start, transition.env))


def completed_between(expected: Sequence[Expected], first: int, behind_last: int) -> list[Expected]:
    """Return the transitions that some of the vector steps complete."""
    return [row for row in expected if first <= row.completed < behind_last]
