"""Networks of other runs that are asked and never learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_mtdqn.algorithms.saved_policy import SavedPolicy
from lit_mtdqn.analysis.specialists import tested_score
from lit_mtdqn.types import ActionValues, ShowsLayers, TaskInfo, require

# By task of the student: a checkpoint, the folder of a run, or something that has values.
TeacherSources = Mapping[str, str | Path | ActionValues]


class _Place(NamedTuple):
    """Where a task's teacher is found: its number among the teachers, and its own for the task."""

    teacher: int
    task: int


NOWHERE = _Place(-1, -1)


class _Asked(NamedTuple):
    """What one teacher is asked: row groups, what it sees of them, and its own tasks."""

    teacher: SavedPolicy | ActionValues
    groups: list[int]
    seen: Tensor
    task: Tensor


class Teachers:
    """The teachers of a student's tasks, as one that knows them all.

    A task's observations have one size, which student and teacher may have padded to others for
    their further tasks: they are padded or cut to what the teacher has learned from, and its values
    to the student's. A teacher of several tasks is asked once for all of them. A checkpoint of a
    single task may have any name for it.

    Args:
        tasks: The student's tasks.
        sources: Teachers by task of the student.
        names: A teacher's name for a task, by the student's; needed where they differ and the
            teacher knows several tasks.

    Attributes:
        policies: The student's tasks whose teachers say logits of a policy, no values.

    Raises:
        ValueError: If there is no such task, or its teacher does not know it, sees observations of
            another kind or size or has other actions.
    """

    def __init__(
        self,
        tasks: Sequence[TaskInfo],
        sources: TeacherSources,
        names: Mapping[str, str] | None = None,
    ) -> None:
        known = [info.name for info in tasks]
        self._known, self._infos = known, tasks
        self.policies: list[str] = []
        must = f"name tasks among {known}"
        require(set(sources) <= set(known), "teachers", must, sorted(sources))
        must = f"name tasks that have a teacher, among {sorted(sources)}"
        require(set(names or {}) <= set(sources), "teacher_tasks", must, sorted(names or {}))
        self._num_actions = max(info.num_actions for info in tasks)
        self._teachers: list[SavedPolicy | ActionValues] = []
        self._places: dict[int, _Place] = {}
        loaded: dict[str, int] = {}
        for place, info in enumerate(tasks):
            source = sources.get(info.name)
            if source is None:
                continue
            if not isinstance(source, str | Path):
                must = "be a checkpoint, the folder of a run or have `action_values`"
                can = isinstance(source, ActionValues)
                require(can, f"teachers.{info.name}", must, type(source).__name__)
                if source not in self._teachers:
                    self._teachers.append(source)
                self._places[place] = _Place(self._teachers.index(source), place)
            else:
                source = str(source)
                if source not in loaded:
                    loaded[source] = len(self._teachers)
                    self._teachers.append(SavedPolicy(source, f"teachers.{info.name}"))
                teacher = self._teachers[loaded[source]]
                assert isinstance(teacher, SavedPolicy)
                own = _own_task(teacher, info, (names or {}).get(info.name))
                self._places[place] = _Place(loaded[source], own)
            if not getattr(self._teachers[self._places[place].teacher], "predicts_values", True):
                self.policies.append(info.name)
        self._is_known = torch.tensor([place in self._places for place in range(len(known))])
        self._is_policy = torch.tensor([name in self.policies for name in known])

    def to(self, device: torch.device) -> None:
        """Move them to a device."""
        self._is_known, self._is_policy = self._is_known.to(device), self._is_policy.to(device)
        for teacher in self._teachers:
            if isinstance(teacher, SavedPolicy):
                teacher.to(device)

    def knows(self, task: Tensor) -> Tensor:
        """Return which of the student's tasks [S] have a teacher, [S]."""
        return self._is_known.to(task.device)[task]

    def says_policy(self, task: Tensor) -> Tensor | None:
        """Return which tasks [S] have a teacher of logits, [S]; None if no task has."""
        return self._is_policy.to(task.device)[task] if self.policies else None

    def tested_score(self, number: int) -> float | None:
        """Return what the teacher of a student's task reached in its own run's test.

        Args:
            number: Of the task, whose `score_range` counts.

        Returns:
            None where there is no such teacher, or no such test in the report of its run.
        """
        place = self._places.get(number, NOWHERE)
        teacher = self._teachers[place.teacher]
        if place == NOWHERE or not isinstance(teacher, SavedPolicy) or teacher.folder is None:
            return None
        score_range = self._infos[number].score_range
        return tested_score(str(teacher.folder), teacher.tasks[place.task].name, score_range)

    def require_values(self, what: str) -> None:
        """Refuse teachers of policies.

        Args:
            what: What needs values.

        Raises:
            ValueError: If a teacher's outputs are logits.
        """
        must = f"say values for {what}, and not the logits of students of policies"
        require(not self.policies, "teachers", must, f"policies for {', '.join(self.policies)}")

    @torch.no_grad()
    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return raw values [S, N, A] for observations [S, N, *O] of the student's tasks [S].

        Those of tasks without a teacher are 0.
        """
        values = observation.new_zeros(
            (*observation.shape[:2], self._num_actions), dtype=torch.float32
        )
        for teacher, groups, seen, own in self._asked(observation, task):
            found = teacher.action_values(seen, own)
            values[groups] = _fitted(found, (self._num_actions,)).to(values)
        return values

    @torch.no_grad()
    def layers(
        self, observation: Tensor, task: Tensor
    ) -> list[tuple[list[int], tuple[Tensor, ...]]]:
        """Return what teachers see in observations [S, N, *O] of the student's tasks [S].

        Returns:
            For each teacher its row groups and the outputs of its layers there, the features last;
            those of convolutions [groups, N, C, P] with P places, others [groups, N, F].

        Raises:
            ValueError: If a teacher cannot say.
        """
        shown = []
        for teacher, groups, seen, own in self._asked(observation, task):
            if not isinstance(teacher, ShowsLayers):
                name = self._known[int(task[groups[0]])]
                must = "have `layers(observation, task)`, for a match of what it sees"
                raise ValueError(f"`teachers.{name}` must {must}. Got {type(teacher).__name__}.")
            shown.append((groups, teacher.layers(seen, own)))
        return shown

    def _asked(self, observation: Tensor, task: Tensor) -> Iterator[_Asked]:
        """Yield what each teacher is asked about observations of the student's tasks."""
        places = [self._places.get(number, NOWHERE) for number in task.tolist()]
        for number in sorted({place.teacher for place in places} - {NOWHERE.teacher}):
            teacher = self._teachers[number]
            groups = [group for group, place in enumerate(places) if place.teacher == number]
            own = torch.tensor([places[group].task for group in groups], device=task.device)
            seen = observation[groups]
            if isinstance(teacher, SavedPolicy):
                seen = _fitted(seen, teacher.tasks[0].observation_shape)
            yield _Asked(teacher, groups, seen, own)


