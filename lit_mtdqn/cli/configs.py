"""`lit-mtdqn configs`: the configurations that come with the package."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from lit_mtdqn.cli.shipped import FOLDER, shipped_files, shipped_folder
from lit_mtdqn.types import require

COMMAND = "configs"


def run_configs(argv: list[str]) -> None:
    """List the shipped configurations, or copy some.

    Args:
        argv: The command line, `configs` first.

    Raises:
        ValueError: If there is no such configuration, or a copy would replace another file.
        SystemExit: If an argument does not fit.
    """
    options = _parser().parse_args(argv[1:])
    if options.action == "copy":
        for copied in copy(options.NAME, Path(options.FOLDER)):
            print(copied)  # noqa: T201
        return
    files = shipped_files()
    width = max(len(str(path)) for path in files)
    for path in files:
        print(f"{path!s:{width}}  {headline(shipped_folder() / path)}".rstrip())  # noqa: T201


def headline(path: Path) -> str:
    """Return the first line of a configuration if it is a comment, without its mark."""
    with path.open() as file:
        first = file.readline().strip()
    return first.lstrip("# ") if first.startswith("#") else ""


def copy(name: str, folder: Path) -> list[Path]:
    """Copy a shipped configuration, or a folder of them, and return the copies.

    Args:
        name: Such as `dqn/cartpole.yaml`, `dqn`, or `.` for all.
        folder: Where it goes, under the folder that it lies in.

    Raises:
        ValueError: If there is none, or a copy would replace a file of other content.
    """
    wanted = Path(name.removeprefix(f"{FOLDER}/"))
    chosen = [path for path in shipped_files() if wanted in (path, *path.parents)]
    require(bool(chosen), "NAME", "be one that `lit-mtdqn configs` lists, or a folder", name)
    pairs = {folder / path: shipped_folder() / path for path in chosen}
    changed = [
        str(new)
        for new, old in pairs.items()
        if new.exists() and new.read_bytes() != old.read_bytes()
    ]
    must = "hold no other files of these names; remove them or copy elsewhere"
    require(not changed, "FOLDER", must, changed)
    for new, old in pairs.items():
        new.parent.mkdir(parents=True, exist_ok=True)
        if not new.exists():
            shutil.copyfile(old, new)
    return list(pairs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"lit-mtdqn {COMMAND}",
        description="List the configurations that come with the package, each with what its first "
        "line says. `--config` and `sequence` take them by these names wherever you are, unless "
        "you have a file of that name.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="copy")
    copier = actions.add_parser("copy", help="Copy one, to change it.", allow_abbrev=False)
    copier.add_argument("NAME", help="Such as dqn/cartpole.yaml, dqn, or . for all.")
    copier.add_argument(
        "FOLDER", nargs="?", default=FOLDER, help=f"Where to. Default: {FOLDER}, here."
    )
    return parser
