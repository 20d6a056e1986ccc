"""`lit-mtdqn export RUN_OR_CHECKPOINT`: a policy as files that need none of this package."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lit_mtdqn.deployment import FORMATS, Exported, check_export, export_policy, read_run

COMMAND = "export"
SOURCE = "RUN_OR_CHECKPOINT"


def run_export(argv: list[str]) -> None:
    """Write the files and say how they compare with the network.

    Args:
        argv: The command line, `export` first.

    Raises:
        ValueError: If it is no run, packages are missing, or a file would act otherwise.
        SystemExit: If an argument does not fit.
    """
    options = _parser().parse_args(argv[1:])
    check_export(options.formats, options.observations, dashes="--")
    run = read_run(options.RUN_OR_CHECKPOINT, SOURCE)
    folder = Path(options.folder or run.folder / "export")
    name = run.checkpoint.stem
    written = export_policy(
        run.policy, run.data, folder, name, options.formats, options.observations
    )
    print(_table(written))  # noqa: T201
    for one in written:
        print(f"Wrote {one.path}")  # noqa: T201


def _table(written: Sequence[Exported]) -> str:
    header = ("file", "task", "observations", "same action", "equally good", "difference")
    rows = [
        (
            one.path.name,
            parity.task,
            str(parity.observations),
            str(parity.same),
            str(parity.ties),
            f"{parity.difference:.1e}",
        )
        for one in written
        for parity in one.parity
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left = 2  # columns of text
    lines = [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"lit-mtdqn {COMMAND}",
        description="Write the network of a run as programs that act greedily without this "
        "package: .pt2 for PyTorch, .onnx for onnxruntime. Each is asked for its actions on "
        "observations of the run's own tasks, half from greedy and half from random episodes, "
        "before it takes its name.",
        allow_abbrev=False,
    )
    parser.add_argument(
        SOURCE, help="Folder of a run, whose last network is taken, or a checkpoint in one."
    )
    parser.add_argument("--folder", help="Where to write. Default: `export` in the run's folder.")
    parser.add_argument(
        "--formats", nargs="+", default=FORMATS, choices=FORMATS, help="Default: both."
    )
    parser.add_argument(
        "--observations",
        type=int,
        default=10_000,
        help="Observations per task for the comparison. Default: 10000.",
    )
    return parser
