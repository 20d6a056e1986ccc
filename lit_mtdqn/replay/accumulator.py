"""From a stream of env steps to n-step transitions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from lit_mtdqn.functional.arrays import namespace_of, placed, places_of
from lit_mtdqn.functional.returns import fold_n_step
from lit_mtdqn.types import Array, StepRow, TaskSpec

MASKS = ("action_mask", "next_action_mask")
CUMULANTS = "cumulants"


class _Window(NamedTuple):
    """Rows in time order, [L, S, N, ...], and what folding made of them."""

    rows: StepRow
    reward: Array
    cumulants: Array | None
    discount: Array
    last: Array
    emitted: Array


class TransitionAccumulator:
    """Folds the steps of S acting tasks into n-step transitions, exactly once each.

    - A step whose n following rows are in is emitted with the discount gamma^n.
    - A step k < n rows before a terminated row is emitted with discount 0 when that row is in.
    - A step k < n rows before a truncated row is emitted with discount gamma^k and the real final
      observation when that row is in.
    - A truncated row that is not valid, of a step that a fault has taken, is no transition and no
      time: a step k < n rows before it is emitted with discount gamma^(k - 1) and the observation
      that was there last.
    - Other steps wait, also across `emit` calls, so the borders of phases leave no trace.
    - A vector step in which no copy of a task made a transition is no time for that task: a task
      that stands still for a while goes on as if nothing had been. On a device none may.

    Rewards are clipped per step, before they are folded.

    Args:
        specs: The acting tasks, in the order of the rows' first axis.
        labels: Names of what transitions take along of `StepRow.extra`, as it was at `observation`.
        device: Where rows are, if they are tensors; None for arrays.
    """

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        labels: Collection[str] = (),
        device: torch.device | None = None,
    ) -> None:
        self._labels = labels
        self._device = device
        self._kept = {*labels, CUMULANTS}
        self._gamma = placed(np.array([[spec.gamma] for spec in specs], np.float32), device)
        self._n_step = placed(np.array([[spec.n_step] for spec in specs], np.int64), device)
        self._low, self._high = (placed(bound, device) for bound in reward_bounds(specs))
        self._carry = max((spec.n_step for spec in specs), default=1) - 1
        self._rows: list[StepRow] = []
        self._fresh = 0
        self._window: _Window | None = None

    def add(self, row: StepRow) -> None:
        """Take the next vector step of all tasks, arrays [S, N, ...]."""
        kept = {name: part for name, part in row.extra.items() if name in self._kept}
        self._rows.append(row._replace(extra=kept))
        self._fresh += 1

    def fold(self) -> Array:
        """Return how many of each task's transitions were completed since the last `emit`, [S]."""
        self._window = self._fold()
        return self._window.emitted.sum((0, 2))

    def are_finite(self) -> Array:
        """Return whether the rewards and observations that `fold` has seen are numbers, []."""
        assert self._window is not None, "`fold` comes first"
        rows = self._window.rows
        found: Array = rows.reward.isfinite().all() & rows.next_observation.isfinite().all()
        return found

    def emit(self, counts: Sequence[int] | None = None) -> list[dict[str, Array]]:
        """Return each task's transitions that were completed since the last call.

        Args:
            counts: What `fold` has returned, on the host; None where rows are arrays.

        Returns:
            For every task the arrays `observation`, `action`, `reward`, `discount`,
            `next_observation` (and masks, labels and `cumulants`, folded as rewards are, where
            there are any), by time and then by environment.
        """
        if not self._rows:
            return [{} for _ in self._gamma]
        window = self._window or self._fold()
        self._window = None
        transitions = [
            self._transitions(window, slot, None if counts is None else counts[slot])
            for slot in range(len(self._gamma))
        ]
        self._rows = self._rows[-self._carry :] if self._carry else []
        self._fresh = 0
        return transitions

    def state_dict(self) -> dict[str, Any]:
        """Return the rows that wait; there are no others between `emit` and `add`."""
        return stack_rows(self._rows)._asdict() if self._rows else {}

    def load_state_dict(self, state: dict[str, Any], goes_on: np.ndarray) -> None:
        """Continue with saved rows.

        Args:
            state: What `state_dict` has returned, wherever its tensors are now.
            goes_on: Which tasks' episodes go on, [S]; rows of the others wait no longer.
        """
        self._rows, self._fresh, self._window = [], 0, None
        if not state:
            return
        rows = StepRow(**state)
        if self._device is not None:
            rows = _moved(rows, self._device)
        rows = rows._replace(valid=rows.valid & placed(goes_on, self._device)[:, None])
        self._rows = _unstack_rows(rows)

    def _fold(self) -> _Window:
        rows = stack_rows(self._rows)
        xp = namespace_of(rows.valid)
        fresh, gamma = self._fresh, self._gamma
        if xp is np:
            cut = rows.truncated & ~rows.valid
            stands = ~(rows.valid | cut).any(-1)
            fresh = fresh - stands[len(stands) - fresh :].sum(0)[:, None]
            if stands.any():
                # First, where no fold that starts later can reach them.
                rows = _in_order(rows, np.argsort(~stands, 0, kind="stable"))
                self._rows = _unstack_rows(rows)
                cut = rows.truncated & ~rows.valid
            if cut.any():
                gamma = np.where(cut, np.float32(1.0), self._gamma)
        fold = partial(
            fold_n_step,
            terminated=rows.terminated,
            truncated=rows.truncated,
            gamma=gamma,
            n_step=self._n_step,
            horizon=self._carry + 1,
        )
        clipped = xp.clip(rows.reward, self._low, self._high)
        # An infinite reward is a fault, which no bound may hide.
        folded = fold(xp.where(xp.isfinite(rows.reward), clipped, rows.reward))
        cumulants = None
        if CUMULANTS in rows.extra:
            each = xp.moveaxis(rows.extra[CUMULANTS], -1, 0)
            cumulants = xp.stack([fold(column).reward for column in each], -1)
        # A fold that ended before the fresh rows was emitted by an earlier call.
        is_new = folded.last >= len(self._rows) - fresh
        emitted = folded.complete & is_new & rows.valid
        return _Window(rows, folded.reward, cumulants, folded.discount, folded.last, emitted)

    def _transitions(self, window: _Window, slot: int, count: int | None) -> dict[str, Array]:
        time, env = places_of(window.emitted[:, slot], count)
        start = (time, slot, env)
        end = (window.last[start], slot, env)
        rows = window.rows
        arrays = {
            **{name: rows.extra[name][start] for name in self._labels},
            "observation": rows.observation[start],
            "action": rows.action[start],
            "reward": window.reward[start],
            "discount": window.discount[start],
            "next_observation": rows.next_observation[end],
        }
        if rows.action_mask is not None and rows.next_action_mask is not None:
            masks = (rows.action_mask[start], rows.next_action_mask[end])
            arrays.update(zip(MASKS, masks, strict=True))
        if window.cumulants is not None:
            arrays[CUMULANTS] = window.cumulants[start]
        return arrays


