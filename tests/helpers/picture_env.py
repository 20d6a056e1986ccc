"""A counting environment whose pictures tell the step they show."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers.counting_env import Array, CountingEnv

PATH = "helpers.picture_env:PictureEnv"
FPS = 20.0
SIZE = (4, 6)


def step_shown(picture: Array) -> int:
    """Return the step that a picture shows."""
    high, low, _ = picture[0, 0].tolist()
    return int(256 * high + low)


class PictureEnv(CountingEnv):
    """Draws its step in plain colour.

    Args:
        picture: What `render` does: `draw`, return `none`, or `fail`.
        render_mode: As Gymnasium passes it.
        **kwargs: Arguments of `CountingEnv`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012  Gymnasium declares it

    def __init__(
        self, picture: str = "draw", render_mode: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.render_mode = render_mode
        self._picture = picture

    def render(self) -> Any:
        if self._picture == "fail":
            raise RuntimeError("no display\nand a long story")
        if self._picture == "none":
            return None
        colour = (self._step // 256, self._step % 256, self._identity % 256)
        return np.full((*SIZE, 3), colour, np.uint8)
