"""Archives that PyTorch reads, before it does."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, is_zipfile


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
