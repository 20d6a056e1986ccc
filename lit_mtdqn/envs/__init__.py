"""From a `TaskSpec` to environments that speak rows; the only importer of `gymnasium.make`."""

from lit_mtdqn.envs import suites as suites
from lit_mtdqn.envs.layout import Layout, probe_tasks
from lit_mtdqn.envs.making import (
    check_device_form,
    make_single_env,
    make_vector_env,
    without_processes,
)
from lit_mtdqn.envs.observations import ObservationAdapter
from lit_mtdqn.envs.processes import STARTING, process_start_method
from lit_mtdqn.envs.task_env import TaskEnv
from lit_mtdqn.envs.tensor_task_env import TensorTaskEnv

__all__ = [
    "STARTING",
    "Layout",
    "ObservationAdapter",
    "TaskEnv",
    "TensorTaskEnv",
    "check_device_form",
    "make_single_env",
    "make_vector_env",
    "probe_tasks",
    "process_start_method",
    "without_processes",
]
