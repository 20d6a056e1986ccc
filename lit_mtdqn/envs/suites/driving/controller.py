"""Hand-written driver that reads only the observation."""

import numpy as np
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.driving.observation import (
    CURVATURE,
    HEADING,
    LIGHT_RED,
    LIGHT_YELLOW,
    OFFSET,
    PEDESTRIAN_PRESENT,
    PEDESTRIAN_PROGRESS,
    SPEED,
    STOPPING_MARGIN,
)
from lit_mtdqn.envs.suites.driving.states import Bools

Observations = NDArray[np.float32]

# All as in the observation, of which 1 is about the largest value.
CRUISE_SPEED = 0.85
PEDESTRIAN_GONE = 0.4
TOO_LATE_TO_STOP = -0.1
BRAKING_MARGIN, COASTING_MARGIN = 0.2, 0.35
CURVATURE_GAIN, OFFSET_GAIN, HEADING_GAIN = 0.9, 0.7, 1.8
STEERING_THRESHOLD = 0.35


def drive_by_hand(observation: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return a good action for every observation, [B, 20] to [B] in 0..8."""
    return 3 * _pedal(observation) + _steering(observation)


def _pedal(observation: Observations) -> NDArray[np.int64]:
    """Return 0 to brake, 1 to coast or 2 to accelerate, [B]."""
    margin = observation[:, STOPPING_MARGIN]
    must_stop = _must_stop(observation)
    pedal = np.where(observation[:, SPEED] < CRUISE_SPEED, 2, 1)
    pedal = np.where(must_stop & (margin < COASTING_MARGIN), 1, pedal)
    return np.where(must_stop & (margin < BRAKING_MARGIN), 0, pedal)


def _must_stop(observation: Observations) -> Bools:
    too_late = observation[:, STOPPING_MARGIN] < TOO_LATE_TO_STOP
    yellow = (observation[:, LIGHT_YELLOW] > 0.5) & ~too_late
    pedestrian_comes = observation[:, PEDESTRIAN_PROGRESS] < PEDESTRIAN_GONE
    pedestrian = (observation[:, PEDESTRIAN_PRESENT] > 0.5) & pedestrian_comes
    return np.asarray(yellow | (observation[:, LIGHT_RED] > 0.5) | pedestrian)


def _steering(observation: Observations) -> NDArray[np.int64]:
    """Return 0 to steer left, 1 to hold straight or 2 to steer right, [B]."""
    wish = CURVATURE_GAIN * observation[:, CURVATURE]
    wish = wish - OFFSET_GAIN * observation[:, OFFSET] - HEADING_GAIN * observation[:, HEADING]
    return 1 - np.where(np.abs(wish) > STEERING_THRESHOLD, np.sign(wish), 0.0).astype(np.int64)
