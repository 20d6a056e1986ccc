"""What a run came to: a table, curves and films."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lit_mtdqn.analysis.csv_file import write_csv
from lit_mtdqn.analysis.heat_maps import gradient_agreement, task_affinity
from lit_mtdqn.analysis.metrics_file import Curve, read_metrics
from lit_mtdqn.analysis.plots import learning_curves, logged_tasks
from lit_mtdqn.analysis.relatedness import (
    Relation,
    advice,
    clear_affinities,
    compared_tasks,
    mean_affinities,
    mean_cosines,
    relations,
)
from lit_mtdqn.analysis.score_table import TaskResult, score_table, task_result
from lit_mtdqn.analysis.specialists import of_specialists, specialist_scores
from lit_mtdqn.analysis.whole_files import whole_file
from lit_mtdqn.callbacks.filming import film
from lit_mtdqn.rollout.recording import UnrenderableError, write_gif
from lit_mtdqn.types import ActionValues, Episodes, TaskInfo

PIXELS_PER_INCH = 200
EPISODE_COLUMNS = ("task", "episode", "return", "length", "success")


class RunReport(Callback):
    """Plays the test episodes with the last network when training ends, and reports them.

    It prints a table and writes into the folder `report` of the run: `test_scores.csv` (a row per
    task), `test_episodes.csv` (a row per episode), `learning_curves.png`, for tasks that can be
    drawn `<task>.gif`; where `GradientAgreement` logged, `gradient_agreement.png`; where
    `TaskAffinity` logged, `task_affinity.png` and `relatedness.csv` (a row per pair of tasks), and
    it says which tasks to train together. Without a logger that has a folder it only prints. An
    interrupted run plays nothing; its curves are drawn as far as they go. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.RunReport
            init_args:
              gifs: true
              specialists: {cartpole: runs/dqn/cartpole/2026-01-31_12-00-00}

    Args:
        gifs: Whether an episode of each task is filmed.
        specialists: Folders of finished runs by the names of tasks, each with a network of its own
            for its task. Adds a column to the table and to `test_scores.csv`: the task's score over
            that of its specialist, from the return in its report and this run's score range. Left
            empty where the specialist's score is not above 0.

    Raises:
        ValueError: If `fit` starts with specialists of unknown tasks, or without their reports.
    """

    def __init__(self, gifs: bool = True, specialists: dict[str, str] | None = None) -> None:
        self.gifs = gifs
        self.specialists = specialists or {}
        self._specialist_scores: dict[str, float] = {}

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Read the reports of specialists, which may be missing, before anything is learned.

        Of a run that is stopped, checkpoints come before what is drawn: Lightning has put them
        last, and this callback goes behind them.
        """
        others = [one for one in trainer.callbacks if one is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]
        if stage == "fit" and self.specialists:
            infos = trainer.datamodule.task_infos  # type: ignore[attr-defined]
            name = "RunReport.specialists"
            self._specialist_scores = specialist_scores(self.specialists, infos, name)

    # Only here have all callbacks written their last checkpoint, all loggers their last row, and
    # the progress bar is closed.
    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Play, print and write."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        # The Trainer has moved the network to the CPU by now.
        pl_module.to(trainer.strategy.root_device)
        try:
            # All ranks play, the first one reports.
            evaluations: list[Episodes] = list(data.test_dataloader())
            if trainer.is_global_zero:
                self._report(trainer, pl_module, evaluations)
        finally:
            pl_module.cpu()

    def on_exception(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Draw the curves so far; if they cannot be drawn, what has ended the run is told still."""
        folder = _report_folder(trainer)
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING and folder is not None:
            try:
                _draw_figures(_read_metrics(folder), _infos(trainer), folder)
            except Exception as error:
                rank_zero_warn(f"No learning curves in {folder}: {error}")

    def _report(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        evaluations: Sequence[Episodes],
    ) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        infos = {info.name: info for info in _infos(trainer)}
        results = [task_result(episodes, infos[episodes.task]) for episodes in evaluations]
        ratios = of_specialists(results, self._specialist_scores) if self.specialists else {}
        held_out = {info.name for info in infos.values() if not info.learns}
        _say(score_table(results, held_out, ratios))
        folder = _report_folder(trainer)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "test_episodes.csv", EPISODE_COLUMNS, _episode_rows(evaluations))
        metrics = _read_metrics(folder)
        _draw_figures(metrics, list(infos.values()), folder)
        _relate(metrics, list(infos), folder)
        if self.gifs:
            assert isinstance(pl_module, ActionValues), "it has just played"
            for result in results:
                _film(pl_module, data, result.task, folder)
        # Last: who finds them takes the run for finished.
        _write_scores(folder / "test_scores.csv", results, ratios)


def _infos(trainer: lightning.Trainer) -> list[TaskInfo]:
    infos: list[TaskInfo] = trainer.datamodule.task_infos  # type: ignore[attr-defined]
    return infos


def _write_scores(
    path: Path, results: Sequence[TaskResult], ratios: Mapping[str, float | None]
) -> None:
    header = [*TaskResult._fields, *(["of_specialist"] if ratios else [])]
    write_csv(path, header, [[*row, *([ratios[row.task]] if ratios else [])] for row in results])


def _episode_rows(evaluations: Sequence[Episodes]) -> Iterable[Sequence[Any]]:
    for task, returns, lengths, success, _ in evaluations:
        outcomes = [None] * len(returns) if success is None else success.astype(int)
        for index, outcome in enumerate(zip(returns, lengths, outcomes, strict=True)):
            yield task, index, *outcome


def _report_folder(trainer: lightning.Trainer) -> Path | None:
    """Return where the report goes, or None if no logger has a folder."""
    folders = (logger.log_dir for logger in trainer.loggers)
    return next((Path(folder) / "report" for folder in folders if folder), None)


def _read_metrics(folder: Path) -> dict[str, Curve]:
    """Return what was logged beside the folder of the report."""
    file = folder.parent / "metrics.csv"
    return read_metrics(file) if file.is_file() else {}


def _draw_figures(metrics: Mapping[str, Curve], infos: Sequence[TaskInfo], folder: Path) -> None:
    if not logged_tasks([metrics]):
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = [info.name for info in infos]
    figures = {
        "learning_curves": learning_curves([metrics], {i.name: i.score_range for i in infos}),
        "gradient_agreement": gradient_agreement(metrics, names),
        "task_affinity": task_affinity(metrics, names),
    }
    for name, figure in figures.items():
        if figure is not None:
            with whole_file(folder / f"{name}.png") as fresh:
                figure.savefig(fresh, format="png", dpi=PIXELS_PER_INCH)


def _relate(metrics: Mapping[str, Curve], tasks: Sequence[str], folder: Path) -> None:
    """Write and say how tasks get on with one another, where several were compared."""
    names = compared_tasks(metrics, tasks)
    if len(names) < 2:
        return
    pairs = relations(names, mean_cosines(metrics, names), mean_affinities(metrics, names))
    write_csv(folder / "relatedness.csv", Relation._fields, pairs)
    _say(advice(clear_affinities(metrics, names), names))


def _film(policy: ActionValues, data: Any, task: str, folder: Path) -> None:
    try:
        recording = film(policy, data, task)
    except UnrenderableError as error:
        _say(f"No GIF of {task}: {error}")
        return
    with whole_file(folder / f"{task}.gif") as fresh:
        write_gif(recording, fresh)


def _say(text: str) -> None:
    print(text)  # noqa: T201
