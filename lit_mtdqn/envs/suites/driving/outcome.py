"""How episodes end: the rules of the road."""

from lit_mtdqn.envs.suites.driving.dynamics import (
    CAR_LENGTH,
    CAR_WIDTH,
    CROSSWALK_LENGTH,
    FRONT_OVERHANG,
    LANE_WIDTH,
    RED,
    ROAD_LENGTH,
    pedestrian_walk,
)
from lit_mtdqn.envs.suites.driving.states import Bools, DrivingStates, Floats, Integers
from lit_mtdqn.envs.suites.driving.tasks import DrivingTask
from lit_mtdqn.functional.arrays import fill_

MAX_OFFSET = (LANE_WIDTH - CAR_WIDTH) / 2  # m, where the wheels touch the lane's line
CLOSE_DISTANCE = 1.9  # m sideways between the car's centre and the pedestrian

# How an episode stands after a step; those after SUCCESS are violations.
RUNNING, TIME_UP, SUCCESS, LEFT_LANE, RAN_RED, TOO_CLOSE = range(6)
NUM_OUTCOMES = 6


def judge(
    states: DrivingStates, task: DrivingTask, moved: Floats, seen_color: Integers
) -> Integers:
    """Return how a step left the episodes, [num_envs], but for the time limit.

    Args:
        states: States after the step.
        task: The task.
        moved: m along the road in this step, [num_envs].
        seen_color: What the light showed when the driver chose its action, [num_envs].
    """
    outcome = states.xp.zeros(len(moved), dtype=states.xp.int64, device=moved.device)
    fill_(outcome, states.position >= ROAD_LENGTH, SUCCESS)
    fill_(outcome, abs(states.offset) > MAX_OFFSET, LEFT_LANE)
    if task.has_light:
        axle_crosses = crosses_line(states, moved, overhang=FRONT_OVERHANG)
        fill_(outcome, axle_crosses & (seen_color == RED), RAN_RED)
    if task.has_pedestrian:
        is_close = pedestrian_distance(states) < CLOSE_DISTANCE
        on_crosswalk = is_on_crosswalk(states, overhang=FRONT_OVERHANG)
        fill_(outcome, is_close & on_crosswalk, TOO_CLOSE)
    return outcome


def crosses_line(states: DrivingStates, moved: Floats, overhang: float = 0.0) -> Bools:
    """Return where this step took the car over the line, up to `overhang` m behind its bumper."""
    over = states.position + (CAR_LENGTH / 2 - overhang) - states.line
    return (over >= 0.0) & (over < moved)


def is_on_crosswalk(states: DrivingStates, overhang: float = 0.0) -> Bools:
    """Return where the car, less `overhang` m at either end, stands on the crosswalk."""
    middle = states.line + CROSSWALK_LENGTH / 2
    reach = (CROSSWALK_LENGTH + CAR_LENGTH) / 2 - overhang
    return abs(states.position - middle) < reach


def pedestrian_distance(states: DrivingStates) -> Floats:
    """Return how far sideways the pedestrian is from the car's centre, [num_envs] in m."""
    beyond_center, _ = pedestrian_walk(states)
    return abs(beyond_center * states.walk_direction - states.offset)
