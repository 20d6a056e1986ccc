from pathlib import Path

import pytest
import torch
from helpers.gpu_generator import GpuGenerator
from tensordict import TensorDict

from lit_mtdqn.replay.generators import continue_generator_, dump_generator


def _dump(generator: torch.Generator, folder: Path, is_older: bool) -> None:
    """Write a generator's state; `is_older` does it as torchrl does."""
    if is_older:
        TensorDict(rng_state=generator.get_state()).memmap(folder / "rng_state")
    else:
        dump_generator(generator, folder)


OLDER = pytest.mark.parametrize("is_older", [False, True])


@OLDER
def test_a_generator_of_the_cpu_draws_on_from_a_stored_one(is_older: bool, tmp_path: Path) -> None:
    stored, own = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    torch.rand(3, generator=stored)
    _dump(stored, tmp_path, is_older)
    assert continue_generator_(own, tmp_path)
    assert torch.equal(torch.rand(5, generator=own), torch.rand(5, generator=stored))


@OLDER
def test_a_generator_of_a_gpu_draws_on_from_a_stored_one(is_older: bool, tmp_path: Path) -> None:
    _dump(GpuGenerator(3), tmp_path, is_older)
    own = GpuGenerator()
    assert continue_generator_(own, tmp_path)
    assert own.state.tolist() == [3] * 16


@OLDER
@pytest.mark.parametrize(
    "kinds", [(GpuGenerator, torch.Generator), (torch.Generator, GpuGenerator)]
)
def test_a_generator_is_left_alone_by_one_of_another_kind_of_device(
    kinds: tuple[type[torch.Generator], type[torch.Generator]], is_older: bool, tmp_path: Path
) -> None:
    stored, own = (kind() for kind in kinds)
    before = own.get_state()
    _dump(stored, tmp_path, is_older)
    assert not continue_generator_(own, tmp_path)
    assert torch.equal(own.get_state(), before)
