"""What the driver sees: twenty numbers, the same for all tasks."""

import math

import numpy as np

from lit_mtdqn.envs.suites.driving.dynamics import (
    CAR_LENGTH,
    CROSSWALK_LENGTH,
    FRONT_OVERHANG,
    GREEN,
    MAX_SPEED,
    RED,
    ROAD_LENGTH,
    YELLOW,
    curvature,
    light_color,
    pedestrian_walk,
)
from lit_mtdqn.envs.suites.driving.outcome import MAX_OFFSET
from lit_mtdqn.envs.suites.driving.states import Bools, DrivingStates, Floats
from lit_mtdqn.envs.suites.driving.tasks import DrivingTask
from lit_mtdqn.functional.arrays import Table, cast

OBSERVATION_SIZE = 20
(
    OFFSET,
    HEADING,
    SPEED,
    CURVATURE,
    _CURVATURE_MIDDLE,
    _CURVATURE_FAR,
    LIGHT_PRESENT,
    LIGHT_GAP,
    LIGHT_GREEN,
    LIGHT_YELLOW,
    LIGHT_RED,
    PEDESTRIAN_PRESENT,
    PEDESTRIAN_GAP,
    PEDESTRIAN_LATERAL,
    PEDESTRIAN_VELOCITY,
    PEDESTRIAN_PROGRESS,
    REMAINING_ROAD,
    DRIFT,
    PREDICTED_OFFSET,
    STOPPING_MARGIN,
) = range(OBSERVATION_SIZE)

LOOK_AHEADS = Table(np.array([[2.0], [9.0], [18.0]]))  # m
CURVATURE_SCALE = 0.03  # 1/m
HEADING_SCALE = 0.6  # rad
DRIFT_SCALE = 2.0  # m/s
PREDICTED_OFFSET_SCALE = 2 * MAX_OFFSET  # m
GAP_SCALE = 60.0  # m
MARGIN_SCALE = 12.0  # m
WALK_SCALE = 8.0  # m
WALK_SPEED_SCALE = 2.0  # m/s
FIRM_BRAKING = 4.0  # m/s^2, behind the stopping margin


def observe(states: DrivingStates, task: DrivingTask, detection_range: float = math.inf) -> Floats:
    """Return new observations, float32 [num_envs, 20] in [-1, 1].

    Args:
        states: States.
        task: The task.
        detection_range: m from the bumper to the line beyond which lights and pedestrians look as
            if they were absent.
    """
    xp, shape = states.xp, (OBSERVATION_SIZE, states.values.shape[1])
    rows = xp.zeros(shape, dtype=xp.float64, device=states.values.device)
    rows[SPEED] = states.speed / MAX_SPEED
    rows[REMAINING_ROAD] = 1.0 - states.position / ROAD_LENGTH
    _observe_lane(states, rows)
    rows[STOPPING_MARGIN] = 1.0
    gap = states.line - states.position - CAR_LENGTH / 2
    in_range = gap <= detection_range
    if task.has_light:
        _observe_light(states, gap, in_range, rows)
    if task.has_pedestrian:
        _observe_pedestrian(states, gap, in_range, rows)
    return cast(rows.clip(-1.0, 1.0).T, "float32")


def _observe_lane(states: DrivingStates, rows: Floats) -> None:
    bends = curvature(states, states.position + LOOK_AHEADS.beside(rows))
    drift = states.speed * states.xp.sin(states.heading)
    in_a_second = states.offset + drift - 0.5 * states.speed**2 * bends[0]
    rows[OFFSET] = states.offset / MAX_OFFSET
    rows[HEADING] = states.heading / HEADING_SCALE
    rows[CURVATURE : CURVATURE + 3] = bends / CURVATURE_SCALE
    rows[DRIFT] = drift / DRIFT_SCALE
    rows[PREDICTED_OFFSET] = in_a_second / PREDICTED_OFFSET_SCALE


def _observe_light(states: DrivingStates, gap: Floats, in_range: Bools, rows: Floats) -> None:
    ahead = in_range & (gap > -FRONT_OVERHANG)
    color = light_color(states)
    rows[LIGHT_PRESENT] = ahead
    rows[LIGHT_GAP] = ahead * gap / GAP_SCALE
    rows[LIGHT_GREEN] = ahead & (color == GREEN)
    rows[LIGHT_YELLOW] = ahead & (color == YELLOW)
    rows[LIGHT_RED] = ahead & (color == RED)
    rows[STOPPING_MARGIN] = _stopping_margin(states, gap, ahead)


def _observe_pedestrian(states: DrivingStates, gap: Floats, in_range: Bools, rows: Floats) -> None:
    ahead = in_range & (gap > -(CROSSWALK_LENGTH + CAR_LENGTH))
    beyond_center, speed = pedestrian_walk(states)
    progress = ahead * beyond_center / WALK_SCALE
    rows[PEDESTRIAN_PRESENT] = ahead
    rows[PEDESTRIAN_GAP] = ahead * gap / GAP_SCALE
    rows[PEDESTRIAN_LATERAL] = progress * states.walk_direction
    rows[PEDESTRIAN_VELOCITY] = ahead * speed * states.walk_direction / WALK_SPEED_SCALE
    rows[PEDESTRIAN_PROGRESS] = progress
    rows[STOPPING_MARGIN] = _stopping_margin(states, gap, ahead)


def _stopping_margin(states: DrivingStates, gap: Floats, ahead: Bools) -> Floats:
    stopping_distance = states.speed**2 / (2 * FIRM_BRAKING)
    return states.xp.where(ahead, (gap - stopping_distance) / MARGIN_SCALE, 1.0)
