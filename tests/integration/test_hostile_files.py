"""What others have left for us: nothing in it runs, and one sentence says what is wrong with it."""

from __future__ import annotations

import copy
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from helpers.hostile import (
    HOSTILE,
    MODULE,
    TERABYTES,
    Canary,
    Writes,
    pickle_in_an_archive,
    touching_module,
)
from helpers.runs import quiet_trainer, small_data, small_model
from helpers.saved_runs import save_run as save_saved_run
from helpers.sources import save_run

from lit_mtdqn import DQN
from lit_mtdqn.algorithms.saved_policy import SavedPolicy
from lit_mtdqn.analysis.checkpoints import FISHER, read_network
from lit_mtdqn.callbacks import WeightTransfer
from lit_mtdqn.cli import main
from lit_mtdqn.replay import Prioritisation, PrioritisedSampler, Replay
from lit_mtdqn.types import Clock

COMPLAINT = re.compile(r"`[^`]+`[^\n]* must [^\n]+ Got [^\n]+")
CARTPOLE = ["--config", "configs/dqn/cartpole.yaml", "--config", "configs/overlays/smoke.yaml"]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture(scope="module")
def sound() -> dict[str, Any]:
    """A checkpoint that nothing is wrong with."""
    model = small_model(small_data())
    return {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "global_step": 7,
    }


def _transfer(path: Path) -> None:
    transfer = WeightTransfer(source=str(path))
    trainer = quiet_trainer(transfer)
    transfer.on_fit_start(trainer, small_model(small_data()))


def _command(path: Path, *command: str) -> None:
    main([*command, *CARTPOLE, f"--run_dir={path.parent / 'run'}", f"--ckpt_path={path}"])


def _run_command(path: Path, command: str) -> None:
    """Let a command read a checkpoint of a run whose configuration is as it was."""
    run = save_saved_run(path.parent / "run", {"cartpole": {"env": "CartPole-v1"}})
    main([command, str(shutil.copy(path, run / "checkpoints"))])


READERS: dict[str, Callable[[Path], object]] = {
    "fit": lambda path: _command(path, "fit"),
    "validate": lambda path: _command(path, "validate"),
    "test": lambda path: _command(path, "test"),
    "export": lambda path: _run_command(path, "export"),
    "play": lambda path: _run_command(path, "play"),
    "weight transfer": _transfer,
    "teacher": lambda path: SavedPolicy(str(path), "teachers.count"),
    "from Python": DQN.load_from_checkpoint,
}


@pytest.mark.parametrize("writes", HOSTILE, ids=lambda writes: writes.__name__)
@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_checkpoint_runs_nothing_and_is_refused_in_one_sentence(
    reader: str, writes: Writes, sound: dict[str, Any], tmp_path: Path, canary: Path
) -> None:
    path = tmp_path / "hostile.ckpt"
    writes(path, sound, canary)
    with pytest.raises((ValueError, SystemExit)) as refused:
        READERS[reader](path)
    assert COMPLAINT.search(str(refused.value))
    assert "hostile.ckpt" in str(refused.value)
    if isinstance(refused.value, SystemExit):
        assert refused.value.code == 2
        assert "\n" not in str(refused.value)
    assert not canary.exists()


def _huge(sound: dict[str, Any]) -> dict[str, Any]:
    described = copy.deepcopy(sound)
    torso = described["hyper_parameters"]["network"]["init_args"]["torso"]
    torso["init_args"]["hidden"] = [400_000, 400_000]
    return described


def _of_other_shapes(sound: dict[str, Any]) -> dict[str, Any]:
    weights = {n: w[:1] if w.ndim > 1 else w for n, w in sound["state_dict"].items()}
    return {**sound, "state_dict": weights}


@pytest.mark.parametrize("reader", ["export", "play", "teacher", "from Python"])
@pytest.mark.parametrize("spoil", [_huge, _of_other_shapes])
def test_a_network_that_its_weights_do_not_fill_is_not_built(
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
    reader: str,
    sound: dict[str, Any],
    tmp_path: Path,
) -> None:
    path = tmp_path / "hostile.ckpt"
    torch.save(spoil(sound), path)
    with pytest.raises((ValueError, SystemExit), match=r"must hold the weights of .*hostile\.ckpt"):
        READERS[reader](path)


