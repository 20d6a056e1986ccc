"""From exploring to exploiting."""

from __future__ import annotations

from typing import Literal

import lightning
from lightning.pytorch.callbacks import Callback

from lit_mtdqn.types import Exponential, Linear, require


class EpsilonDecay(Callback):
    """Lowers the probability of random actions over each task's own env steps.

    The value follows from the clock alone, so a resumed run continues where it was and adding a
    task changes no other task's exploration. Present by default. In YAML:

        trainer:
          callbacks:
          - class_path: lit_mtdqn.callbacks.EpsilonDecay
            init_args: {start: 1.0, end: 0.05, decay_env_steps: 10000}

    Args:
        start: Epsilon at the beginning, in [0, 1].
        end: Epsilon finally, in [0, 1].
        decay_env_steps: Env steps of a task until `end`; for `exponential`, until half the way to
            `end`. Larger explores longer.
        shape: `linear` or `exponential`.
        warmup: Epsilon while the data module's `warmup_env_steps` are played, in [0, 1]. Below 1 it
            suits networks that have been trained already, whose own actions fill the replay.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        start: float = 1.0,
        end: float = 0.05,
        decay_env_steps: int = 10_000,
        shape: Literal["linear", "exponential"] = "linear",
        warmup: float = 1.0,
    ) -> None:
        name = "EpsilonDecay"
        require(0.0 <= start <= 1.0, f"{name}.start", "lie in [0, 1]", start)
        require(0.0 <= end <= 1.0, f"{name}.end", "lie in [0, 1]", end)
        require(decay_env_steps >= 1, f"{name}.decay_env_steps", "be at least 1", decay_env_steps)
        shapes = ("linear", "exponential")
        require(shape in shapes, f"{name}.shape", "be linear or exponential", shape)
        require(0.0 <= warmup <= 1.0, f"{name}.warmup", "lie in [0, 1]", warmup)
        self.warmup = warmup
        self.schedule = (
            Linear(start, end, decay_env_steps)
            if shape == "linear"
            else Exponential(start, end, decay_env_steps)
        )

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Hand the schedule to whatever explores; it asks at every vector step."""
        if stage != "fit":
            return
        exploration = getattr(trainer.datamodule, "exploration", None)  # type: ignore[attr-defined]
        if exploration is None:
            raise TypeError(
                "`data` must have an `exploration` for EpsilonDecay, as RolloutDataModule has. "
                f"Got {type(trainer.datamodule).__name__}."  # type: ignore[attr-defined]
            )
        exploration.epsilon, exploration.warmup = self.schedule, self.warmup
