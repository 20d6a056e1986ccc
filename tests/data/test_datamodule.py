import gc
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gymnasium
import lightning
import numpy as np
import psutil
import pytest
import torch
from helpers.asserts import complaint
from helpers.counting_env import SINGLE, VECTOR, CountingEnv, identity_of
from helpers.failing_env import FAILING
from helpers.gpu_generator import GpuGenerator
from helpers.oracle import timeline
from helpers.runs import COUNTING, fit, quiet_trainer, small_data, small_model
from helpers.showing_env import SHOWING
from helpers.tape import Tape
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import lit_mtdqn.data.datamodule
from lit_mtdqn import RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import SkippedUpdates
from lit_mtdqn.rollout.seeding import TEST_SEED, VALIDATION_SEED
from lit_mtdqn.types import Clock, Episodes, Linear, NonFiniteError

GIB = 2**30
TEXT = gymnasium.spaces.Text(5)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"phase_vector_steps": 0}, "phase_vector_steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"replay_capacity": 0}, "replay_capacity"),
        ({"replay_capacity": 9}, "replay_capacity"),
        ({"replay_capacity": 12, "batch_size": 13}, "replay_capacity"),
        ({"replay_ratio": 0.0}, "replay_ratio"),
        ({"replay_ratio": -0.5}, "replay_ratio"),
        ({"replay_ratio": float("nan")}, "replay_ratio"),
        ({"warmup_env_steps": -1}, "warmup_env_steps"),
        ({"total_env_steps": 10}, "total_env_steps"),
        ({"total_env_steps": 0, "warmup_env_steps": 0}, "total_env_steps"),
        ({"total_env_steps": None}, "total_env_steps"),
        ({"total_updates": 0}, "total_updates"),
        ({"evaluate_every_env_steps": 0}, "evaluate_every_env_steps"),
        ({"eval_episodes": 0}, "eval_episodes"),
        ({"test_episodes": 0}, "test_episodes"),
        ({"eval_max_steps": 0}, "eval_max_steps"),
        ({"eval_epsilon": -0.1}, "eval_epsilon"),
        ({"num_workers": 1}, "num_workers"),
    ],
    ids=str,
)
def test_an_argument_out_of_range_is_refused_in_one_sentence(
    options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        small_data(**options)


@pytest.mark.parametrize(
    ("tasks", "name"),
    [
        ({"two words": COUNTING}, "tasks"),
        ({"count": TaskSpec(env=VECTOR, learns=False)}, "tasks"),
        ({"maze": TaskSpec(env="NoSuchEnv-v0")}, "tasks.maze.env"),
        ({"maze": TaskSpec(env=SINGLE, wrappers=["NoSuchWrapper"])}, "tasks.maze.wrappers"),
        ({"swing": TaskSpec(env="Pendulum-v1")}, "tasks.swing.env"),
        ({"play": TaskSpec(env=SHOWING, kwargs={"observation_space": TEXT})}, "tasks.play.env"),
    ],
    ids=["name", "nothing learns", "unknown", "wrapper", "actions", "observations"],
)
def test_a_task_that_cannot_be_used_is_refused_in_one_sentence(
    tasks: dict[str, TaskSpec], name: str
) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        small_data(tasks)


def test_no_task_at_all_is_refused_as_such() -> None:
    with pytest.raises(ValueError, match=r"^`tasks` must hold at least one task\. Got \{\}\.$"):
        RolloutDataModule({})


def test_vectors_and_images_together_are_refused() -> None:
    image = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    tasks = {"a": COUNTING, "b": TaskSpec(env=SHOWING, kwargs={"observation_space": image})}
    with pytest.raises(ValueError, match=complaint("tasks")):
        small_data(tasks)


def test_the_warm_up_of_all_acting_tasks_must_fit_into_the_budget() -> None:
    tasks = {"a": COUNTING, "b": COUNTING}
    small_data(tasks, warmup_env_steps=49, total_env_steps=99)
    with pytest.raises(ValueError, match=r"exceed the warm-up of 100 env steps over 2 task\(s\)"):
        small_data(tasks, warmup_env_steps=50, total_env_steps=100)


def test_without_an_acting_task_the_budget_must_count_updates() -> None:
    tasks = {"count": TaskSpec(env=VECTOR, replay="somewhere")}
    small_data(tasks, total_env_steps=None, total_updates=10)
    with pytest.raises(ValueError, match=r"^`total_updates` must be set .+ Got None\.$"):
        small_data(tasks, total_env_steps=100)


def test_a_task_that_learns_must_act_or_bring_a_replay() -> None:
    tasks = {"count": COUNTING, "still": TaskSpec(env=VECTOR, acts=False)}
    with pytest.raises(ValueError, match=complaint("tasks.still.replay")):
        small_data(tasks)


@pytest.mark.parametrize(
    ("replay_ratio", "vector_steps", "num_envs", "updates"),
    [(0.0625, 8, 16, 8), (1.0, 1, 1, 1), (2.0, 1, 3, 6), (0.1, 5, 2, 1), (1 / 3, 4, 3, 4)],
)
def test_updates_per_phase_follow_from_the_ratio_and_not_from_the_number_of_tasks(
    replay_ratio: float, vector_steps: int, num_envs: int, updates: int
) -> None:
    for tasks in ({"a": COUNTING}, {"a": COUNTING, "b": COUNTING}):
        data = small_data(
            tasks,
            replay_ratio=replay_ratio,
            phase_vector_steps=vector_steps,
            num_envs=num_envs,
        )
        assert data.updates_per_phase == updates


@given(
    replay_ratio=st.floats(0.001, 4.0),
    vector_steps=st.integers(1, 40),
    num_envs=st.integers(1, 130),
)
@settings(max_examples=60, deadline=None)
def test_for_a_fraction_of_an_update_the_nearest_valid_ratios_are_named(
    replay_ratio: float, vector_steps: int, num_envs: int
) -> None:
    rows = vector_steps * num_envs
    exact = replay_ratio * rows
    assume(abs(exact - round(exact)) > 0.01)
    options: dict[str, Any] = {"phase_vector_steps": vector_steps, "num_envs": num_envs}
    with pytest.raises(ValueError, match=r"must be a whole number of updates\. Got") as caught:
        small_data(replay_ratio=replay_ratio, **options)
    (named,) = re.findall(r"The nearest valid `replay_ratio`: (.+)\.$", str(caught.value))
    ratios = [float(text) for text in named.split(" or ")]
    below, above = max(int(exact), 1), int(exact) + 1
    accepted = [small_data(replay_ratio=r, **options).updates_per_phase for r in ratios]
    assert accepted == sorted({below, above})


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize(
    "budget", [{"total_env_steps": 9_600}, {"total_env_steps": None, "total_updates": 2_400}]
)
def test_a_run_is_evaluated_ten_times_unless_told_otherwise(
    num_tasks: int, budget: dict[str, int | None]
) -> None:
    tasks = {f"count_{number}": COUNTING for number in range(num_tasks)}
    data = small_data(tasks, evaluate_every_env_steps=None, **budget)
    steps, updates = budget["total_env_steps"], budget.get("total_updates")
    phases = (updates or 0) / 2 if steps is None else steps / (8 * num_tasks)
    assert phases / data.phases_per_evaluation == pytest.approx(10)


@pytest.mark.parametrize(("interval", "phases"), [(1, 1), (16, 1), (31, 1), (48, 3)])
def test_an_epoch_is_as_many_phases_as_make_the_env_steps_between_evaluations(
    interval: int, phases: int
) -> None:
    data = small_data({"a": COUNTING, "b": COUNTING}, evaluate_every_env_steps=interval)
    assert data.phases_per_evaluation == phases
    assert len(data.train_dataloader()) == phases


def test_replays_that_do_not_fit_are_refused_before_the_first_env_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tape = Tape()
    data = small_data({"count": TaskSpec(env=VECTOR, kwargs={"tape": tape})})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    with pytest.raises(ValueError, match=r"^`data\.replay_capacity` must fit into ram\. Got"):
        fit(data, small_model(data))
    assert not tape.events


def test_the_replays_of_all_tasks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=60_000))
    one = small_data(replay_storage="disk", total_env_steps=20)
    fit(one, small_model(one))
    three = small_data(dict.fromkeys("abc", COUNTING), replay_storage="disk")
    with pytest.raises(ValueError, match=r"must fit into disk"):
        fit(three, small_model(three))


