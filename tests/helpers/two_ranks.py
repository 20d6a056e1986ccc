"""Scripts that start ranks, each of which leaves what it found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def found_by_ranks(script: ModuleType, folder: Path, timeout: float) -> list[Any]:
    """Run a helper as a script and return what its two ranks have saved in a folder.

    Args:
        script: Takes the folder as its argument and writes `rank_0.pt` and `rank_1.pt`.
        folder: For these files.
        timeout: Seconds after which it counts as hanging.
    """
    done = subprocess.run(
        [sys.executable, str(script.__file__), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
        timeout=timeout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
