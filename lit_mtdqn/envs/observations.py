"""One kind and shape of observation, whatever space an environment declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

Array = np.ndarray
Path = tuple[Any, ...]


@dataclass(frozen=True)
class ObservationAdapter:
    """Turns a batch of an environment's observations into float32 vectors or uint8 images.

    Attributes:
        kind: `vector` or `image`.
        shape: Shape of one observation before padding, (size,) or (channels, height, width).
        high: Largest value of an image; 1 for vectors.
        convert: Batch of raw observations [N, ...] to [N, *shape].
        parts: What `convert` does, as plain values: for each part of a raw observation the keys
            that lead to it (`at`) and what becomes of it (`as`, with sizes). Vectors of several
            parts are joined in this order.
    """

    kind: Literal["vector", "image"]
    shape: tuple[int, ...]
    high: float
    convert: Callable[[Any], Array]
    parts: tuple[dict[str, Any], ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type that replay keeps."""
        return np.dtype(np.float32 if self.kind == "vector" else np.uint8)


def adapter_for(space: gymnasium.Space[Any], task: str) -> ObservationAdapter:
    """Return the adapter of an observation space.

    Discrete observations become one-hot vectors, several of them one vector; Boolean and 8-bit
    arrays of two or three dimensions become images with channels first; other arrays become flat
    vectors. The vectors of a `Dict` or `Tuple`, nested ones too, are joined in the order of the
    space; an image may stand there alone.

    Args:
        space: The environment's single observation space.
        task: Name used in complaints.

    Raises:
        ValueError: If the space has no such form; the message names a wrapper that helps.
    """
    leaves = {path: _leaf(part, task, path) for path, part in _parts(space)}
    if len(leaves) != 1:
        return _joined(leaves, task)
    ((path, leaf),) = leaves.items()
    if not path:
        return leaf
    return replace(leaf, convert=lambda batch: leaf.convert(_at(path, batch)), parts=_found(leaves))


def _joined(leaves: Mapping[Path, ObservationAdapter], task: str) -> ObservationAdapter:
    kinds = {_name(path): leaf.kind for path, leaf in leaves.items()}
    if set(kinds.values()) != {"vector"}:
        raise ValueError(
            f"`tasks.{task}.env` must have observations that are vectors, or one image. Got "
            f"{kinds}. Keep the image by `wrappers: [{{class_path: "
            "gymnasium.wrappers.FilterObservation, init_args: {filter_keys: [...]}}]`, or make one "
            "vector of all by `gymnasium.wrappers.FlattenObservation`."
        )

    def convert(batch: Any) -> Array:
        parts = [leaf.convert(_at(path, batch)) for path, leaf in leaves.items()]
        return np.concatenate(parts, axis=1)

    size = sum(leaf.shape[0] for leaf in leaves.values())
    return ObservationAdapter("vector", (size,), 1.0, convert, _found(leaves))


def _found(leaves: Mapping[Path, ObservationAdapter]) -> tuple[dict[str, Any], ...]:
    """Return the parts of leaves, with the keys that lead to them."""
    pairs = [(path, part) for path, leaf in leaves.items() for part in leaf.parts]
    return tuple({**part, "at": list(path)} for path, part in pairs)


def _parts(space: gymnasium.Space[Any], path: Path = ()) -> list[tuple[Path, gymnasium.Space[Any]]]:
    """Return the leaves of a space, each with the keys that lead to it."""
    match space:
        case spaces.Dict():
            entries: Iterable[tuple[Any, gymnasium.Space[Any]]] = space.spaces.items()
        case spaces.Tuple():
            entries = enumerate(space.spaces)
        case _:
            return [(path, space)]
    return [part for key, entry in entries for part in _parts(entry, (*path, key))]


def _at(path: Path, batch: Any) -> Any:
    for key in path:
        batch = batch[key]
    return batch


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _leaf(space: gymnasium.Space[Any], task: str, path: Path) -> ObservationAdapter:
    match space:
        case spaces.Discrete(n=n, start=start):
            part = {"as": "one_hot", "size": int(n), "start": int(start)}
            return _vector(part, lambda batch: _one_hot(np.asarray(batch) - start, int(n)))
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            ends = {"sizes": space.nvec.tolist(), "starts": space.start.tolist()}
            part = {"as": "one_hots", "size": int(space.nvec.sum()), **ends}
            return _vector(part, lambda batch: _one_hots(space, batch))
        case spaces.Box() if _is_image(space):
            return _image(space)
        case spaces.Box() | spaces.MultiBinary():
            size = int(np.prod(space.shape or (1,)))
            return _vector({"as": "flat", "size": size}, lambda batch: _flat(batch, size))
    if not path:
        raise ValueError(
            f"`tasks.{task}.env` must have array or discrete observations. Got {space}. "
            "Wrap it with `gymnasium.wrappers.FlattenObservation`."
        )
    raise ValueError(
        f"`tasks.{task}.env` must have array or discrete observations. Got {space} as "
        f"{_name(path)!r}. Leave it out by `wrappers: [{{class_path: "
        "gymnasium.wrappers.FilterObservation, init_args: {filter_keys: [...]}}]`, with the keys "
        "of the others."
    )


def _vector(part: dict[str, Any], convert: Callable[[Any], Array]) -> ObservationAdapter:
    return ObservationAdapter("vector", (part["size"],), 1.0, convert, ({"at": [], **part},))


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
    shape: tuple[int, ...]
    if len(space.shape) == 2:
        channels, shape = "none", (1, *space.shape)
    elif space.shape[0] < space.shape[2]:
        channels, shape = "first", space.shape
    else:
        channels, shape = "last", (space.shape[2], *space.shape[:2])
    part = {"at": [], "as": "image", "channels": channels}
    return ObservationAdapter("image", shape, high, IMAGES[channels], (part,))


def _bytes(batch: Any) -> Array:
    return np.asarray(batch).astype(np.uint8, copy=False)


# How images become such with channels first, by where their channels are.
IMAGES: dict[str, Callable[[Any], Array]] = {
    "none": lambda batch: _bytes(batch)[:, None],
    "first": _bytes,
    "last": lambda batch: _bytes(batch).transpose(0, 3, 1, 2),
}