def test_the_replays_of_all_ranks_of_a_machine_count(monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[tuple[int, int]] = []

    def check(needed: int, *_: Any, local_ranks: int, **__: Any) -> None:
        checks.append((needed, local_ranks))

    monkeypatch.setattr(lit_mtdqn.data.datamodule, "check_memory", check)
    for ranks in (1, 2):
        data = small_data({"a": COUNTING, "b": COUNTING})
        data.trainer = _fake_trainer(data, ranks)
        data.setup("fit")
    (alone, _), (shared, _) = checks
    assert [ranks for _, ranks in checks] == [1, 2]
    assert shared * 2 == alone


def test_files_of_a_replay_lie_in_their_folder_and_go_with_the_data_module(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "not" / "there"
    options: dict[str, Any] = {"replay_storage": "disk", "replay_folder": str(folder)}
    tasks = {"a": COUNTING, "b": COUNTING}
    first, second = small_data(tasks, **options), small_data(tasks, **options)
    for data in (first, second):
        fit(data, small_model(data))
    runs = [{file.parent.name for file in run.rglob("*reward*")} for run in folder.iterdir()]
    assert runs == [{"a", "b"}, {"a", "b"}]
    del data, first
    gc.collect()
    assert len(list(folder.iterdir())) == 1
    assert second.slots[0].replay.sample(3)


def test_a_folder_that_cannot_hold_replays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = str(tmp_path / "file" / "folder")
    small_data(replay_folder=folder)
    with pytest.raises(ValueError, match=complaint("data.replay_folder")):
        small_data(replay_folder=folder, replay_storage="disk")


def _fake_trainer(data: RolloutDataModule, ranks: int, rank: int = 0) -> Any:
    return SimpleNamespace(
        world_size=ranks,
        num_devices=ranks,
        global_rank=rank,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        lightning_module=small_model(data),
        callbacks=[],
        default_root_dir="run",
    )


@pytest.mark.parametrize("name", ["num_envs", "batch_size", "replay_capacity"])
def test_what_ranks_share_must_be_divisible(name: str) -> None:
    even: dict[str, Any] = {
        "num_envs": 6,
        "batch_size": 6,
        "replay_capacity": 60,
        "replay_ratio": 1.0,
    }
    data = small_data(**{**even, name: {"num_envs": 4}.get(name, 50)})
    data.trainer = SimpleNamespace(world_size=3, global_rank=0)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=rf"^`{name}` must be divisible by the 3 ranks\. Got"):
        data.setup("fit")


def test_a_model_that_cannot_act_is_refused() -> None:
    data = small_data()
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=1, global_rank=0, strategy=strategy, lightning_module=torch.nn.Linear(2, 2)
    )
    with pytest.raises(TypeError, match=r"^`model` must have a method `action_values.+Got Linear"):
        data.setup("fit")


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_only_training_builds_replays_and_training_environments(stage: str) -> None:
    tape = Tape()
    data = small_data({"count": TaskSpec(env=VECTOR, kwargs={"tape": tape})})
    data.setup(stage)
    assert data.slots == []
    assert data.source is None


