"""Where a run lies: `runs/<configuration>/<date and time>`, or where a command says."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from lightning.pytorch.utilities import rank_zero_only

from lit_mtdqn.analysis.checkpoints import CHECKPOINTS
from lit_mtdqn.analysis.run_search import CONFIG, CONTENTS
from lit_mtdqn.types import require

# Options of one command, which a run's `config.yaml` leaves out.
RUN_OPTIONS = ("run_dir", "overwrite", "ckpt_path", "seeds", "jobs")
STARTED = "LIT_MTDQN_STARTED"
TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"
_taken: list[Path] = []


def choose_run_dir(config: Any, subcommand: str) -> str:
    """Return the folder that a command writes into.

    A run goes into `run_dir`, a resumed one stays where it is, any other gets a new folder; an
    evaluation goes into a folder `validate` or `test` of the run it judges.

    Args:
        config: The parsed options of the subcommand.
        subcommand: `fit`, `validate` or `test`.
    """
    configurations = _configurations(config)
    if config.run_dir is not None:
        run = Path(config.run_dir)
    elif subcommand == "fit":
        run = _resumed_run(config) or new_run_dir(configurations)
    else:
        run = _run_of_checkpoint(config) or known_run(config) or new_run_dir(configurations)
    return str(run if subcommand == "fit" else run / subcommand)


def new_run_dir(configurations: Sequence[Path]) -> Path:
    """Take a folder that no run has, named after the configuration or beside the repeated run.

    Args:
        configurations: The files of the command, of which the first one gives the name.
    """
    base = Path("runs") / "run"
    if configurations and _is_saved(configurations[0]):
        base = Path(os.path.normpath(configurations[0].parent / os.pardir))
    elif configurations:
        parts = configurations[0].with_suffix("").parts
        # The last one: shipped configurations may lie below another folder of that name.
        above = len(parts) - parts[::-1].index("configs") if "configs" in parts else -1
        below = parts[above:]
        base = Path("runs", *below)
    if "LOCAL_RANK" not in os.environ:
        os.environ[STARTED] = _take_folder(base)
    return base / (os.environ.get(STARTED) or _launched())


def known_run(config: Any) -> Path | None:
    """Return the folder of the run that a command is about, or None if it names none.

    Args:
        config: The parsed options of the subcommand.
    """
    if config.run_dir is not None:
        return Path(config.run_dir)
    configurations = _configurations(config)
    return configurations[0].parent if configurations and _is_saved(configurations[0]) else None


def check_run_dir(run_dir: str, overwrite: bool, resuming: bool) -> None:
    """Refuse a folder that holds another run.

    Args:
        run_dir: The folder.
        overwrite: Whether a run that it holds is to be removed.
        resuming: Whether a run that it holds is to be continued.

    Raises:
        ValueError: If it holds a run that is neither resumed nor to be overwritten.
    """
    must = (
        "not hold a run already, unless that is resumed by `--ckpt_path last` or replaced by "
        "`--overwrite true`"
    )
    require(overwrite or resuming or not _holds_other_run(run_dir), "run_dir", must, run_dir)


def clear_run_dir(run_dir: str) -> None:
    """Remove a run that a folder holds; to be called when nothing can go wrong any more.

    Args:
        run_dir: The folder.
    """
    if not _holds_other_run(run_dir):
        return
    for name in CONTENTS:
        path = Path(run_dir) / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _holds_other_run(run_dir: str) -> bool:
    # The first rank may have begun to write its own when the others start.
    return _is_first_rank() and (Path(run_dir) / CONFIG).exists()


def release_run_dir() -> None:
    """Remove the folder that this process took for a new run, if nothing was written into it."""
    while _taken:
        with contextlib.suppress(OSError):
            _taken.pop().rmdir()


def _configurations(config: Any) -> list[Path]:
    return [Path(str(path)) for path in config.get("config") or []]


def _is_saved(configuration: Path) -> bool:
    """Return whether a configuration is the one that a run has saved in its folder."""
    return configuration.name == CONFIG and (configuration.parent / CHECKPOINTS).is_dir()


def _run_of_checkpoint(config: Any) -> Path | None:
    folder = Path(config.ckpt_path or "").parent
    return folder.parent if folder.name == CHECKPOINTS else None


def _resumed_run(config: Any) -> Path | None:
    """Return the run whose configuration and checkpoint are both given."""
    run, other = known_run(config), _run_of_checkpoint(config)
    is_one = run is not None and other is not None and run.resolve() == other.resolve()
    return run if is_one else None


def _take_folder(base: Path) -> str:
    """Make a folder that is named after the time, and return its name.

    Of two runs that start in one second, the later one gets a number.
    """
    name = now = datetime.now().strftime(TIME_FORMAT)
    for number in itertools.count(2):
        try:
            (base / name).mkdir(parents=True)
        except FileExistsError:
            name = f"{now}_{number}"
        else:
            break
    _taken.append(base / name)
    return name


def _launched() -> str:
    """Return when the ranks were started by a launcher such as torchrun, the same on all of them.

    Lightning's own launcher runs the command again for the other ranks, which inherit the first
    one's environment; torchrun starts all at once, with nothing in common but the process that did.
    """
    launched = psutil.Process(os.getppid()).create_time()
    return datetime.fromtimestamp(launched).strftime(TIME_FORMAT)


def _is_first_rank() -> bool:
    # Before the launcher has run, the first process of another node takes itself for rank 0.
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0 and int(os.environ.get("NODE_RANK", "0")) == 0
