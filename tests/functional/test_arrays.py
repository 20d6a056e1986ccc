import numpy as np
import pytest
import torch

from lit_mtdqn.functional.arrays import (
    Table,
    cast,
    fill_,
    may_hold,
    namespace_of,
    placed,
    places_of,
    renew_,
)

ARRAY = np.array([[0.5, -1.5, 2.0], [3.0, 4.0, -5.5]])
KINDS = pytest.mark.parametrize("device", [None, "cpu"], ids=["array", "tensor"])


@KINDS
def test_an_array_is_placed_and_has_the_functions_of_its_kind(device: str | None) -> None:
    found = placed(ARRAY, device)
    assert namespace_of(found) is (np if device is None else torch)
    np.testing.assert_array_equal(np.asarray(found), ARRAY)


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "int64", "float64"])
def test_a_cast_is_a_copy_in_rows(device: str | None, dtype: str) -> None:
    array = placed(ARRAY, device)
    found = cast(array.T, dtype)
    np.testing.assert_array_equal(np.asarray(found), ARRAY.T.astype(dtype))
    assert str(found.dtype).endswith(dtype)
    rows = found.flags.c_contiguous if device is None else found.is_contiguous()
    assert rows
    found[:] = 7
    np.testing.assert_array_equal(np.asarray(array), ARRAY)


def test_only_an_array_is_looked_at() -> None:
    assert not may_hold(np.zeros(3, bool))
    assert may_hold(np.array([False, True]))
    assert may_hold(torch.zeros(3, dtype=torch.bool, device="meta"))


@KINDS
def test_places_are_in_order_of_the_first_axis(device: str | None) -> None:
    mask = placed(np.array([[False, True, True], [True, False, True]]), device)
    time, env = places_of(mask, 4)
    assert (time.tolist(), env.tolist()) == ([0, 0, 1, 1], [1, 2, 0, 2])
    none = places_of(mask & False, 0)
    assert [len(axis) for axis in none] == [0, 0]


@KINDS
def test_a_number_is_filled_in_where_a_mask_holds(device: str | None) -> None:
    array = placed(ARRAY.copy(), device)
    fill_(array, array < 0.0, 7.0)
    np.testing.assert_array_equal(np.asarray(array), np.where(ARRAY < 0.0, 7.0, ARRAY))


@KINDS
def test_columns_are_renewed_in_place_where_they_should_be(device: str | None) -> None:
    columns, drawn = placed(ARRAY.copy(), device), []

    def draw(count: int) -> object:
        drawn.append(count)
        return placed(np.full((2, count), 9.0), device)

    renew_(columns, placed(np.array([False, True, True]), device), draw)
    np.testing.assert_array_equal(np.asarray(columns), [[0.5, 9.0, 9.0], [3.0, 9.0, 9.0]])
    assert drawn == [2 if device is None else 3]


def test_a_table_moves_to_a_device_once() -> None:
    table = Table([1.0, 2.0])
    np.testing.assert_array_equal(table.beside(ARRAY), [1.0, 2.0])
    beside = table.beside(torch.zeros(3))
    assert beside.dtype == torch.float64
    assert beside.tolist() == [1.0, 2.0]
    assert table.beside(torch.zeros(1)) is beside
    assert table.beside(torch.zeros(1, device="meta")).device.type == "meta"
