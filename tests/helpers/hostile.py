"""Files that a run did not leave, and that do harm to those who read them without care."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import torch

TERABYTES = 2**44
MODULE = "imported_by_nobody"


class Canary:
    """Makes a file when it is unpickled.

    Args:
        file: The file.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


def touching_module(folder: Path, canary: Path) -> str:
    """Write a module that makes a file when it is imported, and return the path of its class."""
    code = f"from pathlib import Path\nfrom torch import nn\nPath({str(canary)!r}).touch()\n"
    (folder / f"{MODULE}.py").write_text(f"{code}class Network(nn.Module): pass\n")
    sys.modules.pop(MODULE, None)
    return f"{MODULE}.Network"


def _archive(path: Path, content: bytes, records: Mapping[str, bytes], compression: int) -> None:
    with ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/byteorder", b"little")
        for name, record in records.items():
            file.writestr(f"archive/data/{name}", record)
        file.writestr("archive/version", b"3\n")


class _Pickler(pickle.Pickler):
    """Writes tensors as PyTorch does, but of as many bytes as it is told."""

    def __init__(self, file: io.BytesIO, declared: int) -> None:
        super().__init__(file, protocol=2)
        self.declared = declared

    def persistent_id(self, obj: Any) -> Any:
        if torch.is_storage(obj):
            return ("storage", torch.FloatStorage, "0", "cpu", self.declared)
        return None

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, torch.Tensor):
            return NotImplemented
        size = (self.declared,)
        rebuild: Any = torch._utils._rebuild_tensor_v2
        typed: Any = obj
        return rebuild, (typed._typed_storage(), 0, size, (1,), False, {})


def _declaring(saved: Any, declared: int) -> bytes:
    file = io.BytesIO()
    _Pickler(file, declared).dump(saved)
    return file.getvalue()


Writes = Callable[[Path, dict[str, Any], Path], None]


def pickle_in_an_archive(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint that runs code."""
    torch.save({**sound, "epoch": Canary(canary)}, path)


def code_as_a_hyperparameter(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint that runs code where its hyperparameters are read."""
    given = {**sound["hyper_parameters"], "network": Canary(canary)}
    torch.save({**sound, "hyper_parameters": given}, path)


def plain_pickle(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write what is no archive and runs code."""
    path.write_bytes(pickle.dumps(Canary(canary)))


def old_format(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint as PyTorch did before it wrote archives, one that runs code."""
    torch.save({**sound, "epoch": Canary(canary)}, path, _use_new_zipfile_serialization=False)


def cut_off(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write the first half of a checkpoint."""
    torch.save(sound, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def other_keys(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint of something else."""
    torch.save({"model": {"weight": torch.zeros(2)}, "epoch": 3}, path)


def no_mapping(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a tensor alone."""
    torch.save(torch.zeros(3), path)


def odd_hyperparameters(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint whose hyperparameters are no mapping."""
    torch.save({**sound, "hyper_parameters": [1, 2]}, path)


def foreign_network(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint of another package that has the same keys."""
    given = {"tasks": ["a"], "network": "x"}
    torch.save({"state_dict": {"network.w": torch.zeros(2)}, "hyper_parameters": given}, path)


def _with_given(path: Path, sound: dict[str, Any], **given: Any) -> None:
    torch.save({**sound, "hyper_parameters": {**sound["hyper_parameters"], **given}}, path)


def network_without_a_class(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint whose tasks are right and whose network is a word."""
    _with_given(path, sound, network="x")


def no_tasks(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint without a task."""
    _with_given(path, sound, tasks=None)


def arguments_in_a_list(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint whose network's torso has a list for its arguments."""
    torso = {"class_path": "lit_mtdqn.networks.MLPTorso", "init_args": [8]}
    network = {"class_path": "lit_mtdqn.networks.QNetwork", "init_args": {"torso": torso}}
    _with_given(path, sound, network=network)


def scale_without_statistics(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint that names a scale of which it has nothing."""
    _with_given(path, sound, scale={"class_path": "lit_mtdqn.scaling.PopArt", "init_args": {}})


def lists_for_tensors(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a checkpoint whose weights are lists."""
    state = {name: [0.0, 1.0] for name in sound["state_dict"]}
    torch.save({**sound, "state_dict": state}, path)


def terabytes_declared(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write a tensor that says that it is larger than its file."""
    state = {"network.weight": torch.zeros(4)}
    content = _declaring({**sound, "state_dict": state}, TERABYTES)
    _archive(path, content, {"0": bytes(16)}, ZIP_STORED)


def terabytes_compressed(path: Path, sound: dict[str, Any], canary: Path) -> None:
    """Write an archive that is a thousand times as large when it is unpacked."""
    rows = 2**24
    state = {"network.weight": torch.zeros(4)}
    content = _declaring({**sound, "state_dict": state}, rows)
    _archive(path, content, {"0": bytes(4 * rows)}, ZIP_DEFLATED)


HOSTILE: list[Writes] = [
    pickle_in_an_archive,
    code_as_a_hyperparameter,
    plain_pickle,
    old_format,
    cut_off,
    other_keys,
    no_mapping,
    odd_hyperparameters,
    foreign_network,
    network_without_a_class,
    no_tasks,
    arguments_in_a_list,
    scale_without_statistics,
    lists_for_tensors,
    terabytes_declared,
    terabytes_compressed,
]
