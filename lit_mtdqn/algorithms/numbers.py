"""What happens when numbers of an update are no numbers any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lit_mtdqn.analysis.saved_tensors import save_tensors
from lit_mtdqn.types import Losses, NonFiniteError, TaskInfo, Transition


def report_non_finite(
    errors: Tensor,
    batches: Sequence[Transition],
    tasks: Sequence[TaskInfo],
    first_update: int,
    file: Path,
    grad_norm: Tensor | None = None,
) -> NonFiniteError:
    """Save the first minibatch whose errors are no numbers, and return an error that says so.

    Where all errors are numbers, it is the last one's gradient. A rank whose own errors and
    gradient are numbers has nothing to save. Where the file cannot be written, the error says so.

    Args:
        errors: [K, S, B].
        batches: The K minibatches.
        tasks: All tasks.
        first_update: Number of the first of the K updates.
        file: Where the minibatch is saved.
        grad_norm: Norm of the last update's gradient before clipping, [], if it was measured.
    """
    groups = ~errors.isfinite().all(-1)
    if not groups.any():
        if grad_norm is None or grad_norm.isfinite():
            return NonFiniteError(
                "`td_error` must be finite on all ranks. Got others on another one."
            )
        update = first_update + len(batches) - 1
        place_of_batch = _save(batches[-1], errors[-1], update, file)
        return NonFiniteError(
            f"`gradient` must be finite. Got one of norm {float(grad_norm)} in update {update}, "
            f"whose errors are finite; {place_of_batch}."
        )
    k, group = (int(place) for place in groups.nonzero()[0])
    batch, update = batches[k], first_update + k
    task = tasks[int(batch.task[group])].name
    place_of_batch = _save(batch, errors[k], update, file)
    columns = ("reward", "observation", "next_observation")
    wrong = [name for name in columns if _is_wrong(getattr(batch, name))]
    cause = f"{' and '.join(wrong)} of its minibatch" if wrong else "the networks, not the data"
    value = float(errors[k, group][~errors[k, group].isfinite()][0])
    return NonFiniteError(
        f"`td_error` of task {task} must be finite. Got {value} in update {update}, from {cause}; "
        f"{place_of_batch}."
    )


def of_finite_losses(
    batches: Sequence[Transition], losses: Sequence[Losses]
) -> tuple[list[Transition], list[Losses]]:
    """Return the minibatches and losses of a phase whose losses are numbers."""
    pairs = list(zip(batches, losses, strict=True))
    kept = [(batch, entry) for batch, entry in pairs if bool(entry.td.isfinite().all())]
    return [batch for batch, _ in kept], [entry for _, entry in kept]


def _save(batch: Transition, errors: Tensor, update: int, file: Path) -> str:
    """Return where the minibatch is, or why it is nowhere."""
    content = {**batch._asdict(), "error": errors, "update": update}
    return save_tensors(content, file, "the minibatch")


def _is_wrong(column: Tensor) -> bool:
    return column.is_floating_point() and not bool(column.isfinite().all())
