"""`lit-mtdqn sequence FILE`: runs that start from what earlier ones have learned."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import yaml

from lit_mtdqn.analysis.checkpoints import CHECKPOINTS
from lit_mtdqn.analysis.sequence_report import report_sequence
from lit_mtdqn.analysis.specialists import TESTS, read_tests
from lit_mtdqn.cli.run_folder import CONFIG, RUN_OPTIONS, new_run_dir
from lit_mtdqn.cli.seeds import parse_seeds, run_seeds
from lit_mtdqn.cli.sequence_file import Stage, read_sequence
from lit_mtdqn.cli.stages import Config, Planned, Rehearse, plan
from lit_mtdqn.types import require

COMMAND = "sequence"
# What the command decides for all stages.
DECIDED = ("--run_dir", "--ckpt_path", "--overwrite")
# Settings of a machine or a terminal, under which a stage is the same.
ASIDE = ("threads", "trainer.enable_progress_bar")
# What a shell reports of a command that Ctrl-C has ended.
INTERRUPTED = 130


def run_sequence(argv: list[str], rehearse: Rehearse) -> int:
    """Run the stages of a file, one after the other, and report; return the exit code.

    Stages that are finished are not repeated, one that was interrupted goes on with its last
    checkpoint. The first stage that fails ends the sequence with its exit code, one that does not
    reach the score it must with an error.

    Args:
        argv: The command line, `sequence` first.
        rehearse: Finds out what a `fit` would do.

    Raises:
        ValueError: If the file or what the folder holds does not fit, before the first env step; or
            after a stage that does not reach the score it must.
        SystemExit: If an argument does not fit.
    """
    options, rest = _parser().parse_known_args(argv[1:])
    for argument in rest:
        is_decided = argument.partition("=")[0] in DECIDED
        require(not is_decided, COMMAND, "be given no option of a single run", argument)
    must = "be started once, whose stages start ranks by themselves"
    require("LOCAL_RANK" not in os.environ, COMMAND, must, "a process of a launcher")
    sequence = read_sequence(options.FILE)
    root = Path(options.run_dir or new_run_dir([Path(options.FILE)]))
    if options.seeds in (None, "null"):
        planned = plan(sequence, root, rest, rehearse)
        code = _run_stages(planned, root)
        roots = [root]
    else:
        seeds = parse_seeds(options.seeds)
        # A file that does not fit is complained of once, not by each seed.
        planned = plan(sequence, root / f"seed_{seeds[0]}", rest, rehearse)
        code = run_seeds(argv, seeds, str(root), options.jobs)
        roots = [root / f"seed_{seed}" for seed in seeds]
    if code == 0:
        print(report_sequence(roots, [one.reported for one in planned], root))  # noqa: T201
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"lit-mtdqn {COMMAND}",
        description="Run the stages of a file, each an ordinary `fit`, and report on all of them. "
        "The same command with the folder of a sequence goes on where that has stopped. All other "
        "arguments, such as --data.num_envs=8 or --config=<overlay>, are added to every stage.",
        allow_abbrev=False,
    )
    parser.add_argument("FILE", help="Which stages, such as configs/sequences/forgetting.yaml.")
    parser.add_argument(
        "--run_dir",
        help="Folder of the sequence; each stage gets a folder of its name. "
        "Default: runs/sequences/<file>/<date and time>.",
    )
    parser.add_argument(
        "--seeds", help="Seeds of several sequences, such as 0..4 or 0,3,7; in folders `seed_<n>`."
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="How many of the seeds go on at a time."
    )
    return parser


def _run_stages(planned: Sequence[Planned], root: Path) -> int:
    """Run what is not finished, in order, and return the first exit code that is not 0."""
    finished = {one.stage.name for one in planned if is_finished(root / one.stage.name)}
    for one in planned:
        _check_begun(one, root, finished)
    for place, one in enumerate(planned):
        title = f"Stage {place + 1} of {len(planned)}: {one.stage.name}{_origin(one.stage)}"
        if one.stage.name in finished:
            _say(f"{title}: finished already.")
        else:
            _say(title)
            code = _run([*one.command, *_continuation(root / one.stage.name)])
            if code != 0:
                return code
        _check_reached(one, root)
    return 0


def is_finished(folder: Path) -> bool:
    """Return whether a run has played its test, which is the last thing that it does."""
    return (folder / TESTS).is_file()


def _check_begun(one: Planned, root: Path, finished: set[str]) -> None:
    """Refuse to go on with a stage that was begun otherwise than it is defined now."""
    name, saved = one.stage.name, root / one.stage.name / CONFIG
    if not saved.is_file():
        return
    missing = [other for other in one.stage.needs if other not in finished]
    must = f"not have begun before the stages {missing}, which it builds on; remove its folder"
    require(not missing, f"stages.{name}", must, str(saved.parent))
    differences = list(_differences(yaml.safe_load(saved.read_text()), one.config))
    must = "be as it was when it began; remove its folder to repeat it, or take another `--run_dir`"
    require(not differences, f"stages.{name}", must, "; ".join(differences))


def _check_reached(one: Planned, root: Path) -> None:
    """Refuse to build on a stage that has not learned its tasks."""
    if one.stage.reaches is None:
        return
    must = (
        f"reach a score of {one.stage.reaches:g} in every task; remove its folder to repeat it, "
        "with other settings or another seed"
    )
    scores = {
        row["task"]: float(row["score"])
        for row in read_tests(str(root / one.stage.name))
        if row["task"] in one.learned
    }
    is_learned = all(scores.get(task, -inf) >= one.stage.reaches for task in one.learned)
    require(is_learned, f"stages.{one.stage.name}", must, scores)


def _differences(saved: Config, asked: Config) -> Iterator[str]:
    before, now = dict(_leaves(saved)), dict(_leaves(asked))
    for name in sorted({*before, *now}):
        was, is_now = before.get(name), now.get(name)
        if was != is_now and name not in ASIDE:
            yield f"{name} = {is_now!r} instead of {was!r}"


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            if name or key not in RUN_OPTIONS:
                yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, tree


def _continuation(folder: Path) -> list[str]:
    """Return what makes a stage go on, or start anew if it was stopped before it saved anything."""
    if (folder / CHECKPOINTS / "last.ckpt").is_file():
        return ["--ckpt_path=last"]
    return ["--overwrite=true"]


def _run(arguments: list[str]) -> int:
    """Run a command in a process of its own and return its exit code."""
    process = subprocess.Popen([sys.executable, "-m", "lit_mtdqn", *arguments])
    interrupted = False
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # The terminal tells the stage, too, which ends after its phase.
            interrupted = True
        else:
            return INTERRUPTED if interrupted else code


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
