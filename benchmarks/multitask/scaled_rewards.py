"""Rewards of another unit."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium


class ScaledRewards(gymnasium.RewardWrapper[Any, Any]):
    """Multiplies every reward.

    Args:
        env: The environment.
        factor: What rewards are multiplied by.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], factor: float) -> None:
        super().__init__(env)
        self.factor = factor

    def reward(self, reward: SupportsFloat) -> SupportsFloat:
        """Return the reward in the other unit."""
        return float(reward) * self.factor
