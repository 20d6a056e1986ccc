"""`lit-mtdqn configs`: the configurations that come with the package."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from itertools import takewhile
from pathlib import Path

from lit_mtdqn.cli.shipped import FOLDER, shipped_files, shipped_folder
from lit_mtdqn.types import require

COMMAND = "configs"
# "et al. 2018" ends no sentence.
SENTENCE = re.compile(r".*?\.(?=\s+[^\d\s]|\s*$)", re.DOTALL)
NARROWEST = 30


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
    # What is no terminal gets whole sentences.
    left = max(NARROWEST, shutil.get_terminal_size((10_000, 24)).columns - width - 2)
    for path in files:
        told = textwrap.shorten(headline(shipped_folder() / path), left, placeholder=" ...")
        print(f"{path!s:{width}}  {told}".rstrip())  # noqa: T201


def headline(path: Path) -> str:
    """Return the first sentence of the comment that a configuration begins with, as one line."""
    with path.open() as file:
        comment = "".join(line.lstrip("# ") for line in takewhile(_is_comment, file))
    found = SENTENCE.match(comment)
    return " ".join((found[0] if found else comment).split())


def _is_comment(line: str) -> bool:
    return line.startswith("#")


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
        "sentence says. `--config` and `sequence` take them by these names wherever you are, "
        "unless you have a file of that name.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="copy")
    copier = actions.add_parser("copy", help="Copy one, to change it.", allow_abbrev=False)
    copier.add_argument("NAME", help="Such as dqn/cartpole.yaml, dqn, or . for all.")
    copier.add_argument(
        "FOLDER", nargs="?", default=FOLDER, help=f"Where to. Default: {FOLDER}, here."
    )
    return parser
