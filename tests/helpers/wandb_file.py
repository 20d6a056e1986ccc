"""What an offline run of Weights & Biases holds, read back from its file."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

HEADER = 7  # bytes, of the file and of each chunk
BLOCK = 2**15  # bytes
FIRST, LAST, WHOLE = 2, 4, 1


class WandbFile(NamedTuple):
    """An offline run.

    Attributes:
        run_id: The run.
        group: The group that it is in.
        rows: What was logged, in order, without W&B's own keys.
        axes: The metric that is the axis of others, by their pattern; the last definition counts.
        config: The configuration.
        artifacts: Names and aliases of what was stored with it.
        exit_code: How it ended; None if it did not.
    """

    run_id: str
    group: str
    rows: list[dict[str, Any]]
    axes: dict[str, str]
    config: dict[str, Any]
    artifacts: list[tuple[str, list[str]]]
    exit_code: int | None

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Return env steps and values of a metric."""
        return [(row["env_steps"], row[name]) for row in self.rows if name in row]


def read_wandb_file(path: Path) -> WandbFile:
    """Return what a file `run-<id>.wandb` holds, or the only one below a folder."""
    if path.is_dir():
        (path,) = path.rglob("offline-run-*/run-*.wandb")
    run_id, group, exit_code = "", "", None
    rows: list[dict[str, Any]] = []
    axes: dict[str, str] = {}
    config: dict[str, Any] = {}
    artifacts: list[tuple[str, list[str]]] = []
    for record in map(Record.FromString, _records(path.read_bytes())):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id, group = record.run.run_id, record.run.run_group
            config |= _values(record.run.config.update)
        elif kind == "config":
            config |= _values(record.config.update)
        elif kind == "history":
            row = _values(record.history.item)
            rows.append({name: row[name] for name in row if not name.startswith("_")})
        elif kind == "metric":
            axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "request" and record.request.HasField("log_artifact"):
            artifact = record.request.log_artifact.artifact
            artifacts.append((artifact.name, list(artifact.aliases)))
        elif kind == "artifact":
            artifacts.append((record.artifact.name, list(record.artifact.aliases)))
        elif kind == "exit":
            exit_code = record.exit.exit_code
    return WandbFile(run_id, group, rows, axes, config, artifacts, exit_code)


def _values(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format."""
    at, record = HEADER, b""
    while at + HEADER <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        at += HEADER
        record = (b"" if kind in (FIRST, WHOLE) else record) + content[at : at + length]
        at += length
        if kind in (LAST, WHOLE):
            yield record
