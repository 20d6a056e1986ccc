"""What runs' own reports, and those of the sequences that they are stages of, add to a page."""

from __future__ import annotations

import csv
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lit_mtdqn.analysis.found_runs import FoundRun
from lit_mtdqn.analysis.html_page import image, table
from lit_mtdqn.analysis.run_search import is_repeat

# Pictures that a report may hold.
PICTURES = {
    "gradient_agreement": "How the tasks' gradients of shared parameters agree",
    "task_affinity": "What a step for one task does to the others",
    "transfer": "What was gained by learning something else first",
}
COMPRESSION = "compression.csv"


def own_pictures(methods: Mapping[str, Sequence[FoundRun]]) -> list[str]:
    """Return what reports about methods' first runs have drawn of their tasks, as elements."""
    files = {
        folder / f"{name}.png": f"{caption}: {whose}"
        for folder, whose in _reports(methods).items()
        for name, caption in PICTURES.items()
    }
    parts = [image(file.read_bytes(), text) for file, text in files.items() if file.is_file()]
    return ["<h2>Tasks and one another</h2>", *parts] if parts else []


def compression_tables(methods: Mapping[str, Sequence[FoundRun]]) -> list[str]:
    """Return the tables of compression in reports about methods' first runs, as elements."""
    parts = []
    for folder, whose in _reports(methods).items():
        header, *rows = _rows(folder / COMPRESSION) or [[]]
        if header:
            parts += [f"<h2>Compression: {html.escape(whose)}</h2>", table(header, rows)]
    return parts


def _reports(methods: Mapping[str, Sequence[FoundRun]]) -> dict[Path, str]:
    """Return the folders of reports, each once, with what they are about."""
    found: dict[Path, str] = {}
    for method, (run, *_) in methods.items():
        found.setdefault(run.folder.resolve() / "report", f"{method}, {run.folder.resolve().name}")
        for sequence in _sequences(run):
            found.setdefault(sequence / "report", sequence.name)
    return found


def _sequences(run: FoundRun) -> Iterator[Path]:
    """Yield the folders that may be those of a sequence, of one seed and of all."""
    parent = run.folder.resolve().parent
    yield parent
    if is_repeat(parent):
        yield parent.parent


def _rows(file: Path) -> list[list[str]]:
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return list(csv.reader(lines))
