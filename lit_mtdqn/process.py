"""Flags of the whole process that small networks on a CPU are several tenths faster with."""

from __future__ import annotations

import torch


def configure_process(threads: int | None = 1, flush_denormal: bool = True) -> None:
    """Set PyTorch's thread count and let denormal numbers be zero.

    The command line calls this; call it yourself at the top of a script or a notebook. Values of
    finished episodes decay through denormal numbers, on which a CPU computes many times slower.

    Args:
        threads: Threads of one PyTorch operation. 1 is fastest for networks up to a few hundred
            wide; None leaves it.
        flush_denormal: Whether denormal numbers become zero.
    """
    torch.set_flush_denormal(flush_denormal)
    if threads is not None:
        torch.set_num_threads(threads)
