"""Tables on disk."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lit_mtdqn.analysis.whole_files import whole_file


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, which is there when it is whole; None becomes an empty cell.

    Args:
        path: The file, replaced if it exists.
        header: Names of the columns.
        rows: Values in their order.
    """
    with whole_file(path) as fresh, fresh.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