def _own_task(teacher: SavedPolicy, info: TaskInfo, name: str | None) -> int:
    """Return the number that a teacher has for a task of the student, under a name if one is told.

    A teacher of one task may have any name for it.
    """
    known = [own.name for own in teacher.tasks]
    if name is None:
        name = known[0] if len(known) == 1 else info.name
    must = f"know the task {name}, or have one task alone and no name in `teacher_tasks`"
    require(name in known, f"teachers.{info.name}", must, known)
    place = known.index(name)
    own = teacher.tasks[place]
    if not own.learns:
        learned = ", ".join(other.name for other in teacher.tasks if other.learns) or "nothing"
        rank_zero_warn(
            f"`teachers.{info.name}` answers as {name}, which its run held out; it learned "
            f"{learned}. The head is untrained unless it was moved there; `teacher_tasks` names "
            "another."
        )
    # Observations of a single task are not padded; older checkpoints do not tell those of several.
    shape = own.observation_shape if len(known) == 1 else own.own_shape
    for what, theirs, ours in (
        ("kind of observation", own.observation_kind, info.observation_kind),
        ("shape of observations, before padding,", shape, info.own_shape),
        ("number of actions", own.num_actions, info.num_actions),
    ):
        require(
            theirs == ours or None in (theirs, ours),
            f"teachers.{info.name}",
            f"have the {what} {ours}",
            theirs,
        )
    return place


def _fitted(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a tensor [S, N, *shape]: the last axes cut, or filled up with zeros."""
    if tuple(tensor.shape[2:]) == tuple(shape):
        return tensor
    cut = tensor[(slice(None), slice(None), *(slice(size) for size in shape))]
    missing = [wanted - had for wanted, had in zip(shape, cut.shape[2:], strict=True)]
    widths = [width for pair in ((0, gap) for gap in reversed(missing)) for width in pair]
    padded: Tensor = torch.nn.functional.pad(cut, widths)
    return padded
