"""Phases on a device: what they hold, and what leaves it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from helpers.asserts import complaint
from helpers.counting_env import VECTOR
from helpers.runs import NETWORK, fit, quiet_trainer, small_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lit_mtdqn import RolloutDataModule, TaskSpec
from lit_mtdqn.data import EveryTask, SoftmaxTasks, device
from lit_mtdqn.data.device import DeviceSource, fetch
from lit_mtdqn.data.phases import PhaseSource
from lit_mtdqn.data.slots import Slot
from lit_mtdqn.envs import TensorTaskEnv, probe_tasks
from lit_mtdqn.replay import Prioritisation, Replay
from lit_mtdqn.rollout import (
    Boltzmann,
    Collector,
    DeviceStatistics,
    EpisodeStatistics,
    EpsilonGreedy,
)
from lit_mtdqn.scaling import ReturnScaling
from lit_mtdqn.types import Clock, NonFiniteError, StepRow, TaskScores

NUM_ENVS, VECTOR_STEPS, CAPACITY, UPDATES = 6, 10, 500, 4
CPU, META = torch.device("cpu"), torch.device("meta")
# Of unlike sizes, over several steps, clipped, with noise and both kinds of ends.
TASKS = {
    "pedestrian": TaskSpec(
        env="lit_mtdqn/Pedestrian-v0",
        kwargs={"observation_noise": 0.1},
        gamma=0.9,
        n_step=3,
        time_limit=25,
        reward_clip=(-0.5, 1.0),
        success_key="success",
    ),
    "cartpole": TaskSpec(
        env="lit_mtdqn/ContextualCartPole-v0",
        kwargs={"context": [{"length": 1.0}, {"gravity": 5.0}], "observe_context": True},
        time_limit=17,
        success_key="success",
    ),
}


class Linear(nn.Module):
    """Acts by a linear function of the observation."""

    def __init__(self, size: int, actions: int, place: torch.device) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(size, actions, device=place)

    @torch.no_grad()
    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        values: Tensor = self.layer(observation) + task[:, None, None]
        return values


def _stream(place: torch.device) -> Iterator[StepRow]:
    layout, infos = probe_tasks(TASKS)
    actions = np.array([[info.num_actions] for info in infos])
    collector = Collector(
        [TensorTaskEnv(name, spec, NUM_ENVS, layout, place) for name, spec in TASKS.items()],
        Linear(layout.observation_shape[0], layout.num_actions, place),
        range(len(TASKS)),
        np.arange(layout.num_actions) < actions,
        EpsilonGreedy(),
        lambda: np.array([0.5, 0.25]),
        seeds=range(len(TASKS)),
        device=place,
    )
    return collector.steps([1, 2])


def _source(
    make: Callable[..., PhaseSource],
    count: Callable[..., EpisodeStatistics],
    place: torch.device,
    stream: Iterator[StepRow],
    wrong_steps: Path | None = None,
) -> tuple[PhaseSource, list[Slot], Clock]:
    slots = [
        Slot(name, index, spec, Replay(CAPACITY, index, "device", place))
        for index, (name, spec) in enumerate(TASKS.items())
    ]
    clock = Clock(dict.fromkeys(TASKS, 0))
    source = make(
        slots,
        stream,
        count(list(TASKS), NUM_ENVS, [True, True]),
        EveryTask(),
        TaskScores(TASKS),
        clock,
        vector_steps=VECTOR_STEPS,
        updates=UPDATES,
        batch_size=5,
        warmup=0,
        world_size=1,
        sum_over_ranks=lambda count: count,
        wrong_steps=lambda: wrong_steps,
        seed=0,
    )
    return source, slots, clock


def _on_device(
    place: torch.device, stream: Iterator[StepRow], wrong_steps: Path | None = None
) -> tuple[PhaseSource, list[Slot], Clock]:
    def make(*args: Any, **options: Any) -> PhaseSource:
        return DeviceSource(*args, device=place, **options)

    def count(tasks: list[str], num_envs: int, reports: list[bool]) -> EpisodeStatistics:
        return DeviceStatistics(tasks, num_envs, reports, device=place)

    return _source(make, count, place, stream, wrong_steps)


def _spoilt(stream: Iterator[StepRow], step: int) -> Iterator[StepRow]:
    """Yield vector steps, of which one shows what is no number."""
    for number, row in enumerate(stream):
        if number == step:
            row.next_observation[1, 2, 0] = torch.nan
        yield row


def test_steps_without_numbers_end_a_run_on_a_device_too(tmp_path: Path) -> None:
    place, file = torch.device("cpu"), tmp_path / "steps.pt"
    stream = _spoilt(_stream(place), VECTOR_STEPS + 3)
    source, slots, _ = _on_device(place, stream, file)
    source.next_phase()
    before = [len(slot.replay) for slot in slots]
    task = list(TASKS)[1]
    said = rf"`next_observation` of task {task} must be finite\. Got nan from its environment 2 "
    with pytest.raises(NonFiniteError, match=said):
        source.next_phase()
    assert [len(slot.replay) for slot in slots] == before
    saved = torch.load(file, weights_only=True)
    assert saved["step"] == 3
    assert saved["next_observation"][3, 0].isnan()


def _as_arrays(row: StepRow) -> StepRow:
    columns = [None if column is None else column.numpy() for column in row[:-1]]
    extra = {name: column.numpy() for name, column in row.extra.items()}
    return StepRow._make((*columns, extra))


def _recorded(stream: Iterator[StepRow], rows: list[StepRow]) -> Iterator[StepRow]:
    for row in stream:
        rows.append(_as_arrays(row))
        yield row


def test_replays_counts_and_episodes_are_those_of_arrays_with_the_same_rows() -> None:
    rows: list[StepRow] = []
    source, slots, clock = _on_device(CPU, _recorded(_stream(CPU), rows))
    other, other_slots, other_clock = _source(PhaseSource, EpisodeStatistics, CPU, iter(rows))
    for phase in range(20):
        taken, wanted = source.next_phase(), other.next_phase()
        assert clock == other_clock
        assert source.statistics.episodes == other.statistics.episodes
        for name, values in other.statistics.state_dict().items():
            ours = source.statistics.state_dict()[name]
            assert ours["values"] == pytest.approx(values["values"])
        assert taken.rollout == pytest.approx(wanted.rollout)
        for slot, other_slot in zip(slots, other_slots, strict=True):
            assert len(slot.replay) == len(other_slot.replay) > 0
            found, expected = (
                own.replay.sample_evenly(500, torch.Generator().manual_seed(phase))
                for own in (slot, other_slot)
            )
            assert found.keys() == expected.keys()
            for name, column in expected.items():
                torch.testing.assert_close(found[name], column, rtol=1e-6, atol=1e-6)
    assert min(clock.episodes.values()) > 50
    assert len(slots[0].replay) == CAPACITY


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the shapes of what goes from one device to another."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.index_put_.default:
            # A mask's places would be counted.
            assert all(index is None or index.dtype != torch.bool for index in args[1])
        result = func(*args, **(kwargs or {}))
        given = [arg for arg in args if isinstance(arg, Tensor) and arg.dim() > 0]
        if isinstance(result, Tensor) and {arg.device for arg in given} - {result.device}:
            self.shapes.append(tuple(result.shape))
        return result


def test_a_phase_hands_the_host_one_tensor_and_takes_nothing_but_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a device without data to look at a number, to move it or to count by it is an error."""
    fetched: list[list[tuple[int, ...]]] = []
    complete = [40, 50]

    def told(tensors: list[Tensor]) -> list[np.ndarray]:
        fetched.append([tuple(tensor.shape) for tensor in tensors])
        counts = [np.array(row) for row in ([51, 52], complete, True, [3, 2])]
        return [*counts, np.zeros(fetched[-1][-1])]

    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator())
    monkeypatch.setattr(device, "fetch", told)
    source, slots, clock = _on_device(META, _stream(META))
    with Copies():
        source.next_phase()
    with Copies() as copies:
        phase = source.next_phase()
    assert phase.transitions.observation.device == META
    assert fetched == [[(2,), (2,), (), (2,), (2, 3, 60)]] * 2
    # Where the replays are written, and which row groups of the batch they fill.
    assert copies.shapes == [*((rows,) for rows in complete), *[(UPDATES,)] * len(TASKS)]
    assert [len(slot.replay) for slot in slots] == [80, 100]
    assert clock.env_steps == {"pedestrian": 102, "cartpole": 104}
    assert clock.episodes == {"pedestrian": 6, "cartpole": 4}