def reward_bounds(specs: Sequence[TaskSpec]) -> tuple[np.ndarray, np.ndarray]:
    """Return between what single rewards of each task are clipped, two arrays [S, 1]."""
    clips = [spec.reward_clip or (-np.inf, np.inf) for spec in specs]
    low, high = np.array(clips, np.float32).reshape(-1, 2).T[..., None]
    return low, high


def stack_rows(rows: list[StepRow]) -> StepRow:
    """Return vector steps [S, N, ...] as one of leading shape [L, S, N]."""
    stack = namespace_of(rows[0].valid).stack
    fields = list(zip(*(row[:-1] for row in rows), strict=True))
    stacked = [None if column[0] is None else stack(column) for column in fields]
    extra = {name: stack([row.extra[name] for row in rows]) for name in rows[0].extra}
    return StepRow._make((*stacked, extra))


def _in_order(rows: StepRow, order: Array) -> StepRow:
    """Return rows [L, S, N, ...] with those of each task, [L], in an order [L, S] of its own."""
    slots = np.arange(order.shape[1])
    columns = [None if column is None else column[order, slots] for column in rows[:-1]]
    extra = {name: column[order, slots] for name, column in rows.extra.items()}
    return StepRow._make((*columns, extra))


def _moved(rows: StepRow, device: torch.device) -> StepRow:
    columns = [None if column is None else column.to(device) for column in rows[:-1]]
    return StepRow._make((*columns, {name: part.to(device) for name, part in rows.extra.items()}))


def _unstack_rows(rows: StepRow) -> list[StepRow]:
    absent = [None] * len(rows.valid)
    columns = [absent if column is None else list(column) for column in rows[:-1]]
    extras = [{name: column[t] for name, column in rows.extra.items()} for t in range(len(absent))]
    return [StepRow(*fields) for fields in zip(*columns, extras, strict=True)]
