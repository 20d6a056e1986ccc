from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from helpers.picture_env import PATH
from helpers.tape import Tape
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.analysis.plots import learning_curves
from lit_mtdqn.analysis.score_table import TaskResult
from lit_mtdqn.callbacks import RunReport

DRAWN = TaskSpec(env=PATH, kwargs={"pattern": (3, -5)}, success_key="success")
UNDRAWN = TaskSpec(env="Counting-v0", score_range=(-10.0, 10.0))
FILES = {"test_scores.csv", "test_episodes.csv", "learning_curves.png"}


class TapedDataModule(RolloutDataModule):
    """Records when the test is asked for."""

    def __init__(self, tape: Tape, **options: Any) -> None:
        super().__init__(**options)
        self.tape = tape

    def test_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        self.tape.record("test", weights=weights_of(self.trainer.lightning_module))
        return super().test_dataloader()


class TapedCheckpoint(ModelCheckpoint):
    """Records every checkpoint, and when it has written the last."""

    def __init__(self, tape: Tape, folder: Path) -> None:
        super().__init__(folder, save_last=True)
        self.tape = tape

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self.tape.record("checkpoint", weights=weights_of(trainer.lightning_module))

    def on_train_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        super().on_train_end(trainer, *arguments)
        self.tape.record("end of training", weights=weights_of(trainer.lightning_module))


class Interruption(Callback):
    """Ends a run by an exception after so many phases."""

    def __init__(self, phases: int) -> None:
        self.phases = phases

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.datamodule.clock.phases > self.phases:  # type: ignore[attr-defined]
            raise RuntimeError("interrupted")


def weights_of(learner: lightning.LightningModule) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


def make_data(tape: Tape, tasks: dict[str, TaskSpec]) -> TapedDataModule:
    return TapedDataModule(
        tape,
        tasks=tasks,
        num_envs=2,
        replay_ratio=0.25,
        phase_vector_steps=4,
        batch_size=4,
        replay_capacity=100,
        warmup_env_steps=8,
        total_env_steps=64 * len(tasks),
        evaluate_every_env_steps=32,
        eval_episodes=2,
        test_episodes=4,
        seed=1,
    )


def make_trainer(
    folder: Path, report: Callback, callbacks: Sequence[Callback] = (), logged: bool = True
) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        default_root_dir=folder,
        logger=CSVLogger(save_dir=folder, name="", version="") if logged else False,
        log_every_n_steps=1,
        callbacks=[report, *callbacks],
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )


