"""Storage of one task's transitions."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl import logger as torchrl_logger
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, ReplayBuffer, RoundRobinWriter
from torchrl.data.replay_buffers.samplers import RandomSampler, Sampler

from lit_mtdqn.replay.folders import (
    checksums,
    complete_folder,
    damaged_files,
    set_aside,
    whole_folder,
)
from lit_mtdqn.replay.generators import continue_generator_, dump_generator
from lit_mtdqn.replay.room import reserve
from lit_mtdqn.replay.stored_files import check_stored_files, read_json
from lit_mtdqn.types import Array, require
from lit_mtdqn.types.syncing import sync_tree

MANIFEST = "replay.json"
COLUMNS = "storage"  # torchrl's folder of them, each in `<name>.memmap`
SMALL_FILES = 2**20  # bytes, more than all take that are no columns or priorities
StorageKind = Literal["ram", "disk", "device"]


# torchrl reports the allocation of every storage; with one replay per task that is noise.
torchrl_logger.addFilter(lambda record: "Initialized Lazy" not in record.getMessage())


class _ColumnWrites:
    """Writes rows column by column, sooner than TensorDict does (`benchmarks/speed_ups.py`)."""

    def set(self: Any, cursor: Any, data: Any, *, set_cursor: bool = True) -> None:
        if not (self.initialized and set_cursor and isinstance(cursor, Tensor)):
            super().set(cursor, data, set_cursor=set_cursor)  # type: ignore[misc]
            return
        self._set_last_cursor(cursor)
        self._get_new_len(data, cursor)
        rows = cursor.to(self._storage.device)
        for name, column in self._storage.items():
            column.index_copy_(0, rows, data.get(name).to(column.device))
        self._bump_mutation_revision()


class _TensorStorage(_ColumnWrites, LazyTensorStorage):  # type: ignore[misc]
    """In memory, or on a device."""


class _FileStorage(_ColumnWrites, LazyMemmapStorage):  # type: ignore[misc]
    """In memory-mapped files."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # The first one takes over SIGINT and SIGTERM, and would end the process at once where a run
        # is to stop after its phase. What it cleans up then it cleans up at the exit, too.
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        super().__init__(*arguments, **options)
        if threading.current_thread() is threading.main_thread():
            for number, handler in found.items():
                signal.signal(number, handler)


