"""What several tests of whole runs share."""

from collections.abc import Callable
from typing import Any

import pytest
from helpers.stopped_runs import outcome_of, run_in


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return what runs that were never stopped have come to."""
    known: dict[str, dict[str, Any]] = {}

    def of(name: str) -> dict[str, Any]:
        if name not in known:
            known[name] = outcome_of(run_in(tmp_path_factory.mktemp(name), name))
        return known[name]

    return of
