"""What another run has left: its checkpoints, and what lies beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_mtdqn.analysis.checkpoint_form import ONLINE, check_form, is_entry
from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.functional.archives import refuse_inflation
from lit_mtdqn.types import as_task_infos, require

CHECKPOINTS = "checkpoints"
FISHER = "fisher.pt"
PREVIOUS = "previous"
# Of all that PyTorch says of a file that is more than weights, what it found.
FOUND = re.compile(r"(?:WeightsUnpickler error:\s*)(Unsupported \w+(?:: \w+ \S+)?)")


class SavedNetwork(NamedTuple):
    """The network of a checkpoint.

    Attributes:
        path: The checkpoint.
        weights: Its tensors by name.
        head: Class of its heads.
        scale: Class of the scale that gives its values their unit, or nothing.
        importance: Fisher information by the same names; empty where it was not asked for.
        hyperparameters: Those of its learner.
    """

    path: Path
    weights: dict[str, Tensor]
    head: str
    scale: str
    importance: dict[str, Tensor]
    hyperparameters: Mapping[str, Any]


def read_network(source: str, name: str, *, informed: bool) -> SavedNetwork:
    """Return the network that a run has left.

    Args:
        source: Checkpoint, or folder of a run, whose last network is taken.
        name: What the user calls it, for complaints.
        informed: Whether its Fisher information is asked for.

    Raises:
        ValueError: If it is no checkpoint of this package, or lacks what was asked for.
    """
    path = find_checkpoint([source], "last", name)
    saved = read_checkpoint(path, name)
    given = saved["hyper_parameters"]
    scale = str((given.get("scale") or {}).get("class_path", "")).rpartition(".")[2]
    importance = _read_importance(path, saved, name) if informed else {}
    weights = online_weights(saved["state_dict"])
    return SavedNetwork(path, weights, head_kind(given), scale, importance, given)


def _read_importance(path: Path, saved: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    beside = path.with_name(FISHER)
    must = f"have {FISHER} beside its checkpoint, which the callback FisherInformation writes"
    require(beside.is_file(), name, must, str(beside))
    found = load_plain(beside, name)
    is_one = isinstance(found, dict) and isinstance(found.get("importance"), dict)
    require(is_one, name, f"have a {FISHER} that FisherInformation has written", str(beside))
    step, own = found.get("global_step"), saved.get("global_step")
    require(step == own, name, f"have a checkpoint of optimiser step {step}, as its {FISHER}", own)
    importance: dict[str, Tensor] = found["importance"]
    weights = online_weights(saved["state_dict"])
    odd = {n: _form(t) for n, t in importance.items() if _form(t) != _form(weights.get(n))}
    must = f"have a {FISHER} of tensors as its checkpoint's, which has other forms"
    require(not odd, name, must, odd)
    return importance


def _form(value: object) -> object:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def head_kind(hyperparameters: Mapping[str, Any]) -> str:
    """Return the class of the heads that a learner's hyperparameters name."""
    return str(head_entry(hyperparameters).get("class_path", "LinearHead")).rpartition(".")[2]


