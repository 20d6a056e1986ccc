"""Policies as files that need none of this package: `.pt2` and `.onnx`."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from lit_mtdqn.analysis.whole_files import whole_file
from lit_mtdqn.deployment.description import KEY, as_text, describe
from lit_mtdqn.deployment.greedy_policy import GreedyPolicy
from lit_mtdqn.deployment.parity import Acts, Parity, compare, observe
from lit_mtdqn.types import require

Array = np.ndarray
FORMATS = ("pt2", "onnx")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
NAMES = ("observation", "task", "allowed")
OUTPUTS = ("action", "values")
# Unlike any size of a network, so that no size is taken for one of these.
GROUPS, ROWS = 5, 7


class Exported(NamedTuple):
    """A file that was written.

    Attributes:
        path: The file.
        parity: How it compares with the network, by task.
    """

    path: Path
    parity: list[Parity]


def export_policy(
    policy: Any,
    data: Any,
    folder: str | Path,
    name: str = "policy",
    formats: Sequence[str] = FORMATS,
    observations: int = 10_000,
) -> list[Exported]:
    """Write a policy as files that act like it, and find out whether they do.

    Every file takes observations, tasks and allowed actions and returns actions and values, as
    `GreedyPolicy.forward` does, for any number of groups and rows. It describes itself: task names,
    numbers of actions, how observations are converted. `.pt2` is a program of `torch.export`; its
    description is the extra file `lit_mtdqn.json`. `.onnx` has it in its metadata under
    `lit_mtdqn`. Before a file takes its name it is read back and asked for its actions on
    observations from greedy and from random episodes.

    Args:
        policy: A learner, or the policy of a saved run.
        data: The data module, or what a saved run has in its place.
        folder: Where the files are written.
        name: Their name.
        formats: Which of `pt2` and `onnx`.
        observations: Observations per task, half of them from greedy episodes, at least 2.

    Raises:
        ValueError: If packages are missing, or a file does not act as the network does.
    """
    check_export(formats, observations)
    # Copies, because device and mode of the network are those of whoever goes on with it.
    network, scale = deepcopy((policy.network, policy.scale))
    module = GreedyPolicy(network.cpu(), None if scale is None else scale.cpu())
    infos = list(data.task_infos)
    values = policy.predicts_values
    text = as_text(describe(data.tasks, infos, data.layout, predicts_values=values))
    seen = {info.name: observe(policy, data, info.name, observations) for info in infos}
    with _quiet():
        program = as_program(module, data.layout)
        written = []
        Path(folder).mkdir(parents=True, exist_ok=True)
        for kind in formats:
            path = Path(folder) / f"{name}.{kind}"
            with whole_file(path) as fresh:
                _write(kind, program, fresh, text)
                acts = load(kind, fresh)
                found = [
                    compare(policy, acts, seen[info.name], info.name, place)
                    for place, info in enumerate(infos)
                ]
                failed = [parity for parity in found if not parity.holds]
                require(not failed, path.name, "act as the network does", failed)
            written.append(Exported(path, found))
    return written


def as_program(module: GreedyPolicy, layout: Any) -> ExportedProgram:
    """Return a policy as a graph for any number of groups and rows.

    Args:
        module: The policy.
        layout: Padded shapes of its observations.
    """
    shape = (GROUPS, ROWS)
    observation = torch.from_numpy(layout.empty_observation(GROUPS * ROWS))
    example = (
        observation.view(*shape, *layout.observation_shape),
        torch.zeros(GROUPS, dtype=torch.int64),
        torch.ones(*shape, layout.num_actions, dtype=torch.bool),
    )
    both, groups = {0: Dim.AUTO, 1: Dim.AUTO}, {0: Dim.AUTO}
    with torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes=(both, groups, both))
    fixed = [node.name for node in program.graph.nodes if node.name in NAMES and _is_fixed(node)]
    must = "work for any number of groups and rows; ask tensors for `shape`, not `len`"
    require(not fixed, "network", must, f"one number alone for {', '.join(fixed)}")
    try:
        # Sizes of 1 are what conditions on sizes leave out most often.
        program.module()(example[0][:1, :1], example[1][:1], example[2][:1, :1])
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"`network` must {must}. Got, for one of each: {error}") from error
    return program


def _is_fixed(node: Any) -> bool:
    sizes = node.meta["val"].shape[: 1 if node.name == "task" else 2]
    return any(isinstance(size, int) for size in sizes)


def load(kind: str, path: str | Path) -> Acts:
    """Return what an exported file does, on arrays.

    Args:
        kind: `pt2` or `onnx`.
        path: The file.
    """
    if kind == "onnx":
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(Path(path).read_bytes(), options)

        def run(*inputs: Array) -> tuple[Array, Array]:
            action, values = session.run(OUTPUTS, dict(zip(NAMES, inputs, strict=True)))
            return action, values

        return run
    with Path(path).open("rb") as file:
        module = torch.export.load(file).module()

    @torch.no_grad()
    def call(*inputs: Array) -> tuple[Array, Array]:
        action, values = module(*(torch.tensor(array) for array in inputs))
        return action.numpy(), values.numpy()

    return call


def _write(kind: str, program: ExportedProgram, path: Path, text: str) -> None:
    if kind == "pt2":
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files={f"{KEY}.json": text})
        return
    # Its optimiser takes an addition of 1e-12 for one of 0, which divides by 0 where experts are
    # orthonormalised (onnxscript 0.7); onnxruntime has its own when it loads.
    made = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        optimize=False,
        input_names=NAMES,
        output_names=OUTPUTS,
    )
    assert made is not None
    made.model.metadata_props[KEY] = text
    made.save(str(path), external_data=False)


def check_export(formats: Sequence[str], observations: int, dashes: str = "") -> None:
    """Refuse what cannot be exported, before anything is played.

    Args:
        formats: Kinds of files.
        observations: Observations per task.
        dashes: What stands before the arguments' names where they are options.

    Raises:
        ValueError: If an argument does not fit, or packages are missing.
    """
    known = set(formats) <= set(FORMATS) and len(formats) > 0
    require(known, f"{dashes}formats", f"be some of {', '.join(FORMATS)}", list(formats))
    require(observations >= 2, f"{dashes}observations", "be at least 2", observations)
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        raise ValueError(
            f"`{dashes}formats` must have their packages installed. Got 'onnx' without "
            f"{', '.join(missing)}: run `pip install 'lit-mtdqn[export]'`, or take pt2 alone."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch from warning of its own older names, and of packages that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
