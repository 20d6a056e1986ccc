"""Rewards of the driving tasks."""

from lit_mtdqn.envs.suites.driving.dynamics import (
    CAR_LENGTH,
    FRONT_OVERHANG,
    GREEN,
    MAX_BRAKING,
    ROAD_LENGTH,
    pedestrian_walk,
)
from lit_mtdqn.envs.suites.driving.outcome import (
    CLOSE_DISTANCE,
    MAX_OFFSET,
    NUM_OUTCOMES,
    SUCCESS,
    crosses_line,
    is_on_crosswalk,
    pedestrian_distance,
)
from lit_mtdqn.envs.suites.driving.states import Bools, DrivingStates, Floats, Integers
from lit_mtdqn.envs.suites.driving.tasks import DrivingTask
from lit_mtdqn.functional.arrays import Table, cast

ROAD_REWARD = 1.0  # for the whole road, driven in the middle of the lane
CENTERING = 4.0  # share of a metre's reward that is lost at the edge of the lane
NEEDLESS_BRAKING_COST = 0.04  # per step
BRAKING_ZONE = 25.0  # m before the line, in which a red light or a pedestrian excuses braking
LATE_COST = 1.0  # for passing the stop line while the light is not green
NEAR_COST = 0.1  # per step on the crosswalk, if as near as is just allowed
NEAR_DISTANCE = 3.5  # m sideways, from where the pedestrian feels safe
OUTCOME_REWARDS = Table([0.0] * SUCCESS + [1.0] + [-1.0] * (NUM_OUTCOMES - SUCCESS - 1))


def rewards(
    states: DrivingStates,
    task: DrivingTask,
    moved: Floats,
    seen_color: Integers,
    outcome: Integers,
) -> Floats:
    """Return the rewards of a step, float32 [num_envs]; arguments as for `judge`.

    The costs that come before a violation turn its cliff into a slope: a value function that
    is slightly wrong then stops a little early, not a little late.
    """
    off_center = (states.offset / MAX_OFFSET) ** 2
    total = ROAD_REWARD / ROAD_LENGTH * moved * (1.0 - CENTERING * off_center)
    brakes = states.acceleration == -MAX_BRAKING
    needlessly = brakes & ~_has_to_yield(states, task, seen_color)
    total -= NEEDLESS_BRAKING_COST * cast(needlessly, "float64")
    total += OUTCOME_REWARDS.beside(outcome)[outcome]
    if task.has_light:
        total -= LATE_COST * (crosses_line(states, moved) & (seen_color != GREEN))
    if task.has_pedestrian:
        total -= NEAR_COST * _nearness(states) * is_on_crosswalk(states)
    return cast(total, "float32")


def _has_to_yield(states: DrivingStates, task: DrivingTask, seen_color: Integers) -> Bools:
    """Return where the car is close to a light that is not green or to a pedestrian's walk."""
    gap = states.line - states.position - CAR_LENGTH / 2
    yields = (gap > -FRONT_OVERHANG) & (gap < BRAKING_ZONE)
    if task.has_light:
        yields &= seen_color != GREEN
    elif task.has_pedestrian:
        yields &= pedestrian_walk(states)[0] < NEAR_DISTANCE
    else:
        yields[:] = False
    return yields


def _nearness(states: DrivingStates) -> Floats:
    """Return 1 at the closest distance allowed, falling to 0 where the pedestrian feels safe."""
    room = (NEAR_DISTANCE - pedestrian_distance(states)) / (NEAR_DISTANCE - CLOSE_DISTANCE)
    return room.clip(0.0, 1.0)