@pytest.mark.parametrize(
    ("kind", "width"),
    [("lit_mtdqn.scaling.PopArt", 7), ("lit_mtdqn.networks.QNetwork", 3)],
    ids=["statistics of another shape", "no scale"],
)
@pytest.mark.parametrize("reader", ["teacher", "weight transfer"])
def test_a_scale_that_its_statistics_do_not_fit_is_refused(
    reader: str, kind: str, width: int, sound: dict[str, Any], tmp_path: Path
) -> None:
    given = {**sound["hyper_parameters"], "scale": {"class_path": kind}}
    statistics = {"scale._extra_state": {"count": torch.zeros(width)}}
    path = tmp_path / "hostile.ckpt"
    state = {**sound["state_dict"], **statistics}
    torch.save({**sound, "state_dict": state, "hyper_parameters": given}, path)
    with pytest.raises(ValueError, match=COMPLAINT):
        READERS[reader](path)


def test_a_careless_load_would_have_run_the_code(
    sound: dict[str, Any], tmp_path: Path, canary: Path
) -> None:
    pickle_in_an_archive(tmp_path / "hostile.ckpt", sound, canary)
    torch.load(tmp_path / "hostile.ckpt", weights_only=False)
    assert canary.exists()


PLACES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "network": lambda entry: {"network": entry},
    "scale": lambda entry: {"scale": entry},
    "a part of the network": lambda entry: {
        "network": {"class_path": "lit_mtdqn.networks.QNetwork", "init_args": {"torso": entry}}
    },
    "Lightning's own key": lambda entry: {"_instantiator": entry["class_path"]},
    "the class of the learner": lambda entry: {"_class_path": entry["class_path"]},
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("place", PLACES)
def test_what_a_checkpoint_names_outside_of_the_package_is_not_imported(
    reader: str,
    place: str,
    sound: dict[str, Any],
    tmp_path: Path,
    canary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    named = touching_module(tmp_path, canary)
    given = PLACES[place]({"class_path": named, "init_args": {}})
    path = tmp_path / "hostile.ckpt"
    torch.save({**sound, "hyper_parameters": {**sound["hyper_parameters"], **given}}, path)
    # Some have no use for that part, some refuse it.
    with suppress(ValueError, TypeError, SystemExit):
        READERS[reader](path)
    assert MODULE not in sys.modules
    assert not canary.exists()


def test_hostile_fisher_information_beside_a_checkpoint_runs_nothing(
    tmp_path: Path, canary: Path
) -> None:
    run = save_run(tmp_path / "run", small_model(small_data()), importance={})
    torch.save(Canary(canary), tmp_path / "run" / "checkpoints" / FISHER)
    with pytest.raises(ValueError, match=COMPLAINT):
        read_network(run, "source", informed=True)
    assert not canary.exists()


ROWS = {
    "observation": np.zeros((4, 3), np.float32),
    "action": np.zeros(4, np.int64),
    "reward": np.zeros(4, np.float32),
}


def _replay() -> Replay:
    clock = Clock({"a": 0})
    return Replay(8, seed=0, sampler=PrioritisedSampler(8, Prioritisation(), clock))


def _pickled_column(folder: Path, canary: Path) -> None:
    (column,) = folder.rglob("observation.memmap")
    own = column.parent / "hostile"
    own.mkdir()
    kind = "<class 'tensordict.tensorclass.NonTensorData'>"
    (own / "meta.json").write_text(f'{{"_type": "{kind}"}}')
    (own / "other.pickle").write_bytes(pickle.dumps({"data": Canary(canary)}))
    described = column.parent / "meta.json"
    entry = f'"hostile": {{"type": "{kind}"}}, '
    described.write_text(described.read_text().replace("{", "{" + entry, 1))


def _linked_column(folder: Path, canary: Path) -> None:
    """A column whose folder lies elsewhere, where the replay's files are not looked for."""
    _pickled_column(folder, canary)
    (own,) = folder.rglob("hostile")
    own.rename(folder.parent / "elsewhere")
    own.symlink_to(folder.parent / "elsewhere")


def _inflated_priorities(folder: Path, canary: Path) -> None:
    (state,) = folder.rglob("priorities.pt")
    with ZipFile(state) as file:
        records = {name: file.read(name) for name in file.namelist()}
    with ZipFile(state, "w", ZIP_DEFLATED) as file:
        for name, content in records.items():
            file.writestr(name, content)


def _pickled_queue(folder: Path, canary: Path) -> None:
    (folder / "prefetch.pkl").write_bytes(pickle.dumps(Canary(canary)))


def _pickled_priorities(folder: Path, canary: Path) -> None:
    (state,) = folder.rglob("priorities.pt")
    torch.save(Canary(canary), state)


def _pickled_generator(folder: Path, canary: Path) -> None:
    torch.save(Canary(canary), folder / "generator.pt")


def _terabytes(folder: Path, canary: Path) -> None:
    for described in folder.rglob("meta.json"):
        described.write_text(described.read_text().replace("[8", f"[{TERABYTES}"))


def _no_json(folder: Path, canary: Path) -> None:
    (folder / "replay.json").write_text("{")


def _odd_manifest(folder: Path, canary: Path) -> None:
    (folder / "replay.json").write_text('{"capacity": "8", "rows": null}')


@pytest.mark.parametrize(
    "spoil",
    [
        _pickled_column,
        _linked_column,
        _pickled_queue,
        _pickled_priorities,
        _pickled_generator,
        _inflated_priorities,
        _terabytes,
        _no_json,
        _odd_manifest,
    ],
)
def test_a_hostile_replay_runs_nothing(
    spoil: Callable[[Path, Path], None], tmp_path: Path, canary: Path
) -> None:
    replay = _replay()
    replay.extend(ROWS)
    folder = tmp_path / "replay"
    replay.dump(folder)
    manifest = folder / "replay.json"
    # Whoever can write files can write their checksums.
    plain = re.sub(r'"checksums": \{[^}]*\}', '"checksums": {}', manifest.read_text())
    manifest.write_text(plain)
    _replay().load(folder, draws_on=True)
    spoil(folder, canary)
    with pytest.raises(ValueError, match=COMPLAINT):
        _replay().load(folder, draws_on=True)
    assert not canary.exists()


TAGGED = "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{}]]"
CONFIGS = {
    "a tag that runs code": "data: {tagged}\n",
    "no YAML": "data: [\n",
    "no text": "\udcff",
    "no mapping": "- data\n",
    "a task of another kind": "data: {tasks: 3}\n",
}


def _written(folder: Path, config: str, canary: Path) -> Path:
    folder.mkdir()
    text = CONFIGS[config].replace("{tagged}", TAGGED.replace("{}", str(canary)))
    (folder / "config.yaml").write_bytes(text.encode(errors="surrogateescape"))
    (folder / "metrics.csv").write_text("step,val/score/a\n1,0.5\n")
    return folder


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("command", ["report", "fit"])
def test_the_hostile_configuration_of_a_run_runs_nothing(
    command: str, config: str, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _written(tmp_path / "run", config, canary)
    arguments = [str(folder)] if command == "report" else ["--config", str(folder / "config.yaml")]
    with pytest.raises(SystemExit) as refused:
        main([command, *arguments])
    assert refused.value.code == 2
    assert COMPLAINT.search(capsys.readouterr().err)
    assert not canary.exists()


@pytest.mark.parametrize("table", ["nonsense", "step,a\nx,y\n", "a,b\n1,2\n", "step\0,a\n1,2\n"])
def test_a_table_of_something_else_is_refused_by_the_report(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text(table)
    with pytest.raises(SystemExit) as refused:
        main(["report", str(folder)])
    assert refused.value.code == 2
    assert "`RUN` must" in capsys.readouterr().err
