"""Flags of the whole process that small networks on a CPU want."""

from __future__ import annotations

import torch

from lit_mtdqn.types import require


def configure_process(threads: int | None = 1, flush_denormal: bool = True) -> None:
    """Set PyTorch's thread count and let denormal numbers be zero.

    The command line calls this; call it yourself at the top of a script or a notebook. Gradients
    and moments of units that fell silent decay through denormal numbers, on which a CPU computes
    many times slower; `benchmarks/process_flags.py` measures what that comes to in a run.

    Args:
        threads: Threads of one PyTorch operation. 1 is fastest for networks up to a few hundred
            wide; None leaves it.
        flush_denormal: Whether denormal numbers become zero.

    Raises:
        ValueError: If `threads` is below 1.
    """
    require(threads is None or threads >= 1, "threads", "be at least 1 or null", threads)
    torch.set_flush_denormal(flush_denormal)
    if threads is not None:
        torch.set_num_threads(threads)
