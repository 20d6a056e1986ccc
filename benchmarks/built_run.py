"""A run of the command line that has been built and waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli.main import RunCLI


class BuiltRun(RunCLI):
    """Everything that `lit-mtdqn fit` would start, but for the report at its end."""

    def fit(self, **_: Any) -> None:
        """Wait."""

    def start(self) -> None:
        """Train."""
        self.trainer.fit(self.model, datamodule=self.datamodule)


def build(arguments: Sequence[str]) -> BuiltRun:
    """Return a run that `start` starts.

    Args:
        arguments: Of `lit-mtdqn fit`.
    """
    run = BuiltRun(["fit", *arguments])
    trainer: Any = run.trainer
    trainer.callbacks = [one for one in trainer.callbacks if not isinstance(one, RunReport)]
    return run
