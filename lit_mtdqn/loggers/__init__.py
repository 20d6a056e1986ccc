"""Where metrics go beside a run's own file."""

from lit_mtdqn.loggers.wandb_run import WandbRun

__all__ = ["WandbRun"]
