"""Whether the files of a stored replay are what a replay writes, before anything reads them."""

from __future__ import annotations

import json
import math
import pickletools
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

from lit_mtdqn.functional.archives import refuse_inflation
from lit_mtdqn.types import require

# Numbers, what they are, and the state of a sampler, which is read as tensors alone. TensorDict
# would unpickle other files, and so run what they say.
KINDS = (".memmap", ".json", ".pt")
# Older replays have this one of torchrl's, which holds nothing but an empty list.
PLAIN = "prefetch.pkl"
IMPORTING = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
DESCRIPTION = "meta.json"


def check_stored_files(folder: Path) -> None:
    """Refuse a folder that could run code or take more memory than it has bytes.

    Args:
        folder: Where a replay was written to.

    Raises:
        ValueError: If it holds links or files of other kinds, or columns larger than their files.
    """
    found = sorted(folder.rglob("*"))
    # What they lead to has not been looked at, and TensorDict would follow them.
    links = [path.name for path in found if path.is_symlink()]
    require(not links, "replay", "hold no links", f"{folder} with {links}")
    files = [path for path in found if path.is_file()]
    others = [path.name for path in files if path.suffix not in KINDS and not _is_plain(path)]
    must = f"hold nothing but files that replays write, {', '.join(KINDS)}"
    require(not others, "replay", must, f"{folder} with {others}")
    for path in files:
        if path.name == DESCRIPTION:
            _check_columns(path.parent, read_json(path))
        if path.suffix == ".pt":
            _check_archive(path)


def _check_archive(path: Path) -> None:
    try:
        refuse_inflation(path)
    except (ValueError, BadZipFile) as error:
        raise ValueError(f"`replay` must be undamaged files. Got {path}: {error}.") from error


def _is_plain(path: Path) -> bool:
    """Return whether a file is a pickle that can name nothing, and so call nothing."""
    if path.name != PLAIN:
        return False
    try:
        return not IMPORTING & {code.name for code, _, _ in pickletools.genops(path.read_bytes())}
    except ValueError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Return a mapping from a file.

    Raises:
        ValueError: If it holds none.
    """
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"`replay` must be undamaged files. Got {path}: {error}.") from error
    require(isinstance(found, dict), "replay", "be undamaged files", str(path))
    mapping: dict[str, Any] = found
    return mapping


def _check_columns(folder: Path, described: dict[str, Any]) -> None:
    for name, column in described.items():
        if not isinstance(column, dict) or "dtype" not in column:
            continue
        dtype = getattr(torch, str(column["dtype"]).removeprefix("torch."), None)
        file = folder / f"{name}.memmap"
        must = f"hold the column {name} in a file of its size"
        is_known = isinstance(dtype, torch.dtype) and file.is_file()
        require(is_known, "replay", must, f"{folder} with {column}")
        assert isinstance(dtype, torch.dtype)
        size = math.prod(column.get("shape", ())) * dtype.itemsize
        require(size <= file.stat().st_size, "replay", must, f"{folder} with {size} bytes declared")
