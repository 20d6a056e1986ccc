"""What guides point to is there."""

import re
from pathlib import Path

import pytest

PAGES = [
    Path("README.md"),
    *sorted(Path("docs").glob("*.md")),
    *sorted(Path("configs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED_TEST = re.compile(r"`([\w/]+/test_\w+\.py)`")
EACH = pytest.mark.parametrize("page", PAGES, ids=str)


@EACH
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@EACH
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = NAMED_TEST.findall(page.read_text())
    assert [name for name in named if not (Path("tests") / name).is_file()] == []


def test_faults_are_shown_by_tests() -> None:
    rows = Path("docs/faults.md").read_text().splitlines()
    table = [row for row in rows if row.startswith("| ")][1:]
    assert len(table) >= 10
    unshown = [row for row in table if not NAMED_TEST.search(row)]
    # Lightning's own timer, and what nothing could catch.
    assert all("max_time" in row for row in unshown)
