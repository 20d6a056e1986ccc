"""Running the stages of a sequence: what is finished, what goes on, and what is left out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from math import inf
from pathlib import Path
from typing import Any

from lit_mtdqn.analysis.checkpoints import CHECKPOINTS
from lit_mtdqn.analysis.found_runs import read_config
from lit_mtdqn.analysis.run_search import CONFIG
from lit_mtdqn.analysis.specialists import is_tested, read_tests
from lit_mtdqn.cli.children import INTERRUPTED, TERMINATED, Children
from lit_mtdqn.cli.resume import is_moved
from lit_mtdqn.cli.run_folder import RUN_OPTIONS
from lit_mtdqn.cli.sequence_file import Stage
from lit_mtdqn.cli.stages import REPLAY_CALLBACK, Config, Planned, Rehearse, class_name
from lit_mtdqn.types import require

# Settings of a machine or a terminal, under which a stage is the same.
ASIDE = ("threads", "save_replays", "trainer.enable_progress_bar")
FAILED = 1
# Of unlike settings of a stage.
SHOWN = 4


def run_stages(planned: Sequence[Planned], root: Path, children: Children) -> int:
    """Run what is not finished, in order, but for what needs a stage that failed.

    Args:
        planned: The stages.
        root: Folder of the sequence.
        children: Runs commands.

    Returns:
        The first exit code that is not 0.
    """
    first_code, failed = 0, set[str]()
    for place, one in enumerate(planned):
        name = one.stage.name
        title = f"Stage {place + 1} of {len(planned)}: {name}{_origin(one.stage)}"
        lacking = [other for other in one.stage.needs if other in failed]
        if lacking:
            _say(f"{title}: left out, because of {', '.join(lacking)}.")
            failed.add(name)
            continue
        code = _finish(one, root / name, title, children)
        if code in (INTERRUPTED, TERMINATED):
            return code
        if code != 0:
            _say(f"Stage {name} failed.")
            failed.add(name)
            first_code = first_code or code
    return first_code


def _finish(one: Planned, folder: Path, title: str, children: Children) -> int:
    """Run a stage unless it is finished, and return its exit code."""
    if is_tested(folder):
        _say(f"{title}: finished already.")
    else:
        _say(title)
        code = children.run([*one.command, *_continuation(one, folder)])
        if code != 0:
            return code
    try:
        _check_tested(one, folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return FAILED
    return 0


def check_begun(
    planned: Sequence[Planned], root: Path, rehearse: Rehearse, *, any_seed: bool = False
) -> None:
    """Refuse to go on with stages that were begun otherwise than they are defined now.

    Where the sequence lay then makes no difference, nor whether a stage kept its replay, as long as
    that is there. Options that there were none of then had the values they have by default now.

    Args:
        planned: The stages.
        root: Folder of the sequence.
        rehearse: Finds out what a `fit` would do.
        any_seed: Whether it may have another seed.

    Raises:
        ValueError: If a stage was begun otherwise, before what it builds on was finished, or lacks
            a replay that another one takes.
    """
    aside = (*ASIDE, "seed_everything") if any_seed else ASIDE
    finished = {one.stage.name for one in planned if is_tested(root / one.stage.name)}
    for one in planned:
        name, saved = one.stage.name, root / one.stage.name / CONFIG
        if not saved.is_file():
            continue
        missing = [other for other in one.stage.needs if other not in finished]
        must = f"not have begun before the stages {missing}, which it builds on; remove its folder"
        require(not missing, f"stages.{name}", must, str(saved.parent))
        before = read_config(saved.parent, f"stages.{name}")
        if any(_differences(before, one)):
            before = _as_of_today(saved, before, rehearse)
        found = [text for key, text in _differences(before, one) if key not in aside]
        must = (
            "be as it was when it began; remove its folder to repeat it, or take another "
            "`--run_dir`"
        )
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        given = f"{saved.parent} with {'; '.join(found[:SHOWN])}{more}"
        require(not found, f"stages.{name}", must, given)
        has_left = name not in finished or not one.lacks_replay(saved.parent)
        must = "have kept its replay, which a later stage takes; remove its folder to repeat it"
        require(has_left, f"stages.{name}", must, str(saved.parent))


def _check_tested(one: Planned, folder: Path) -> None:
    """Refuse to build on a stage that has no test, or has not learned its tasks."""
    where = f"stages.{one.stage.name}"
    must = "end with a test in its report, without which it counts as unfinished"
    require(is_tested(folder), where, must, str(folder))
    if one.stage.reaches is None:
        return
    must = (
        f"reach a score of {one.stage.reaches:g} in every task; remove its folder to repeat it, "
        "with other settings or another seed"
    )
    scores = {
        row["task"]: float(row["score"])
        for row in read_tests(str(folder))
        if row["task"] in one.learned
    }
    is_learned = all(scores.get(task, -inf) >= one.stage.reaches for task in one.learned)
    require(is_learned, where, must, scores)


def _differences(saved: Config, one: Planned) -> Iterator[tuple[str, str]]:
    """Yield the names of unlike settings, each with what to say of it."""
    before, now = dict(_leaves(_compared(saved))), dict(_leaves(_compared(one.config)))
    for name in sorted({*before, *now}):
        was, is_now = before.get(name), now.get(name)
        if was != is_now and not is_moved(was, is_now, one.root):
            yield name, f"{name} = {is_now!r} instead of {was!r}"


def _as_of_today(saved: Path, config: Config, rehearse: Rehearse) -> Config:
    """Return a saved configuration with the options that are new since, if it can still be read."""
    try:
        with redirect_stderr(StringIO()):
            return rehearse(["fit", f"--config={saved}"], builds=False)
    except (SystemExit, ValueError):
        return config


def _compared(config: Config) -> Config:
    """Return what makes a stage what it is: not whether it keeps its replay."""
    trainer = config.get("trainer") or {}
    entries = [one for one in trainer.get("callbacks") or [] if class_name(one) != REPLAY_CALLBACK]
    kept = {key: value for key, value in config.items() if key not in RUN_OPTIONS}
    return {**kept, "trainer": {**trainer, "callbacks": entries}}


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    for key, value in pairs:
        path = f"{name}.{key}" if name else str(key)
        if isinstance(value, Mapping | list) and value:
            yield from _leaves(value, path)
        else:
            yield path, value


def _continuation(one: Planned, folder: Path) -> list[str]:
    """Return what makes a stage go on, or start anew if it was stopped before it saved anything.

    One that has saved no replay goes on without one if no other stage takes it.
    """
    is_saved = (folder / CHECKPOINTS / "last.ckpt").is_file()
    return (
        ["--ckpt_path=last"] if is_saved and not one.lacks_replay(folder) else ["--overwrite=true"]
    )


def _origin(stage: Stage) -> str:
    parts = [
        f"{words} {', '.join(names)}"
        for words, names in (
            ("with weights of", stage.parents),
            ("with the replay of", stage.replay_from),
        )
        if names
    ]
    return f" {' and '.join(parts)}" if parts else ""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
