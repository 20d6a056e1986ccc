"""A phase: some vector steps in every task, then the minibatches of K updates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.analysis.saved_tensors import save_tensors
from lit_mtdqn.analysis.scores import mean_score
from lit_mtdqn.data.sampling import TaskSampler
from lit_mtdqn.data.slots import Slot
from lit_mtdqn.replay import CUMULANTS, MASKS, TransitionAccumulator
from lit_mtdqn.rollout import EpisodeStatistics, ReturnTracker, WrongNumber, wrong_number
from lit_mtdqn.types import (
    PLAIN_COLUMNS,
    Array,
    Clock,
    Feedback,
    NonFiniteError,
    Phase,
    ReturnSums,
    StepRow,
    TaskScores,
    Transition,
)

SumOverRanks = Callable[[Tensor], Tensor]


class PhaseSource:
    """Plays, remembers and samples, one phase after another; alive for the whole run.

    Args:
        slots: All slots.
        stream: Vector steps of the acting slots, [S, N, ...]; None if nothing acts.
        statistics: Counts episodes of the acting slots.
        sampler: Which slot fills which row group, and how far each acting slot is played.
        scores: Kept up to date with episodes and errors.
        clock: Advanced here, but for its updates.
        vector_steps: Vector steps per phase.
        updates: K.
        batch_size: B, on this rank.
        warmup: Transitions that a learning slot needs before the first phase, on this rank.
        world_size: Number of ranks.
        sum_over_ranks: Sums a tensor over ranks.
        action_mask: Actions that each task has, [T, A], for replays that were stored without masks
            beside a task that forbids actions; None if none does.
        returns: Sums up the acting slots' returns; None if no one asks.
        labels: Names of what is stored with each transition besides.
        device: Where rows are, if they are tensors; None for arrays.
        wrong_steps: Returns the file for the steps of a copy whose rewards or observations are no
            numbers, which end the run; None lets them pass.
        seed: Seed of the sampler's draws.

    Attributes:
        active: Which acting slots make the next vector step, [S]; None for all.
        is_at_rest: Whether no phase is half played.
        is_spoilt: Whether it has played steps without numbers, which wait in it.
        observed: Slots that do not learn but give observations to every update.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        stream: Iterator[StepRow] | None,
        statistics: EpisodeStatistics,
        sampler: TaskSampler,
        scores: TaskScores,
        clock: Clock,
        *,
        vector_steps: int,
        updates: int,
        batch_size: int,
        warmup: int,
        world_size: int,
        sum_over_ranks: SumOverRanks,
        action_mask: Tensor | None = None,
        returns: ReturnTracker | None = None,
        labels: Sequence[str] = (),
        device: torch.device | None = None,
        wrong_steps: Callable[[], Path | None] = lambda: None,
        seed: int,
    ) -> None:
        self.acting = [slot for slot in slots if slot.acts]
        self.learning = [slot for slot in slots if slot.learns]
        self.statistics = statistics
        self.active: np.ndarray | None = None
        self.is_at_rest = True
        self.is_spoilt = False
        self.observed: Sequence[Slot] = ()
        self._returns = returns
        self._columns = {*Transition._fields, *MASKS, CUMULANTS, *labels}
        self._stream = stream
        specs = [slot.spec for slot in self.acting]
        self._accumulator = TransitionAccumulator(specs, labels, device)
        self._sampler = sampler
        self._scores = scores
        self._clock = clock
        self._vector_steps = vector_steps
        self._updates = updates
        self._batch_size = batch_size
        self._warmup = warmup
        self._world_size = world_size
        self._sum_over_ranks = sum_over_ranks
        self._action_mask = action_mask
        self._wrong_steps = wrong_steps
        self._seed = seed
        self._generator = torch.Generator()
        self._has_warmed = False

    def next_phase(self) -> Phase:
        """Act (until every learning slot is warm, the first time) and return the next phase."""
        self.is_at_rest = False
        warmed_up, episodes = self._clock.phases > 0, dict(self._clock.episodes)
        self._collect(self._sampler.vector_steps(self._vector_steps) if warmed_up else None)
        # Once warm it stays so, and need not ask the other ranks again.
        while not (self._has_warmed or self._is_warm()):
            self._collect()
        self._has_warmed = True
        self._clock.phases += 1
        rollout = self.statistics.metrics(self._sum_over_ranks)
        self._score_episodes(rollout, episodes)
        phase = self._make_phase(rollout)
        self.is_at_rest = True
        return phase

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the running episodes between two phases."""
        return {
            "statistics": self.statistics.running(),
            "accumulator": self._accumulator.state_dict(),
            "returns": None if self._returns is None else self._returns.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], goes_on: np.ndarray) -> None:
        """Continue with a saved state.

        Args:
            state: What `state_dict` has returned.
            goes_on: Which acting slots' episodes go on, [S]; of the others nothing is kept.
        """
        self.is_at_rest = True
        self.statistics.set_running(state["statistics"], goes_on)
        self._accumulator.load_state_dict(state["accumulator"], goes_on)
        if self._returns is not None and state["returns"] is not None:
            self._returns.load_state_dict(state["returns"], goes_on)

    def forget_episodes(self) -> None:
        """Keep nothing of the running episodes."""
        self.load_state_dict(self.state_dict(), np.zeros(len(self.acting), bool))

    def play(self, stream: Iterator[StepRow]) -> None:
        """Take the vector steps of another stream from now on."""
        self._stream = stream

    def _make_phase(self, rollout: dict[str, float]) -> Phase:
        """Return what the updates shall learn from."""
        return Phase(self._sample(), rollout, self._taken_returns())

    def on_feedback(self, feedback: Feedback) -> None:
        """Pass errors to the replays, and what they say of each task to the scores."""
        self._score_errors(feedback)
        for task, score in feedback.scores.items():
            self._scores.add_score(task, score)
        for slot in self.learning:
            if not slot.replay.is_prioritised:
                continue
            rows = feedback.task == slot.index
            slot.replay.update_priority(
                feedback.replay_index[rows].flatten(), feedback.priority[rows].flatten()
            )

    def look(self, rows: int) -> Transition:
        """Return rows [S, B] of the learning slots' replays, all kept ones being equally likely.

        Nothing changes, draws of later phases included.

        Args:
            rows: B.
        """
        generator = torch.Generator().manual_seed(self._phase_seed())
        drawn = [
            self._completed(slot, slot.replay.sample_evenly(rows, generator))
            for slot in self.learning
        ]
        columns = {name: torch.stack([own[name] for own in drawn]) for name in drawn[0]}
        observed = {
            slot.task: slot.replay.sample_evenly(rows, generator)["observation"]
            for slot in self.observed
        }
        return self._transition(columns, torch.arange(len(drawn)), observed)

    def _is_warm(self) -> bool:
        """Return whether every slot of a batch has enough on every rank; all ranks agree."""
        needed = [*self.learning, *self.observed]
        targets = [(slot, min(self._warmup, slot.replay.capacity)) for slot in needed]
        warm = all(len(slot.replay) >= max(rows, 1) for slot, rows in targets if slot.acts)
        return int(self._sum_over_ranks(torch.tensor([int(not warm)]))) == 0

    def _collect(self, steps: list[int] | None = None) -> None:
        """Play; `steps` are the vector steps of each acting slot where they are not all alike."""
        if self._stream is None:
            return
        before = [self._clock.env_steps[slot.task] for slot in self.acting]
        ended = self._ended_episodes()
        valid = self._no_steps()
        rows = []
        for step in range(self._vector_steps if steps is None else max(steps)):
            self.active = None if steps is None else np.greater(steps, step)
            row = next(self._stream)
            self.statistics.add(row)
            if self._returns is not None:
                self._returns.add(row)
            self._keep(row)
            rows.append(row)
            valid += row.valid.sum(1)
            # Between sums over ranks each rank assumes that the others step as it does.
            steps_so_far = self._steps_so_far(valid, step)
            self._count(before, (steps_so_far * self._world_size).tolist())
        valid = self._settled(valid)
        file = self._wrong_steps()
        wrong = None if file is None else self._wrong_number(rows)
        faults = np.arange(len(valid)) == (-1 if wrong is None else wrong.slot)
        counts = torch.from_numpy(np.stack([valid, self._ended_episodes() - ended, faults]))
        steps_made, episodes, all_faults = self._sum_over_ranks(counts).tolist()
        self._count(before, steps_made)
        if any(all_faults):
            self.is_spoilt = True
            raise self._non_finite_error(all_faults, wrong, rows, file)
        for slot, count in zip(self.acting, episodes, strict=True):
            self._clock.episodes[slot.task] = self._clock.episodes.get(slot.task, 0) + count
        self._remember()

    def _wrong_number(self, rows: Sequence[StepRow]) -> WrongNumber | None:
        """Return what must not be learned from, if anything in a phase's vector steps is of it."""
        # Rewards of a task that does not learn reach nothing but the log.
        return wrong_number(rows, np.array([slot.learns for slot in self.acting]))

    def _non_finite_error(
        self,
        faults: list[int],
        wrong: WrongNumber | None,
        rows: Sequence[StepRow],
        file: Path | None,
    ) -> NonFiniteError:
        """Save the steps of the copy that is at fault, and return an error that says so."""
        if wrong is None or file is None:
            task = next(s.task for s, fault in zip(self.acting, faults, strict=True) if fault)
            return NonFiniteError(
                f"`data` of task {task} must be finite on all ranks. Got others on another one, "
                "which says more."
            )
        task, place = self.acting[wrong.slot].task, (wrong.slot, wrong.copy)
        columns = StepRow._fields[PLAIN_COLUMNS]
        content = {name: _of_copy([getattr(row, name) for row in rows], place) for name in columns}
        content["step"] = wrong.step
        place_of_steps = save_tensors(content, file, "its part of the phase")
        return NonFiniteError(
            f"`{wrong.column}` of task {task} must be finite. Got {wrong.value} from its "
            f"environment {wrong.copy} (the first is 0), after {self._clock.env_steps[task]} env "
            f"steps and {self._clock.updates} updates; {place_of_steps}."
        )

    def _no_steps(self) -> Array:
        """Return what the valid steps of each acting slot are added to, [S]."""
        return np.zeros(len(self.acting), np.int64)

    def _steps_so_far(self, valid: Array, step: int) -> Array:
        """Return the steps of each acting slot in this phase, at its vector step, [S]."""
        return valid

    def _settled(self, valid: Array) -> Array:
        """Return the steps of each acting slot in a phase that has been played, [S]."""
        return valid

    def _keep(self, row: StepRow) -> None:
        """Take a vector step."""
        self._accumulator.add(row)

    def _remember(self) -> None:
        """Store the transitions that are complete."""
        self._extend(self._accumulator.emit())

    def _extend(self, emitted: Sequence[dict[str, Array]]) -> None:
        for slot, transitions in zip(self.acting, emitted, strict=True):
            slot.replay.extend(transitions)

    def _count(self, before: list[int], steps: list[int]) -> None:
        for slot, start, count in zip(self.acting, before, steps, strict=True):
            self._clock.env_steps[slot.task] = start + count

    def _ended_episodes(self) -> np.ndarray:
        """Return the number of this rank's finished episodes of each acting slot, [S]."""
        return np.array([self.statistics.episodes[slot.task] for slot in self.acting])

    def _taken_returns(self) -> dict[str, ReturnSums]:
        if self._returns is None:
            return {}
        pairs = zip(self.acting, self._returns.take(), strict=True)
        # Rewards of a task that does not learn reach nothing but the log.
        return {slot.task: sums for slot, sums in pairs if slot.learns}

    def _score_episodes(self, rollout: dict[str, float], before: dict[str, int]) -> None:
        """Score the tasks of which more training episodes have ended, on any rank, than before."""
        for slot in self.acting:
            task = slot.task
            if not slot.learns or self._clock.episodes[task] == before.get(task, 0):
                continue
            episode_return = rollout[f"rollout/episode_return/{task}"]
            success = rollout.get(f"rollout/success/{task}")
            score = mean_score(episode_return, success, slot.spec.score_range)
            self._scores.add_score(task, score)

    def _score_errors(self, feedback: Feedback) -> None:
        means = feedback.priority.mean(-1)
        # Together, because each transfer from a device waits for all that it has been told to do.
        errors, places = torch.stack((means, feedback.task.to(means.dtype))).cpu().double()
        # Ranks may have learned unlike tasks.
        groups = [errors[places == slot.index] for slot in self.learning]
        rows = [(float(own.sum()), own.numel()) for own in groups]
        sums = self._sum_over_ranks(torch.tensor(rows, dtype=torch.float64)).tolist()
        for slot, (total, count) in zip(self.learning, sums, strict=True):
            if count:
                self._scores.add_td_error(slot.task, total / count)

    def _phase_seed(self) -> int:
        # A function of the clock, so that a resumed run draws on and every rank draws its own.
        entropy = np.random.SeedSequence([self._seed, self._clock.phases])
        return int(entropy.generate_state(1)[0])

    def _seeded(self) -> torch.Generator:
        """Return the generator of this phase's draws."""
        return self._generator.manual_seed(self._phase_seed())

    def _sample(self) -> Transition:
        self._seeded()
        groups = self._sampler.draw(self._updates, len(self.learning), self._generator)
        return self._transition(self._draw_rows(groups), groups, self._draw_observations())

    def _transition(
        self,
        columns: dict[str, Tensor],
        groups: Tensor,
        observed: dict[str, Tensor],
    ) -> Transition:
        """Return columns by name as transitions, whose groups are learning slots by number."""
        columns["task"] = torch.tensor([slot.index for slot in self.learning])[groups]
        named = ("extra", "observed")
        fields = {name: columns.pop(name) for name in Transition._fields if name not in named}
        return Transition(**fields, extra=columns, observed=observed)

    def _draw_observations(self) -> dict[str, Tensor]:
        """Return observations [K, B, *O] of the observed slots, and nothing else of them."""
        shape = (self._updates, self._batch_size)
        drawn = {
            slot.task: slot.replay.sample(self._updates * self._batch_size)["observation"]
            for slot in self.observed
        }
        return {task: rows.view(*shape, *rows.shape[1:]) for task, rows in drawn.items()}

    def _draw_rows(self, groups: Tensor) -> dict[str, Tensor]:
        """Return rows [K, S, B, ...] by name, group [k, s] from the slot that `groups` names."""
        order = groups.flatten()
        columns: dict[str, Tensor] = {}
        for number, slot in enumerate(self.learning):
            places = (order == number).nonzero().squeeze(-1)
            if not len(places):
                continue
            drawn = slot.replay.sample(len(places) * self._batch_size)
            places = places.to(slot.replay.device)
            for name, rows in self._completed(slot, drawn).items():
                row = rows.shape[1:]
                if name not in columns:
                    columns[name] = rows.new_empty(len(order), self._batch_size, *row)
                blocks = rows.view(len(places), self._batch_size, *row)
                columns[name].index_copy_(0, places, blocks)
        return {
            name: column.view(*groups.shape, *column.shape[1:]) for name, column in columns.items()
        }

    def _completed(self, slot: Slot, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return drawn rows with the columns that all learning slots have."""
        reward = rows["reward"]
        # Another run's labels, which this one did not ask for, would be missing elsewhere.
        rows = {name: column for name, column in rows.items() if name in self._columns}
        rows.setdefault("weight", torch.ones_like(reward))
        if self._action_mask is not None:
            allowed = self._action_mask[slot.index].to(reward.device).expand(len(reward), -1)
            for name in MASKS:
                rows.setdefault(name, allowed)
        return rows


def _of_copy(column: Sequence[Array], place: tuple[int, int]) -> Any:
    """Return one copy's part of a column of vector steps, a tensor [L, ...]."""
    return torch.stack([torch.as_tensor(entries[place]) for entries in column])
