"""Resuming a run: what the command line says must be what the checkpoint holds."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_mtdqn.algorithms.factories import as_plain, trusted_class
from lit_mtdqn.analysis.checkpoints import (
    CHECKPOINTS,
    previous_checkpoint,
    read_checkpoint,
    whole_checkpoint,
)
from lit_mtdqn.types import require


def resolve_checkpoint(ckpt_path: str, run: Path | None) -> Path:
    """Return the file that `ckpt_path` means.

    Args:
        ckpt_path: A file, or `last` or `best` of the run.
        run: Folder of the run; None if the command names none.

    Raises:
        ValueError: If the file does not exist, or is damaged and so is the one before it.
    """
    path = Path(ckpt_path)
    if ckpt_path in ("last", "best"):
        must = "be a file, unless `run_dir` or the run's own config.yaml says whose it is"
        require(run is not None, "ckpt_path", must, ckpt_path)
        assert run is not None
        path = run / CHECKPOINTS / f"{ckpt_path}.ckpt"
    if not (path.is_file() or previous_checkpoint(path).is_file()):
        raise ValueError(f"`ckpt_path` must be a checkpoint. Got {ckpt_path!r}: no file {path}.")
    return whole_checkpoint(path, "ckpt_path")


def read_hyperparameters(path: Path) -> dict[str, Any]:
    """Return the model's hyperparameters that a checkpoint holds."""
    hyperparameters: dict[str, Any] = read_checkpoint(path, "ckpt_path")["hyper_parameters"]
    return hyperparameters


def check_resumed_model(
    saved: Mapping[str, Any],
    config: str,
    subcommand: str,
    path: Path,
    root: Path | None = None,
) -> None:
    """Refuse a configuration whose model differs from a checkpoint's.

    Args:
        saved: Hyperparameters of the checkpoint.
        config: The parsed configuration, as JSON.
        subcommand: Which part of it counts.
        path: The checkpoint, for the message.
        root: The folder that the run lies in; runs beside it may have moved along with it.

    Raises:
        ValueError: If a value differs; the message lists all that do.
    """
    asked = json.loads(config)
    asked = asked.get(subcommand, asked)["model"].get("init_args", {})
    known = {name: value for name, value in saved.items() if name in asked}
    differences = sorted(_differences(known, asked, "model", root))
    if differences:
        raise ValueError(
            f"`model` must agree with the checkpoint {path} that `ckpt_path` names. "
            f"Got {'; '.join(differences)}. Use the run's own config.yaml."
        )


def is_moved(was: Any, is_now: Any, root: Path) -> bool:
    """Return whether two settings are one path below a folder, wherever that lay at first."""
    if not (isinstance(was, str) and isinstance(is_now, str)):
        return False
    return is_now.startswith(f"{root}{os.sep}") and was.endswith(is_now.removeprefix(str(root)))


def _differences(saved: Any, asked: Any, name: str, root: Path | None) -> Iterator[str]:
    if isinstance(saved, Mapping) and isinstance(asked, Mapping):
        saved = dict(saved)
        if "class_path" in saved and "init_args" in asked:
            # A learner built in Python has saved only the arguments that were given.
            given = saved.get("init_args") or {}
            saved["init_args"] = {**_defaults(saved), **given}
        for key in saved:
            if key in asked:
                yield from _differences(saved[key], asked[key], f"{name}.{key}", root)
    elif _is_list(saved) and _is_list(asked) and len(saved) == len(asked):
        for place, (was, is_now) in enumerate(zip(saved, asked, strict=True)):
            yield from _differences(was, is_now, f"{name}.{place}", root)
    elif _short(saved, name) != _short(asked, name) and not (root and is_moved(saved, asked, root)):
        yield f"`{name}` = {asked} instead of {saved}"


def _defaults(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default arguments of the class that an entry names, as a checkpoint has them."""
    cls = trusted_class(entry.get("class_path"))
    parameters = {} if cls is None else inspect.signature(cls).parameters
    defaults = {}
    for name, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            with contextlib.suppress(TypeError):
                defaults[name] = as_plain(parameter.default, name)
    return defaults


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _short(value: Any, name: str) -> Any:
    """Return a class path without its module: a class may be named by several."""
    if name.endswith(".class_path") and isinstance(value, str):
        return value.rpartition(".")[2]
    return list(value) if isinstance(value, tuple) else value
