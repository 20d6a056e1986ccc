"""What an exported policy says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lit_mtdqn import __version__
from lit_mtdqn.envs import TaskEnv, without_processes
from lit_mtdqn.types import TaskInfo, TaskSpec

# Under which the description lies in the metadata of an ONNX file.
KEY = "lit_mtdqn"
INPUTS = {
    "observation": "[S, N, *O]: S groups of N observations, converted and padded as told below",
    "task": "int64 [S]: place of each group's task in `tasks`",
    "allowed": "bool [S, N, A]: actions that the state allows; all true where it allows all. "
    "Actions that a task does not have are never taken",
}
OUTPUTS = {
    "action": "int64 [S, N]: best allowed action, counted from 0; the environment's is "
    "`first_action` larger",
    "values": "float32 [S, N, A]: what each action is worth; minus infinity if forbidden",
}
PREPROCESSING = (
    "Parts of an observation, found `at` keys, become: `flat`, its numbers in C order as float32; "
    "`one_hot`, `size` zeros with a 1 at (number - start); `one_hots`, the same for each number, "
    "joined; `image`, uint8 with channels first, moved there if `channels` is last, added if it "
    "is none. Vectors are joined in the order of parts. Zeros at the end of the first axis pad "
    "them to `observation.shape`. Images are not divided: the network does that."
)


def describe(
    tasks: Mapping[str, TaskSpec], infos: list[TaskInfo], layout: Any, *, predicts_values: bool
) -> dict[str, Any]:
    """Return what someone needs to know who has an exported policy and nothing else.

    Args:
        tasks: The tasks; each environment is built once.
        infos: What is known of them, in the same order.
        layout: Padded shapes.
        predicts_values: Whether values are values, and not logits of a policy.
    """
    return {
        "made_by": f"lit_mtdqn {__version__}",
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "values": "discounted return" if predicts_values else "logits of a policy",
        "preprocessing": PREPROCESSING,
        "observation": {"shape": list(layout.observation_shape), "dtype": str(layout.dtype)},
        "num_actions": layout.num_actions,
        "tasks": [_task(info, tasks[info.name], layout) for info in infos],
    }


def _task(info: TaskInfo, spec: TaskSpec, layout: Any) -> dict[str, Any]:
    env = TaskEnv(info.name, without_processes(spec), 1, layout)
    try:
        return {
            "name": info.name,
            "num_actions": info.num_actions,
            "first_action": env.first_action,
            "head": info.head,
            "observation_shape": list(info.own_shape or info.observation_shape),
            "parts": list(env.observation_parts),
            "environment": spec.env,
            "wrappers": spec.wrappers,
        }
    finally:
        env.close()


def as_text(description: Mapping[str, Any]) -> str:
    """Return a description as JSON, of one line."""
    return json.dumps(description)
