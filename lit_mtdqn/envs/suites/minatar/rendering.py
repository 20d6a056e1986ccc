"""Pictures of bit planes."""

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELL = 32  # px


def render_frame(planes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a picture, uint8 [32 height, 32 width, 3], a colour per plane, later ones in front.

    Args:
        planes: Bit planes [height, width, channels].
    """
    channels = planes.shape[-1]
    hues = [colorsys.hsv_to_rgb(channel / channels, 0.65, 0.95) for channel in range(channels)]
    colours = np.array([(0.0, 0.0, 0.0), *hues])
    front = np.max(planes * np.arange(1, channels + 1), axis=-1)
    cells = (255 * colours[front]).astype(np.uint8)
    picture: NDArray[np.uint8] = cells.repeat(CELL, axis=0).repeat(CELL, axis=1)
    return picture
