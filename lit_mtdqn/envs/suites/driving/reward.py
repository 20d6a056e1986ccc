"""Rewards of the driving tasks."""

import numpy as np
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.driving.dynamics import MAX_OFFSET, ROAD_LENGTH, Outcome, pedestrian_walk
from lit_mtdqn.envs.suites.driving.states import DrivingStates, Floats

ROAD_REWARD = 1.0  # for the whole road
import os
BC=float(os.environ.get('BC','0.01'))
CC=float(os.environ.get('CC','2'))
YELLOW_COST=float(os.environ.get('YC','0.8'))
NEAR_COST=float(os.environ.get('NC','0.1'))
NEAR=3.5
CENTERING_COST = 0.02  # per step at the lane's edge
OUTCOME_REWARDS = np.zeros(len(Outcome))
OUTCOME_REWARDS[Outcome.SUCCESS] = 1.0
OUTCOME_REWARDS[[Outcome.LEFT_LANE, Outcome.RAN_RED, Outcome.TOO_CLOSE]] = -1.0


def rewards(states: DrivingStates, moved: Floats, outcome: NDArray[np.int8], task, was_green) -> Floats:
    """Returns progress, minus a cost for driving off-centre, plus the outcome, [num_envs]."""
    off_center = (states.offset / MAX_OFFSET)**2
    progress = ROAD_REWARD / ROAD_LENGTH * moved * (1-CC*off_center)
    total = progress + OUTCOME_REWARDS[outcome]
    front = states.position + 2
    total -= BC * (states.acceleration < -1.)
    if task.has_light:
        crossed = (front >= states.line) & (front - moved < states.line)
        total -= YELLOW_COST * (crossed & ~was_green)
    if task.has_pedestrian:
        lateral = pedestrian_walk(states)[0]*states.walk_direction
        on = np.abs(states.position - states.line - 1.5) < 3.5
        d = np.abs(lateral - states.offset)
        total -= NEAR_COST * on * np.minimum(np.maximum((NEAR - d)/(NEAR-1.9), 0.), 1.)
    return total
