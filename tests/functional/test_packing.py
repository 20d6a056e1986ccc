from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch

from lit_mtdqn.functional.packing import packed, unpacked

STATE: dict[str, Any] = {
    "arrays": [np.arange(6.0).reshape(2, 3).T, np.zeros((0, 2), bool), np.array(3, np.uint8)],
    "generator": np.random.default_rng(3).bit_generator.state,
    "tensor": torch.arange(3),
    "plain": (None, True, 2**100, "text", {1: 0.1}),
}


def test_a_state_comes_back_from_a_checkpoint_that_may_name_no_class() -> None:
    file = BytesIO()
    torch.save(packed(STATE), file)
    file.seek(0)
    found = unpacked(torch.load(file, weights_only=True))
    for array, expected in zip(found["arrays"], STATE["arrays"], strict=True):
        assert isinstance(array, np.ndarray)
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert found["generator"] == STATE["generator"]
    assert torch.equal(found["tensor"], STATE["tensor"])
    assert found["plain"] == STATE["plain"]


def test_a_packed_state_does_not_change_with_what_it_was_taken_of() -> None:
    array, tensor = np.zeros(2), torch.zeros(2)
    state = packed([array, tensor])
    array[:], tensor[:] = 1.0, 1.0
    found = unpacked(state)
    assert found[0].tolist() == found[1].tolist() == [0.0, 0.0]
    found[0][:] = 2.0
    assert unpacked(state)[0].tolist() == [0.0, 0.0]


def test_numbers_of_numpy_become_plain_ones() -> None:
    assert type(packed(np.int64(3))) is int


@pytest.mark.parametrize("strange", [{1, 2}, object(), np.array([object()]), [lambda: None]])
def test_what_is_not_plain_is_refused(strange: Any) -> None:
    with pytest.raises(TypeError):
        packed({"state": strange})
