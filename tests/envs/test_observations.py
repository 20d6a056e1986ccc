from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lit_mtdqn.envs.observations import adapter_for

Array = NDArray[Any]


def _bytes_box(*shape: int, high: int = 255) -> spaces.Box:
    return spaces.Box(0, high, shape, np.uint8)


def _bits_box(*shape: int) -> spaces.Box:
    return spaces.Box(0, 1, shape, np.bool_)  # type: ignore[arg-type]


VECTORS = [
    (spaces.Discrete(3), [0, 2], [[1, 0, 0], [0, 0, 1]]),
    (spaces.Discrete(3, start=-1), [-1, 1], [[1, 0, 0], [0, 0, 1]]),
    (spaces.MultiDiscrete([2, 3]), [[1, 0], [0, 2]], [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]),
    (spaces.MultiDiscrete([2, 2], start=[5, 7]), [[5, 8], [6, 7]], [[1, 0, 0, 1], [0, 1, 1, 0]]),
    (spaces.MultiBinary(3), [[1, 0, 1]], [[1, 0, 1]]),
    (spaces.MultiBinary([2, 2]), [[[1, 0], [0, 1]]], [[1, 0, 0, 1]]),
    (spaces.Box(-1.0, 1.0, (), np.float32), [0.5, -0.5], [[0.5], [-0.5]]),
    (spaces.Box(-1.0, 1.0, (2,), np.float64), [[0.5, -0.25]], [[0.5, -0.25]]),
    (spaces.Box(-9, 9, (2, 2), np.int64), [[[1, 2], [3, -4]]], [[1, 2, 3, -4]]),
    (_bytes_box(3), [[0, 7, 255]], [[0, 7, 255]]),
]


@pytest.mark.parametrize(("space", "batch", "expected"), VECTORS, ids=lambda value: str(value))
def test_discrete_spaces_and_arrays_become_flat_float32_vectors(
    space: gymnasium.Space[Any], batch: Any, expected: list[list[float]]
) -> None:
    adapter = adapter_for(space, "a")
    converted = adapter.convert(np.array(batch))
    assert (adapter.kind, adapter.high, adapter.shape) == ("vector", 1.0, converted.shape[1:])
    assert adapter.dtype == converted.dtype == np.float32
    np.testing.assert_array_equal(converted, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("space", "shape", "high", "order"),
    [
        (_bytes_box(5, 6, 4), (4, 5, 6), 255.0, (0, 3, 1, 2)),
        (_bytes_box(3, 5, 6), (3, 5, 6), 255.0, (0, 1, 2, 3)),
        (_bytes_box(5, 6, 3, high=15), (3, 5, 6), 15.0, (0, 3, 1, 2)),
        (_bytes_box(5, 6, 3, high=0), (3, 5, 6), 1.0, (0, 3, 1, 2)),
        (_bits_box(5, 6, 4), (4, 5, 6), 1.0, (0, 3, 1, 2)),
    ],
    ids=["pictures", "channels first", "few colours", "always black", "bit planes"],
)
def test_bytes_and_booleans_of_three_dimensions_become_images_with_channels_first(
    space: spaces.Box, shape: tuple[int, ...], high: float, order: tuple[int, ...]
) -> None:
    adapter = adapter_for(space, "a")
    generator = np.random.default_rng(0)
    batch = generator.integers(0, int(high) + 1, (2, *space.shape)).astype(space.dtype)
    converted = adapter.convert(batch)
    assert (adapter.kind, adapter.shape, adapter.high) == ("image", shape, high)
    assert adapter.dtype == converted.dtype == np.uint8
    np.testing.assert_array_equal(converted, batch.transpose(order).astype(np.uint8))


