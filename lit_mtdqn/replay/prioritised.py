"""Rows drawn in proportion to their errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchrl.data.replay_buffers.samplers import Sampler

from lit_mtdqn.functional.archives import archive_of
from lit_mtdqn.types import Clock, Schedule, bounds_of, require, value_at

STATE_FILE = "priorities.pt"


@dataclass(frozen=True)
class Prioritisation:
    """How strongly errors decide what is replayed, and how far weights make up for it.

    Args:
        alpha: Power of the error in a row's priority, at least 0. 0 draws uniformly; larger replays
            large errors more often.
        beta: Power of the importance weights, or a schedule of it over updates; in [0, 1]. 1
            removes the bias of the draws, 0 leaves it.
        epsilon: Added to every error, above 0, so that no row is lost for ever. Larger is closer to
            uniform.

    Raises:
        ValueError: If a value is out of range.
    """

    alpha: float = 0.5
    beta: float | Schedule = 0.4
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        require(self.alpha >= 0.0, "prioritisation.alpha", "be at least 0", self.alpha)
        require(self.epsilon > 0.0, "prioritisation.epsilon", "be above 0", self.epsilon)
        low, high = bounds_of(self.beta)
        require(0.0 <= low <= high <= 1.0, "prioritisation.beta", "lie in [0, 1]", self.beta)


class PrioritisedSampler(Sampler):  # type: ignore[misc]
    """Draws rows of a replay in proportion to their priorities, p = (|error| + epsilon)^alpha.

    - Draws are stratified: each equal share of the sum gives one row. Their order is random, so any
      run of rows is a fair minibatch.
    - A row's importance weight is (N P)^-beta, where N is the number of rows held and P the row's
      probability; it is divided by the largest weight of the same draw.
    - A new row counts as having the largest error ever reported. Until the first report all rows
      are alike, and with it they become new rows: the scale of rewards changes no draw.
    - Of several errors reported at once for one row the largest counts.

    Unlike the paper it draws from running sums over all rows. With one draw per phase they take
    less time than a sum tree, up to a million rows.

    Args:
        capacity: Rows that the replay can hold.
        prioritisation: Powers and offset.
        clock: Its updates are what a schedule of beta is called with.

    References:
        Schaul et al. 2016, "Prioritized Experience Replay", https://arxiv.org/abs/1511.05952.
    """

    def __init__(self, capacity: int, prioritisation: Prioritisation, clock: Clock) -> None:
        self._prioritisation = prioritisation
        self._clock = clock
        self._priority = torch.ones(capacity, dtype=torch.float64)
        self._largest: float | None = None

    @property
    def stored_bytes(self) -> int:
        """Size of what `dumps` writes, but for what takes kilobytes."""
        return self._priority.nbytes

    @property
    def default_priority(self) -> float:
        """Priority of a new row."""
        return 1.0 if self._largest is None else float(self._power(torch.tensor(self._largest)))

    def sample(self, storage: Any, batch_size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return indices [batch_size] on the storage's device, and their weights as `_weight`."""
        rows = len(storage)
        sums = self._priority[:rows].cumsum(0)
        index = self._stratified(sums, batch_size)
        scarcity = (self._priority[index] * (rows / sums[-1])).pow_(-self._beta)
        device = storage.device
        weight = (scarcity / scarcity.max()).to(device, torch.float32)
        return index.to(device), {"_weight": weight}

    def extend(self, index: Tensor) -> None:
        """Give rows that were just written the priority of new ones."""
        self._priority[index] = self.default_priority

    def add(self, index: int) -> None:
        """Give a row that was just written the priority of a new one."""
        self._priority[index] = self.default_priority

    def update_priority(
        self, index: Tensor, priority: Tensor, *, storage: Any | None = None
    ) -> None:
        """Take the errors of rows.

        Args:
            index: Rows, [R]; repetitions are fine.
            priority: Absolute errors, [R]; neither weighted nor raised to a power.
            storage: Not needed.

        Raises:
            ValueError: If an error is not a number, infinite or negative.
        """
        if index.numel() == 0:
            return
        errors = priority.detach().to("cpu", torch.float64)
        smallest, largest = (float(bound) for bound in errors.aminmax())
        fine = smallest >= 0.0 and largest < float("inf")
        require(fine, "priority", "be finite and at least 0", (smallest, largest))
        if self._largest is None:
            self._largest = largest
            self._priority.fill_(self.default_priority)
        self._largest = max(self._largest, largest)
        rows, powers = index.to("cpu"), self._power(errors)
        self._priority.scatter_reduce_(0, rows, powers, "amax", include_self=False)

    def state_dict(self) -> dict[str, Any]:
        """Return all priorities."""
        return {"priority": self._priority.clone(), "largest": self._largest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with saved priorities."""
        self._priority.copy_(state_dict["priority"])
        self._largest = state_dict["largest"]

    def dumps(self, path: str | Path) -> None:
        """Write all priorities into a folder."""
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / STATE_FILE).write_bytes(archive_of(self.state_dict()))

    def loads(self, path: str | Path) -> None:
        """Read what `dumps` wrote; the rows of a replay without priorities are new ones."""
        file = Path(path) / STATE_FILE
        if file.is_file():
            self.load_state_dict(torch.load(file, weights_only=True))
        else:
            self._empty()

    def _empty(self) -> None:
        self._priority.fill_(1.0)
        self._largest = None

    @property
    def _beta(self) -> float:
        return value_at(self._prioritisation.beta, self._clock.updates)

    def _power(self, errors: Tensor) -> Tensor:
        return (errors + self._prioritisation.epsilon) ** self._prioritisation.alpha

    def _stratified(self, sums: Tensor, count: int) -> Tensor:
        """Return one row from each of `count` equal shares of the last sum, shuffled."""
        offset = torch.rand(count, generator=self._rng, dtype=torch.float64)
        points = (torch.arange(count) + offset) * (sums[-1] / count)
        # Shuffled only afterwards, because looking up points in order is faster. Rounding may
        # put the last point on the sum itself, behind the last row.
        rows = torch.searchsorted(sums, points, right=True).clamp_(max=len(sums) - 1)
        return rows[torch.randperm(count, generator=self._rng)]
