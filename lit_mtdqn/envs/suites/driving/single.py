"""Single driving environment."""

from lit_mtdqn.envs.suites.batch_of_one import BatchOfOne
from lit_mtdqn.envs.suites.driving.vector import MAX_EPISODE_STEPS, METADATA, DrivingVectorEnv


class DrivingEnv(BatchOfOne):
    """Drives one car, as a batch of one of `DrivingVectorEnv`, which documents the numbers.

    Unlike the batch it waits for `reset` after the end of an episode, and `info["success"]` is a
    bool: False until the end of the road is reached without a violation.

    Args:
        task: `lane_keeping`, `pedestrian` or `traffic_light`.
        max_episode_steps: Time limit, at least 1. The one that `gymnasium.make` adds comes on top.
        render_mode: `rgb_array` or None.
        observation_noise: Standard deviation of the error of every observed number.
        detection_range: m within which lights and pedestrians are seen; None is anywhere.
        sensor_gain: Factor on every observed number.
        sensor_bias: Added to every observed number.
    """

    metadata = METADATA

    def __init__(
        self,
        task: str,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
        observation_noise: float = 0.0,
        detection_range: float | None = None,
        sensor_gain: float = 1.0,
        sensor_bias: float = 0.0,
    ) -> None:
        super().__init__(
            DrivingVectorEnv(
                task,
                1,
                max_episode_steps,
                render_mode,
                observation_noise,
                detection_range,
                sensor_gain,
                sensor_bias,
            )
        )
