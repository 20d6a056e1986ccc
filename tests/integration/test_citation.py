"""What tells how to cite the package says what the package says of itself."""

import tomllib
from pathlib import Path

import yaml

import lit_mtdqn

ROOT = Path(__file__).parents[2]


def test_the_citation_agrees_with_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["type"] == "software"
    assert citation["title"] == lit_mtdqn.__name__
    assert citation["version"] == lit_mtdqn.__version__
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]
