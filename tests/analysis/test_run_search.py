from pathlib import Path

import pytest

from lit_mtdqn.analysis.run_search import find_runs, is_repeat


def _write(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.csv").touch()


def test_runs_are_found_at_any_depth_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["a/seed_2", "a/seed_10", "b", "c/d/e"]
    _write(*(tmp_path / name for name in reversed(names)))
    assert [str(run.relative_to(tmp_path)) for run in find_runs(tmp_path)] == names


def test_what_a_run_has_written_or_is_hidden_is_not_searched(tmp_path: Path) -> None:
    _write(tmp_path, tmp_path / "test", tmp_path / "replay" / "a", tmp_path / ".cache")
    _write(tmp_path / "deeper")
    assert find_runs(tmp_path) == [tmp_path, tmp_path / "deeper"]


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    _write(tmp_path / "run")
    (tmp_path / "back").symlink_to(tmp_path)
    assert find_runs(tmp_path) == [tmp_path / "run"]
    assert find_runs(tmp_path / "nothing") == []


@pytest.mark.parametrize("name", ["seed_0", "seed_12", "2026-01-02_03-04-05_2"])
def test_seeds_and_dates_name_repeats(name: str, tmp_path: Path) -> None:
    assert is_repeat(tmp_path / name)


@pytest.mark.parametrize("name", ["seed_", "seed_a", "seeds", "2026-01-02", "dqn_seed_0"])
def test_other_names_are_those_of_methods(name: str, tmp_path: Path) -> None:
    assert not is_repeat(tmp_path / name)
