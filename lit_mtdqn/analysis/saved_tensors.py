"""Tensors that are left for whoever looks into what has ended a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lit_mtdqn.analysis.whole_files import whole_file
from lit_mtdqn.functional.archives import archive_of


def file_of_rank(trainer: Any, name: str) -> Path:
    """Return a file of a run's folder that no other rank writes, `<name>.pt` where there is one.

    Args:
        trainer: Its trainer.
        name: The file's name, without an ending.
    """
    rank = f"_{trainer.global_rank}" if trainer.world_size > 1 else ""
    return Path(trainer.default_root_dir) / f"{name}{rank}.pt"


def save_tensors(content: Mapping[str, Any], file: Path, what: str) -> str:
    """Save tensors by name, and return a clause that says where they are, or why nowhere.

    Args:
        content: Tensors, and other things that PyTorch reads without running code.
        file: Where to; its folder is made if there is none.
        what: What they are, in the singular.
    """
    # Of views all that they are views of would be saved.
    tensors = {name: value for name, value in content.items() if torch.is_tensor(value)}
    own = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    written = archive_of({**content, **own})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as fresh:
            fresh.write_bytes(written)
    except OSError as error:
        return f"{what} cannot be written to {file} ({error.strerror or error})"
    return f"{what} is in {file}"
