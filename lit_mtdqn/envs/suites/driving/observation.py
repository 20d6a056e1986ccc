"""What the driver sees: twenty numbers, shared by all tasks."""

import numpy as np
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.driving.dynamics import (
    CAR_LENGTH,
    CROSSWALK_LENGTH,
    MAX_BRAKING,
    FRONT_OVERHANG,
    MAX_OFFSET,
    MAX_SPEED,
    MAX_STEERING,
    ROAD_LENGTH,
    curvature,
    light_colors,
    pedestrian_walk,
)
from lit_mtdqn.envs.suites.driving.states import DrivingStates, Floats
from lit_mtdqn.envs.suites.driving.tasks import DrivingTask

OBSERVATION_SIZE = 20
LOOK_AHEADS: Floats = np.array([[2.0], [9.0], [18.0]])  # m
CURVATURE_SCALE = 0.03  # 1/m
HEADING_SCALE = 0.4  # rad
GAP_SCALE = 60.0  # m
MARGIN_SCALE = 12.0  # m
WALK_SCALE = 8.0  # m
WALK_SPEED_SCALE = 2.0  # m/s
COMFORTABLE_BRAKING = 4.0  # m/s^2


def observe(states: DrivingStates, task: DrivingTask) -> NDArray[np.float32]:
    """Returns new observations, [num_envs, 20] in [-1, 1]."""
    rows = np.zeros((OBSERVATION_SIZE, states.values.shape[1]))
    rows[0] = states.offset / MAX_OFFSET
    rows[1] = states.heading / HEADING_SCALE
    rows[2] = states.speed / MAX_SPEED
    rows[3:6] = curvature(states, states.position + LOOK_AHEADS) / CURVATURE_SCALE
    rows[16] = 1.0 - states.position / ROAD_LENGTH
    drift = states.speed * np.sin(states.heading)
    rows[17] = drift / 2.0
    rows[18] = (states.offset + drift - .5*states.speed**2 * rows[3]*CURVATURE_SCALE)/MAX_OFFSET/2
    rows[19] = 1.0
    if task.has_light or task.has_pedestrian:
        _observe_line(states, task, rows)
    np.maximum(rows, -1.0, out=rows)
    np.minimum(rows, 1.0, out=rows)
    return np.ascontiguousarray(rows.T, dtype=np.float32)


def _observe_line(states: DrivingStates, task: DrivingTask, rows: Floats) -> None:
    gap = states.line - states.position - CAR_LENGTH / 2
    margin = gap - states.speed**2 / (2 * COMFORTABLE_BRAKING)
    if task.has_light:
        ahead = gap > -FRONT_OVERHANG
        rows[6] = ahead
        rows[7] = gap / GAP_SCALE
        rows[8:11] = light_colors(states)
        rows[7:11] *= ahead
    if task.has_pedestrian:
        ahead = gap > -(CROSSWALK_LENGTH + CAR_LENGTH)
        rows[11] = ahead
        rows[12] = gap / GAP_SCALE
        _observe_pedestrian(states, rows)
        rows[12:16] *= ahead
    rows[19] = np.where(ahead, margin / MARGIN_SCALE, 1.0)


def _observe_pedestrian(states: DrivingStates, rows: Floats) -> None:
    beyond_center, speed = pedestrian_walk(states)
    rows[13] = beyond_center * states.walk_direction / WALK_SCALE
    rows[14] = speed * states.walk_direction / WALK_SPEED_SCALE
    rows[15] = beyond_center / WALK_SCALE
