"""Archives as PyTorch writes and reads them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch


def archive_of(saved: Any) -> memoryview:
    """Return the bytes of a file that `torch.load` reads.

    Into a file itself, `torch.save` does not say that a disk is full.

    Args:
        saved: Tensors and plain values.
    """
    content = BytesIO()
    torch.save(saved, content)
    return content.getbuffer()


def refuse_inflation(path: Path) -> None:
    """Refuse an archive whose records would take more memory than there are bytes in the file.

    Args:
        path: The file; one that is no archive passes.

    Raises:
        ValueError: If a record is compressed, or all are larger than the file.
    """
    if not is_zipfile(path):
        return
    with ZipFile(path) as file:
        records = file.infolist()
    if any(record.compress_type != ZIP_STORED for record in records):
        raise ValueError("its records are compressed")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise ValueError("its records are larger than the file")
