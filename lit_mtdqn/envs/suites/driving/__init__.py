"""Three driving tasks that share one observation and one set of actions."""

import gymnasium

from lit_mtdqn.envs.suites.driving.controller import drive_by_hand as drive_by_hand
from lit_mtdqn.envs.suites.driving.single import DrivingEnv as DrivingEnv
from lit_mtdqn.envs.suites.driving.vector import DrivingVectorEnv as DrivingVectorEnv

TASK_IDS = {
    "lane_keeping": "lit_mtdqn/LaneKeeping-v0",
    "pedestrian": "lit_mtdqn/Pedestrian-v0",
    "traffic_light": "lit_mtdqn/TrafficLight-v0",
}

for _task, _id in TASK_IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id,
            entry_point=f"{__name__}:DrivingEnv",
            vector_entry_point=f"{__name__}:DrivingVectorEnv",
            kwargs={"task": _task},
        )