def fit(
    folder: Path,
    callbacks: Sequence[Callback] = (),
    *,
    tape: Tape | None = None,
    tasks: dict[str, TaskSpec] | None = None,
    gifs: bool = True,
    logged: bool = True,
    specialists: dict[str, str] | None = None,
) -> tuple[lightning.Trainer, DQN, TapedDataModule]:
    torch.manual_seed(0)
    data = make_data(tape or Tape(), tasks or {"drawn": DRAWN, "undrawn": UNDRAWN})
    learner = DQN(data.task_infos)
    trainer = make_trainer(folder, RunReport(gifs, specialists), callbacks, logged)
    trainer.fit(learner, data)
    return trainer, learner, data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `report` of a finished run."""
    folder = tmp_path_factory.mktemp("run")
    fit(folder)
    return folder / "report"


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_finished_run_leaves_tables_curves_and_a_film_of_what_can_be_drawn(
    finished: Path,
) -> None:
    assert contents(finished) == {*FILES, "drawn.gif"}
    with Image.open(finished / "drawn.gif") as image:
        assert image.format == "GIF"
    with Image.open(finished / "learning_curves.png") as image:
        assert image.format == "PNG"


def test_scores_come_last_so_that_who_finds_them_finds_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[set[str]] = []

    def film(_: Any, path: Path) -> None:
        found.append(contents(tmp_path / "report"))
        path.touch()

    monkeypatch.setattr("lit_mtdqn.callbacks.run_report.write_gif", film)
    fit(tmp_path, tasks={"drawn": DRAWN})
    assert found == [FILES - {"test_scores.csv"}]
    assert contents(tmp_path / "report") == FILES | {"drawn.gif"}


def test_a_task_that_cannot_be_drawn_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if "GIF" in line]
    assert len(lines) == 1
    assert lines[0].startswith("No GIF of undrawn: ")


def test_no_film_is_made_unasked(tmp_path: Path) -> None:
    fit(tmp_path, gifs=False)
    assert contents(tmp_path / "report") == FILES


def test_the_reported_scores_are_those_of_the_trainers_own_test(tmp_path: Path) -> None:
    trainer, learner, data = fit(tmp_path, gifs=False)
    (tested,) = trainer.test(learner, data, verbose=False)
    for row in rows(tmp_path / "report" / "test_scores.csv"):
        task = row["task"]
        assert float(row["mean"]) == pytest.approx(tested[f"test/episode_return/{task}"])
        assert float(row["length"]) == pytest.approx(tested[f"test/episode_length/{task}"])
        assert float(row["score"]) == pytest.approx(tested[f"test/score/{task}"])
    assert trainer.callback_metrics["test/success/drawn"] == pytest.approx(
        float(rows(tmp_path / "report" / "test_scores.csv")[0]["success"])
    )


def test_the_row_of_a_task_follows_from_the_rows_of_its_episodes(finished: Path) -> None:
    episodes = rows(finished / "test_episodes.csv")
    scores = rows(finished / "test_scores.csv")
    assert [row["task"] for row in scores] == ["drawn", "undrawn"]
    for row in scores:
        own = [episode for episode in episodes if episode["task"] == row["task"]]
        assert [int(episode["episode"]) for episode in own] == list(range(int(row["episodes"])))
        returns = np.array([float(episode["return"]) for episode in own])
        assert float(row["mean"]) == pytest.approx(returns.mean())
        assert float(row["std"]) == pytest.approx(returns.std(ddof=1))
        assert (float(row["min"]), float(row["max"])) == (returns.min(), returns.max())
        lengths = [int(episode["length"]) for episode in own]
        assert float(row["length"]) == pytest.approx(np.mean(lengths))


def test_success_is_left_empty_where_a_task_does_not_report_it(finished: Path) -> None:
    episodes = rows(finished / "test_episodes.csv")
    # Episodes of three steps terminate, which succeeds; episodes of five are truncated.
    found = {(e["task"], e["length"], e["success"]) for e in episodes if e["task"] == "drawn"}
    assert found == {("drawn", "3", "1"), ("drawn", "5", "0")}
    assert {e["success"] for e in episodes if e["task"] == "undrawn"} == {""}
    drawn, undrawn = rows(finished / "test_scores.csv")
    assert (drawn["success"], undrawn["success"]) == ("0.5", "")


def test_the_test_is_played_once_after_the_last_checkpoint_by_the_same_weights(
    tmp_path: Path,
) -> None:
    tape = Tape()
    fit(tmp_path, [TapedCheckpoint(tape, tmp_path / "checkpoints")], tape=tape, gifs=False)
    names = [event.name for event in tape.events]
    assert names[-3:] == ["checkpoint", "end of training", "test"]
    assert names.count("test") == 1
    checkpoint, _, test = tape.events[-3:]
    assert_equal_tensors(test.details["weights"], checkpoint.details["weights"])


def test_the_curves_hold_the_last_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []

    def remember(runs: Any, score_ranges: Any) -> Figure:
        drawn.append((runs, score_ranges))
        return learning_curves(runs, score_ranges)

    monkeypatch.setattr("lit_mtdqn.callbacks.run_report.learning_curves", remember)
    _, _, data = fit(tmp_path, gifs=False)
    (((metrics,), ranges),) = drawn
    assert metrics["val/score/undrawn"].env_steps[-1] == data.clock.total_env_steps
    assert ranges == {"drawn": None, "undrawn": (-10.0, 10.0)}


def test_playing_the_report_draws_no_global_random_number(tmp_path: Path) -> None:
    fit(tmp_path / "with")
    state = torch.get_rng_state()
    torch.manual_seed(0)
    data = make_data(Tape(), {"drawn": DRAWN, "undrawn": UNDRAWN})
    make_trainer(tmp_path / "without", Callback()).fit(DQN(data.task_infos), data)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupted_run_draws_its_curves_and_plays_nothing(tmp_path: Path) -> None:
    tape = Tape()
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, [Interruption(phases=6)], tape=tape)
    assert contents(tmp_path / "report") == {"learning_curves.png"}
    assert tape.events == []


def test_a_run_that_was_interrupted_before_it_logged_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, [Interruption(phases=0)])
    assert not (tmp_path / "report").exists()


def test_a_test_that_fails_draws_no_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, learner, data = fit(tmp_path)
    (tmp_path / "report" / "learning_curves.png").unlink()

    def fail(*_: Any) -> None:
        raise RuntimeError("no test today")

    monkeypatch.setattr(learner, "test_step", fail)
    with pytest.raises(RuntimeError, match="no test today"):
        trainer.test(learner, data, verbose=False)
    assert not (tmp_path / "report" / "learning_curves.png").exists()


def test_without_a_logger_the_table_is_printed_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(tmp_path, logged=False)
    assert "all tasks" in capsys.readouterr().out
    assert contents(tmp_path) == set()


def test_other_ranks_play_and_write_nothing() -> None:
    tape = Tape()

    def test_dataloader() -> list[Any]:
        tape.record("test")
        return []

    trainer = SimpleNamespace(
        is_global_zero=False,
        loggers=[],
        state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        datamodule=SimpleNamespace(test_dataloader=test_dataloader),
    )
    report: Any = RunReport()
    report.on_fit_end(trainer, torch.nn.Identity())
    report.on_exception(trainer, torch.nn.Identity(), RuntimeError())
    assert [event.name for event in tape.events] == ["test"]


def test_scores_are_compared_with_those_of_specialists(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, gifs=False, specialists={"undrawn": str(finished.parent)})
    scores = rows(tmp_path / "report" / "test_scores.csv")
    # The same run twice: each is as good as the other.
    assert [row["of_specialist"] for row in scores] == ["", "1.0"]
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in table if line.startswith(("drawn", "undrawn"))] == [
        "-",
        "1.000",
    ]
    (header,) = [line for line in table if line.startswith("task ")]
    assert header.endswith("score  of specialist")


def test_without_specialists_there_is_no_column_of_them(finished: Path) -> None:
    assert rows(finished / "test_scores.csv")[0].keys() == set(TaskResult._fields)


@pytest.mark.parametrize(
    ("task", "name"),
    [("undrwan", "RunReport.specialists"), ("undrawn", "RunReport.specialists.undrawn")],
)
def test_specialists_that_cannot_be_compared_with_end_the_run_before_it_begins(
    tmp_path: Path, task: str, name: str
) -> None:
    tape = Tape()
    with pytest.raises(ValueError, match=complaint(name)):
        fit(tmp_path, tape=tape, specialists={task: str(tmp_path / "nowhere")})
    assert tape.events == []
    assert not (tmp_path / "report").exists()


def test_specialists_are_not_asked_for_in_a_mere_test(tmp_path: Path) -> None:
    trainer, learner, data = fit(tmp_path, gifs=False)
    gone: Any = RunReport(specialists={"undrawn": str(tmp_path / "gone")})
    trainer.callbacks.append(gone)  # type: ignore[attr-defined]
    assert trainer.test(learner, data, verbose=False)
