"""What a run leaves in its folder: `config.yaml`, `metrics.csv`, `checkpoints/`, `report/`."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lit_mtdqn.analysis.checkpoints import CHECKPOINTS, damage_of, previous_checkpoint
from lit_mtdqn.analysis.csv_file import write_csv
from lit_mtdqn.analysis.whole_files import cut_unfinished_line, whole_file
from lit_mtdqn.callbacks import GracefulStop, ReplayCheckpoint, RunReport
from lit_mtdqn.cli.run_folder import RUN_OPTIONS
from lit_mtdqn.functional.archives import archive_of
from lit_mtdqn.loggers import WandbRun


class SaveRunConfig(SaveConfigCallback):
    """Saves what repeats a run: its configuration without the options of this one command."""

    def __init__(self, parser: LightningArgumentParser, config: Any, **options: Any) -> None:
        config = config.clone()
        for name in RUN_OPTIONS:
            config.pop(name, None)
        super().__init__(parser, config, **options)

    def save_config(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Write `config.yaml`, if it is not there already, and send it to the loggers.

        A fit also makes the folder by which that file is told from others of its name.
        """
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.config_filename
        text = self.parser.dump(self.config, skip_unset=False)
        if not path.is_file() or path.read_text() != text:
            with whole_file(path) as fresh:
                fresh.write_text(text)
        if stage == "fit":
            (folder / CHECKPOINTS).mkdir(exist_ok=True)
        if len(trainer.loggers) > 1:
            configuration = yaml.safe_load(text)
            for logger in trainer.loggers:
                logger.log_hyperparams(configuration)
            # Lightning would send the model's part again, under other names.
            pl_module._log_hyperparams = False


