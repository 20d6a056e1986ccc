"""Resuming a run: what the command line says must be what the checkpoint holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch


def resolve_checkpoint(ckpt_path: str | None, run_dir: str | None) -> Path | None:
    """Return the file that `ckpt_path` means, or None if there is none to compare with.

    Args:
        ckpt_path: A file, or `last` or `best` of the run folder.
        run_dir: The run folder.

    Raises:
        SystemExit: If the file does not exist.
    """
    if not ckpt_path:
        return None
    named = ckpt_path in ("last", "best")
    path = Path(run_dir or ".") / "checkpoints" / f"{ckpt_path}.ckpt" if named else Path(ckpt_path)
    if not path.is_file():
        raise SystemExit(f"error: `ckpt_path` must be a checkpoint. Got {ckpt_path!r}: no {path}.")
    return path


def read_hyperparameters(path: Path) -> dict[str, Any]:
    """Return the model's hyperparameters that a checkpoint holds."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    hyperparameters: dict[str, Any] = checkpoint.get("hyper_parameters", {})
    return hyperparameters


def check_resumed_model(saved: Mapping[str, Any], config: str, subcommand: str, path: Path) -> None:
    """Refuse a configuration whose model differs from a checkpoint's.

    Args:
        saved: Hyperparameters of the checkpoint.
        config: The parsed configuration, as JSON.
        subcommand: Which part of it counts.
        path: The checkpoint, for the message.

    Raises:
        SystemExit: If a value differs; the message lists all that do.
    """
    asked = json.loads(config)
    asked = asked.get(subcommand, asked)["model"].get("init_args", {})
    known = {name: value for name, value in saved.items() if name in asked}
    differences = sorted(_differences(known, asked, "model"))
    if differences:
        raise SystemExit(
            f"error: `model` must agree with the checkpoint {path} that `ckpt_path` names. "
            f"Got {'; '.join(differences)}. Use the run's own config.yaml."
        )


def _differences(saved: Any, asked: Any, name: str) -> Iterator[str]:
    if isinstance(saved, Mapping) and isinstance(asked, Mapping):
        for key in saved:
            if key in asked:
                yield from _differences(saved[key], asked[key], f"{name}.{key}")
    elif _short(saved, name) != _short(asked, name):
        yield f"`{name}` = {asked} instead of {saved}"


def _short(value: Any, name: str) -> Any:
    """Return a class path without its module: a class may be named by several."""
    if name.endswith(".class_path") and isinstance(value, str):
        return value.rpartition(".")[2]
    return list(value) if isinstance(value, tuple) else value
