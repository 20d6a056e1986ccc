"""Kinematic bicycle in lane coordinates, with a light and a pedestrian that follow the clock."""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.driving.states import Bools, DrivingStates, Floats
from lit_mtdqn.envs.suites.driving.tasks import (
    CYCLE_SECONDS,
    GREEN_SECONDS,
    YELLOW_SECONDS,
    DrivingTask,
)

TIME_STEP = 0.2  # s
ROAD_LENGTH = 80.0  # m
LANE_WIDTH = 4.6  # m
CAR_LENGTH = 4.0  # m
CAR_WIDTH = 1.8  # m
WHEELBASE = 2.7  # m
FRONT_OVERHANG = 0.8  # m from the front axle to the bumper
MAX_OFFSET = (LANE_WIDTH - CAR_WIDTH) / 2  # m, where the wheels touch the line
MAX_SPEED = 10.0  # m/s
MAX_STEERING = 0.12  # rad
IDLE = 3.0
MAX_BRAKING = 5.0  # m/s^2
CROSSWALK_LENGTH = 3.0  # m along the road
CLOSE_DISTANCE = 1.9  # m sideways between the car's centre and the pedestrian
WALK_START_OFFSET = 6.5  # m from the lane centre to where the pedestrian waits

ACCELERATIONS: Floats = np.repeat([-MAX_BRAKING, -0.4, 2.5], 3)  # brake, coast, accelerate
STEERINGS: Floats = np.tile([MAX_STEERING, 0.0, -MAX_STEERING], 3)  # left, straight, right
NUM_ACTIONS = len(STEERINGS)


class Outcome(IntEnum):
    """How an episode stands after a step."""

    RUNNING = 0
    TIME_UP = 1
    SUCCESS = 2
    LEFT_LANE = 3
    RAN_RED = 4
    TOO_CLOSE = 5


def curvature(states: DrivingStates, position: Floats) -> Floats:
    """Returns the road's curvature in 1/m at `position`, [..., num_envs] in m."""
    bend = states.bend_size * np.sin(states.bend_rate * position + states.bend_phase)
    wave = states.wave_size * np.sin(states.wave_rate * position + states.wave_phase)
    return np.add(bend, wave)


def light_colors(states: DrivingStates) -> tuple[Bools, Bools, Bools]:
    """Returns where the light is green, yellow and red, each [num_envs]."""
    clock = (states.step * TIME_STEP + states.light_phase) % CYCLE_SECONDS
    green, red = clock < GREEN_SECONDS, clock >= GREEN_SECONDS + YELLOW_SECONDS
    return green, ~(green | red), red


def pedestrian_walk(states: DrivingStates) -> tuple[Floats, Floats]:
    """Returns how far the walk went beyond the lane centre in m and its speed in m/s."""
    seconds = states.step * TIME_STEP - states.walk_start
    speed = states.walk_speed * (seconds >= 0.0)
    return speed * seconds - WALK_START_OFFSET, speed


def drive(states: DrivingStates, actions: NDArray[np.integer]) -> Floats:
    """Moves the cars by one step in place and returns how far along the road, [num_envs] in m."""
    states.acceleration[:] = np.where(actions//3==1,np.clip(IDLE-states.speed,-.4,.8),ACCELERATIONS[actions])
    states.steering[:] = STEERINGS[actions]
    states.speed += TIME_STEP * states.acceleration
    np.maximum(states.speed, 0.0, out=states.speed)
    np.minimum(states.speed, MAX_SPEED, out=states.speed)
    distance = TIME_STEP * states.speed
    bend = curvature(states, states.position)
    moved: Floats = distance * np.cos(states.heading) / (1.0 - bend * states.offset)
    states.heading += distance * np.tan(states.steering) / WHEELBASE - bend * moved
    states.offset += distance * np.sin(states.heading)
    states.position += moved
    states.step += 1.0
    return moved


def judge(
    states: DrivingStates, task: DrivingTask, moved: Floats, was_red: Bools | None
) -> NDArray[np.int8]:
    """Returns the `Outcome` of a step that moved the cars by `moved` m, [num_envs].

    The light counts as the driver saw it when it acted, `was_red`.
    """
    outcome = np.zeros(len(moved), dtype=np.int8)
    front = states.position + CAR_LENGTH / 2
    outcome[states.position >= ROAD_LENGTH] = Outcome.SUCCESS
    outcome[np.abs(states.offset) > MAX_OFFSET] = Outcome.LEFT_LANE
    if was_red is not None:
        axle = front - FRONT_OVERHANG
        crossed = (axle >= states.line) & (axle - moved < states.line)
        outcome[crossed & was_red] = Outcome.RAN_RED
    if task.has_pedestrian:
        outcome[_is_close(states, front)] = Outcome.TOO_CLOSE
    return outcome


def _is_close(states: DrivingStates, front: Floats) -> Bools:
    """Returns where the car is on the crosswalk while the pedestrian is near its path."""
    beyond_center, _ = pedestrian_walk(states)
    lateral = beyond_center * states.walk_direction
    return (np.abs(states.position - states.line - 1.5) < 2.7) & (np.abs(lateral - states.offset) < CLOSE_DISTANCE)
