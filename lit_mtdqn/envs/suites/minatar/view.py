"""Other pictures of the same game."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lit_mtdqn.types import require

Planes = NDArray[np.bool_]
Flip = Literal["horizontal", "vertical", "both"]
AXES: dict[str | None, tuple[int, ...]] = {
    None: (),
    "horizontal": (2,),
    "vertical": (1,),
    "both": (1, 2),
}


@dataclass(frozen=True)
class View:
    """How the player sees the screen; by default as it is. Actions mean what they always do.

    Attributes:
        flip: Whether the picture is mirrored: `horizontal` swaps left and right, `vertical` top and
            bottom.
        zoom: Size of the picture on a screen that stays as large, in (0, 1]; it shrinks towards the
            middle. Cells that meet are set where one of them is.
        noise: Probability that a bit is turned over, drawn anew for every bit and frame, in
            [0, 0.5].

    References:
        After the variants of Pong in Rusu et al. 2016, "Progressive Neural Networks", section 5.2,
        https://arxiv.org/abs/1606.04671.
    """

    flip: Flip | None = None
    zoom: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        flips = get_args(Flip)
        must = f"be one of {', '.join(flips)} or null"
        require(self.flip in AXES, "flip", must, self.flip)
        require(0.0 < self.zoom <= 1.0, "zoom", "lie in (0, 1]", self.zoom)
        require(0.0 <= self.noise <= 0.5, "noise", "lie in [0, 0.5]", self.noise)

    def see(self, planes: Planes, generator: np.random.Generator) -> Planes:
        """Return what is seen of pictures [N, height, width, channels]; draws for noise alone."""
        seen = planes if self.flip is None else np.flip(planes, AXES[self.flip])
        if self.zoom < 1.0:
            for axis in (1, 2):
                seen = _shrunk(seen, self.zoom, axis)
        if self.noise > 0.0:
            seen = seen ^ (generator.random(seen.shape, dtype=np.float32) < self.noise)
        return seen


def _shrunk(planes: Planes, zoom: float, axis: int) -> Planes:
    """Return pictures of the same shape, smaller along one axis."""
    size = planes.shape[axis]
    length = max(round(zoom * size), 1)
    # Cell i goes to floor(i length / size): each new cell begins at the first that goes there.
    starts = -(-np.arange(length) * size // length)
    cells: NDArray[Any] = np.logical_or.reduceat(planes, starts, axis=axis)
    before = (size - length) // 2
    margins = [(0, 0)] * planes.ndim
    margins[axis] = (before, size - length - before)
    return np.pad(cells, margins)
