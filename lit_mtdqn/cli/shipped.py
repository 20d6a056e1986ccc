"""The configurations that come with the package."""

from __future__ import annotations

from pathlib import Path

import lit_mtdqn

FOLDER = "configs"
CONFIG_OPTION = "--config"


def shipped_folder() -> Path:
    """Return where they lie: in an installed package, or beside it in a clone."""
    package = Path(lit_mtdqn.__file__).parent
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER


def shipped_files() -> list[Path]:
    """Return all of them, relative to their folder."""
    folder = shipped_folder()
    return sorted(path.relative_to(folder) for path in folder.rglob("*.yaml"))


def found_file(name: str) -> str:
    """Return a file of the user's by its name, or else the shipped one; other names as they are.

    Args:
        name: Such as `configs/dqn/cartpole.yaml` or `dqn/cartpole.yaml`.
    """
    if not name.endswith(".yaml") or Path(name).is_absolute() or Path(name).exists():
        return name
    shipped = shipped_folder() / name.removeprefix("./").removeprefix(f"{FOLDER}/")
    return str(shipped) if shipped.is_file() else name


def with_found_configs(argv: list[str]) -> list[str]:
    """Return a command line whose `--config` name files that exist, where shipped ones do."""
    found = []
    for place, argument in enumerate(argv):
        option, equals, value = argument.partition("=")
        if option == CONFIG_OPTION and equals:
            found.append(f"{option}={found_file(value)}")
        elif place > 0 and argv[place - 1] == CONFIG_OPTION:
            found.append(found_file(argument))
        else:
            found.append(argument)
    return found
