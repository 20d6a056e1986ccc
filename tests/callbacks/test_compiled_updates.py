import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_same_state, complaint
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import COUNTING, NETWORK, fit, quiet_trainer, small_data
from helpers.standalone import Standalone
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from method_cost import methods
from torch import Tensor, nn
from torch._dynamo import lookup_backend
from torch._dynamo.utils import counters
from torch._functorch import config as autograd_config
from torch._functorch._aot_autograd.utils import make_boxed_func
from torchjd.aggregation import PCGrad

from lit_mtdqn import DQN, MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.callbacks import (
    CompiledUpdates,
    SkippedUpdates,
    TargetNetworkSync,
    compiled_updates,
)
from lit_mtdqn.callbacks.compiled_updates import FLAGS, REPLAYING, Compiled
from lit_mtdqn.networks import C51Head, LinearHead, QNetwork
from lit_mtdqn.objectives import Objective, TDLoss
from lit_mtdqn.types import Exponential, Linear, Schedule, TaskInfos, Transition, value_at

INFOS = [TaskInfo(name=name, observation_shape=(3,), num_actions=2) for name in ("a", "b")]
TASKS = {"a": COUNTING, "b": TaskSpec(env=VECTOR, weight=3.0)}
# Relative and absolute: sums in another order, of float32, after 24 updates.
SAME = 1e-4, 1e-5


class Pull(Objective):
    """Draws all values to zero, by a coefficient that changes with every update."""

    def __init__(self, tasks: TaskInfos, network: QNetwork, weight: Schedule) -> None:
        super().__init__()
        self.weight = weight
        self._learner: list[Any] = []

    def bind(self, learner: Any) -> None:
        self._learner = [learner]

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        weight = value_at(self.weight, self._learner[0].source.clock.updates)
        return {"pull": weight * td.prediction.output.square().mean()}


class Looks(Objective):
    """Asks what a number is, which ends a graph."""

    def __init__(self, tasks: TaskInfos, network: QNetwork) -> None:
        super().__init__()

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        size = td.prediction.output.square().mean()
        return {"looks": size if batch.reward.max() > 0.0 else 2.0 * size}


