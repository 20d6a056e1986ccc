"""Flags of the whole process that small networks on a CPU want."""

from __future__ import annotations

import torch

from lit_mtdqn.types import require


def configure_process(threads: int | None = 1, flush_denormal: bool = True) -> None:
    """Set PyTorch's thread count and let denormal numbers be zero.

    The command line calls this; call it yourself at the top of a script or a notebook. Gradients
    and moments of units that fell silent decay through denormal numbers, on which a CPU computes
    many times slower. That is a precaution for long runs: 30 000 steps of CartPole take as long
    without (`benchmarks/process_flags.py`: 0.97 times, 0.90 to 1.02 in three repeats).

    Args:
        threads: Threads of one PyTorch operation. 1 leaves other cores to other runs; more make
            updates sooner, the wider a network is (`benchmarks/update_speed.py`). None leaves it.
        flush_denormal: Whether denormal numbers become zero.

    Raises:
        ValueError: If `threads` is below 1.
    """
    require(threads is None or threads >= 1, "threads", "be at least 1 or null", threads)
    torch.set_flush_denormal(flush_denormal)
    if threads is not None:
        torch.set_num_threads(threads)
