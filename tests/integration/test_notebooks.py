"""Notebooks show what a real run has printed and drawn; that they run is checked by nbmake."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@EACH
def test_cells_were_run_from_first_to_last_without_errors(path: Path) -> None:
    cells = _cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    assert "stream" in kinds


@EACH
def test_outputs_have_figures_and_no_paths_of_a_machine(path: Path) -> None:
    outputs = [output for cell in _cells(path) for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    texts = ["".join(output.get("text", "")) for output in outputs]
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work|usr)/", "\n".join(texts))