class _AppendingWriter(ExperimentWriter):
    """Lightning's writer, but for a resumed run it continues the file."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open("rb+") as table:
                cut_unfinished_line(table)
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])
            if not self.metrics_keys:
                path.unlink()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Write the whole file anew: Lightning would empty it first."""
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        write_csv(path, fieldnames, ([row.get(name) for name in fieldnames] for row in rows))

    def _check_log_dir_exists(self) -> None:
        """Delete nothing."""

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Write nothing: `config.yaml` says all."""


class MetricsLogger(CSVLogger):
    """Writes `metrics.csv` into a run's folder.

    Args:
        run_dir: The folder.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__(save_dir=run_dir, name="", version="")
        self._last_row: tuple[dict[str, Any], int | None] = ({}, None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer."""
        if self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _AppendingWriter(self.log_dir)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Write a row, once: Lightning sends the last one again when training ends after it."""
        if (metrics, step) != self._last_row:
            super().log_metrics(metrics, step)
            self._last_row = (dict(metrics), step)

    @rank_zero_only
    def forget_after(self, env_steps: int, evaluates_anew: bool = False) -> None:
        """Drop rows of later env steps: a run that was killed goes on from before them.

        Args:
            env_steps: Those of the checkpoint.
            evaluates_anew: Whether the evaluation after these env steps is repeated, too.
        """

        def is_made_again(row: dict[str, str]) -> bool:
            steps = float(row.get("step") or 0.0)
            is_evaluation = any(value for name, value in row.items() if name.startswith("val/"))
            return steps > env_steps or (evaluates_anew and is_evaluation and steps == env_steps)

        path = Path(self.experiment.metrics_file_path)
        if not path.is_file():
            return
        with path.open(newline="") as file:
            table = csv.DictReader(file)
            rows, header = list(table), list(table.fieldnames or [])
        kept = [row for row in rows if not is_made_again(row)]
        if len(kept) < len(rows):
            write_csv(path, header, ([row.get(name) for name in header] for row in kept))

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged."""
        self.experiment.save()


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints that appear whole or not at all, and keeps the one before each.

    Lightning's own may be lost with the machine's memory. In Python:

        Trainer(plugins=[CheckpointFiles()])
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; what had its name before is the previous one from now on.

        At any moment one of the two is whole.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        content = archive_of(checkpoint)
        with whole_file(file) as fresh:
            fresh.write_bytes(content)
            # A damaged one would take the place of what a run can go on from.
            if file.is_file() and damage_of(file) is None:
                previous = previous_checkpoint(file)
                previous.parent.mkdir(exist_ok=True)
                with whole_file(previous) as copy:
                    shutil.copyfile(file, copy)


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, under a name of its own, so that its state is not taken for a user's.

    An interruption before this run's first update, or in the middle of a phase, saves nothing: the
    checkpoint before stays as it is. An evaluation that was cut off is made anew by the run that
    goes on.
    """

    _first_step: int | None = None
    _cuts_evaluation = False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with what is known of the best network, wherever the run's folder lies now."""
        # Lightning saves this one, too, and does not read it.
        self.current_score = state_dict.get("current_score")
        old, new = Path(state_dict.get("dirpath") or ""), Path(str(self.dirpath))
        if old == new or not (new / f"{self.filename}{self.FILE_EXTENSION}").is_file():
            super().load_state_dict(state_dict)
            return

        def moved(path: str) -> str:
            return str(new / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        scores = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        moved_paths = {name: moved(state_dict[name]) for name in paths}
        own = {"dirpath": self.dirpath, "best_k_models": scores, **moved_paths}
        super().load_state_dict({**state_dict, **own})

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Note where training starts, and let the run's metrics end there, too."""
        super().on_train_start(trainer, pl_module)
        self._first_step = trainer.global_step
        for logger in trainer.loggers:
            if trainer.ckpt_path and isinstance(logger, MetricsLogger):
                data: Any = trainer.datamodule  # type: ignore[attr-defined]
                evaluation = trainer.fit_loop.epoch_loop.val_loop.batch_progress.current
                is_cut_off = evaluation.ready > evaluation.completed
                logger.forget_after(data.clock.total_env_steps, evaluates_anew=is_cut_off)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Save what was learned, if anything was; in the middle of a phase, nothing.

        Where it cannot be written, a warning says so, and the run ends by what has stopped it.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        has_learned = self._first_step not in (None, trainer.global_step)
        if not has_learned or not data.is_between_phases:
            return
        self._cuts_evaluation = trainer.validating
        try:
            super().on_exception(trainer, pl_module, exception)
        except OSError as error:
            last = Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}"
            left = "; the checkpoint before it is still there" if last.is_file() else ""
            rank_zero_warn(
                f"What was learned last is not saved in {last} ({error.strerror or error}){left}."
            )
        finally:
            self._cuts_evaluation = False

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Say that an evaluation has begun but for its first episode, where it was cut off.

        Lightning would go on after as many tasks as were played, and leave it out if none was.
        """
        if self._cuts_evaluation:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for count in (progress["total"], progress["current"]):
                count.update(ready=1, started=1, processed=0, completed=0)
            progress["is_last_batch"] = False


def run_loggers(run_dir: str, given: Any) -> list[Logger] | bool:
    """Return the loggers of a run: its own file first, then those of the configuration."""
    if given is False:
        return False
    others: list[Logger] = [] if given is True else as_list(given)
    for logger in others:
        if isinstance(logger, WandbRun) and logger.run_dir is None:
            logger.run_dir = run_dir
    return [MetricsLogger(run_dir), *others]


def run_callbacks(
    run_dir: str, given: Sequence[Callback], evaluates: bool, saves_replays: bool = False
) -> list[Callback]:
    """Return the callbacks that a run folder needs and the configuration lacks.

    Args:
        run_dir: The folder.
        given: Callbacks of the configuration.
        evaluates: Whether a task is evaluated, without which there is no best network.
        saves_replays: Whether checkpoints are accompanied by replays.
    """
    folder = Path(run_dir) / CHECKPOINTS
    # Only this one saves at an interruption, so `best` is never an interrupted state.
    checkpoints = [
        RunCheckpoint(folder, "last", enable_version_counter=False, save_on_exception=True)
    ]
    if evaluates:
        score: dict[str, Any] = {"monitor": "val/score/mean", "mode": "max"}
        best = RunCheckpoint(folder, "best", enable_version_counter=False, **score)
        checkpoints.insert(0, best)
    taken = {callback.filename for callback in given if isinstance(callback, ModelCheckpoint)}
    defaults = (GracefulStop, RunReport, *([ReplayCheckpoint] if saves_replays else []))
    missing = [
        default()
        for default in defaults
        if not any(isinstance(callback, default) for callback in given)
    ]
    return [*missing, *(saver for saver in checkpoints if saver.filename not in taken)]


def as_list(given: Any) -> list[Any]:
    """Return none, one or several things as a list."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]
