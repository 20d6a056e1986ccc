"""Environments played while training, as a LightningDataModule."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from lit_mtdqn.analysis.saved_tensors import file_of_rank
from lit_mtdqn.analysis.scores import task_score
from lit_mtdqn.callbacks import SkippedUpdates
from lit_mtdqn.data.background import background_steps
from lit_mtdqn.data.checks import check_settings
from lit_mtdqn.data.device import DeviceSource
from lit_mtdqn.data.fragments import FragmentSource
from lit_mtdqn.data.loaders import ignore_loader_warnings, sized_loader
from lit_mtdqn.data.phases import PhaseSource
from lit_mtdqn.data.sampling import EveryTask, TaskSampler
from lit_mtdqn.data.slots import Slot, is_acting
from lit_mtdqn.data.stream_state import BEHIND, continue_stream, stream_state
from lit_mtdqn.envs import TaskEnv, TensorTaskEnv, probe_tasks
from lit_mtdqn.functional.global_generators import (
    global_random_state,
    set_global_random_state_,
)
from lit_mtdqn.functional.masking import padded_action_mask
from lit_mtdqn.functional.ranks import sum_over_ranks
from lit_mtdqn.replay import (
    Prioritisation,
    PrioritisedSampler,
    Replay,
    StorageKind,
    check_memory,
    replay_bytes,
    whole_folder,
)
from lit_mtdqn.rollout import (
    BackgroundSteps,
    Boltzmann,
    Collector,
    DeviceStatistics,
    EpisodeStatistics,
    EpsilonGreedy,
    ReturnTracker,
    gather_episodes,
    make_evaluation_env,
    most_rounds,
    play_episodes,
    require_numbers,
    unplayed,
)
from lit_mtdqn.rollout.seeding import TEST_SEED, VALIDATION_SEED, training_seed
from lit_mtdqn.rollout.statistics import WINDOW
from lit_mtdqn.types import (
    MEANING,
    ActionValues,
    Clock,
    Episodes,
    Feedback,
    LabelsTransitions,
    Phase,
    PhaseCallback,
    StepRow,
    TaskScores,
    TaskSpec,
    Transition,
    as_task_specs,
    require,
)

DEFAULT_EVALUATIONS = 10


class RolloutDataModule(lightning.LightningDataModule):
    """Plays one or many tasks, remembers what happened and hands out whole phases of minibatches.

    A phase is `phase_vector_steps` steps of all environments, followed by K updates, where
    K = `replay_ratio` x `phase_vector_steps` x `num_envs`.

    Args:
        tasks: Tasks by name, each a `TaskSpec` or a mapping of its fields; a name is an identifier
            and labels heads and metrics.
        num_envs: Copies of each task's environment that are stepped together, over all ranks.
        replay_ratio: Updates per env step of one task. Every update trains all tasks, so adding a
            task changes neither K nor how often a task's data is used. Larger learns more from the
            same steps and takes longer.
        phase_vector_steps: Steps of all environments between two blocks of updates. Larger costs
            less overhead and acts longer with one network.
        batch_size: Transitions per task in each update, over all ranks.
        replay_capacity: Transitions kept per task, over all ranks; the oldest are forgotten.
        replay_storage: Where they are kept: `ram`, `disk` (memory-mapped files) or `device` (the
            learner's).
        replay_folder: Folder for the files of `replay_storage: disk`; None takes the system's
            temporary folder. They go with the data module.
        warmup_env_steps: Transitions that each acting task gathers before the first update, with
            random actions unless `EpsilonDecay(warmup=...)` says otherwise; n-step returns and
            reset rows take some env steps more. Without replays updates do not wait for it.
        total_env_steps: Env steps, summed over tasks and ranks, after which the run ends; None has
            no such limit.
        total_updates: Updates after which the run ends; None has no such limit.
        evaluate_every_env_steps: Env steps, summed over tasks and ranks, between evaluations; None
            makes ten evaluations per run.
        eval_episodes: Episodes per task in each evaluation.
        test_episodes: Episodes per task in the final test; their seeds are never used for
            evaluation or training.
        eval_epsilon: Probability of a random action in evaluation and test, in [0, 1].
        eval_max_steps: Env steps after which an episode of evaluation or test is counted as it
            stands.
        sampler: Which task fills which part of a batch, and how much each is played; None gives
            every task its part.
        prioritisation: Replays transitions in proportion to their errors, each task by its own;
            None replays all alike.
        boltzmann: Draws actions by how good they look, where otherwise the best is taken.
        keeps_replays: Whether updates learn from replays. If not, as `PQN` asks for, they learn
            from the phase just played: from each transition `replay_ratio` x `batch_size` times, in
            random order, before it is forgotten.
        device_resident: Whether training plays, folds and remembers on the learner's device, where
            environments are tensors; evaluation plays arrays as ever. It needs environments whose
            batched form takes a `device`, and `replay_storage: device`. What it pays grows with
            `num_envs`.
        background: Whether training is played by a process of its own while the learner makes its
            updates: each phase by the network of the phase before it, one phase older than
            otherwise. It pays where environments take as long as updates and a core is free. Runs
            can be repeated, but are not those without it; a resumed one starts new episodes.
        seed: Seed of environments, exploration and sampling; None takes PyTorch's.
        num_workers: Must be 0. Environments are played in this process, because a worker would act
            with a copy of the network that never learns.

    Raises:
        ValueError: If a value is out of range or an environment cannot be used; before any step.
    """

    def __init__(
        self,
        tasks: dict[str, TaskSpec],
        num_envs: int = 16,
        replay_ratio: float = 0.0625,
        phase_vector_steps: int = 8,
        batch_size: int = 128,
        replay_capacity: int = 100_000,
        replay_storage: StorageKind = "ram",
        replay_folder: str | None = None,
        warmup_env_steps: int = 1_000,
        total_env_steps: int | None = 100_000,
        total_updates: int | None = None,
        evaluate_every_env_steps: int | None = None,
        eval_episodes: int = 20,
        test_episodes: int = 100,
        eval_epsilon: float = 0.0,
        eval_max_steps: int = 10_000,
        sampler: TaskSampler | None = None,
        prioritisation: Prioritisation | None = None,
        boltzmann: Boltzmann | None = None,
        keeps_replays: bool = True,
        device_resident: bool = False,
        background: bool = False,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.tasks = as_task_specs(tasks)
        self.num_envs = num_envs
        self.replay_ratio = replay_ratio
        self.phase_vector_steps = phase_vector_steps
        self.batch_size = batch_size
        self.replay_capacity = replay_capacity
        self.replay_storage = replay_storage
        self.replay_folder = replay_folder
        self.warmup_env_steps = warmup_env_steps
        self.total_env_steps = total_env_steps
        self.total_updates = total_updates
        self.eval_episodes = eval_episodes
        self.test_episodes = test_episodes
        self.eval_epsilon = eval_epsilon
        self.eval_max_steps = eval_max_steps
        self.seed = seed
        self.exploration = boltzmann or EpsilonGreedy()
        self.sampler = sampler or EveryTask()
        self.prioritisation = prioritisation
        self.keeps_replays = keeps_replays
        self.device_resident = device_resident
        self.background = background
        require(len(self.tasks) >= 1, "tasks", "hold at least one task", self.tasks)
        check_settings(self, num_workers)
        self.updates_per_phase = _whole_updates(replay_ratio, phase_vector_steps, num_envs)
        self.evaluate_every_env_steps = self._evaluation_interval(evaluate_every_env_steps)
        self.layout, self.task_infos = probe_tasks(self.tasks)
        self.clock = Clock(dict.fromkeys(self.tasks, 0))
        self.scores = TaskScores(self.tasks)
        self._bind_sampler()
        self.slots: list[Slot] = []
        self.source: PhaseSource | None = None
        self._collector: Collector | None = None
        self._background: BackgroundSteps | None = None
        self._training_envs: list[TaskEnv] = []
        self._evaluation_envs: dict[tuple[str, int], TaskEnv] = {}
        self._is_resumed = False
        self._begins_phase = True
        self._random_state: dict[str, Any] | None = None
        self._label_sizes: dict[str, int] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the budget of env steps or updates is used up."""
        steps, updates = self.total_env_steps, self.total_updates
        return (steps is not None and self.clock.total_env_steps >= steps) or (
            updates is not None and self.clock.updates >= updates
        )

    @property
    def is_between_phases(self) -> bool:
        """Whether all of the last phase is done and logged, and nothing of the next.

        Only then a run that goes on from a checkpoint is the one that was never stopped.
        """
        return self._begins_phase or (self.trainer is not None and self.trainer.validating)

    @property
    def phases_per_evaluation(self) -> int:
        """Length of an epoch of the Trainer, which ends with an evaluation."""
        return max(self.evaluate_every_env_steps // self._env_steps_per_phase, 1)

    @property
    def _env_steps_per_phase(self) -> int:
        """Nominal: reset rows are not taken off; a phase in which nothing acts counts as one."""
        acting = max(sum(is_acting(spec) for spec in self.tasks.values()), 1)
        return self.phase_vector_steps * self.num_envs * acting

    def setup(self, stage: str) -> None:
        """Build replays, environments and the stream of phases, for training only, and once."""
        ignore_loader_warnings()
        if stage != "fit":
            return
        self._is_resumed = False
        if self.source is not None:
            must = "be built anew after env steps that were no numbers"
            require(not self.source.is_spoilt, "datamodule", must, type(self).__name__)
            self._require_same_labels()
            if self.background:
                self._continue_stream({})
            elif self._collector is not None:
                self._collector.policy, self._collector.labeller = self._policy(), self._labeller
            self.source.observed = self._observed_slots()
            return
        trainer = self.trainer
        ranks = 1 if trainer is None else trainer.world_size
        rank = 0 if trainer is None else trainer.global_rank
        for name in ("num_envs", "batch_size", "replay_capacity"):
            value = getattr(self, name)
            require(value % ranks == 0, name, f"be divisible by the {ranks} ranks", value)
        if self.device_resident:
            must = "be one whose tensors may be float64 where `data.device_resident` is true"
            kind = self._device.type
            require(kind != "mps", "trainer.accelerator", must, kind)
        self._require_same_labels()
        self.slots = self._make_slots(ranks, rank)
        acting = [slot for slot in self.slots if slot.acts]
        if not self.background:
            copies = self.num_envs // ranks
            self._training_envs = [self._make_training_env(slot, copies) for slot in acting]
        self.source = self._make_source(ranks, rank)
        self.source.observed = self._observed_slots()
        rank_zero_info(
            f"Each phase: {self.phase_vector_steps} steps of {self.num_envs} environments in "
            f"{len(acting)} task(s), then {self.updates_per_phase} update(s)."
        )

    def train_dataloader(self) -> DataLoader[Phase]:
        """Return the phases up to the next evaluation."""
        if not self._is_resumed:
            self._require_budget_left()
        return sized_loader(lambda _: self._next_phase(), self.phases_per_evaluation)

    def val_dataloader(self) -> DataLoader[Episodes]:
        """Return episodes on the seeds of evaluation, one item per task; all ranks must iterate."""
        return self._evaluation_loader(self._validate)

    def test_dataloader(self) -> DataLoader[Episodes]:
        """Return episodes on the seeds of the test, one item per task; all ranks must iterate."""
        test = self.test_episodes, TEST_SEED
        return self._evaluation_loader(lambda: self._play_all(self._evaluated, *test))

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a phase's tensors; Lightning's search through collections takes ten times longer."""
        return batch.to(device) if isinstance(batch, Phase) else batch

    def on_feedback(self, feedback: Feedback) -> None:
        """Take what the learner found out in the last phase."""
        if self.source is not None:
            self.source.on_feedback(feedback)

    def look(self, rows: int) -> Transition:
        """Return rows [S, B] of the learning tasks' replays, drawn evenly; nothing changes.

        Where there are none, rows of the last phase as updates would see them.

        Args:
            rows: B.
        """
        assert self.source is not None, "`setup('fit')` comes first"
        if not isinstance(self.source, FragmentSource):
            return self.source.look(rows)
        assert self.trainer is not None
        learner: Any = self.trainer.lightning_module
        glimpse = self.source.glimpse(rows).to(learner.device)
        phase: Phase = learner.prepare_phase(glimpse)
        (drawn,) = phase.transitions.minibatches()
        return drawn

    @property
    def stored_bytes(self) -> int:
        """Size of what `dump_replay` writes."""
        return sum(slot.replay.stored_bytes for slot in self.slots)

    def dump_replay(self, folder: str | Path) -> None:
        """Write every replay into a folder of its task's name.

        What was in `folder` before is set aside as a whole, for as long as checkpoints of that time
        may be needed. An error while they are written leaves it in its place.
        """
        moment = self.clock.state_dict()
        with whole_folder(Path(folder)) as fresh:
            for slot in self.slots:
                slot.replay.dump(fresh / slot.task, moment)

    def load_replay(self, folder: str | Path, *, of_now: bool = False) -> dict[str, str]:
        """Read back what `dump_replay` wrote.

        Args:
            folder: Where it was written to.
            of_now: Whether replays are left that were written when the clock was another than now.

        Returns:
            By task, why its replay is left as it is; nothing where all were read.
        """
        reasons = [(one.task, self._load_replay(one, Path(folder), of_now)) for one in self.slots]
        anew = [slot.task for slot in self.slots if slot.replay.draws_anew]
        if anew:
            rank_zero_warn(
                f"Rows of {', '.join(anew)} are drawn by their seeds anew: their replays were "
                "drawn from on another kind of device. This run is not the same, bit for bit, as "
                "one that was never stopped."
            )
        return {task: reason for task, reason in reasons if reason is not None}

    def _load_replay(self, slot: Slot, folder: Path, of_now: bool) -> str | None:
        """Return why a replay was not read, or None if it was."""
        found = Replay.stored_moment(folder / slot.task)
        if found is None:
            return f"{folder} holds none"
        if of_now and found != self.clock.state_dict():
            theirs, ours = found["updates"], self.clock.updates
            return f"that in {folder} is of update {theirs}, the checkpoint of update {ours}"
        try:
            slot.replay.load(folder / slot.task, draws_on=True)
        except ValueError as error:
            return str(error).rstrip(".")
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return all that phases to come depend on, but for replays, as checkpoints keep it.

        The state of environments and generators is that of this rank, and left out where there are
        several, of which a checkpoint knows one.
        """
        state = {
            "clock": self.clock.state_dict(),
            "scores": self.scores.state_dict(),
            "episodes": {} if self.source is None else self.source.statistics.state_dict(),
            "sampler": self.sampler.state_dict(),
        }
        if self.trainer is None or self.trainer.world_size > 1:
            return state
        state["random"] = self._random_state or global_random_state(self._device)
        if self.source is not None and self._collector is not None and self.clock.phases > 0:
            state["stream"] = stream_state(self.source, self._collector)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with what `state_dict` returned; a run that is over stops at once.

        Environments that cannot restore their state start new episodes, which the log says.
        """
        self._is_resumed = True
        self.clock.load_state_dict(state_dict["clock"])
        self.scores.load_state_dict(state_dict.get("scores", {}))
        if self.source is not None:
            self.source.statistics.load_state_dict(state_dict.get("episodes", {}))
        self.sampler.load_state_dict(state_dict.get("sampler", {}))
        alone = self.trainer is None or self.trainer.world_size == 1
        # Until the next phase others may draw, who did not in a run that was never stopped.
        self._random_state = state_dict.get("random") if alone else None
        self._continue_stream(state_dict.get("stream", {}) if alone else {})

    def _continue_stream(self, state: dict[str, Any]) -> None:
        if self.source is None or not self.source.acting:
            return
        rank = 0 if self.trainer is None else self.trainer.global_rank
        acting = self.source.acting
        tasks = [slot.task for slot in acting]
        if self._collector is None:
            self.source.forget_episodes()
            self.source.play(self._play_in_background(acting, rank))
            anew, why = tasks, BEHIND
        else:
            seeds = self._seeds_of(tasks, f"exploration {{}}{self._later}", rank)
            self._collector.reseed(seeds)
            anew, why = continue_stream(state, self.source, self._collector)
            self.source.play(
                self._collector.steps(self._seeds_of(tasks, f"{{}}{self._later}", rank))
            )
        if anew and self.clock.phases > 0:
            rank_zero_info(
                f"New episodes start in {', '.join(anew)}: {why}. This run is not the same, bit "
                "for bit, as one that was never stopped."
            )

    def _seeds_of(self, tasks: Sequence[str], purpose: str, rank: int) -> list[int]:
        """Return the seeds of one purpose, `{}` being the task."""
        return [training_seed(self._run_seed, purpose.format(task), rank) for task in tasks]

    def teardown(self, stage: str) -> None:
        """Close the environments of evaluation; those of training go on in a later `fit`.

        Where a process of its own plays training, it ends, and episodes start anew.
        """
        if stage == "fit" and self._background is not None:
            self._background.close()
        for env in self._evaluation_envs.values():
            env.close()
        self._evaluation_envs.clear()

    def _next_phase(self) -> Phase:
        assert self.source is not None, "`setup('fit')` comes first"
        self._begins_phase = True
        if self.trainer is not None:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, PhaseCallback):
                    callback.on_phase_start(self.trainer)
        self._begins_phase = False
        if self._random_state is not None:
            set_global_random_state_(self._random_state, self._device)
            self._random_state = None
        phase = self.source.next_phase()
        for slot in self.source.acting:
            phase.rollout[f"rollout/epsilon/{slot.task}"] = self.epsilon_of(slot.task)
        return phase

    def _bind_sampler(self) -> None:
        learning = [name for name, spec in self.tasks.items() if spec.learns]
        acting = [name for name, spec in self.tasks.items() if is_acting(spec)]
        if self.sampler.needs_scores:
            self.require_scores(list(dict.fromkeys([*learning, *acting])), "the task sampler")
        self.sampler.bind(learning, acting, self.scores, self.clock)

    def require_scores(self, tasks: Sequence[str], what: str, *, in_training: bool = False) -> None:
        """Refuse tasks whose scores are raw returns, for what compares scores with 0 and 1.

        Args:
            tasks: Names.
            what: What follows their scores.
            in_training: Whether scores of training episodes must come of every task.

        Raises:
            ValueError: If a task has neither `score_range` nor `success_key`, or no scores come.
        """
        must = f"be set, or `success_key`, where {what} follows scores"
        for name in tasks:
            spec = self.tasks[name]
            is_scored = not in_training or (spec.learns and is_acting(spec))
            played = f"be played and learned where {what} follows its training episodes"
            require(is_scored, f"tasks.{name}", played, "a task that is not")
            has_score = spec.score_range is not None or spec.success_key is not None
            require(has_score, f"tasks.{name}.score_range", must, spec.score_range)

    def _evaluation_interval(self, interval: int | None) -> int:
        if interval is not None:
            require(interval >= 1, "evaluate_every_env_steps", "be at least 1", interval)
            return interval
        steps = self.total_env_steps
        if steps is None:
            phases = math.ceil((self.total_updates or 1) / self.updates_per_phase)
            steps = phases * self._env_steps_per_phase
        return max(steps // DEFAULT_EVALUATIONS, 1)

    def _require_budget_left(self) -> None:
        """Refuse to go on where a `fit` would stop at once."""
        again = "that this data module has played; build a new one to start over"
        steps, played = self.total_env_steps, self.clock.total_env_steps
        must = f"exceed the {played} env steps {again}"
        require(steps is None or steps > played, "total_env_steps", must, steps)
        updates, made = self.total_updates, self.clock.updates
        must = f"exceed the {made} updates {again}"
        require(updates is None or updates > made, "total_updates", must, updates)

    @property
    def _device(self) -> torch.device:
        """The learner's device."""
        trainer = self.trainer
        return torch.device("cpu") if trainer is None else trainer.strategy.root_device

    def _make_training_env(self, slot: Slot, num_envs: int) -> TaskEnv:
        if self.device_resident:
            return TensorTaskEnv(slot.task, slot.spec, num_envs, self.layout, self._device)
        return TaskEnv(slot.task, slot.spec, num_envs, self.layout)

    def _make_slots(self, ranks: int, rank: int) -> list[Slot]:
        trainer, device = self.trainer, self._device
        local_ranks = 1 if trainer is None or ranks == 1 else trainer.num_devices
        storage, layout = self.replay_storage, self.layout
        own = self.replay_capacity // ranks if self.keeps_replays else 1
        # Every rank learns from the whole of a stored replay.
        capacities = [
            own if spec.replay is None else Replay.stored_capacity(spec.replay)
            for spec in self.tasks.values()
        ]
        # What neither acts nor brings a replay keeps nothing.
        filled = (spec.acts or spec.replay is not None for spec in self.tasks.values())
        rows = sum(compress(capacities, filled))
        labels = sum((self._label_sizes or {}).values())
        sizes = layout.observation_bytes, layout.num_actions
        needed = replay_bytes(rows, *sizes, self._is_masked, labels)
        folder = self._make_replay_folder()
        check_memory(needed, storage, device, folder=folder, local_ranks=local_ranks)
        slots = []
        for index, (task, spec) in enumerate(self.tasks.items()):
            seed = training_seed(self._run_seed, f"replay {task}", rank)
            place = None if folder is None else folder / task
            order, meaning = self._row_sampler(capacities[index]), self._meaning_of(spec)
            replay = Replay(capacities[index], seed, storage, device, order, place, meaning)
            if spec.replay is not None:
                replay.load(spec.replay)
            slots.append(Slot(task, index, spec, replay))
        return slots

    def _row_sampler(self, capacity: int) -> PrioritisedSampler | None:
        """Return what draws the rows of one replay, by priorities of its own; None draws evenly."""
        if self.prioritisation is None:
            return None
        return PrioritisedSampler(capacity, self.prioritisation, self.clock)

    def _meaning_of(self, spec: TaskSpec) -> dict[str, Any]:
        """Return what a task's transitions mean, by the names under which a user states it."""
        stated = {name: getattr(spec, name) for name in MEANING}
        layout = self.layout
        sizes = {"observation_shape": layout.observation_shape, "num_actions": layout.num_actions}
        return {**stated, **sizes, "dtype": layout.dtype.name}

    def _make_replay_folder(self) -> Path | None:
        """Make a folder that runs and ranks beside this one do not use."""
        if self.replay_storage != "disk" or self.replay_folder is None:
            return None
        folder = tempfile.mkdtemp(prefix="replay_", dir=self.replay_folder)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _make_source(self, ranks: int, rank: int) -> PhaseSource:
        acting = [slot for slot in self.slots if slot.acts]
        make: Callable[..., PhaseSource] = PhaseSource if self.keeps_replays else FragmentSource
        count: Callable[..., EpisodeStatistics] = EpisodeStatistics
        if self.device_resident:
            make = partial(DeviceSource, device=self._device)
            count = partial(DeviceStatistics, device=self._device)
        return make(
            self.slots,
            self._make_stream(acting, rank),
            count(
                [slot.task for slot in acting],
                self.num_envs // ranks,
                [slot.spec.success_key is not None for slot in acting],
                max(WINDOW // ranks, 1),
            ),
            self.sampler,
            self.scores,
            self.clock,
            vector_steps=self.phase_vector_steps,
            updates=self.updates_per_phase,
            batch_size=self.batch_size // ranks,
            warmup=self.warmup_env_steps // ranks,
            world_size=ranks,
            sum_over_ranks=self._sum_over_ranks,
            action_mask=self._action_mask if self._is_masked else None,
            returns=self._make_return_tracker(acting, self.num_envs // ranks),
            labels=list(self._label_sizes or {}),
            wrong_steps=self._file_of_wrong_steps,
            seed=training_seed(self._run_seed, "sampler", rank),
        )

    @property
    def _needs_numbers(self) -> bool:
        """Whether steps without numbers end a run: not where updates that meet one are skipped."""
        trainer: Any = self.trainer
        return trainer is not None and not any(
            isinstance(callback, SkippedUpdates) for callback in trainer.callbacks
        )

    def _file_of_wrong_steps(self) -> Path | None:
        """Return where steps without numbers are saved; None where they may pass."""
        return file_of_rank(self.trainer, "non_finite_steps") if self._needs_numbers else None

    def _make_stream(self, acting: list[Slot], rank: int) -> Iterator[StepRow] | None:
        """Return the vector steps of all acting slots; None if nothing acts."""
        if not acting:
            return None
        if self.background:
            return self._play_in_background(acting, rank)
        self._collector = self._make_collector(acting, rank)
        return self._collector.steps(self._seeds_of([slot.task for slot in acting], "{}", rank))

    def _play_in_background(self, acting: list[Slot], rank: int) -> BackgroundSteps:
        """Return steps of a process of their own; the one before ends."""
        if self._background is not None:
            self._background.close()
        tasks = [slot.task for slot in acting]
        self._background = background_steps(
            acting,
            self.layout,
            self.num_envs // (1 if self.trainer is None else self.trainer.world_size),
            self._action_mask.numpy()[[slot.index for slot in acting]],
            partial(self._epsilons, acting),
            None if self.trainer is None else self.trainer.lightning_module,
            self.phase_vector_steps,
            self._seeds_of(tasks, f"exploration {{}}{self._later}", rank),
            self._seeds_of(tasks, f"{{}}{self._later}", rank),
            training_seed(self._run_seed, f"noise{self._later}", rank),
        )
        return self._background

    def _epsilons(self, acting: list[Slot]) -> np.ndarray:
        return np.array([self.epsilon_of(slot.task) for slot in acting])

    @property
    def _later(self) -> str:
        """What sets purposes of seeds apart from those with which the run began.

        Episodes and actions of these have been seen.
        """
        return f" from phase {self.clock.phases}" if self.clock.phases else ""

    def _observed_slots(self) -> list[Slot]:
        """Return the slots whose observations, and no rewards, the learner asks for."""
        trainer = self.trainer
        learner = None if trainer is None else trainer.lightning_module
        observed = [slot for slot in self.slots if slot.task in getattr(learner, "observes", ())]
        for slot in observed:
            is_filled = slot.acts or slot.spec.replay is not None
            must = "be true, or `replay` a folder, where its observations are compared"
            require(is_filled, f"tasks.{slot.task}.acts", must, slot.spec.acts)
        rows = self.batch_size // (1 if trainer is None else trainer.world_size)
        must = "hold at least 2 rows a rank where samples of observations are compared"
        require(not observed or rows >= 2, "batch_size", must, self.batch_size)
        return observed

    def _make_return_tracker(self, acting: list[Slot], num_envs: int) -> ReturnTracker | None:
        learner = None if self.trainer is None else self.trainer.lightning_module
        if not getattr(learner, "needs_returns", False):
            return None
        must = "be false where the learner scales values by returns"
        require(not self.device_resident, "device_resident", must, self.device_resident)
        return ReturnTracker([slot.spec for slot in acting], num_envs)

    def _make_collector(self, acting: list[Slot], rank: int) -> Collector:
        mask = self._action_mask.numpy()
        return Collector(
            self._training_envs,
            self._policy(),
            [slot.index for slot in acting],
            mask[[slot.index for slot in acting]],
            self.exploration,
            partial(self._epsilons, acting),
            self._seeds_of([slot.task for slot in acting], "exploration {}", rank),
            lambda: None if self.source is None else self.source.active,
            self._labeller,
            self._device if self.device_resident else None,
        )

    def epsilon_of(self, task: str) -> float:
        """Return the probability of a random action in a task's next training step."""
        return self.exploration.epsilon_at(self.clock.env_steps[task], self.warmup_env_steps)

    def _evaluation_loader(self, play: Callable[[], list[Episodes]]) -> DataLoader[Episodes]:
        """Return a loader of the episodes of each task, all played when the first is asked for.

        Ranks that waited for one another after each task would play one after the other.
        """
        played: list[Episodes] = []

        def report(index: int) -> Episodes:
            if index == 0:
                played[:] = play()
            return played[index]

        return sized_loader(report, len(self._evaluated))

    @property
    def _evaluated(self) -> list[str]:
        return [name for name, spec in self.tasks.items() if spec.evaluates]

    def _validate(self) -> list[Episodes]:
        reports = self._play_all(self._evaluated, self.eval_episodes, VALIDATION_SEED)
        infos = {info.name: info for info in self.task_infos}
        for episodes in reports:
            # A task that acts is scored by its training episodes, after every phase.
            if not is_acting(self.tasks[episodes.task]):
                self.scores.add_score(episodes.task, task_score(episodes, infos[episodes.task]))
        return reports

    def play(self, task: str, episodes: int, seed: int) -> Episodes:
        """Play greedy episodes of one task with the learner and report them; all ranks must ask.

        Args:
            task: Name of the task.
            episodes: Number of episodes.
            seed: Seed of their starts.
        """
        (report,) = self._play_all([task], episodes, seed)
        return report

    def _play_all(self, tasks: Sequence[str], episodes: int, seed: int) -> list[Episodes]:
        """Return episodes of tasks, of which each rank plays a share.

        Tasks and rounds are dealt out whole: the result is to the last bit that of one process.
        """
        trainer = self.trainer
        ranks = 1 if trainer is None else trainer.world_size
        rank = 0 if trainer is None else trainer.global_rank
        own = [
            self._play_rounds(task, episodes, seed, slice((rank - place) % ranks, None, ranks))
            for place, task in enumerate(tasks)
        ]
        reports = own if ranks == 1 else gather_episodes(own, self._sum_over_ranks)
        if self._needs_numbers:
            require_numbers(reports, seed)
        return reports

    def _play_rounds(self, task: str, episodes: int, seed: int, rounds: slice) -> Episodes:
        spec, key = self.tasks[task], (task, episodes)
        if not range(most_rounds(episodes))[rounds]:
            return unplayed(task, spec, episodes)
        if key not in self._evaluation_envs:
            self._evaluation_envs[key] = make_evaluation_env(task, spec, episodes, self.layout)
        index = list(self.tasks).index(task)
        return play_episodes(
            self._policy(),
            self._evaluation_envs[key],
            index,
            num_actions=self.task_infos[index].num_actions,
            epsilon=self.eval_epsilon,
            seed=seed,
            max_steps=self.eval_max_steps,
            episodes=episodes,
            rounds=rounds,
        )

    @property
    def _action_mask(self) -> Tensor:
        """Actions that each task has, [T, A]."""
        return padded_action_mask([info.num_actions for info in self.task_infos])

    @property
    def _is_masked(self) -> bool:
        """Whether some task forbids actions as it goes."""
        return any(spec.action_mask_key is not None for spec in self.tasks.values())

    def _policy(self) -> ActionValues:
        policy = None if self.trainer is None else self.trainer.lightning_module
        if not isinstance(policy, ActionValues):
            raise TypeError(
                "`model` must have a method `action_values(observation, task)`. "
                f"Got {type(policy).__name__}."
            )
        return policy

    @property
    def _labeller(self) -> LabelsTransitions | None:
        """The learner, where it has something to be stored with transitions."""
        learner = None if self.trainer is None else self.trainer.lightning_module
        if isinstance(learner, LabelsTransitions) and learner.label_sizes:
            return learner
        return None

    def _require_same_labels(self) -> None:
        """Note what is stored with transitions; refuse replays that do not hold it."""
        labeller = self._labeller
        sizes = {} if labeller is None else dict(labeller.label_sizes)
        known = sizes if self._label_sizes is None else self._label_sizes
        must = f"store the labels {known} that this data module has stored; build a new one"
        require(sizes == known, "model", must, sizes)
        self._label_sizes = sizes
        for name, spec in self.tasks.items():
            must = f"be null where {', '.join(sizes)} are stored as a task is played"
            is_played = not sizes or not spec.learns or is_acting(spec)
            require(is_played, f"tasks.{name}.replay", must, spec.replay)

    @property
    def _run_seed(self) -> int:
        return torch.initial_seed() if self.seed is None else self.seed

    def _sum_over_ranks(self, count: Tensor) -> Tensor:
        if self.trainer is None or self.trainer.world_size == 1:
            return count
        return sum_over_ranks(count.to(self.trainer.strategy.root_device)).cpu()


def _whole_updates(replay_ratio: float, vector_steps: int, num_envs: int) -> int:
    """Return K, the updates per phase."""
    rows = vector_steps * num_envs
    updates = replay_ratio * rows
    nearest = max(round(updates), 1)
    if abs(updates - nearest) > 1e-6 * nearest:
        valid = sorted({max(math.floor(updates), 1) / rows, math.ceil(updates) / rows})
        raise ValueError(
            "`replay_ratio` x `phase_vector_steps` x `num_envs` must be a whole number of updates. "
            f"Got {replay_ratio} x {vector_steps} x {num_envs} = {updates:g}. "
            f"The nearest valid `replay_ratio`: {' or '.join(f'{ratio:.10g}' for ratio in valid)}."
        )
    return nearest