def _starts(
    tasks: Mapping[str, TaskSpec], seed: int | None = 7
) -> dict[tuple[str, int], list[int]]:
    """Run, test, and return the seeds of all resets by task and number of copies."""
    tapes = {name: Tape() for name in tasks}
    specs = {name: TaskSpec(env=VECTOR, kwargs={"tape": tape}) for name, tape in tapes.items()}
    data = small_data(specs, seed=seed)
    model = small_model(data)
    trainer = fit(data, model)
    trainer.test(model, data, verbose=False)
    return {
        (name, copies): [event.details["seed"] for event in tape.named("reset", num_envs=copies)]
        for name, tape in tapes.items()
        for copies in (2, 3, 5)
    }


def test_training_selection_and_test_start_from_seeds_of_their_own() -> None:
    starts = _starts({"a": COUNTING})
    assert len(starts["a", 2]) == 1
    assert starts["a", 2][0] > TEST_SEED + 5
    assert len(starts["a", 3]) >= 2
    assert set(starts["a", 3]) == {VALIDATION_SEED}
    assert starts["a", 5] == [TEST_SEED]


def test_another_task_leaves_a_tasks_seeds_as_they_were() -> None:
    alone, together = _starts({"a": COUNTING}), _starts({"b": COUNTING, "a": COUNTING})
    assert alone["a", 2] == together["a", 2] != together["b", 2]


