import random

import numpy as np
import torch

from lit_mtdqn.functional.global_generators import (
    global_random_state,
    set_global_random_state_,
)


def _draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_all_global_generators_draw_on_from_a_saved_state() -> None:
    _draw()
    state = global_random_state()
    first = _draw()
    assert _draw() != first
    set_global_random_state_(state)
    assert _draw() == first
