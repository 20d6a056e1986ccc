"""The three driving tasks: what stands on the road and what a reset draws."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lit_mtdqn.envs.suites.driving.states import NUM_ROWS, DrivingStates, Floats
from lit_mtdqn.functional.arrays import Table

GREEN_SECONDS = 6.0
YELLOW_SECONDS = 2.0
RED_SECONDS = 6.0
CYCLE_SECONDS = GREEN_SECONDS + YELLOW_SECONDS + RED_SECONDS


@dataclass(frozen=True)
class DrivingTask:
    """What one task puts on the road.

    Attributes:
        title: Name for people.
        max_curvature: Bound of the road's curvature, 1/m.
        has_light: Whether a traffic light stands at the line.
        has_pedestrian: Whether a pedestrian crosses behind the line.
    """

    title: str
    max_curvature: float
    has_light: bool = False
    has_pedestrian: bool = False

    def draw(self, num_episodes: int, generator: Any) -> Floats:
        """Draw all that is random in new episodes, as `DrivingStates.values`.

        Args:
            num_episodes: Their number.
            generator: NumPy's, or a `TensorGenerator`.
        """
        uniform = generator.random((NUM_ROWS, num_episodes))
        low, high = self._ranges.beside(uniform)
        drawn = DrivingStates(low + (high - low) * uniform)
        to_the_right = drawn.walk_direction < 0.0
        drawn.walk_direction[:] = drawn.xp.where(to_the_right, -1.0, 1.0)
        return drawn.values

    @cached_property
    def _ranges(self) -> Table:
        """Return the lowest and the highest first state, [2, 18, 1]."""
        ranges = DrivingStates(np.zeros((NUM_ROWS, 2)))
        ranges.offset[:] = -0.4, 0.4
        ranges.heading[:] = -0.06, 0.06
        ranges.speed[:] = 4.0, 8.0
        ranges.bend_size[:] = 0.4 * self.max_curvature, 0.7 * self.max_curvature
        ranges.bend_rate[:] = 2 * np.pi / 90.0, 2 * np.pi / 50.0
        ranges.bend_phase[:] = 0.0, 2 * np.pi
        ranges.wave_size[:] = 0.1 * self.max_curvature, 0.3 * self.max_curvature
        ranges.wave_rate[:] = 2 * np.pi / 45.0, 2 * np.pi / 30.0
        ranges.wave_phase[:] = 0.0, 2 * np.pi
        ranges.line[:] = 30.0, 50.0
        ranges.light_phase[:] = 0.0, CYCLE_SECONDS
        ranges.walk_start[:] = 0.0, 3.0
        ranges.walk_speed[:] = 1.0, 1.6
        ranges.walk_direction[:] = -1.0, 1.0
        return Table(ranges.values.T[:, :, None])


TASKS = {
    "lane_keeping": DrivingTask("Lane keeping", max_curvature=0.026),
    "pedestrian": DrivingTask("Pedestrian", max_curvature=0.010, has_pedestrian=True),
    "traffic_light": DrivingTask("Traffic light", max_curvature=0.010, has_light=True),
}