@pytest.mark.parametrize(
    "look",
    [
        lambda tensor: tensor[0].item(),
        lambda tensor: bool(tensor.any()),
        lambda tensor: tensor.cpu(),
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.nonzero(),
        lambda tensor: tensor[tensor > 0],
        lambda tensor: tensor + torch.ones(3),
    ],
)
def test_a_device_without_data_shows_what_would_wait(look: Callable[[Tensor], Any]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        look(torch.zeros(3, device="meta"))


def test_while_a_phase_is_played_every_row_counts_as_a_step() -> None:
    seen: list[dict[str, int]] = []

    def watched(stream: Iterator[StepRow]) -> Iterator[StepRow]:
        for row in stream:
            seen.append(dict(clock.env_steps))
            yield row

    source, _, clock = _on_device(CPU, watched(_stream(CPU)))
    rows = NUM_ENVS * np.arange(VECTOR_STEPS)[:, None]
    for _ in range(4):
        before, seen[:] = list(clock.env_steps.values()), []
        source.next_phase()
        steps = [list(counts.values()) for counts in seen]
        np.testing.assert_array_equal(steps, before + rows)
    assert all(count < 4 * NUM_ENVS * VECTOR_STEPS for count in clock.env_steps.values())


def test_tensors_are_fetched_in_their_shapes() -> None:
    tensors = [torch.tensor([1, 2]), torch.tensor([[True], [False]]), torch.zeros(2, 0, 3)]
    for array, tensor in zip(fetch([*tensors, torch.tensor(0.5)]), tensors, strict=False):
        np.testing.assert_array_equal(array, tensor.double().numpy())
    (number,) = fetch([torch.tensor(0.5)])
    assert number.shape == ()
    assert number == 0.5


OPTIONS: dict[str, Any] = {
    "device_resident": True,
    "replay_storage": "device",
    "num_envs": 4,
    "phase_vector_steps": 8,
    "replay_ratio": 0.0625,
    "batch_size": 8,
    "replay_capacity": 300,
    "warmup_env_steps": 50,
    "total_env_steps": 800,
    "eval_episodes": 2,
    "eval_max_steps": 20,
    "seed": 0,
}


def _data(tasks: dict[str, TaskSpec] = TASKS, **options: Any) -> RolloutDataModule:
    return RolloutDataModule(tasks, **{**OPTIONS, **options})


@pytest.mark.parametrize("prioritisation", [None, Prioritisation()], ids=["even", "by error"])
def test_a_run_learns_from_a_device_and_is_evaluated_on_arrays(
    prioritisation: Prioritisation | None,
) -> None:
    data = _data(prioritisation=prioritisation)
    model = small_model(data)
    before = [parameter.clone() for parameter in model.network.parameters()]
    trainer = fit(data, model)
    assert data.clock.total_env_steps >= 800
    assert data.clock.updates == 2 * data.clock.phases
    assert isinstance(data.source, DeviceSource)
    for old, new in zip(before, model.network.parameters(), strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)
    assert {f"val/episode_return/{name}" for name in TASKS} <= trainer.callback_metrics.keys()
    data.look(3)


@pytest.mark.parametrize("kind", ["cpu", "cuda", None])
def test_episodes_go_on_on_the_kind_of_device_where_they_were_played(
    kind: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """None is an older checkpoint, which does not say."""
    first, second = _data(), _data()
    fit(first, small_model(first))
    state = first.state_dict()
    assert state["stream"].pop("device") == "cpu"
    if kind is not None:
        state["stream"]["device"] = kind
    if kind == "cuda":
        of_a_gpu = [torch.zeros(16, dtype=torch.uint8) for _ in TASKS]
        state["stream"]["collector"]["draws"]["generators"] = of_a_gpu
    second.trainer = quiet_trainer()
    second.trainer.strategy.connect(small_model(second))
    second.setup("fit")
    with caplog.at_level("INFO"):
        second.load_state_dict(state)
    anew = "New episodes start in pedestrian, cartpole: the run had .* another kind of device"
    assert bool(re.search(anew, caplog.text)) == (kind == "cuda")


def _one(**options: Any) -> dict[str, TaskSpec]:
    return {"one": TaskSpec(**{"env": "lit_mtdqn/LaneKeeping-v0", **options})}


@pytest.mark.parametrize(
    ("tasks", "options", "name"),
    [
        (TASKS, {"replay_storage": "ram"}, "replay_storage"),
        (TASKS, {"boltzmann": Boltzmann()}, "boltzmann"),
        (TASKS, {"sampler": SoftmaxTasks(steers="both")}, "sampler.steers"),
        (
            {name: TaskSpec(env=spec.env) for name, spec in TASKS.items()},
            {"keeps_replays": False, "replay_ratio": 0.125},
            "keeps_replays",
        ),
        (_one(backend="sync"), {}, "tasks.one.backend"),
        (_one(wrappers=["RecordEpisodeStatistics"]), {}, "tasks.one.wrappers"),
        (_one(action_mask_key="mask"), {}, "tasks.one.action_mask_key"),
        (_one(cumulants_key="cumulants"), {}, "tasks.one.cumulants_key"),
        (_one(env="Acrobot-v1"), {}, "tasks.one.env"),
        (_one(env="CartPole-v1"), {}, "tasks.one.env"),
        (_one(env=VECTOR), {}, "tasks.one.env"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_a_device_cannot_do_is_refused_in_one_sentence(
    tasks: dict[str, TaskSpec], options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        _data(tasks, **options)


def test_returns_of_whole_episodes_are_refused_where_they_stay_on_a_device() -> None:
    data = _data()
    model = small_model(data, network=NETWORK, scale=ReturnScaling)
    with pytest.raises(ValueError, match=complaint("device_resident")):
        lightning.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1
        ).fit(model, data)


def test_a_device_without_float64_is_refused() -> None:
    data = _data()
    strategy = SimpleNamespace(root_device=torch.device("mps"))
    data.trainer = SimpleNamespace(strategy=strategy, world_size=1, global_rank=0)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=complaint("trainer.accelerator")):
        data.setup("fit")


def test_tasks_that_do_not_act_may_be_of_any_kind() -> None:
    held_out = TaskSpec(env="CartPole-v1", acts=False, learns=False)
    data = _data({**TASKS, "still": held_out})
    fit(data, small_model(data))
    assert data.clock.env_steps["still"] == 0