def test_images_without_channels_get_one() -> None:
    adapter = adapter_for(_bytes_box(2, 3), "a")
    batch = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert adapter.shape == (1, 2, 3)
    np.testing.assert_array_equal(adapter.convert(batch), batch[:, None])


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_one_hot_blocks_name_the_components_of_a_multi_discrete(
    sizes: list[int], seed: int
) -> None:
    space = spaces.MultiDiscrete(sizes, seed=seed)
    batch = np.stack([space.sample() for _ in range(3)])
    blocks = np.split(adapter_for(space, "a").convert(batch), np.cumsum(sizes)[:-1], axis=1)
    for column, block in enumerate(blocks):
        np.testing.assert_array_equal(block.argmax(1), batch[:, column])
        np.testing.assert_array_equal(block.sum(1), 1.0)


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
# Batches as vector environments give them: a dict or tuple of batches.
COMPOUNDS: list[tuple[gymnasium.Space[Any], Any, list[list[float]]]] = [
    (
        spaces.Dict({"position": BOX, "gear": spaces.Discrete(3, start=1)}),
        {"position": [[0.5, -1.0], [0.0, 0.25]], "gear": [1, 3]},
        [[1, 0, 0, 0.5, -1.0], [0, 0, 1, 0.0, 0.25]],
    ),
    (
        spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(2)]),
        ([1, 0], [[1, 1], [0, 1]]),
        [[0, 1, 1, 1], [1, 0, 0, 1]],
    ),
    (
        spaces.Dict({"b": spaces.Tuple([BOX, spaces.Discrete(2)]), "a": _bytes_box(2)}),
        {"b": ([[0.5, 0.25]], [1]), "a": [[7, 255]]},
        [[7, 255, 0.5, 0.25, 0, 1]],
    ),
    (spaces.Dict({"only": spaces.Discrete(2)}), {"only": [1, 0]}, [[0, 1], [1, 0]]),
]


@pytest.mark.parametrize(
    ("space", "batch", "expected"), COMPOUNDS, ids=lambda value: str(value)[:40]
)
def test_the_vectors_of_a_dict_or_tuple_are_joined_in_the_order_of_the_space(
    space: gymnasium.Space[Any], batch: Any, expected: list[list[float]]
) -> None:
    adapter = adapter_for(space, "a")
    converted = adapter.convert(batch)
    assert (adapter.kind, adapter.shape) == ("vector", converted.shape[1:])
    assert adapter.dtype == converted.dtype == np.float32
    np.testing.assert_array_equal(converted, np.array(expected, np.float32))


def test_joined_vectors_are_those_that_gymnasium_flattens_to() -> None:
    space = spaces.Dict(
        {"z": spaces.Discrete(3), "a": spaces.Tuple([BOX, spaces.MultiDiscrete([2, 3])])}, seed=0
    )
    samples = [space.sample() for _ in range(5)]
    batch: Any = create_empty_array(space, 5)
    converted = adapter_for(space, "a").convert(concatenate(space, samples, batch))
    for row, sample in zip(converted, samples, strict=True):
        flat: Any = spaces.flatten(space, sample)
        np.testing.assert_allclose(row, flat, rtol=1e-6)


def test_an_image_alone_in_a_dict_stays_an_image() -> None:
    adapter = adapter_for(spaces.Dict({"picture": _bytes_box(5, 6, 3)}), "a")
    batch = np.arange(90, dtype=np.uint8).reshape(1, 5, 6, 3)
    assert (adapter.kind, adapter.shape) == ("image", (3, 5, 6))
    np.testing.assert_array_equal(adapter.convert({"picture": batch}), batch.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"image": _bytes_box(7, 7, 3), "direction": spaces.Discrete(4)}),
        spaces.Tuple([_bytes_box(7, 7, 3), _bytes_box(7, 7, 3)]),
        spaces.Dict({}),
    ],
    ids=["image and vector", "two images", "nothing"],
)
def test_an_image_beside_anything_is_refused_and_wrappers_are_named(
    space: gymnasium.Space[Any],
) -> None:
    with pytest.raises(
        ValueError,
        match=r"^`tasks\.maze\.env` must have observations that are vectors, or one image\. Got "
        r"\{.*\}\. .+FilterObservation.+FlattenObservation",
    ):
        adapter_for(space, "maze")


@pytest.mark.parametrize("where", ["mission", "inner.0"])
def test_a_text_in_a_dict_is_refused_by_its_name_and_the_filter_is_named(where: str) -> None:
    text = spaces.Text(5)
    inner = {"mission": text} if where == "mission" else {"inner": spaces.Tuple([text])}
    with pytest.raises(
        ValueError,
        match=rf"^`tasks\.maze\.env` must .+ Got Text\(.+\) as '{where}'\. .+FilterObservation",
    ):
        adapter_for(spaces.Dict({"direction": spaces.Discrete(4), **inner}), "maze")


@pytest.mark.parametrize(
    "space",
    [spaces.Text(5), spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]))],
    ids=["text", "matrix of discretes"],
)
def test_a_space_without_array_form_is_refused_and_a_wrapper_is_named(
    space: gymnasium.Space[Any],
) -> None:
    complaint = r"(?s)^`tasks\.maze\.env` must have array or discrete observations\. Got .+Flatten"
    with pytest.raises(ValueError, match=complaint):
        adapter_for(space, "maze")
