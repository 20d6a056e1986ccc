import pytest
import torch

from lit_mtdqn.process import configure_process


@pytest.mark.parametrize("flushes", [True, False])
def test_denormal_numbers_become_zero_unless_told_otherwise(flushes: bool) -> None:
    configure_process(flush_denormal=flushes)
    denormal = torch.tensor([1e-30]) * torch.tensor([1e-12])
    assert bool(denormal == 0.0) == flushes


def test_threads_are_set_or_left_alone() -> None:
    configure_process(threads=2)
    assert torch.get_num_threads() == 2
    configure_process(threads=None)
    assert torch.get_num_threads() == 2
    configure_process()
    assert torch.get_num_threads() == 1
