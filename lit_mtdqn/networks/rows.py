"""Parameters made of rows with names: one for each head, task, expert or pair of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mtdqn.types import TaskInfo, require


class NamedRows(nn.Module):
    """Base of modules whose parameters are stacks of rows, each row with a name.

    Stacks make one batched product of what would be a loop. Rows are kept in the order of their
    names and saved one by one under these names: the order of tasks in a configuration never
    matters, and a checkpoint fits a model with more or fewer rows as far as the names agree.

    Such a module has no submodules with a state of their own.

    Args:
        names: Names of the rows, in any order; repeated ones count once.
        shared: Whether several tasks use one row.

    Attributes:
        undecayed: Names of stacks besides biases that weight decay would pull away from their
            neutral values.
    """

    undecayed: tuple[str, ...] = ()

    def __init__(self, names: Iterable[str], shared: bool = False) -> None:
        super().__init__()
        self.row_names = tuple(sorted(set(names)))
        self.is_shared = shared

    def names_of_rows(self, name: str) -> list[str]:
        """Return the names under which the rows of a stack are saved."""
        stack = getattr(self, name)
        return [self._saved_row(name, stack, row)[0] for row in range(len(self.row_names))]

    def _saved_row(self, name: str, stack: Tensor, row: int) -> tuple[str, Tensor]:
        """Return the name under which a row is saved, and a view of what is saved of it."""
        return f"{self.row_names[row]}.{name}", stack[row]

    def _saved_rows(self) -> dict[str, Tensor]:
        kept = [n for n in self._buffers if n not in self._non_persistent_buffers_set]
        stacks: dict[str, Tensor | None] = dict(self._parameters)
        stacks |= {name: self._buffers[name] for name in kept}
        saved: dict[str, Tensor] = {}
        for name, stack in stacks.items():
            if stack is not None:
                saved |= self.saved_rows(name, stack)
        return saved

    def saved_rows(self, name: str, stack: Tensor) -> dict[str, Tensor]:
        """Return views of what is saved of a stack, by saved names.

        Args:
            name: The stack's name.
            stack: It, or something of its shape.
        """
        return dict(self._saved_row(name, stack, row) for row in range(len(self.row_names)))

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for name, row in self._saved_rows().items():
            destination[prefix + name] = row if keep_vars else row.detach().clone()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        rows = {prefix + name: row.detach() for name, row in self._saved_rows().items()}
        for key, row in rows.items():
            if key not in state_dict:
                missing_keys.append(key)
            elif state_dict[key].shape != row.shape:
                found = (tuple(state_dict[key].shape), tuple(row.shape))
                error_msgs.append(f"size mismatch for {key}: checkpoint, model = {found}.")
            else:
                row.copy_(state_dict[key])
        if strict:
            saved = {key for key in state_dict if key.startswith(prefix)}
            unexpected_keys.extend(sorted(saved - set(rows)))


def select(stack: Tensor, rows: Tensor | None) -> Tensor:
    """Return rows [S, ...] of a stack [R, ...] by their indices, or for None the stack itself."""
    return stack if rows is None else stack.index_select(0, rows)


def owners(tasks: Sequence[TaskInfo]) -> list[str]:
    """Return under whose name each task finds its rows: its own, if it learns.

    Others use those of the learning task whose head they have, if there is one: rows of their own
    would stay as they were drawn.
    """
    by_head = {info.head or info.name: info.name for info in reversed(tasks) if info.learns}
    return [
        info.name if info.learns else by_head.get(info.head or info.name, info.name)
        for info in tasks
    ]


class TaskRows(NamedRows):
    """Rows that are found by the task.

    Args:
        names: The row's name for each task, in the order of tasks; tasks of one name share a row.
    """

    row_of_task: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, shared=len(set(names)) < len(names))
        rows = [self.row_names.index(name) for name in names]
        self.register_buffer("row_of_task", torch.tensor(rows), persistent=False)
        self._every_row = rows if rows == list(range(len(self.row_names))) else None

    def share_among(self, tasks: Sequence[int]) -> None:
        """Let only some tasks, by their numbers, count as users of rows."""
        rows = self.row_of_task[torch.tensor(tasks, dtype=torch.int64)]
        self.is_shared = len(set(rows.tolist())) < len(rows)

    def rows_of(self, task: Tensor) -> Tensor | None:
        """Return the rows [S] of the tasks [S], or None for all rows in their order.

        None needs no copy of a stack. It is looked for on the CPU alone, where that takes a
        microsecond; elsewhere it would stall the device, and a compiled graph cannot look.
        """
        every = self._every_row
        can_look = task.is_cpu and not torch.compiler.is_compiling()
        # In this order: a graph that compared the lengths would be one of that length alone.
        if every is None or not can_look or len(task) != len(every):
            return self.row_of_task[task]
        # One group of one row is that row; under `vmap` its number could not be read.
        is_every = len(every) == 1 or task.tolist() == every
        return None if is_every else self.row_of_task[task]


class TaskVectors(TaskRows):
    """A learned vector for each task.

    Args:
        tasks: Names of the tasks.
        size: Size of the vectors.
        mean: Mean of their initial numbers.
        std: Standard deviation of their initial numbers.
    """

    undecayed = ("weight",)

    def __init__(
        self, tasks: Sequence[str], size: int, mean: float = 0.0, std: float = 1.0
    ) -> None:
        super().__init__(tasks)
        self.weight = nn.Parameter(mean + std * torch.randn(len(self.row_names), size))

    def forward(self, task: Tensor) -> Tensor:
        """Return the vectors [S, size] of the tasks [S]."""
        return select(self.weight, self.rows_of(task))


class TaskEmbedding(TaskVectors):
    """A learned vector of length 1 for each task.

    The length is kept in the forward pass, so that no task can grow louder than another.

    Args:
        tasks: Names of the tasks.
        size: Size of the vectors.

    References:
        Nauman et al. 2025, "Bigger, Regularized, Categorical: High-Capacity Value Functions are
        Efficient Multi-Task Learners", https://arxiv.org/abs/2505.23150.
    """

    def __init__(self, tasks: Sequence[str], size: int) -> None:
        require(size >= 1, "embedding_dim", "be at least 1", size)
        super().__init__(tasks, size)

    def forward(self, task: Tensor) -> Tensor:
        """Return the vectors [S, size] of the tasks [S]."""
        return nn.functional.normalize(super().forward(task), dim=-1)


def shared_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module that several tasks use: all but rows of single tasks.

    A stack counts as soon as several tasks use one of its rows.
    """
    return [
        parameter
        for owner in module.modules()
        if not isinstance(owner, NamedRows) or owner.is_shared
        for parameter in owner.parameters(recurse=False)
    ]
