"""The three driving tasks: what stands on the road and what a reset draws."""

from dataclasses import dataclass

import numpy as np

from lit_mtdqn.envs.suites.driving.states import DrivingStates, Floats

CYCLE_SECONDS = 14.0
GREEN_SECONDS = 6.0
YELLOW_SECONDS = 2.0


@dataclass(frozen=True)
class DrivingTask:
    """Describes one task.

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

    def draw(self, num_episodes: int, generator: np.random.Generator) -> Floats:
        """Draws all that is random in new episodes, as `DrivingStates.values`."""
        low, high = self._ranges().values.T[:, :, None]
        drawn = DrivingStates(num_episodes)
        drawn.values[:] = low + (high - low) * generator.random(drawn.values.shape)
        drawn.walk_direction[:] = np.where(drawn.walk_direction < 0.0, -1.0, 1.0)
        return drawn.values

    def _ranges(self) -> DrivingStates:
        """Returns the lowest and the highest state as a batch of two."""
        states = DrivingStates(2)
        states.offset[:] = -0.4, 0.4
        states.heading[:] = -0.06, 0.06
        states.speed[:] = 4.0, 8.0
        states.bend_size[:] = 0.4 * self.max_curvature, 0.7 * self.max_curvature
        states.bend_rate[:] = 2 * np.pi / 90.0, 2 * np.pi / 50.0
        states.wave_size[:] = 0.1 * self.max_curvature, 0.3 * self.max_curvature
        states.wave_rate[:] = 2 * np.pi / 45.0, 2 * np.pi / 30.0
        states.bend_phase[:] = states.wave_phase[:] = 0.0, 2 * np.pi
        states.line[:] = 30.0, 50.0
        states.light_phase[:] = 0.0, CYCLE_SECONDS
        states.walk_start[:] = 0.0, 3.0
        states.walk_speed[:] = 1.0, 1.6
        states.walk_direction[:] = -1.0, 1.0
        return states


TASKS = {
    "lane_keeping": DrivingTask("Lane keeping", max_curvature=0.026),
    "pedestrian": DrivingTask("Pedestrian", max_curvature=0.010, has_pedestrian=True),
    "traffic_light": DrivingTask("Traffic light", max_curvature=0.010, has_light=True),
}
