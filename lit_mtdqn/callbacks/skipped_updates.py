"""Updates that are left out because their numbers are none."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_mtdqn.types import Clock, require


class SkippedUpdates(Callback):
    """Lets a run skip updates whose loss or gradient is infinite or no number, and counts them.

    Without it such an update ends the run, and so does an env step whose reward or observation is
    no number; with it steps are stored as they come. A skipped update changes neither weights nor
    optimiser nor target network and counts as no update; priorities of rows whose errors are no
    numbers become the smallest. The first one is told in a warning and its minibatch saved in
    `non_finite_batch.pt`; the count is `train/skipped_updates`. `PopArt` learns from targets before
    the loss is known: it skips those that are no numbers. All ranks skip the same updates. Under
    `16-mixed` gradients that overflow are the scaler's to drop, and not counted. On a GPU every
    update waits for its own numbers. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.SkippedUpdates

    Args:
        max_in_a_row: Skipped updates in a row that a run survives, at least 1. The next one ends
            it: its weights, or most of its data, are of no use.

    Attributes:
        total: Updates skipped so far.

    Raises:
        ValueError: If `max_in_a_row` is below 1.
    """

    def __init__(self, max_in_a_row: int = 100) -> None:
        name = "SkippedUpdates.max_in_a_row"
        require(max_in_a_row >= 1, name, "be at least 1", max_in_a_row)
        self.max_in_a_row = max_in_a_row
        self.total = 0
        self._in_a_row = 0

    @property
    def are_too_many(self) -> bool:
        """Whether more have been skipped in a row than a run survives."""
        return self._in_a_row > self.max_in_a_row

    def count(self) -> None:
        """Count one; asked by the learner."""
        self.total += 1
        self._in_a_row += 1

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        """Count anew: an update was made."""
        self._in_a_row = 0

    def metrics(self) -> dict[str, Tensor]:
        """Return the count, by its name in metrics."""
        return {"train/skipped_updates": torch.tensor(float(self.total))}

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"total": self.total, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.total, self._in_a_row = state_dict["total"], state_dict["in_a_row"]