def test_without_a_seed_pytorchs_decides() -> None:
    starts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        starts.append(_starts({"a": COUNTING}, seed=None)["a", 2])
    assert starts[0] == starts[1] != starts[2]


def test_env_steps_are_counted_by_task_and_without_reset_rows() -> None:
    tapes = {name: Tape() for name in ("a", "b")}
    specs = {name: TaskSpec(env=VECTOR, kwargs={"tape": tape}) for name, tape in tapes.items()}
    data = small_data(specs)
    fit(data, small_model(data))
    for name, tape in tapes.items():
        (reset,) = tape.named("reset", num_envs=2)
        rows = len(tape.named("step", num_envs=2))
        identities = [identity_of(reset.details["seed"] + place) for place in range(2)]
        moments = [timeline(identity, rows) for identity in identities]
        valid = sum(moment is not None for column in moments for moment in column)
        assert data.clock.env_steps[name] == valid


def test_epsilon_follows_from_the_tasks_own_env_steps() -> None:
    data = small_data({"a": COUNTING, "b": COUNTING}, warmup_env_steps=10)
    data.exploration.epsilon = Linear(start=1.0, end=0.0, duration=100)
    data.clock.env_steps.update(a=9, b=40)
    assert [data.epsilon_of("a"), data.epsilon_of("b")] == pytest.approx([1.0, 0.6])


def test_epsilon_is_constant_after_warm_up_unless_something_rules_it() -> None:
    data = small_data(warmup_env_steps=10)
    data.exploration.epsilon = 0.3
    values = []
    for steps in (0, 9, 10, 10_000):
        data.clock.env_steps["count"] = steps
        values.append(data.epsilon_of("count"))
    assert values == [1.0, 1.0, 0.3, 0.3]


def test_a_phase_reports_epsilon_by_task() -> None:
    data = small_data({"a": COUNTING, "still": TaskSpec(env=VECTOR, learns=False)})
    data.exploration.epsilon = 0.3
    model = small_model(data)
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(model)
    data.setup("fit")
    phase = next(iter(data.train_dataloader()))
    assert phase.rollout["rollout/epsilon/a"] == phase.rollout["rollout/epsilon/still"] == 0.3


def test_a_saved_clock_is_continued() -> None:
    first, second = small_data(), small_data()
    first.clock.env_steps["count"], first.clock.updates, first.clock.phases = 40, 8, 4
    second.load_state_dict(first.state_dict())
    assert second.clock == Clock({"count": 40}, updates=8, phases=4)


@pytest.mark.parametrize(
    ("options", "clock", "is_finished"),
    [
        ({"total_env_steps": 100}, Clock({"count": 99}), False),
        ({"total_env_steps": 100}, Clock({"count": 100}), True),
        ({"total_env_steps": None, "total_updates": 10}, Clock({"count": 999}, updates=9), False),
        ({"total_env_steps": None, "total_updates": 10}, Clock({"count": 0}, updates=10), True),
        ({"total_env_steps": 100, "total_updates": 10}, Clock({"count": 99}, updates=10), True),
    ],
)
def test_a_run_is_finished_when_either_budget_is_used_up(
    options: dict[str, Any], clock: Clock, is_finished: bool
) -> None:
    data = small_data(**options)
    data.clock = clock
    assert data.is_finished == is_finished