def head_entry(hyperparameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a learner's hyperparameters say of its heads; nothing if they name no class."""
    network = hyperparameters.get("network") or {}
    head: Any = (network.get("init_args") or {}).get("head")
    entry: Mapping[str, Any] = head if is_entry(head) else {}
    return entry


def find_checkpoint(sources: Sequence[str], which: str, name: str) -> Path:
    """Return the checkpoint that sources mean: of several runs, that of the best in evaluation.

    The mean score of its learned tasks counts: the last one of the `last` network, the highest of
    the `best`.

    Args:
        sources: Checkpoints or folders of runs.
        which: `last` or `best`, of a folder.
        name: What the user calls them, for complaints.

    Raises:
        ValueError: If there is none, or several without evaluations that compare.
    """
    source = sources[0] if len(sources) == 1 else _best_run(sources, which, name)
    return _checkpoint(source, which, name)


def _checkpoint(source: str, which: str, name: str) -> Path:
    path = Path(source)
    if path.is_dir():
        path = path / CHECKPOINTS / f"{which}.ckpt"
    must = "be a checkpoint, or the folder of a run that has one"
    has_one = path.is_file() or previous_checkpoint(path).is_file()
    require(has_one, name, must, f"{source}: no file {path}")
    return whole_checkpoint(path, name)


def previous_checkpoint(path: Path) -> Path:
    """Return where the checkpoint lies that was at a path before the one there now."""
    return path.parent / PREVIOUS / path.name


def whole_checkpoint(path: Path, name: str) -> Path:
    """Return a checkpoint, or the one before it where it is damaged, with a warning.

    Args:
        path: The file.
        name: What the user calls it, for complaints.

    Raises:
        ValueError: If it is damaged and so is the one before it, or there is none.
    """
    damage = damage_of(path)
    if damage is None:
        return path
    previous = previous_checkpoint(path)
    has_previous = previous.is_file() and damage_of(previous) is None
    require(has_previous, name, "be a checkpoint of this package, and whole", f"{path}: {damage}")
    rank_zero_warn(f"{path} is damaged ({damage}): taking {previous}, the checkpoint before it.")
    return previous


def damage_of(path: Path) -> str | None:
    """Return what is wrong with a checkpoint's bytes, or None.

    A checkpoint is a zip file, whose table of contents comes last and has a checksum of each
    record; PyTorch does not look at them when it loads. It compresses nothing: what is larger than
    its file was made to fill somebody's memory.
    """
    try:
        with ZipFile(path) as file:
            refuse_inflation(path)
            damaged = file.testzip()
    except Exception as error:  # Damaged bytes may raise anything.
        return str(error)
    return None if damaged is None else f"{damaged} does not have its checksum"


def read_checkpoint(path: Path, name: str) -> dict[str, Any]:
    """Return what a checkpoint holds; nothing that it names is imported or run.

    Args:
        path: The file.
        name: What the user calls it, for complaints.

    Raises:
        ValueError: If it is no checkpoint of this package.
    """
    return check_form(load_plain(path, name), path, name)


def load_plain(path: Path, name: str) -> Any:
    """Return tensors and plain values that a file holds; nothing that it names is imported or run.

    Args:
        path: The file.
        name: What the user calls it, for complaints.

    Raises:
        ValueError: If it cannot be read, or holds anything else.
    """
    try:
        refuse_inflation(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Unpickling what is no checkpoint may raise anything.
        named = FOUND.search(str(error))
        reason = str(error).partition("\n")[0].rstrip(".") if named is None else named[1]
        must = "be a file of tensors and plain values, as runs of this package leave them"
        raise ValueError(f"`{name}` must {must}. Got {path}: {reason}.") from error


def online_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the online network's tensors of a learner's state by their names in the network."""
    return {n.removeprefix(ONLINE): t for n, t in state.items() if n.startswith(ONLINE)}


def _best_run(folders: Sequence[str], which: str, name: str) -> str:
    """Return the run whose network scores best in evaluation; no test takes part in that."""
    runs = {folder: _evaluated(folder, which, name) for folder in folders}
    if len({tuple(run.scored) for run in runs.values()}) > 1:
        raw = [task for run in runs.values() for task, scored in run.scored.items() if not scored]
        must = "be runs with a `score_range` or success for every task, where tasks are unlike"
        require(not raw, name, must, f"raw returns of {sorted(set(raw))}")
    return max(folders, key=lambda folder: runs[folder].score)


class _Evaluated(NamedTuple):
    """A run's mean score, and whether that of each learned task is more than a raw return."""

    score: float
    scored: dict[str, bool]


def _evaluated(folder: str, which: str, name: str) -> _Evaluated:
    file = Path(folder) / "metrics.csv"
    metrics = read_metrics(file) if file.is_file() else {}
    scores = metrics.get("val/score/mean")
    must = "each be the folder of a run with evaluations, where there are several"
    require(scores is not None, name, must, folder)
    assert scores is not None
    saved = read_checkpoint(_checkpoint(folder, which, name), name)
    infos = as_task_infos(saved["hyper_parameters"]["tasks"])
    return _Evaluated(
        float(scores.values.max() if which == "best" else scores.values[-1]),
        {
            info.name: info.score_range is not None or f"val/success/{info.name}" in metrics
            for info in sorted(infos, key=lambda info: info.name)
            if info.learns
        },
    )
