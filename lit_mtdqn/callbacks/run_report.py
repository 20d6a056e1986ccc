"""What a run came to: a table, curves and films."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from lit_mtdqn.analysis.heat_maps import gradient_agreement
from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.analysis.plots import learning_curves, logged_tasks
from lit_mtdqn.analysis.scores import overall_scores, task_score
from lit_mtdqn.analysis.statistics import mean_and_std
from lit_mtdqn.rollout.recording import UnrenderableError, record_episode, write_gif
from lit_mtdqn.types import ActionValues, Episodes, TaskInfo

PIXELS_PER_INCH = 200
COLUMN_GAP = "  "
EPISODE_COLUMNS = ("task", "episode", "return", "length", "success")


class TaskResult(NamedTuple):
    """Test of one task; the columns of `test_scores.csv`.

    Attributes:
        task: The task's name.
        episodes: Number of episodes.
        mean: Mean return.
        std: Sample standard deviation of returns.
        min: Lowest return.
        max: Highest return.
        length: Mean number of env steps.
        success: Share of successful episodes, or None if the task does not report it.
        score: Mean score.
    """

    task: str
    episodes: int
    mean: float
    std: float
    min: float
    max: float
    length: float
    success: float | None
    score: float


class RunReport(Callback):
    """Plays the test episodes with the last network when training ends, and reports them.

    It prints a table and writes into the folder `report` of the run: `test_scores.csv` (a row per
    task), `test_episodes.csv` (a row per episode), `learning_curves.png`, for tasks that can be
    drawn `<task>.gif`, and, where `GradientAgreement` logged, `gradient_agreement.png`.
    Without a logger that has a folder it only prints. An interrupted run plays nothing; its curves
    are drawn as far as they go. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.RunReport
            init_args: {gifs: true}

    Args:
        gifs: Whether an episode of each task is filmed.
    """

    def __init__(self, gifs: bool = True) -> None:
        self.gifs = gifs

    # Only here have all callbacks written their last checkpoint, all loggers their last row, and
    # the progress bar is closed.
    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Play, print and write."""
        if not trainer.is_global_zero:
            return
        # The Trainer has moved the network to the CPU by now.
        pl_module.to(trainer.strategy.root_device)
        try:
            self._report(trainer, pl_module)
        finally:
            pl_module.cpu()

    def on_exception(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Draw the curves so far."""
        folder = _report_folder(trainer)
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING and folder is not None:
            _draw_figures(trainer, folder)

    def _report(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        infos: dict[str, TaskInfo] = {info.name: info for info in data.task_infos}
        evaluations: list[Episodes] = list(data.test_dataloader())
        results = [_summary(episodes, infos[episodes.task]) for episodes in evaluations]
        _say(score_table(results, {info.name for info in infos.values() if not info.learns}))
        folder = _report_folder(trainer)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        _write_csv(folder / "test_scores.csv", TaskResult._fields, results)
        _write_csv(folder / "test_episodes.csv", EPISODE_COLUMNS, _episode_rows(evaluations))
        _draw_figures(trainer, folder)
        if self.gifs:
            assert isinstance(pl_module, ActionValues), "it has just played"
            for result in results:
                _film(pl_module, data, result.task, folder)


def score_table(results: Sequence[TaskResult], held_out: Collection[str] = ()) -> str:
    """Return a table for people, a line per task and, for several tasks, one over all.

    Args:
        results: Tests of the tasks.
        held_out: Names of tasks that are not learned from.
    """
    header = ("task", "episodes", "return", "length", "success", "score")
    rows = [
        (
            result.task,
            str(result.episodes),
            f"{result.mean:.2f} ± {result.std:.2f}",
            f"{result.length:.1f}",
            "-" if result.success is None else f"{result.success:.0%}",
            f"{result.score:.3f}",
        )
        for result in results
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [_aligned(row, widths) for row in (header, *rows)]
    rule = "-" * len(lines[0])
    lines.insert(1, rule)
    if len(results) > 1:
        scores = overall_scores({result.task: result.score for result in results}, held_out)
        texts = [f"{name.replace('_', ' ')} {score:.3f}" for name, score in scores.items()]
        overall = COLUMN_GAP.join(texts)
        lines += [rule, "all tasks" + overall.rjust(len(rule) - len("all tasks"))]
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = row
    cells = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
    return COLUMN_GAP.join([name.ljust(widths[0]), *cells])


def _summary(episodes: Episodes, info: TaskInfo) -> TaskResult:
    returns = episodes.episode_return
    mean, std = mean_and_std(returns)
    return TaskResult(
        task=episodes.task,
        episodes=len(returns),
        mean=mean,
        std=std,
        min=float(returns.min()),
        max=float(returns.max()),
        length=float(episodes.episode_length.mean()),
        success=None if episodes.success is None else float(episodes.success.mean()),
        score=task_score(episodes, info),
    )


def _episode_rows(evaluations: Sequence[Episodes]) -> Iterable[Sequence[Any]]:
    for task, returns, lengths, success, _ in evaluations:
        outcomes = [None] * len(returns) if success is None else success.astype(int)
        for index, outcome in enumerate(zip(returns, lengths, outcomes, strict=True)):
            yield task, index, *outcome


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _report_folder(trainer: lightning.Trainer) -> Path | None:
    """Return where the report goes, or None if no logger has a folder."""
    folders = (logger.log_dir for logger in trainer.loggers)
    return next((Path(folder) / "report" for folder in folders if folder), None)


def _draw_figures(trainer: lightning.Trainer, folder: Path) -> None:
    file = folder.parent / "metrics.csv"
    metrics = read_metrics(file) if file.is_file() else {}
    if not logged_tasks([metrics]):
        return
    infos: Sequence[TaskInfo] = trainer.datamodule.task_infos  # type: ignore[attr-defined]
    figure = learning_curves([metrics], {info.name: info.score_range for info in infos})
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "learning_curves.png", dpi=PIXELS_PER_INCH)
    agreement = gradient_agreement(metrics, [info.name for info in infos])
    if agreement is not None:
        agreement.savefig(folder / "gradient_agreement.png", dpi=PIXELS_PER_INCH)


def _film(policy: ActionValues, data: Any, task: str, folder: Path) -> None:
    index = list(data.tasks).index(task)
    try:
        recording = record_episode(
            policy,
            task,
            data.tasks[task],
            data.layout,
            index,
            num_actions=data.task_infos[index].num_actions,
            max_steps=data.eval_max_steps,
        )
    except UnrenderableError as error:
        _say(f"No GIF of {task}: {error}")
        return
    write_gif(recording, folder / f"{task}.gif")


def _say(text: str) -> None:
    print(text)  # noqa: T201
