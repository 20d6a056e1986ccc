from typing import Any

import numpy as np
import pytest
import torch

from lit_mtdqn.functional.draws import TensorGenerator


def _generator(seed: int | None = 3) -> TensorGenerator:
    return TensorGenerator(seed, "cpu")


def test_draws_have_the_types_and_ranges_of_numpys() -> None:
    generator, theirs = _generator(), np.random.default_rng(3)
    pairs: list[tuple[torch.Tensor, Any]] = [
        (generator.random((50, 400)), theirs.random((50, 400))),
        (generator.uniform(-2.0, 3.0, (50, 400)), theirs.uniform(-2.0, 3.0, (50, 400))),
        (generator.integers(5, 20_000), theirs.integers(5, size=20_000)),
        (generator.standard_normal(20_000), theirs.standard_normal(20_000)),
        (
            generator.standard_normal(20_000, dtype=np.float32),
            theirs.standard_normal(20_000, dtype=np.float32),
        ),
    ]
    for found, wanted in pairs:
        assert found.dtype == torch.from_numpy(wanted).dtype
        assert found.shape == wanted.shape
        quantiles = [0.05, 0.3, 0.5, 0.7, 0.95]
        spread = np.std(wanted)
        np.testing.assert_allclose(
            np.quantile(found.numpy(), quantiles),
            np.quantile(wanted, quantiles),
            atol=0.05 * float(spread),
        )
    assert sorted(set(pairs[2][0].tolist())) == [0, 1, 2, 3, 4]


def test_a_seed_and_a_state_repeat_draws() -> None:
    generator = _generator()
    first = generator.random(5)
    assert torch.equal(first, _generator().random(5))
    state = generator.bit_generator.state
    second = generator.random(5)
    assert not torch.equal(first, second)
    generator.bit_generator.state = state
    assert torch.equal(generator.random(5), second)


def test_no_seed_is_a_new_one() -> None:
    assert not torch.equal(_generator(None).random(5), _generator(None).random(5))


def test_a_device_of_another_kind_is_asked_for_its_own_generator() -> None:
    with pytest.raises(RuntimeError):
        TensorGenerator(0, "meta")