def test_replays_are_dumped_and_loaded_by_task(tmp_path: Path) -> None:
    tasks = {"a": TaskSpec(env=VECTOR, gamma=0.5), "b": TaskSpec(env=SINGLE, gamma=0.25)}
    first, second = small_data(tasks), small_data(dict(reversed(tasks.items())))
    fit(first, small_model(first))
    first.dump_replay(tmp_path)
    fit(second, small_model(second))
    second.load_replay(tmp_path)
    held = {slot.task: slot.replay for slot in second.slots}
    for slot in first.slots:
        expected, actual = slot.replay.sample(20), held[slot.task].sample(20)
        for name in expected:
            assert torch.equal(actual[name], expected[name]), name


def test_replays_whose_draws_begin_anew_are_named_at_once(tmp_path: Path) -> None:
    data = small_data(dict.fromkeys("abc", COUNTING))
    fit(data, small_model(data))
    for slot in data.slots[:2]:
        slot.replay._draw_by(GpuGenerator())
    data.dump_replay(tmp_path)
    with pytest.warns(UserWarning, match=r"^Rows of a, b are drawn by their seeds anew") as told:
        assert data.load_replay(tmp_path) == {}
    assert len(told) == 1


def test_replays_can_be_dumped_and_loaded_before_the_first_transition(tmp_path: Path) -> None:
    data = small_data()
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(small_model(data))
    data.setup("fit")
    data.dump_replay(tmp_path)
    data.load_replay(tmp_path)
    assert [len(slot.replay) for slot in data.slots] == [0]


def _stored(folder: Path, **fields: Any) -> TaskSpec:
    """Return a task that learns from what another run has left behind."""
    data = small_data({"count": TaskSpec(env=VECTOR, **fields)})
    fit(data, small_model(data))
    data.dump_replay(folder)
    return TaskSpec(env=VECTOR, replay=str(folder / "count"), **fields)


