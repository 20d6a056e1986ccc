"""Pictures of fields."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 48  # px per cell
GROUND, WALKER = (240, 240, 235), (30, 30, 30)
KINDS = ((202, 60, 60), (60, 110, 202), (70, 160, 80), (220, 160, 40))


def render_frame(kinds: NDArray[np.integer[Any]], walker: int) -> NDArray[np.uint8]:
    """Return a picture, uint8 [rows * 48, columns * 48, 3].

    Args:
        kinds: Kind of the thing in each cell, [rows, columns]; -1 where there is none.
        walker: The walker's cell, row by row.
    """
    palette = np.array([GROUND, *KINDS], np.uint8)
    colors = palette[np.where(kinds < 0, 0, 1 + kinds % len(KINDS))]
    colors.reshape(-1, 3)[walker] = WALKER
    return colors.repeat(SCALE, 0).repeat(SCALE, 1)
