"""Kinematic bicycle in lane coordinates, with a light and a pedestrian that follow the clock."""

import numpy as np

from lit_mtdqn.envs.suites.driving.states import DrivingStates, Floats, Integers
from lit_mtdqn.envs.suites.driving.tasks import CYCLE_SECONDS, GREEN_SECONDS, YELLOW_SECONDS
from lit_mtdqn.functional.arrays import Table, cast

TIME_STEP = 0.2  # s
ROAD_LENGTH = 80.0  # m
LANE_WIDTH = 4.6  # m
CAR_LENGTH = 4.0  # m
CAR_WIDTH = 1.8  # m
WHEELBASE = 2.7  # m
FRONT_OVERHANG = 0.8  # m from the front axle to the bumper, and from the rear one
MAX_SPEED = 10.0  # m/s
IDLE_SPEED = 3.0  # m/s, at which the engine pulls the coasting car
MAX_STEERING = 0.12  # rad
MAX_BRAKING = 5.0  # m/s^2
MAX_ACCELERATION = 2.5  # m/s^2
IDLE_ACCELERATION = 0.8  # m/s^2
ENGINE_BRAKING = 0.4  # m/s^2
CROSSWALK_LENGTH = 3.0  # m along the road
WALK_START_OFFSET = 6.5  # m from the lane centre to where the pedestrian waits

GREEN, YELLOW, RED = range(3)

# Actions count through brake, coast, accelerate, and within each through left, straight, right.
PEDALS = Table(np.repeat([-MAX_BRAKING, 0.0, MAX_ACCELERATION], 3))  # m/s^2
STEERINGS = Table(np.tile([MAX_STEERING, 0.0, -MAX_STEERING], 3))  # rad
NUM_ACTIONS = 9


def curvature(states: DrivingStates, position: Floats) -> Floats:
    """Return the road's curvature in 1/m at `position`, [..., num_envs] in m."""
    sin = states.xp.sin
    bend = states.bend_size * sin(states.bend_rate * position + states.bend_phase)
    wave = states.wave_size * sin(states.wave_rate * position + states.wave_phase)
    return bend + wave


def light_color(states: DrivingStates) -> Integers:
    """Return what the light shows, `GREEN`, `YELLOW` or `RED`, [num_envs]."""
    clock = (states.step * TIME_STEP + states.light_phase) % CYCLE_SECONDS
    not_green, red = clock >= GREEN_SECONDS, clock >= GREEN_SECONDS + YELLOW_SECONDS
    return cast(not_green, "int8") + red


def pedestrian_walk(states: DrivingStates) -> tuple[Floats, Floats]:
    """Return how far the walk went beyond the lane centre in m and its speed in m/s."""
    seconds = states.step * TIME_STEP - states.walk_start
    speed = states.walk_speed * (seconds >= 0.0)
    return speed * seconds - WALK_START_OFFSET, speed


def drive(states: DrivingStates, actions: Integers) -> Floats:
    """Move the cars by one step in place and return how far along the road, [num_envs] in m."""
    xp = states.xp
    states.acceleration[:] = _acceleration(states, actions)
    states.steering[:] = STEERINGS.beside(actions)[actions]
    faster = states.speed + TIME_STEP * states.acceleration
    states.speed[:] = faster.clip(0.0, MAX_SPEED)
    distance = TIME_STEP * states.speed
    bend = curvature(states, states.position)
    moved = distance * xp.cos(states.heading) / (1.0 - bend * states.offset)
    states.heading += distance * xp.tan(states.steering) / WHEELBASE - bend * moved
    states.offset += distance * xp.sin(states.heading)
    states.position += moved
    states.step += 1.0
    return moved


def _acceleration(states: DrivingStates, actions: Integers) -> Floats:
    idle = (IDLE_SPEED - states.speed).clip(-ENGINE_BRAKING, IDLE_ACCELERATION)
    pedal = PEDALS.beside(actions)[actions]
    return states.xp.where(pedal == 0.0, idle, pedal)