def test_a_stored_replay_is_learned_from_without_acting(tmp_path: Path) -> None:
    tape = Tape()
    spec = _stored(tmp_path)
    offline = TaskSpec(env=VECTOR, replay=spec.replay, kwargs={"tape": tape})
    data = small_data({"count": offline}, total_env_steps=None, total_updates=20)
    model = small_model(data)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    fit(data, model)
    assert data.clock == Clock({"count": 0}, updates=20, phases=10)
    assert not tape.named("step", num_envs=2)
    after = model.network.state_dict()
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_stored_replay_keeps_its_own_capacity(tmp_path: Path) -> None:
    tasks = {"stored": _stored(tmp_path), "count": COUNTING}
    with pytest.MonkeyPatch.context() as patch:
        needed: list[int] = []
        patch.setattr(
            lit_mtdqn.data.datamodule, "check_memory", lambda size, *_, **__: needed.append(size)
        )
        for ranks in (1, 2):
            data = small_data(tasks, replay_capacity=40)
            data.trainer = _fake_trainer(data, ranks)
            data.setup("fit")
            capacities = {slot.task: slot.replay.capacity for slot in data.slots}
            assert capacities == {"stored": 500, "count": 40 // ranks}
            assert len(data.slots[0].replay) > 40
    assert needed[0] * 520 == needed[1] * 540


def test_a_stored_replay_that_is_not_there_is_refused() -> None:
    data = small_data({"count": TaskSpec(env=VECTOR, replay="nowhere"), "b": COUNTING})
    data.trainer = _fake_trainer(data, 1)
    with pytest.raises(ValueError, match=complaint("replay")):
        data.setup("fit")


def test_a_stored_replay_without_masks_allows_all_actions_beside_a_task_with_masks(
    tmp_path: Path,
) -> None:
    wide = {"num_actions": 5}
    tasks = {
        "masked": TaskSpec(env=VECTOR, action_mask_key="mask", kwargs=wide),
        "stored": _stored(tmp_path),
    }
    data = small_data(tasks)
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(small_model(data))
    data.setup("fit")
    phase = next(iter(data.train_dataloader()))
    for name in ("action_mask", "next_action_mask"):
        mask = phase.transitions.extra[name]
        assert mask.shape == (2, 2, 4, 5)
        assert (mask[:, 0].sum(-1) == 4).all()
        assert (mask[:, 1] == torch.tensor([True, True, False, False, False])).all()


@pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero")
@pytest.mark.parametrize("evaluates", [["a"], ["b"], []])
def test_only_tasks_that_evaluate_are_evaluated(evaluates: list[str]) -> None:
    tasks = {name: TaskSpec(env=VECTOR, evaluates=name in evaluates) for name in ("a", "b")}
    data = small_data(tasks)
    model = small_model(data)
    trainer = fit(data, model)
    scores = {name for name in trainer.callback_metrics if name.startswith("val/score/")}
    assert scores == {f"val/score/{name}" for name in evaluates} | (
        {"val/score/mean", "val/score/worst"} if evaluates else set()
    )


def test_evaluation_environments_are_closed_after_every_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[CountingEnv] = []
    monkeypatch.setattr(CountingEnv, "close", lambda self: closed.append(self))
    data = small_data({"count": TaskSpec(env=SINGLE)})
    model = small_model(data)
    probed = len(closed)
    trainer = fit(data, model)
    assert len(closed) == probed + 3
    trainer.test(model, data, verbose=False)
    assert len(closed) == probed + 3 + 5


def test_a_second_learner_acts_itself() -> None:
    """The data module outlives its first Trainer and goes on with the same environments."""
    data = small_data(total_env_steps=60, warmup_env_steps=0)
    fit(data, small_model(data))
    data.total_env_steps = 120
    model = small_model(data)
    act = Mock(wraps=model.action_values)
    model.action_values = act  # type: ignore[method-assign]
    fit(data, model)
    copies = [call.args[0].shape[1] for call in act.call_args_list]
    assert copies.count(2) >= 30 / 2


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        (
            {"total_env_steps": 60},
            r"^`total_env_steps` must exceed the \d\d env steps .+ Got 60\.$",
        ),
        (
            {"total_env_steps": None, "total_updates": 4},
            r"^`total_updates` must exceed the 4 updates .+ Got 4\.$",
        ),
    ],
)
def test_a_data_module_that_has_used_up_its_budget_is_refused(
    budget: dict[str, Any], sentence: str
) -> None:
    tape = Tape()
    data = small_data({"count": TaskSpec(env=VECTOR, kwargs={"tape": tape})}, **budget)
    trainer = fit(data, small_model(data))
    played = len(tape.events)
    for again in (quiet_trainer(), trainer):
        with pytest.raises(ValueError, match=sentence):
            again.fit(small_model(data), data)
    assert len(tape.events) == played


def test_a_data_module_may_resume_a_finished_run_of_its_own(tmp_path: Path) -> None:
    data = small_data(total_env_steps=60)
    path = str(tmp_path / "last.ckpt")
    fit(data, small_model(data)).save_checkpoint(path)
    clock = Clock(**data.clock.state_dict())
    quiet_trainer().fit(small_model(data), data, ckpt_path=path, weights_only=True)
    assert data.clock == clock


def test_tasks_may_be_plain_mappings() -> None:
    tasks: Any = {"a": {"env": VECTOR, "gamma": 0.5}, "b": COUNTING}
    assert small_data(tasks).tasks == {"a": TaskSpec(env=VECTOR, gamma=0.5), "b": COUNTING}
    with pytest.raises(ValueError, match=r"^`tasks\.a` must .+ Got 'gama'\.$"):
        small_data({"a": {"env": VECTOR, "gama": 0.5}})  # type: ignore[dict-item]