class Replay:
    """A ring of transitions, sampled with replacement.

    Args:
        capacity: Transitions kept; the oldest are overwritten.
        seed: Seed of the sampler's own generator.
        storage: `ram`; `disk`, memory-mapped files; or `device`, the learner's device.
        device: The learner's device, for `storage="device"`.
        sampler: How rows are drawn; None draws uniformly.
        folder: Where the files of `storage="disk"` lie; None takes the system's temporary folder.
        meaning: What transitions mean, plain values by name; a replay that means something else is
            not loaded.

    Attributes:
        draws_anew: Whether draws should have gone on from those of a replay that was loaded, and
            follow from the seed, because its own were made on another kind of device.

    Raises:
        ValueError: If `capacity` is below 1 or `storage` is unknown.
    """

    def __init__(
        self,
        capacity: int,
        seed: int,
        storage: StorageKind = "ram",
        device: torch.device | str = "cpu",
        sampler: Sampler | None = None,
        folder: str | Path | None = None,
        meaning: Mapping[str, Any] | None = None,
    ) -> None:
        require(capacity >= 1, "replay_capacity", "be at least 1", capacity)
        kinds = ("ram", "disk", "device")
        require(storage in kinds, "replay_storage", f"be one of {', '.join(kinds)}", storage)
        self.capacity = capacity
        self.is_prioritised = sampler is not None and not isinstance(sampler, RandomSampler)
        self.device = torch.device(device if storage == "device" else "cpu")
        kept: Any = (
            _FileStorage(capacity, scratch_dir=None if folder is None else str(folder))
            if storage == "disk"
            else _TensorStorage(capacity, device=self.device)
        )
        self.meaning = json.loads(json.dumps(meaning or {}))
        self._storage = kept
        self._sampler = sampler or RandomSampler()
        self._writer = RoundRobinWriter()
        self._buffer = ReplayBuffer(
            storage=self._storage, sampler=self._sampler, writer=self._writer
        )
        self._seed = seed
        self._columns: dict[str, Tensor] = {}
        self.draws_anew = False
        self._draw_by(self._make_generator(seed))

    def _make_generator(self, seed: int) -> torch.Generator:
        # The uniform sampler draws on the storage's device.
        device = "cpu" if self.is_prioritised else self.device
        return torch.Generator(device).manual_seed(seed % 2**63)

    def _draw_by(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._buffer.set_rng(generator)

    def __len__(self) -> int:
        """Return the number of transitions held."""
        return len(self._buffer)

    def extend(self, transitions: dict[str, Array]) -> None:
        """Append transitions, arrays or tensors of one length by name; none is fine.

        Only the newest `capacity` of them are kept.
        """
        rows = len(transitions["action"]) if transitions else 0
        if rows == 0:
            return
        newest = slice(max(rows - self.capacity, 0), rows)
        tensors = {name: torch.as_tensor(array[newest]) for name, array in transitions.items()}
        count = min(rows, self.capacity)
        if len(self) < self.capacity:
            self._columns = {}
        self._buffer.extend(TensorDict(tensors, batch_size=[count]))

    def sample(self, rows: int) -> dict[str, Tensor]:
        """Draw transitions with replacement, tensors [rows, ...], and their `replay_index`."""
        drawn, info = self._sampler.sample(self._storage, rows)
        tensors = self._rows(torch.as_tensor(drawn))
        if "_weight" in info:
            tensors["weight"] = torch.as_tensor(info["_weight"])
        return tensors

    def sample_evenly(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw transitions as `sample` does without priorities, and change no later draw.

        Args:
            rows: Number of transitions.
            generator: Source of the draws, on the CPU.
        """
        drawn = torch.randint(len(self), (rows,), generator=generator)
        return self._rows(drawn.to(self.device))

    def _rows(self, index: Tensor) -> dict[str, Tensor]:
        # Sooner than `ReplayBuffer.sample` (`benchmarks/speed_ups.py`): no locks or transforms, and
        # rows are copied column by column from views of what is filled.
        if not self._columns:
            self._columns = dict(self._storage.get(slice(None)).items())
        tensors = {name: column.index_select(0, index) for name, column in self._columns.items()}
        tensors["replay_index"] = index
        return tensors

    def update_priority(self, index: Tensor, priority: Tensor) -> None:
        """Tell a prioritised sampler the errors [rows] found at `index` [rows]."""
        self._buffer.update_priority(index, priority)

    @property
    def stored_bytes(self) -> int:
        """Size of what `dump` writes, but for what takes kilobytes."""
        return sum(self._column_bytes().values()) + self._sampler_bytes()

    def _column_bytes(self) -> dict[str, int]:
        if not len(self):
            return {}
        columns = self._storage.get(slice(None)).items()
        return {name: self.capacity * column[0].nbytes for name, column in columns}

    def _sampler_bytes(self) -> int:
        return int(getattr(self._sampler, "stored_bytes", 0)) if len(self) else 0

    def dump(self, folder: str | Path, moment: Mapping[str, Any] | None = None) -> None:
        """Write everything, the sampler's generator included, in place of what a folder holds.

        The old files stay until the new ones are complete and on the disk: this replay may be
        reading from them, and a killed process or a machine that stops leaves them.

        Args:
            folder: Where to.
            moment: When that is, plain values, for `stored_moment`.

        Raises:
            OSError: If there is no room for it; what the folder holds stays.
        """
        target = Path(folder)
        with whole_folder(target) as fresh:
            self._write(fresh, moment)
        shutil.rmtree(set_aside(target), ignore_errors=True)

    def _write(self, fresh: Path, moment: Mapping[str, Any] | None) -> None:
        if len(self):
            self._reserve(fresh)
            with warnings.catch_warnings():
                # Of a replay that was loaded and not extended since; nothing needs that cursor.
                warnings.filterwarnings("ignore", message="last_cursor is None")
                for name, part in self._parts().items():
                    part.dumps(fresh.absolute() / name)
            dump_generator(self._generator, fresh)
        manifest = {
            "capacity": self.capacity,
            "rows": len(self),
            "meaning": self.meaning,
            "moment": moment,
            "checksums": checksums(fresh),
        }
        (fresh / MANIFEST).write_text(json.dumps(manifest))
        sync_tree(fresh)

    def _parts(self) -> dict[str, Any]:
        """Return what torchrl writes and reads, by its folders.

        `ReplayBuffer.dumps` writes the generator, too, and calls each the CPU's (torchrl 0.14).
        """
        return {COLUMNS: self._storage, "sampler": self._sampler, "writer": self._writer}

    def _reserve(self, fresh: Path) -> None:
        columns = self._column_bytes().items()
        rest = fresh / "rest"
        reserve(
            {fresh / COLUMNS / f"{name}.memmap": size for name, size in columns}
            | {rest: self._sampler_bytes() + SMALL_FILES}
        )
        rest.unlink()

    @staticmethod
    def stored_moment(folder: str | Path) -> dict[str, Any] | None:
        """Return the moment that `dump` was told, or None if the folder holds no such replay."""
        try:
            moment: dict[str, Any] | None = read_json(Path(folder) / MANIFEST).get("moment")
        except (OSError, ValueError):
            return None
        return moment

    @staticmethod
    def stored_capacity(folder: str | Path) -> int:
        """Return the capacity of a replay that `dump` wrote.

        Raises:
            ValueError: If the folder holds no replay.
        """
        return int(_read_manifest(folder)["capacity"])

    def load(self, folder: str | Path, *, draws_on: bool = False) -> None:
        """Read back what `dump` wrote.

        Observations that were smaller are padded, and masks are of as many actions as here: tasks
        that are learned together with others have their sizes.

        Args:
            folder: Where it was written to.
            draws_on: Whether draws go on where those of the written replay stopped, as those of a
                resumed run do, if both are made on one kind of device; else they follow from this
                one's own seed.

        Raises:
            ValueError: If the folder holds no replay, a damaged one, or one of another capacity or
                meaning.
        """
        folder = complete_folder(folder)
        manifest = _read_manifest(folder)
        damaged = damaged_files(folder, manifest.get("checksums", {}))
        require(not damaged, "replay", f"be undamaged files in {folder}", damaged)
        check_stored_files(Path(folder))
        capacity = manifest["capacity"]
        must = f"have been written with `replay_capacity` = {self.capacity}"
        require(capacity == self.capacity, "replay", must, f"{folder} with {capacity}")
        stored = manifest.get("meaning", {})
        for name, value in stored.items():
            own = self.meaning.get(name, value)
            must = f"be {value}, as in the stored replay {folder}"
            fits = own == value or (not draws_on and _can_resize(name, value, own))
            require(fits, name, must, own)
        self._columns = {}
        generator, draws_anew = self._make_generator(self._seed), False
        if manifest["rows"] and {**self.meaning, **stored} != self.meaning:
            other = Replay(capacity, self._seed, meaning=stored)
            other.load(folder)
            self.extend(_resized(other._storage.get(slice(None)), self.meaning))
        elif manifest["rows"]:
            try:
                draws_anew = draws_on and not continue_generator_(generator, folder)
                for name, part in self._parts().items():
                    part.loads(folder.absolute() / name)
            except Exception as error:  # Of files that something else has written.
                reason = str(error).partition("\n")[0]
                raise ValueError(
                    f"`replay` must be undamaged files. Got {folder}: {reason}"
                ) from error
        self._draw_by(generator)
        self.draws_anew = draws_anew


def _can_resize(name: str, stored: Any, own: Any) -> bool:
    """Return whether rows of stored sizes become rows of these as layouts pad them."""
    if name == "observation_shape":
        return bool(own[0] >= stored[0] and own[1:] == stored[1:])
    # A task has its own actions first, under any padding.
    return name == "num_actions"


def _resized(rows: Mapping[str, Tensor], sizes: Mapping[str, Any]) -> dict[str, Array]:
    """Return rows whose observations and masks have given sizes, filled up with zeros."""
    resized = {}
    for name, column in rows.items():
        array = column.numpy()
        shape = array.shape[1:]
        if name.endswith("observation"):
            shape = sizes.get("observation_shape", shape)
        elif name.endswith("action_mask"):
            shape = (sizes.get("num_actions", *shape),)
            array = array[:, : shape[0]]
        widths = [(0, wanted - had) for wanted, had in zip(shape, array.shape[1:], strict=True)]
        resized[name] = np.pad(array, [(0, 0), *widths])
    return resized


def _read_manifest(folder: str | Path) -> dict[str, Any]:
    path = complete_folder(folder) / MANIFEST
    require(path.is_file(), "replay", "be a folder that holds a replay", str(folder))
    manifest = read_json(path)
    must = "be a folder that holds a replay, with its capacity and number of rows"
    counts = [manifest.get(name) for name in ("capacity", "rows")]
    is_sound = all(isinstance(count, int) and count >= 0 for count in counts)
    require(is_sound, "replay", must, f"{folder} with {counts}")
    return manifest
