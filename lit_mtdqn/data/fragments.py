"""Phases of what has just been played, which is learned from and forgotten."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.data.phases import PhaseSource
from lit_mtdqn.replay import FragmentAccumulator
from lit_mtdqn.types import Phase, StepRow, Transition


class FragmentSource(PhaseSource):
    """Plays and hands out what it has played in its order, one phase after another.

    Every task that learns acts, and no other does.

    Args:
        *args: As `PhaseSource` takes them.
        **options: As `PhaseSource` takes them.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        specs = [slot.spec for slot in self.acting]
        self._fragments = FragmentAccumulator(specs, [slot.index for slot in self.acting])
        self._latest: Transition | None = None

    def glimpse(self, rows: int) -> Phase:
        """Return the last phase with one minibatch of rows [S, B]; nothing changes.

        Args:
            rows: B.
        """
        assert self._latest is not None, "a phase comes first"
        generator = torch.Generator().manual_seed(self._phase_seed())
        order = orders(self._latest.weight > 0.0, 1, rows, generator)
        return Phase(self._latest, {}, {}, order)

    def _is_warm(self) -> bool:
        """Return that there is nothing to wait for."""
        return True

    def _keep(self, row: StepRow) -> None:
        self._fragments.add(row)

    def _remember(self) -> None:
        self._latest = self._fragments.emit()

    def _make_phase(self, rollout: dict[str, float]) -> Phase:
        assert self._latest is not None
        valid = self._latest.weight > 0.0
        order = orders(valid, self._updates, self._batch_size, self._seeded())
        return Phase(self._latest, rollout, self._taken_returns(), order)


def orders(valid: Tensor, updates: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Return the rows of each minibatch: the valid ones in random order, again and again.

    Args:
        valid: Which rows are transitions, [L, S, N]; some of every group are.
        updates: K.
        batch_size: B.
        generator: Source of the order.

    Returns:
        Numbers of rows by time and then by environment, [K, S, B]. No row is in them twice more
        often than another.
    """
    drawn = []
    for group in valid.unbind(1):
        rows = group.flatten().nonzero().squeeze(-1)
        rounds = -(-updates * batch_size // len(rows))
        epochs = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)]
        drawn.append(torch.cat(epochs)[: updates * batch_size].view(updates, batch_size))
    return torch.stack(drawn, 1)
