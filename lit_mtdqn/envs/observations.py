"""One kind and shape of observation, whatever space an environment declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

Array = np.ndarray


@dataclass(frozen=True)
class ObservationAdapter:
    """Turns a batch of an environment's observations into float32 vectors or uint8 images.

    Attributes:
        kind: `vector` or `image`.
        shape: Shape of one observation before padding, (size,) or (channels, height, width).
        high: Largest value of an image; 1 for vectors.
        convert: Batch of raw observations [N, ...] to [N, *shape].
    """

    kind: Literal["vector", "image"]
    shape: tuple[int, ...]
    high: float
    convert: Callable[[Any], Array]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type that replay keeps."""
        return np.dtype(np.float32 if self.kind == "vector" else np.uint8)


def adapter_for(space: gymnasium.Space[Any], task: str) -> ObservationAdapter:
    """Return the adapter of an observation space.

    Discrete observations become one-hot vectors, several of them one vector; Boolean and 8-bit
    arrays of two or three dimensions become images with channels first; other arrays become flat
    vectors.

    Args:
        space: The environment's single observation space.
        task: Name used in complaints.

    Raises:
        ValueError: If the space has no such form; the message names a wrapper that helps.
    """
    match space:
        case spaces.Discrete(n=n, start=start):
            return _vector(int(n), lambda batch: _one_hot(np.asarray(batch) - start, int(n)))
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return _vector(int(space.nvec.sum()), lambda batch: _one_hots(space, batch))
        case spaces.Box() if _is_image(space):
            return _image(space)
        case spaces.Box() | spaces.MultiBinary():
            size = int(np.prod(space.shape or (1,)))
            return _vector(size, lambda batch: _flat(batch, size))
    raise ValueError(
        f"`tasks.{task}.env` must have array or discrete observations. Got {space}. "
        "Wrap it with `gymnasium.wrappers.FlattenObservation` (or `FilterObservation` first)."
    )


def _vector(size: int, convert: Callable[[Any], Array]) -> ObservationAdapter:
    return ObservationAdapter("vector", (size,), 1.0, convert)


def _flat(batch: Any, size: int) -> Array:
    return np.asarray(batch, dtype=np.float32).reshape(len(batch), size)


def _one_hot(index: Array, size: int) -> Array:
    encoded: Array = np.eye(size, dtype=np.float32)[index]
    return encoded


def _one_hots(space: spaces.MultiDiscrete, batch: Any) -> Array:
    columns = (np.asarray(batch) - space.start).T
    parts = [_one_hot(column, int(n)) for column, n in zip(columns, space.nvec, strict=True)]
    return np.concatenate(parts, axis=1)


def _is_image(space: spaces.Box) -> bool:
    return space.dtype in (np.uint8, np.bool_) and len(space.shape) in (2, 3)


def _image(space: spaces.Box) -> ObservationAdapter:
    high = 1.0 if space.dtype == np.bool_ else max(float(space.high.max()), 1.0)
    if len(space.shape) == 2:
        return ObservationAdapter("image", (1, *space.shape), high, lambda b: _bytes(b)[:, None])
    if space.shape[0] < space.shape[2]:
        return ObservationAdapter("image", space.shape, high, _bytes)
    height, width, channels = space.shape
    shape = (channels, height, width)
    return ObservationAdapter("image", shape, high, lambda b: _bytes(b).transpose(0, 3, 1, 2))


def _bytes(batch: Any) -> Array:
    return np.asarray(batch).astype(np.uint8, copy=False)