def test_single_copies_are_evaluated_in_rounds_from_the_same_starts() -> None:
    tasks = {"single": TaskSpec(env=SINGLE), "batched": TaskSpec(env=VECTOR)}
    data = small_data(tasks, eval_max_steps=50)
    data.trainer = _fake_trainer(data, 1)
    single, batched = (data.play(task, 40, seed=5) for task in tasks)
    assert single.episode_return.tolist() == batched.episode_return.tolist()
    assert single.episode_length.shape == (40,)
    copies = {task: env.num_envs for (task, _), env in data._evaluation_envs.items()}
    assert copies == {"single": 20, "batched": 40}


@pytest.mark.parametrize("ranks", [2, 3, 9])
@pytest.mark.parametrize("stage", ["val", "test"])
def test_ranks_play_an_evaluation_between_them_with_the_episodes_of_one_process(
    stage: str, ranks: int
) -> None:
    tasks = {
        "single": TaskSpec(env=SINGLE, success_key="success"),
        "batched": TaskSpec(env=VECTOR),
        "unseen": TaskSpec(env=VECTOR, evaluates=False),
    }
    counts = {"eval_episodes": 70, "test_episodes": 40, "eval_epsilon": 0.5, "eval_max_steps": 9}

    def episodes_of(rank: int, ranks: int, total: Any = None) -> list[Episodes]:
        torch.manual_seed(0)
        data = small_data(tasks, **counts)
        data.trainer = _fake_trainer(data, ranks, rank)
        if total is not None:
            data._sum_over_ranks = total  # type: ignore[method-assign]
        return list(getattr(data, f"{stage}_dataloader")())

    shares: list[torch.Tensor] = []

    def noted(share: torch.Tensor) -> torch.Tensor:
        shares.append(share.clone())
        return share

    for rank in range(ranks):
        episodes_of(rank, ranks, noted)
    # One message from each, from those with nothing to play, too.
    assert len(shares) == ranks
    assert int((torch.stack(shares) != 0.0).any(0).sum()) == sum(
        int((share != 0.0).sum()) for share in shares
    )
    expected = episodes_of(0, 1)
    for rank in (0, ranks - 1):
        found = episodes_of(rank, ranks, lambda _: torch.stack(shares).sum(0))
        for own, other in zip(found, expected, strict=True):
            np.testing.assert_equal(own._asdict(), other._asdict())


def test_the_number_of_updates_per_phase_is_announced(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = small_data(total_env_steps=20)
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        fit(data, small_model(data))
    assert "4 steps of 2 environments in 1 task(s), then 2 update(s)" in (
        caplog.text + capsys.readouterr().err
    )


def test_after_steps_that_were_no_numbers_a_data_module_is_not_used_again(tmp_path: Path) -> None:
    faulty = {"how": "reward", "when": "step", "only_in": None, "parent": 0, "after": 7}
    data = small_data({"faulty": TaskSpec(env=FAILING, kwargs=faulty, evaluates=False)})
    model = small_model(data)
    with pytest.raises(NonFiniteError, match="`reward` of task faulty must be finite"):
        fit(data, model, default_root_dir=tmp_path)
    assert (tmp_path / "non_finite_steps.pt").is_file()
    with pytest.raises(ValueError, match=complaint("datamodule")):
        fit(data, model, SkippedUpdates(), default_root_dir=tmp_path)


def test_an_evaluation_without_numbers_ends_a_run_but_where_updates_are_skipped(
    tmp_path: Path,
) -> None:
    faulty = {"how": "reward", "when": "step", "only_in": None, "parent": 0, "after": 0}
    tasks = {
        "count": TaskSpec(env=SINGLE),
        "faulty": TaskSpec(env=FAILING, kwargs=faulty, acts=False, learns=False),
    }

    def run(*callbacks: Any) -> lightning.Trainer:
        data = small_data(tasks)
        return fit(data, small_model(data), *callbacks, default_root_dir=tmp_path)

    with pytest.raises(NonFiniteError, match="`episode_return` of task faulty must be finite"):
        run()
    assert not math.isfinite(run(SkippedUpdates()).callback_metrics["val/episode_return/faulty"])
