"""The state of a batch of episodes."""

from lit_mtdqn.functional.arrays import namespace_of
from lit_mtdqn.types import Array

Floats = Array
Bools = Array
Integers = Array
NUM_ROWS = 18


class DrivingStates:
    """Names the rows of one matrix, so that a batch is copied, saved or restarted at once.

    Every attribute is a view of one row of `values`, of shape [num_envs]; write to it in place.

    Args:
        values: All rows, float64 [18, num_envs], an array or a tensor.

    Attributes:
        values: All rows.
        xp: The module with their functions, `numpy` or `torch`.
        position: m along the road, of the car's centre.
        offset: m from the lane centre, left positive.
        heading: rad from the lane's direction, left positive.
        speed: m/s.
        steering: rad, of the last action, left positive.
        acceleration: m/s^2, of the last action.
        step: Steps since the reset.
        bend_size: 1/m, curvature of the road's long bends.
        bend_rate: rad/m.
        bend_phase: rad.
        wave_size: 1/m, curvature of the road's short bends.
        wave_rate: rad/m.
        wave_phase: rad.
        line: m along the road, of the stop line or the near edge of the crosswalk.
        light_phase: s into the light's cycle at the reset.
        walk_start: s after the reset.
        walk_speed: m/s.
        walk_direction: 1 if the pedestrian walks to the left, -1 if to the right.
    """

    def __init__(self, values: Floats) -> None:
        self.values, self.xp = values, namespace_of(values)
        (
            self.position,
            self.offset,
            self.heading,
            self.speed,
            self.steering,
            self.acceleration,
            self.step,
            self.bend_size,
            self.bend_rate,
            self.bend_phase,
            self.wave_size,
            self.wave_rate,
            self.wave_phase,
            self.line,
            self.light_phase,
            self.walk_start,
            self.walk_speed,
            self.walk_direction,
        ) = self.values
