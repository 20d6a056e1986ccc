"""`lit-mtdqn fit|validate|test|sequence|report|play|export|configs`."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_mtdqn.algorithms import ValueLearner
from lit_mtdqn.callbacks import GracefulStop
from lit_mtdqn.cli.children import INTERRUPTED, TERMINATED, exit_code_of
from lit_mtdqn.cli.configs import COMMAND as CONFIGS
from lit_mtdqn.cli.configs import run_configs
from lit_mtdqn.cli.errors import RunParser, building, complaint_of, exit_code_for, leave
from lit_mtdqn.cli.export import COMMAND as EXPORT
from lit_mtdqn.cli.export import run_export
from lit_mtdqn.cli.overview import HELP, LINES, VERSION, overview
from lit_mtdqn.cli.play import COMMAND as PLAY
from lit_mtdqn.cli.play import run_play
from lit_mtdqn.cli.quiet import quieten
from lit_mtdqn.cli.recording import (
    CheckpointFiles,
    SaveRunConfig,
    as_list,
    run_callbacks,
    run_loggers,
)
from lit_mtdqn.cli.report import COMMAND as REPORT
from lit_mtdqn.cli.report import run_report
from lit_mtdqn.cli.resume import check_resumed_model, read_hyperparameters, resolve_checkpoint
from lit_mtdqn.cli.run_folder import (
    check_run_dir,
    choose_run_dir,
    clear_run_dir,
    known_run,
    release_run_dir,
)
from lit_mtdqn.cli.seed_scores import wandb_logger_of_seeds
from lit_mtdqn.cli.seeds import parse_seeds, run_seeds
from lit_mtdqn.cli.sequence import COMMAND, run_sequence
from lit_mtdqn.cli.shipped import with_found_configs
from lit_mtdqn.data import RolloutDataModule
from lit_mtdqn.process import configure_process
from lit_mtdqn.types import require

TRAINER_DEFAULTS = {
    "max_epochs": -1,  # the data module's budget ends a run
    "log_every_n_steps": 20,  # phases
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}
# Commands of their own, which this parser knows nothing of.
COMMANDS = {REPORT: run_report, PLAY: run_play, EXPORT: run_export, CONFIGS: run_configs}


class RunCLI(LightningCLI):
    """LightningCLI with a run folder, tasks linked from data to model, and safe resuming."""

    def __init__(self, args: ArgsType = None) -> None:
        parser_kwargs: dict[str, Any] = {"parser_mode": "omegaconf"}
        super().__init__(
            ValueLearner,
            RolloutDataModule,
            subclass_mode_model=True,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={
                **parser_kwargs,
                **dict.fromkeys(self.subcommands(), parser_kwargs),
            },
            auto_configure_optimizers=False,
            parser_class=RunParser,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer what makes sense with environments."""
        offered = LightningCLI.subcommands()
        return {name: offered[name] for name in ("fit", "validate", "test")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments of the run itself."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help=(
                "Folder of the run; an evaluation writes into a folder of it. Default: "
                "runs/<configuration>/<date and time>, or that of the run named by `config` or "
                "`ckpt_path`."
            ),
        )
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="Replace a run that `run_dir` already holds.",
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=1,
            help=(
                "PyTorch threads. 1 leaves other cores to other runs; more make updates sooner, "
                "the wider a network is."
            ),
        )
        parser.add_argument(
            "--save_replays",
            type=bool,
            default=True,
            help=(
                "Write the replays into `replay/` of the run's folder with every checkpoint, for "
                "resuming as if never stopped; without them a resumed run plays its warm-up again."
            ),
        )
        parser.add_argument(
            "--seeds",
            type=int | str | None,
            default=None,
            help="Seeds of several runs, such as 0..4 or 0,3,7; each gets a folder `seed_<n>`.",
        )
        parser.add_argument(
            "--jobs", type=int, default=1, help="How many of the runs of `seeds` go on at a time."
        )
        parser.link_arguments(
            "data.task_infos",
            "model.init_args.tasks",
            apply_on="instantiate",
            compute_fn=lambda infos: [info.as_dict() for info in infos],
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; where several seeds are asked for, run each in a process of its own and exit."""
        argv = sys.argv[1:] if args is None else list(args)
        self.config = parser.parse_args(with_found_configs(with_default_model(argv)))
        config = self.config[self.config.subcommand]
        if config.seeds is not None:
            run_dir = config.run_dir or choose_run_dir(config, "fit")
            seeds = parse_seeds(str(config.seeds))
            logger = wandb_logger_of_seeds(config.trainer.logger, run_dir)
            sys.exit(exit_code_of(run_seeds(argv, seeds, run_dir, config.jobs, logger)))

    def _parse_ckpt_path(self) -> None:
        """Resolve `ckpt_path` to a file, and refuse values that differ from that checkpoint's.

        Lightning would let the checkpoint's values silently replace the command line's
        (pytorch-lightning#21455).
        """
        config = self.config[self.config.subcommand]
        if not config.ckpt_path:
            return
        run = known_run(config)
        path = resolve_checkpoint(config.ckpt_path, run)
        config.ckpt_path = str(path)
        # With what is None, too: a checkpoint has it.
        asked = self.parser.dump(
            self.config, skip_link_targets=True, skip_unset=False, format="json"
        )
        saved, root = read_hyperparameters(path), None if run is None else run.parent
        check_resumed_model(saved, asked, self.config.subcommand, path, root)

    def before_instantiate_classes(self) -> None:
        """Prepare process and run folder."""
        config = self.config[self.config.subcommand]
        configure_process(config.threads)
        config.run_dir = choose_run_dir(config, self.config.subcommand)
        if self.config.subcommand == "fit":
            check_run_dir(config.run_dir, config.overwrite, resuming=bool(config.ckpt_path))

    def before_fit(self) -> None:
        """Remove the run that this one replaces; all parts of this one have been built by now."""
        config = self.config["fit"]
        if config.overwrite and not config.ckpt_path:
            clear_run_dir(config.run_dir)

    def instantiate_classes(self) -> None:
        """Build all parts; one that cannot be built is named."""
        with building():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Add the run folder's logger and callbacks to those of the configuration."""
        config = self.config_init[self.config.subcommand]
        given, run_dir = config["trainer"], config["run_dir"]
        callbacks = as_list(given["callbacks"])
        if self.config.subcommand == "fit":
            evaluates = any(spec.evaluates for spec in self.datamodule.tasks.values())
            saves = config["save_replays"] and self.datamodule.keeps_replays
            callbacks += run_callbacks(run_dir, callbacks, evaluates, saves)
        else:
            kwargs["enable_checkpointing"] = False
            if not any(isinstance(callback, GracefulStop) for callback in callbacks):
                callbacks.append(GracefulStop())
        if {**given, **kwargs}["enable_checkpointing"] is False:
            callbacks = [one for one in callbacks if not isinstance(one, Checkpoint)]
        plugins = as_list(given["plugins"])
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(CheckpointFiles())
        return super().instantiate_trainer(
            default_root_dir=run_dir,
            logger=run_loggers(run_dir, given["logger"]),
            callbacks=callbacks,
            plugins=plugins,
            **kwargs,
        )


class Rehearsal(RunCLI):
    """Finds out what a run would be, and does nothing.

    Args:
        argv: The command line.
        builds: Whether environments, networks and callbacks are built, too.
    """

    def __init__(self, argv: list[str], *, builds: bool) -> None:
        self._builds = builds
        super().__init__(argv)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and start nothing."""
        assert isinstance(args, list)
        self.config = parser.parse_args(with_found_configs(with_default_model(args)))

    def _parse_ckpt_path(self) -> None:
        """Look for no checkpoint."""

    def before_instantiate_classes(self) -> None:
        """Leave process and folders as they are."""

    def instantiate_classes(self) -> None:
        """Build all parts, on demand."""
        if self._builds:
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""

    def configuration(self) -> dict[str, Any]:
        """Return what a run would save as `config.yaml`, as plain values."""
        parser = self._parser(self.subcommand)
        text = parser.dump(self.config[self.subcommand], skip_unset=False)
        configuration: dict[str, Any] = yaml.safe_load(text)
        return configuration


def rehearse(argv: list[str], *, builds: bool) -> dict[str, Any]:
    """Return the whole configuration of a command line as plain values.

    Args:
        argv: The command line, `fit` first.
        builds: Whether environments, networks and callbacks are built, too.

    Raises:
        SystemExit: If an argument does not fit its type.
        ValueError: If a value is out of range.
    """
    previous = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        return Rehearsal(argv, builds=builds).configuration()
    finally:
        logging.disable(previous)


def with_default_model(argv: list[str]) -> list[str]:
    """Return a command line that takes a `DQN` unless something later names another class.

    A default of the parser would hand its arguments, such as `scale: null`, on to that class.
    """
    command, rest = argv[:1], argv[1:]
    named = command and not command[0].startswith("-")
    return [*command, "--model=lit_mtdqn.DQN", *rest] if named else argv


def main(args: list[str] | None = None) -> None:
    """Run the command line; what the user got wrong, found when it may be, ends in one sentence.

    Args:
        args: Arguments; None takes those of the process.
    """
    quieten()
    # As `python -m` has it, so that a user's own module beside the run is found.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    argv = sys.argv[1:] if args is None else args
    try:
        if argv and argv[0] in HELP:
            print(overview())  # noqa: T201
        elif argv == [VERSION]:
            print(f"lit-mtdqn {version('lit_mtdqn')}")  # noqa: T201
        elif argv and argv[0] in COMMANDS:
            COMMANDS[argv[0]](argv)
            sys.stdout.flush()
        elif argv[:1] == [COMMAND]:
            code = run_sequence(argv, rehearse)
            if code != 0:
                raise SystemExit(code)
        else:
            if argv and not argv[0].startswith("-"):
                require(argv[0] in LINES, "command", f"be one of {', '.join(LINES)}", argv[0])
            RunCLI(args)
    except BrokenPipeError:
        # Who reads, such as `head`, has enough; what is left in the buffer has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        leave(exit_code_of(INTERRUPTED))
    except SIGTERMException:
        # It has no exit code of its own, and so would be taken for success.
        leave(exit_code_of(TERMINATED))
    except SystemExit as stop:
        # Lightning turns Ctrl-C in a run into the exit code of a failure.
        if isinstance(stop.__context__, KeyboardInterrupt):
            leave(exit_code_of(INTERRUPTED))
        raise
    except Exception as error:
        sentence = complaint_of(error)
        if sentence is None:
            raise
        leave(exit_code_for(error), sentence)
    finally:
        release_run_dir()
