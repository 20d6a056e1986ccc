"""`lit-mtdqn sequence FILE`: runs that start from what earlier ones have learned."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lit_mtdqn.analysis.sequence_report import report_sequence
from lit_mtdqn.analysis.specialists import is_tested
from lit_mtdqn.cli.children import INTERRUPTED, TERMINATED, Children
from lit_mtdqn.cli.run_folder import new_run_dir
from lit_mtdqn.cli.seeds import parse_seeds, run_seeds
from lit_mtdqn.cli.sequence_file import read_sequence
from lit_mtdqn.cli.stage_runs import check_begun, run_stages
from lit_mtdqn.cli.stages import Rehearse, plan
from lit_mtdqn.types import require

COMMAND = "sequence"
# What one of several seeds is started with.
NO_SEEDS = "null"


def run_sequence(argv: list[str], rehearse: Rehearse) -> int:
    """Run the stages of a file, one after the other, and report; return the exit code.

    Stages that are finished are not repeated, one that was interrupted goes on with its last
    checkpoint. A stage that fails, leaves no test or does not reach the score it must ends those
    that need it; the others run and are reported, and the exit code is the first failure's. Ctrl-C
    and SIGTERM end the stage after its phase, and the sequence with it.

    Args:
        argv: The command line, `sequence` first.
        rehearse: Finds out what a `fit` would do.

    Raises:
        ValueError: If the file or what the folder holds does not fit, before the first env step.
        SystemExit: If an argument does not fit.
    """
    options, rest = _parser().parse_known_args(argv[1:])
    must = "be started once, whose stages start ranks by themselves"
    require("LOCAL_RANK" not in os.environ, COMMAND, must, "a process of a launcher")
    sequence = read_sequence(options.FILE)
    root = Path(options.run_dir or new_run_dir([Path(options.FILE)]))
    is_one_of_several = options.seeds == NO_SEEDS
    seeds = [] if options.seeds in (None, NO_SEEDS) else parse_seeds(options.seeds)
    # A file that does not fit is complained of once, not by each seed.
    planned = plan(sequence, root / f"seed_{seeds[0]}" if seeds else root, rest, rehearse)
    if not is_one_of_several:
        print(f"Sequence in {root}. To go on with it: --run_dir {root}", flush=True)  # noqa: T201
    if seeds:
        for folder in _seed_folders(root):
            # The report is of all seeds, those of earlier commands, too.
            check_begun(planned, folder, rehearse, any_seed=True)
        code = run_seeds(argv, seeds, str(root), options.jobs)
    else:
        check_begun(planned, root, rehearse)
        with Children() as children:
            code = run_stages(planned, root, children)
    roots = _seed_folders(root) if seeds else [root]
    is_some = any(is_tested(folder / one.stage.name) for folder in roots for one in planned)
    if is_some and code not in (INTERRUPTED, TERMINATED):
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


def _seed_folders(root: Path) -> list[Path]:
    """Return the folders of all seeds that a sequence was begun with, by their numbers."""
    found = [path for path in root.glob("seed_*") if path.name.removeprefix("seed_").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("seed_")))
