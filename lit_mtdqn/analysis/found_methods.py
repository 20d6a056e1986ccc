"""Runs by the method that they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from lit_mtdqn.analysis.found_runs import FoundRun, read_run
from lit_mtdqn.analysis.run_search import METRICS, find_runs, is_repeat
from lit_mtdqn.analysis.short_names import short_names
from lit_mtdqn.types import require

# Settings in which runs of one method may differ.
SEED = "seed_everything"
OF_ONE_RUN = (
    SEED,
    "threads",
    "trainer.logger",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.default_root_dir",
)


class FoundMethods(NamedTuple):
    """Runs by method.

    Attributes:
        evaluated: The runs of each method that have a score; no method is without.
        left_out: The runs that have not been evaluated yet.
    """

    evaluated: dict[str, list[FoundRun]]
    left_out: list[FoundRun]


def find_methods(sources: Sequence[str], name: str) -> FoundMethods:
    """Return the runs of each method.

    Runs of one folder that are named `seed_<n>` or by date and time are of one method if their
    configurations differ in the seed alone, which each has for itself; any other run is a method.

    Args:
        sources: Folders, each after `<method>=` or named as the method: of a run, or of runs at
            any depth.
        name: What the user calls them, for complaints.

    Raises:
        ValueError: If a folder holds no run, a run is found twice, no run has been evaluated, or
            two methods have one name.
    """
    named: dict[str, list[FoundRun]] = {}
    others: dict[Path, FoundRun] = {}
    for source in sources:
        label, given, path = source.rpartition("=")
        runs = [read_run(folder, name) for folder in find_runs(Path(path))]
        require(bool(runs), name, f"be folders of runs, each with {METRICS}", path)
        if given:
            must = "give one method the name of one"
            require(len(_methods(runs)) == 1, name, must, source)
            require(label not in named, name, "be methods of different names", label)
            named[label] = runs
            continue
        for run in runs:
            folder = run.folder.resolve()
            require(folder not in others, name, "be folders that share no run", str(run.folder))
            others[folder] = run
    found = {**named, **_methods(list(others.values()), named)}
    return _by_evaluation(found, sources, name)


def _by_evaluation(
    found: Mapping[str, Sequence[FoundRun]], sources: Sequence[str], name: str
) -> FoundMethods:
    evaluated = {method: [run for run in runs if run.scores] for method, runs in found.items()}
    evaluated = {method: runs for method, runs in evaluated.items() if runs}
    require(bool(evaluated), name, "hold runs that have been evaluated", list(sources))
    left_out = [run for runs in found.values() for run in runs if not run.scores]
    return FoundMethods(evaluated, left_out)


def _methods(
    runs: Sequence[FoundRun], taken: Collection[str] = ()
) -> dict[str, Sequence[FoundRun]]:
    """Return runs by the names of their methods, which are not among those taken."""
    repeats: dict[Path, list[FoundRun]] = {}
    methods: dict[Path, Sequence[FoundRun]] = {}
    for run in runs:
        folder = run.folder.resolve()
        if is_repeat(folder):
            repeats.setdefault(folder.parent, []).append(run)
        else:
            methods[folder] = [run]
    lengths = dict.fromkeys(methods, 1)
    for parent, of_parent in repeats.items():
        kinds = _kinds(of_parent)
        is_one = len(kinds) == 1 and parent not in methods
        for kind in kinds:
            folder = parent if is_one else kind[0].folder.resolve()
            methods[folder], lengths[folder] = kind, 1 if is_one else 2
    names = short_names(lengths, taken)
    return {names[folder]: of_method for folder, of_method in methods.items()}


def _kinds(runs: Sequence[FoundRun]) -> list[list[FoundRun]]:
    """Return runs by their settings; a seed that comes again is not another run of the first."""
    kinds: dict[tuple[str, int], list[FoundRun]] = {}
    times: Counter[tuple[str, int]] = Counter()
    for run in runs:
        settings, seed = _settings(run), run.config.get(SEED)
        time = 0
        if isinstance(seed, int):
            time = times[settings, seed]
            times[settings, seed] += 1
        kinds.setdefault((settings, time), []).append(run)
    return list(kinds.values())


def _settings(run: FoundRun) -> str:
    """Return what all runs of a method have in common."""
    config = deepcopy(dict(run.config))
    for name in OF_ONE_RUN:
        *above, last = name.split(".")
        place: Any = config
        for key in above:
            place = place.get(key)
            if not isinstance(place, dict):
                break
        else:
            place.pop(last, None)
    # A student of seed 1 may have a teacher of seed 1.
    return repr(config).replace(run.folder.resolve().name, "")
