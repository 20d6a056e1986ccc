"""`lit-mtdqn fit|validate|test`."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from lit_mtdqn.algorithms import ValueLearner
from lit_mtdqn.cli.errors import RunParser, one_sentence
from lit_mtdqn.cli.quiet import quieten
from lit_mtdqn.cli.resume import check_resumed_model, read_hyperparameters, resolve_checkpoint
from lit_mtdqn.cli.run_folder import default_run_dir, prepare_run_dir, run_callbacks, run_loggers
from lit_mtdqn.cli.seeds import run_seeds, split_seeds
from lit_mtdqn.data import RolloutDataModule
from lit_mtdqn.process import configure_process

TRAINER_DEFAULTS = {
    "max_epochs": -1,  # the data module's budget ends a run
    "log_every_n_steps": 20,  # phases
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}


class RunCLI(LightningCLI):
    """LightningCLI with a run folder, tasks linked from data to model, and safe resuming."""

    def __init__(self, args: ArgsType = None) -> None:
        parser_kwargs: dict[str, Any] = {"parser_mode": "omegaconf"}
        super().__init__(
            ValueLearner,
            RolloutDataModule,
            subclass_mode_model=True,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={**parser_kwargs, **dict.fromkeys(self.subcommands(), parser_kwargs)},
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
            help="Folder of the run. Default: runs/<configuration>/<date and time>.",
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
            help="PyTorch threads; 1 is fastest for networks up to a few hundred wide.",
        )
        parser.add_argument(
            "--seeds",
            type=str | None,
            default=None,
            help="Seeds of several runs, such as 0..4 or 0,3,7; each gets a folder `seed_<n>`.",
        )
        parser.add_argument(
            "--jobs", type=int, default=1, help="How many of the runs of `seeds` go on at a time."
        )
        parser.set_defaults({"model": {"class_path": "lit_mtdqn.DQN"}})
        parser.link_arguments(
            "data.task_infos",
            "model.init_args.tasks",
            apply_on="instantiate",
            compute_fn=lambda infos: [info.as_dict() for info in infos],
        )

    def _parse_ckpt_path(self) -> None:
        """Refuse values that differ from the checkpoint's.

        Lightning would let the checkpoint's values silently replace the command line's
        (pytorch-lightning#21455).
        """
        config = self.config[self.config.subcommand]
        path = resolve_checkpoint(config.get("ckpt_path"), config.run_dir)
        if path is not None:
            asked = self.parser.dump(self.config, skip_link_targets=True, format="json")
            check_resumed_model(read_hyperparameters(path), asked, self.config.subcommand, path)

    def before_instantiate_classes(self) -> None:
        """Prepare process and run folder."""
        config = self.config[self.config.subcommand]
        configure_process(config.threads)
        if config.run_dir is None or self.config.subcommand != "fit":
            config.run_dir = default_run_dir(config, self.config.subcommand)
        if self.config.subcommand == "fit":
            prepare_run_dir(config.run_dir, config.overwrite, resuming=bool(config.ckpt_path))

    def instantiate_classes(self) -> None:
        """Build everything; what the user got wrong ends in one sentence."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            sentence = one_sentence(str(error))
            if not sentence.startswith("`"):
                raise
            raise SystemExit(f"error: {sentence}") from None

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Add the run folder's logger and callbacks to those of the configuration."""
        config = self.config_init[self.config.subcommand]
        given = config["trainer"]
        run_dir = config["run_dir"]
        callbacks = list(given["callbacks"] or [])
        if self.config.subcommand == "fit":
            callbacks += run_callbacks(run_dir, callbacks)
        else:
            kwargs["enable_checkpointing"] = False
        return super().instantiate_trainer(
            default_root_dir=run_dir,
            logger=run_loggers(run_dir, given["logger"]),
            callbacks=callbacks,
            **kwargs,
        )


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments; None takes those of the process.
    """
    argv = sys.argv[1:] if args is None else args
    seeds, jobs, rest = split_seeds(argv)
    if seeds:
        sys.exit(run_seeds(rest, seeds, jobs))
    quieten()
    RunCLI(args=None if args is None else rest)
