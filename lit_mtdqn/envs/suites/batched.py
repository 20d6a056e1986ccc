"""What environments that are written for batches take and return."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]
# Observations, rewards, `terminated`, `truncated`, each [num_envs, ...], and `info`.
StepResult = tuple[
    NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]