NOISY = partial(NETWORK, head=partial(LinearHead, noisy_sigma=0.5))
FADING = partial(Pull, weight=Linear(start=1.0, end=0.1, duration=10, begin=5))
PCGRAD = partial(Aggregated, aggregator=PCGrad)
LEARNERS: dict[str, tuple[type[DQN], dict[str, Any]]] = {
    "noisy": (DQN, {"network": NOISY}),
    "schedule": (MultiTaskDQN, {"objectives": [FADING], "network": NOISY}),
    # What is not balanced sends the gradient through the graph a second time.
    "by_task": (MultiTaskDQN, {"objectives": [FADING], "balancer": PCGRAD}),
    "c51": (DQN, {"network": partial(NETWORK, head=partial(C51Head, v_min=-9.0, v_max=9.0))}),
    "linear": (DQN, {}),
    "multi_task": (MultiTaskDQN, {}),
}


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Let graphs of updates and of their gradients be run operation by operation.

    Returns:
        Their inputs.
    """
    taken: list[Any] = []

    def compile_graph(graph: Any, inputs: Sequence[Any], mode: str) -> Callable[..., Any]:
        taken.extend(inputs)
        made: Callable[..., Any] = lookup_backend("aot_eager")(graph, list(inputs))
        return made

    monkeypatch.setattr(compiled_updates, "compile_graph", compile_graph)
    torch.compiler.reset()
    counters.clear()
    yield taken
    torch.compiler.reset()


def _run(
    name: str, *callbacks: Callback, updates: int = 24, resume: Path | None = None, **options: Any
) -> DQN:
    kind, own = LEARNERS[name]
    data = small_data(TASKS, total_env_steps=None, total_updates=updates)
    torch.manual_seed(0)
    model = kind(data.task_infos, **{"network": NETWORK, **own})
    trainer = quiet_trainer(TargetNetworkSync(every_n_updates=5), *callbacks, **options)
    trainer.fit(model, data, ckpt_path=None if resume is None else str(resume), weights_only=True)
    assert data.clock.updates == updates
    return model


def _compiled(function: Callable[..., Any], mode: str = "default") -> Compiled:
    return Compiled(function, mode, give_up=lambda: None)


def _assert_close(actual: nn.Module, expected: nn.Module) -> None:
    ours, theirs = actual.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, theirs[name], rtol=SAME[0], atol=SAME[1])


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize(
    ("name", "graphs"),
    [("schedule", 3), pytest.param("by_task", 3, marks=pytest.mark.slow)],
)
def test_captured_updates_learn_what_others_do(name: str, graphs: int) -> None:
    _assert_close(_run(name, CompiledUpdates()), _run(name))
    # The target is one, the losses are one, and one more once their schedule sets in.
    assert counters["stats"]["unique_graphs"] == graphs


# Each compiles for 10 to 60 s.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "noisy", "c51", "multi_task", "schedule", "by_task"])
def test_compiled_updates_learn_what_others_do(name: str) -> None:
    torch.compiler.reset()
    _assert_close(_run(name, CompiledUpdates()), _run(name))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
@pytest.mark.parametrize("name", sorted(methods()))
def test_every_method_becomes_whole_graphs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def compile_graph(graph: torch.fx.GraphModule, inputs: Any, mode: str) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compiled_updates, "compile_graph", compile_graph)
    torch.compiler.reset()
    try:
        runner = Standalone(MultiTaskDQN(INFOS, **methods()[name]))
    except ImportError as error:
        pytest.skip(str(error))
    trainer: Any = runner.model.trainer
    trainer.optimizers = [runner.optimizer.optimizer]
    compiling = CompiledUpdates()
    compiling.on_fit_start(trainer, runner.model)
    # Warnings are errors, that of updates which go on without among them.
    runner.update(*(random_batch(INFOS, seed=seed) for seed in range(3)))
    compiling.on_fit_end(trainer, runner.model)
    assert 1 <= len(graphs) <= 2


@pytest.mark.usefixtures("captured")
def test_a_run_of_compiled_updates_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"

    class Saves(Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.save_checkpoint(path)

    first = _run("linear", CompiledUpdates(), Saves(), updates=4)
    resumed = _run("linear", CompiledUpdates(), updates=8, resume=path)
    _assert_close(resumed, _run("linear", updates=8, resume=path))
    saved = torch.load(path, weights_only=True)
    assert saved["state_dict"].keys() == first.state_dict().keys()
    assert not [name for name in saved["hyper_parameters"] if "compile" in name]
    assert "CompiledUpdates" not in saved["callbacks"]
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.usefixtures("captured")
def test_captured_gradients_are_not_rounded_again_on_their_way_back() -> None:
    batch = random_batch(INFOS)
    found = []
    for compiles in (False, True):
        torch.manual_seed(0)
        runner, compiling = Standalone(DQN(INFOS, NETWORK)), CompiledUpdates()
        if compiles:
            compiling.on_fit_start(runner.model.trainer, runner.model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            runner.update(batch)
        compiling.on_fit_end(runner.model.trainer, runner.model)
        found.append([parameter.grad for parameter in runner.model.network.parameters()])
    for expected, gradient in zip(*found, strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("captured")
def test_only_updates_are_compiled_and_only_in_a_fit() -> None:
    asked: list[None] = []

    class Counted(DQN):
        def losses(self, *given: Any, **named: Any) -> Any:
            if not torch.compiler.is_compiling():
                asked.append(None)
            return super().losses(*given, **named)

    data = small_data(total_env_steps=None, total_updates=6)
    model, batch = Counted(data.task_infos, NETWORK), random_batch(INFOS[:1])

    class Asks(Callback):
        def on_update_end(self, trainer: Any, learner: DQN, clock: Any) -> None:
            assert model.losses(batch).td.shape == (1, 4)

    fit(data, model, CompiledUpdates(), Asks())
    assert len(asked) == 6
    Standalone(model).update(batch)
    assert len(asked) == 7
    assert autograd_config.donated_buffer


def test_without_a_compiler_updates_go_on_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compile_graph(graph: Any, inputs: Any, mode: str) -> Any:
        raise RuntimeError("No working C++ compiler found.\nMore about it.")

    monkeypatch.setattr(compiled_updates, "compile_graph", compile_graph)
    expected = _run("multi_task")
    with pytest.warns(UserWarning, match="cannot be compiled") as warned:
        model = _run("multi_task", CompiledUpdates())
    assert_same_state(model, expected)
    (message,) = (str(w.message) for w in warned if w.category is UserWarning)
    assert message.endswith("No working C++ compiler found.")


def test_losses_whose_gradient_cannot_be_compiled_go_on_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lowered(graph: Any, inputs: Any, *, is_backward: bool = False, **_: Any) -> Any:
        if is_backward:
            raise RuntimeError("no gradient of that")
        return make_boxed_func(graph.forward)

    with warnings.catch_warnings():
        # The compiler uses PyTorch's older names.
        warnings.simplefilter("ignore", DeprecationWarning)
        monkeypatch.setattr("torch._inductor.compile_fx._compile_fx_inner", lowered)
    expected = _run("linear", updates=4)
    # What an earlier run has left on the disk would be taken without compiling anything.
    with (
        autograd_config.patch(enable_autograd_cache=False),
        pytest.warns(UserWarning, match="`losses` cannot be compiled.*no gradient of that"),
    ):
        model = _run("linear", CompiledUpdates(), updates=4)
    assert_same_state(model, expected)


@pytest.mark.usefixtures("captured")
def test_losses_that_no_graph_can_hold_go_on_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"objectives": [Looks], "scale": None}
    monkeypatch.setitem(LEARNERS, "looks", (MultiTaskDQN, options))
    with pytest.warns(UserWarning, match="`losses` cannot be compiled"):
        model = _run("looks", CompiledUpdates(), updates=4)
    assert_same_state(model, _run("looks", updates=4))


@pytest.mark.usefixtures("captured")
def test_errors_of_losses_are_told_as_they_are() -> None:
    def fails(value: Tensor) -> Tensor:
        raise ValueError("`reward` must have one shape.")

    with (
        pytest.warns(UserWarning, match="`fails` cannot be compiled"),
        pytest.raises(ValueError, match="`reward` must have one shape"),
    ):
        _compiled(fails)(torch.zeros(1))


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize(
    "schedule",
    [Linear(start=1.0, end=0.0, duration=6, begin=3), Exponential(start=1.0, end=0.1, half_life=4)],
)
def test_a_schedule_compiles_once_more_and_no_more(schedule: Schedule) -> None:
    class Holder:
        updates = 0

        def scaled(self, value: Tensor) -> Tensor:
            return value * value_at(schedule, self.updates)

    holder, value = Holder(), torch.ones(3)
    compiled = _compiled(holder.scaled)
    for updates in range(20):
        holder.updates = updates
        torch.testing.assert_close(compiled(value), value * schedule(updates))
    assert counters["stats"]["unique_graphs"] == 2


def test_any_number_of_learners_is_compiled_in_one_process(captured: list[Any]) -> None:
    # PyTorch gives up on code after so many compilations.
    with torch._dynamo.config.patch(recompile_limit=2):
        for width in range(2, 6):
            result = _compiled(nn.Tanh().forward)(torch.ones(3, width))
            torch.testing.assert_close(result, torch.ones(3, width).tanh())
    assert counters["stats"]["unique_graphs"] == 4
    # Each for its own sizes.
    assert [given.shape for given in captured] == [(3, width) for width in range(2, 6)]


@pytest.mark.parametrize("mode", REPLAYING)
def test_graphs_that_take_a_count_replay_no_cuda_graphs(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays: list[bool] = []

    def make(graph: Any, inputs: Any, options: dict[str, Any]) -> Any:
        replays.append(options["triton.cudagraphs"])
        return graph.forward

    class Holder:
        updates = 0

        def scaled(self, value: Tensor) -> Tensor:
            return value * value_at(Linear(start=1.0, end=0.0, duration=6), self.updates)

    monkeypatch.setattr("torch._inductor.compile", make)
    torch.compiler.reset()
    holder, value = Holder(), torch.ones(3)
    compiled = _compiled(holder.scaled, mode)
    for updates in range(5):
        holder.updates = updates
        compiled(value)
    # The first graph knows one count, and the second takes any.
    assert replays == [True, False]


def test_every_update_begins_a_step_of_cuda_graphs_and_one_after_a_skipped_one_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []

    def replay(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            events.append("losses")
            return function(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", replay)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: events.append("mark"))
    runner, batch = Standalone(DQN(INFOS, NETWORK)), random_batch(INFOS)
    compiling = CompiledUpdates("reduce-overhead")
    skipping, trainer = SkippedUpdates(), runner.model.trainer
    # Of the first one a warning and a file would tell.
    skipping.count()
    trainer.callbacks.extend([compiling, skipping])  # type: ignore[attr-defined]
    runner.model.on_fit_start()
    runner.model._direct = True
    compiling.on_fit_start(trainer, runner.model)
    wrong = batch._replace(reward=torch.full_like(batch.reward, torch.nan))
    runner.update(batch, wrong, batch)
    compiling.on_fit_end(trainer, runner.model)
    assert runner.model.source.clock.updates == 2
    assert events == ["mark", "losses"] * 3


def test_results_that_a_replay_overwrites_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = torch.zeros(2)

    def replay(function: Any, **options: Any) -> Callable[[float], dict[str, Tensor]]:
        return lambda value: {"kept": memory.fill_(value)}

    monkeypatch.setattr(torch, "compile", replay)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    compiled = _compiled(lambda value: value, mode="reduce-overhead")
    first, second = compiled(1.0)["kept"], compiled(2.0)["kept"]
    assert first.tolist() == [1.0, 1.0]
    assert second.tolist() == [2.0, 2.0]


def test_the_flags_are_known_to_pytorch() -> None:
    assert all(hasattr(autograd_config, flag) for flag in FLAGS)


def test_unknown_modes_and_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match=complaint("CompiledUpdates.mode")):
        CompiledUpdates(mode="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=complaint("model")):
        quiet_trainer(CompiledUpdates(), max_epochs=1).fit(BoringModel())
