"""What keeps the driver from seeing everything, at once and exactly."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_mtdqn.envs.suites.driving.observation import observe
from lit_mtdqn.envs.suites.driving.states import DrivingStates, Floats
from lit_mtdqn.envs.suites.driving.tasks import DrivingTask
from lit_mtdqn.types import require


@dataclass(frozen=True)
class Sensors:
    """How well the driver sees; by default perfectly.

    A number x is seen as `gain x + bias`, and noise on top of that.

    Attributes:
        noise: Standard deviation of the error of every number, drawn anew at every step, in units
            of the observation; at least 0.
        detection_range: m from the bumper to the line within which lights and pedestrians are
            seen, above 0; None sees them from anywhere.
        gain: Factor on every number, above 0; the same at every step.
        bias: Added to every number, in units of the observation; the same at every step.
    """

    noise: float = 0.0
    detection_range: float | None = None
    gain: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        require(self.noise >= 0.0, "observation_noise", "be at least 0", self.noise)
        reach = self.detection_range
        require(reach is None or reach > 0.0, "detection_range", "be above 0 m", reach)
        require(self.gain > 0.0, "sensor_gain", "be above 0", self.gain)

    def see(self, states: DrivingStates, task: DrivingTask, generator: Any) -> Floats:
        """Return new observations, float32 [num_envs, 20] in [-1, 1].

        Args:
            states: States.
            task: The task.
            generator: NumPy's, or a `TensorGenerator`; perfect sensors draw nothing.
        """
        reach = math.inf if self.detection_range is None else self.detection_range
        observation = observe(states, task, reach)
        is_shifted = self.gain != 1.0 or self.bias != 0.0
        if is_shifted:
            observation *= np.float32(self.gain)
            observation += np.float32(self.bias)
        if self.noise > 0.0:
            error = generator.standard_normal(observation.shape, dtype=np.float32)
            observation += error * np.float32(self.noise)
        if is_shifted or self.noise > 0.0:
            observation = observation.clip(-1.0, 1.0)
        return observation
