"""What happens when numbers of an update are no numbers any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lit_mtdqn.types import TaskInfo, Transition


class NonFiniteError(ArithmeticError):
    """An update whose errors are infinite or no numbers; what was learned before it is on disk."""


def report_non_finite(
    errors: Tensor,
    batches: Sequence[Transition],
    tasks: Sequence[TaskInfo],
    first_update: int,
    file: Path,
) -> NonFiniteError:
    """Save the first minibatch whose errors are no numbers, and return an error that says so.

    A rank whose own errors are numbers has nothing to save.

    Args:
        errors: [K, S, B].
        batches: The K minibatches.
        tasks: All tasks.
        first_update: Number of the first of the K updates.
        file: Where the minibatch is saved.
    """
    groups = ~errors.isfinite().all(-1)
    if not groups.any():
        return NonFiniteError("`td_error` must be finite on all ranks. Got others on another one.")
    k, group = (int(place) for place in groups.nonzero()[0])
    batch, update = batches[k], first_update + k
    task = tasks[int(batch.task[group])].name
    file.parent.mkdir(parents=True, exist_ok=True)
    saved = batch._asdict() | {"error": errors[k], "update": update}
    # Of views all that they are views of would be saved.
    own = {n: value.detach().cpu().clone() for n, value in saved.items() if torch.is_tensor(value)}
    torch.save({**saved, **own}, file)
    wrong = [name for name in ("reward", "observation", "next_observation") if _is_wrong(own[name])]
    cause = f"{' and '.join(wrong)} of its minibatch" if wrong else "the networks, not the data"
    value = float(errors[k, group][~errors[k, group].isfinite()][0])
    return NonFiniteError(
        f"`td_error` of task {task} must be finite. Got {value} in update {update}, from {cause}; "
        f"the minibatch is in {file}."
    )


def _is_wrong(column: Tensor) -> bool:
    return column.is_floating_point() and not bool(column.isfinite().all())
