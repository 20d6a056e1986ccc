"""Where a run lies: `runs/<configuration>/<date and time>`, or where a command says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from lightning.pytorch.utilities import rank_zero_only

from lit_mtdqn.types import require

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
CONTENTS = (CONFIG, "metrics.csv", CHECKPOINTS, "report", "replay")
# Options of one command, which a run's `config.yaml` leaves out.
RUN_OPTIONS = ("run_dir", "overwrite", "ckpt_path", "seeds", "jobs")
STARTED = "LIT_MTDQN_STARTED"
TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"


def choose_run_dir(config: Any, subcommand: str) -> str:
    """Return the folder that a command writes into.

    A run goes into `run_dir`, a resumed one stays where it is, any other gets a new folder; an
    evaluation goes into a folder `validate` or `test` of the run it judges.

    Args:
        config: The parsed options of the subcommand.
        subcommand: `fit`, `validate` or `test`.
    """
    if config.run_dir is not None:
        run = Path(config.run_dir)
    elif subcommand == "fit":
        run = _resumed_run(config) or _new_run(_configurations(config))
    else:
        run = _run_of_checkpoint(config) or known_run(config) or _new_run(_configurations(config))
    return str(run if subcommand == "fit" else run / subcommand)


def known_run(config: Any) -> Path | None:
    """Return the folder of the run that a command is about, or None if it names none.

    Args:
        config: The parsed options of the subcommand.
    """
    if config.run_dir is not None:
        return Path(config.run_dir)
    configurations = _configurations(config)
    return configurations[0].parent if configurations and _is_saved(configurations[0]) else None


def prepare_run_dir(run_dir: str, overwrite: bool, resuming: bool) -> None:
    """Refuse a folder that holds another run, or clear it if that was asked for.

    Only the first of several ranks looks, because it may have begun to write when the others start.

    Args:
        run_dir: The folder.
        overwrite: Whether a run that it holds is to be removed.
        resuming: Whether a run that it holds is to be continued.

    Raises:
        ValueError: If it holds a run that is neither resumed nor to be overwritten.
    """
    folder = Path(run_dir)
    if not _is_first_rank() or resuming or not (folder / CONFIG).exists():
        return
    must = (
        "not hold a run already, unless that is resumed by `--ckpt_path last` or replaced by "
        "`--overwrite true`"
    )
    require(overwrite, "run_dir", must, run_dir)
    for name in CONTENTS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


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


def _new_run(configurations: Sequence[Path]) -> Path:
    """Return a folder that no run has, named after the configuration or beside the repeated run."""
    base = Path("runs") / "run"
    if configurations and _is_saved(configurations[0]):
        base = Path(os.path.normpath(configurations[0].parent / os.pardir))
    elif configurations:
        parts = configurations[0].with_suffix("").parts
        below = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
        base = Path("runs", *below)
    return base / _started()


def _started() -> str:
    """Return when this run was started, the same on all its ranks.

    Lightning's launcher runs the command again for the other ranks, which inherit the first one's
    environment; torchrun starts all at once, with nothing in common but the process that did.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ[STARTED] = datetime.now().strftime(TIME_FORMAT)
    elif STARTED not in os.environ:
        launched = psutil.Process(os.getppid()).create_time()
        return datetime.fromtimestamp(launched).strftime(TIME_FORMAT)
    return os.environ[STARTED]


def _is_first_rank() -> bool:
    # Before the launcher has run, the first process of another node takes itself for rank 0.
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0 and int(os.environ.get("NODE_RANK", "0")) == 0
