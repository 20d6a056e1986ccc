"""`lit-mtdqn report RUN...`: one page about runs, finished or not."""

from __future__ import annotations

import argparse
from pathlib import Path

from lit_mtdqn.analysis.comparison_report import report_runs

COMMAND = "report"


def run_report(argv: list[str]) -> None:
    """Write the page and say where it is.

    Args:
        argv: The command line, `report` first.

    Raises:
        ValueError: If a folder holds no run.
        SystemExit: If an argument does not fit.
    """
    options = _parser().parse_args(argv[1:])
    folder = None if options.folder is None else Path(options.folder)
    page = report_runs(options.RUN, folder, options.title, "RUN")
    print(f"Report: {page}")  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"lit-mtdqn {COMMAND}",
        description="Write one page about runs: what is best and how sure that is, each task's "
        "scores, learning curves, performance profiles and what repeats each run. Runs that are "
        "going on or were cut off are judged by their last evaluation.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "RUN",
        nargs="+",
        help="Folder of a run, or of runs at any depth; `<method>=<folder>` names the method. Runs "
        "beside one another, named `seed_<n>` or by date and time, are of one method if only their "
        "seeds differ.",
    )
    parser.add_argument(
        "--folder", help="Where to write. Default: `report` in the folder that all runs share."
    )
    parser.add_argument("--title", help="Headline of the page. Default: methods and tasks.")
    return parser
