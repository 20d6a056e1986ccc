"""Batched driving environment."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.core import RenderFrame
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from lit_mtdqn.envs.suites.batched import PlaceableVectorEnv, StepResult
from lit_mtdqn.envs.suites.driving.dynamics import NUM_ACTIONS, drive, light_color
from lit_mtdqn.envs.suites.driving.observation import OBSERVATION_SIZE
from lit_mtdqn.envs.suites.driving.outcome import RUNNING, SUCCESS, TIME_UP, judge
from lit_mtdqn.envs.suites.driving.rendering import render_frame
from lit_mtdqn.envs.suites.driving.reward import rewards
from lit_mtdqn.envs.suites.driving.sensors import Sensors
from lit_mtdqn.envs.suites.driving.states import NUM_ROWS, DrivingStates, Integers
from lit_mtdqn.envs.suites.driving.tasks import TASKS
from lit_mtdqn.functional.arrays import fill_, may_hold, namespace_of, placed, renew_
from lit_mtdqn.types import Array

MAX_EPISODE_STEPS = 200
METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
VECTOR_METADATA = {**METADATA, "autoreset_mode": AutoresetMode.NEXT_STEP}


class DrivingVectorEnv(PlaceableVectorEnv):
    """Steps many cars at once, each on its own road of 80 m, 0.2 s per step.

    An episode succeeds at the end of the road (`terminated`). It fails (`terminated`) when the
    wheels touch a line of the lane, the front axle passes the stop line on red, or the car stands
    on the crosswalk with the pedestrian within 1.9 m of its middle. It is `truncated` at the time
    limit. `info["success"]`, [num_envs], tells the two ends apart where `info["_success"]`,
    [num_envs], says that an episode just ended. The step after an end ignores the action and
    starts a new episode, with reward 0.

    Actions are 3 * pedal + steering: pedals brake, coast, accelerate (-5, towards 3 m/s, 2.5
    m/s^2); steerings left, straight, right (0.12, 0, -0.12 rad).

    Observations, [num_envs, 20], are clipped to [-1, 1]. What is absent or passed shows zeros,
    and a stopping margin of 1. The time left in the light's cycle is hidden.

    | index   | number                                                                | scale    |
    |---------|-----------------------------------------------------------------------|----------|
    | 0       | offset from the lane centre, left positive; 1 is a violation          | 1.4 m    |
    | 1       | heading from the lane's direction, left positive                      | 0.6 rad  |
    | 2       | speed                                                                 | 10 m/s   |
    | 3 to 5  | curvature of the road 2, 9 and 18 m ahead, left positive              | 0.03 1/m |
    | 6       | whether a traffic light is ahead                                      |          |
    | 7       | gap from the bumper to the stop line                                  | 60 m     |
    | 8 to 10 | whether the light is green, yellow, red                               |          |
    | 11      | whether a crosswalk is ahead or under the car                         |          |
    | 12      | gap from the bumper to the crosswalk                                  | 60 m     |
    | 13      | pedestrian's position from the lane centre, left positive             | 8 m      |
    | 14      | pedestrian's velocity, to the left positive                           | 2 m/s    |
    | 15      | pedestrian's progress beyond the lane centre, along the walk          | 8 m      |
    | 16      | remaining road                                                        | 80 m     |
    | 17      | sideways velocity, left positive                                      | 2 m/s    |
    | 18      | offset in one second, if not steered                                  | 2.8 m    |
    | 19      | gap that would remain after stopping at 4 m/s^2                       | 12 m     |

    Rewards are float32, made for a discount of about 0.98, at which returns lie within about
    [-2, 1.1]. Both standing on the brake and a violation return less than 0, success more.

    | for                                                            | reward             |
    |----------------------------------------------------------------|--------------------|
    | the whole road, per metre, in the middle of the lane           | 1                  |
    | the share of it that is lost off-centre                        | 4 (offset / 1.4)^2 |
    | a braking step, unless a light that is not green or a          |                    |
    | pedestrian who has not yet passed is less than 25 m ahead      | -0.04              |
    | passing the stop line while the light is not green             | -1                 |
    | a step on the crosswalk, pedestrian 1.9 m (3.5 m) to the side  | -0.1 (0)           |
    | success, violation                                             | 1, -1              |

    Args:
        task: `lane_keeping`, `pedestrian` or `traffic_light`.
        num_envs: Number of cars, at least 1.
        max_episode_steps: Time limit, at least 1.
        render_mode: `rgb_array` or None.
        observation_noise: Standard deviation of a Gaussian error of every observed number, drawn
            anew at every step and clipped with it; at least 0.
        detection_range: m from the bumper to the line within which lights and pedestrians are
            seen, above 0; None sees them from anywhere. Rewards and rules do not depend on it.
        sensor_gain: Factor on every observed number, above 0; see `sensor_bias`.
        sensor_bias: Added to every observed number before it is clipped: other sensors on the same
            road, as a domain to adapt to.
        device: Where everything is kept as tensors, such as `cuda`; None keeps arrays.
    """

    metadata = VECTOR_METADATA

    def __init__(
        self,
        task: str,
        num_envs: int = 1,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
        observation_noise: float = 0.0,
        detection_range: float | None = None,
        sensor_gain: float = 1.0,
        sensor_bias: float = 0.0,
        device: torch.device | str | None = None,
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"`task` must be one of {sorted(TASKS)}. Got {task!r}.")
        if num_envs < 1:
            raise ValueError(f"`num_envs` must be at least 1. Got {num_envs}.")
        if max_episode_steps < 1:
            raise ValueError(f"`max_episode_steps` must be at least 1. Got {max_episode_steps}.")
        super().__init__(device)
        self.task = TASKS[task]
        self.sensors = Sensors(observation_noise, detection_range, sensor_gain, sensor_bias)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.single_action_space = spaces.Discrete(NUM_ACTIONS)
        self.single_observation_space = spaces.Box(-1.0, 1.0, (OBSERVATION_SIZE,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._states = DrivingStates(placed(np.zeros((NUM_ROWS, num_envs)), self.device))
        # Before the first reset every episode counts as over, so that a step would start it.
        self._outcome = placed(np.full(num_envs, TIME_UP), self.device)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes everywhere and return their observations, [num_envs, 20].

        Args:
            seed: Seed of the generator, or None to draw on.
            options: Ignored.
        """
        self.seed(seed)
        self._states.values[:] = self.task.draw(self.num_envs, self.np_random)
        self._outcome = namespace_of(self._outcome).zeros_like(self._outcome)
        return self._see(), {}

    def step(self, actions: Integers) -> StepResult:
        """Drive all cars for 0.2 s by `actions`, [num_envs] in 0..8.

        Returns:
            Observations [num_envs, 20], rewards, `terminated`, `truncated`, each [num_envs], and
            `info`; all of them new.
        """
        actions = self._checked(actions)
        over = self._outcome > RUNNING
        seen_color = light_color(self._states)
        moved = drive(self._states, actions)
        outcome = judge(self._states, self.task, moved, seen_color)
        late = (outcome == RUNNING) & (self._states.step >= self.max_episode_steps)
        fill_(outcome, late, TIME_UP)
        reward = rewards(self._states, self.task, moved, seen_color, outcome)
        if may_hold(over):
            renew_(self._states.values, over, self._draw)
            fill_(outcome, over, RUNNING)
            fill_(reward, over, 0.0)
        self._outcome = outcome
        info = {"success": outcome == SUCCESS, "_success": outcome > RUNNING}
        return self._see(), reward, outcome > TIME_UP, outcome == TIME_UP, info

    def render(self) -> tuple[RenderFrame, ...] | None:
        """Return the first car's frame, (uint8 [270, 480, 3],), or None without `render_mode`."""
        if self.render_mode is None:
            return None
        return (render_frame(self._states, self.task, int(self._outcome[0])),)

    def get_state(self) -> dict[str, Any]:
        """Return a copy of all that `set_state` needs to continue exactly from here."""
        return {
            "states": deepcopy(self._states.values),
            "outcome": deepcopy(self._outcome),
            "generator": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly from what `get_state` returned for the same `num_envs`."""
        if state["states"].shape != self._states.values.shape:
            raise ValueError(
                f"`state` must hold {self.num_envs} episodes. Got {state['states'].shape[1]}."
            )
        self._states.values[:] = state["states"]
        self._outcome[:] = state["outcome"]
        self.np_random.bit_generator.state = state["generator"]

    def _draw(self, count: int) -> Array:
        return self.task.draw(count, self.np_random)

    def _see(self) -> Array:
        return self.sensors.see(self._states, self.task, self.np_random)

    def _checked(self, actions: Integers) -> Integers:
        if self.device is not None:
            return actions
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,):
            raise ValueError(
                f"`actions` must have shape ({self.num_envs},). Got shape {actions.shape}."
            )
        if actions.min() < 0 or actions.max() >= NUM_ACTIONS:
            raise ValueError(f"`actions` must lie in 0..{NUM_ACTIONS - 1}. Got {actions}.")
        return actions
