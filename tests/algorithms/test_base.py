from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import lightning
import pytest
import torch
from helpers.asserts import (
    assert_equal_tensors,
    assert_no_gradient,
    assert_same_state,
    complaint,
)
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import COUNTING, NETWORK, fit, quiet_trainer, small_data, small_model
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from lit_mtdqn import DQN, Adam, RolloutDataModule, TaskInfo, TaskSpec
from lit_mtdqn.callbacks import EpsilonDecay, TargetNetworkSync
from lit_mtdqn.networks import DuelingHead, LinearHead, MLPTorso, QNetwork, Torso
from lit_mtdqn.objectives import TD
from lit_mtdqn.types import Exponential, Linear, Losses, Phase, Transition

LEFT = TaskInfo(name="left", observation_shape=(3,), num_actions=2)
RIGHT = TaskInfo(name="right", observation_shape=(3,), num_actions=3, weight=4.0)
SGD = partial(torch.optim.SGD, lr=1.0)


def _flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


class Update(NamedTuple):
    """What one update started from and where it led."""

    batch: Transition
    before: dict[str, Tensor]
    after: dict[str, Tensor]

    @property
    def change(self) -> Tensor:
        """Difference of the online network's parameters, flat."""
        names = [name for name in self.before if name.startswith("network.")]
        return torch.cat([(self.after[n] - self.before[n]).flatten() for n in names])


class Watched(DQN):
    """Keeps every update it makes."""

    made: list[Update]

    def update(self, batch: Transition, optimizer: LightningOptimizer) -> Losses:
        before = deepcopy(self.state_dict())
        losses = super().update(batch, optimizer)
        self.made = [*getattr(self, "made", []), Update(batch, before, deepcopy(self.state_dict()))]
        return losses


def _watched(data: RolloutDataModule, **options: Any) -> Watched:
    torch.manual_seed(0)
    return Watched(data.task_infos, **{"network": NETWORK, "optimizer": SGD, **options})


def _gradient(model: DQN, update: Update) -> Tensor:
    """Return the gradient of an update's loss, flat and not clipped."""
    model.load_state_dict(update.before)
    loss = model.total_loss(model.losses(update.batch), update.batch)
    parameters = list(model.network.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_the_total_loss_weighs_rows_and_then_tasks() -> None:
    model = DQN([LEFT, RIGHT], NETWORK)
    batch = random_batch([LEFT, RIGHT], rows=2, groups=[1, 0, 1])
    batch = batch._replace(weight=torch.tensor([[1.0, 0.5], [1.0, 1.0], [0.0, 2.0]]))
    td = torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 0.5]])
    losses = Losses(td, torch.zeros(3, 2), {}, {})
    # Rows: 1, 4 and 0.5; the right task counts four times.
    assert model.total_loss(losses, batch).item() == pytest.approx((4 * 1 + 4 + 4 * 0.5) / 3)


@pytest.mark.parametrize("max_grad_norm", [None, 0.05, 1e-6])
def test_an_update_follows_the_gradient_up_to_its_largest_norm(
    max_grad_norm: float | None,
) -> None:
    data = small_data({"a": COUNTING, "b": TaskSpec(env=VECTOR, weight=3.0)})
    model = _watched(data, max_grad_norm=max_grad_norm)
    fit(data, model)
    assert len(model.made) == data.clock.updates > 0
    clipped = 0
    for update in model.made:
        gradient = _gradient(model, update)
        norm = float(gradient.norm())
        factor = 1.0 if max_grad_norm is None else min(1.0, max_grad_norm / (norm + 1e-6))
        clipped += factor < 1.0
        torch.testing.assert_close(update.change, -factor * gradient, rtol=1e-3, atol=1e-6)
    assert (clipped > 0) == (max_grad_norm is not None)


def test_the_learning_rate_follows_its_schedule_at_every_update() -> None:
    data = small_data()
    schedule = Linear(start=1.0, end=0.0, duration=10, begin=3)
    model = _watched(data, learning_rate_schedule=schedule, max_grad_norm=None)
    fit(data, model)
    for number, update in enumerate(model.made):
        expected = -schedule(number) * _gradient(model, update)
        torch.testing.assert_close(update.change, expected, rtol=1e-3, atol=1e-6)
    assert len(model.made) > 13
    assert not model.made[13].change.any()


def test_each_update_gets_the_minibatch_that_is_its_own() -> None:
    data = small_data()
    model = _watched(data)
    phases: list[Phase] = []
    model.prepare_phase = lambda phase: phases.append(phase) or phase  # type: ignore[func-returns-value, method-assign]
    fit(data, model)
    batches = [batch for phase in phases for batch in phase.transitions.minibatches()]
    for batch, update in zip(batches, model.made, strict=True):
        assert torch.equal(batch.replay_index, update.batch.replay_index)
        assert torch.equal(batch.reward, update.batch.reward)


def test_updates_see_a_phase_as_the_learner_prepares_it() -> None:
    class Blind(Watched):
        """Learns from no reward."""

        def prepare_phase(self, phase: Phase) -> Phase:
            transitions = phase.transitions
            return phase._replace(
                transitions=transitions._replace(reward=torch.zeros_like(transitions.reward))
            )

    data = small_data()
    model = Blind(data.task_infos, NETWORK)
    fit(data, model)
    assert all(not update.batch.reward.any() for update in model.made)


def test_the_replay_is_told_the_errors_of_a_phase_once() -> None:
    data = small_data({"a": COUNTING, "b": COUNTING})
    model = _watched(data)
    tell = Mock(wraps=data.on_feedback)
    data.on_feedback = tell  # type: ignore[method-assign]
    fit(data, model)
    assert tell.call_count == data.clock.phases
    updates = iter(model.made)
    for call in tell.call_args_list:
        (feedback,) = call.args
        assert feedback.task.tolist() == [[0, 1]] * 2
        for k in range(2):
            update = next(updates)
            model.load_state_dict(update.before)
            errors = model.losses(update.batch).td_error.abs()
            torch.testing.assert_close(feedback.priority[k], errors)
            assert torch.equal(feedback.replay_index[k], update.batch.replay_index)


def test_gradient_aggregation_replaces_one_method_of_the_loop() -> None:
    class Signs(Watched):
        """Takes the sign of every gradient."""

        def accumulate_gradients(self, losses: Losses, batch: Transition) -> None:
            super().accumulate_gradients(losses, batch)
            for parameter in self.network.parameters():
                assert parameter.grad is not None
                parameter.grad.sign_()

    data = small_data(total_env_steps=30)
    model = Signs(data.task_infos, NETWORK, optimizer=SGD, max_grad_norm=None)
    fit(data, model)
    for update in model.made:
        torch.testing.assert_close(update.change, -_gradient(model, update).sign())


class Listening(Callback):
    """Hears of every step of an optimiser."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [parameter.grad for parameter in pl_module.network.parameters()]
        self.norms.append(float(nn.utils.get_total_norm(gradients)))


def test_lightnings_dispatch_is_passed_by_unless_somebody_listens() -> None:
    models, backwards, clocks = [], [], []
    listening = Listening()
    for callbacks in ([], [listening]):
        torch.manual_seed(0)
        data = small_data()
        model = small_model(data, learning_rate_schedule=Linear(1.0, 0.0, duration=50))
        backward = Mock(wraps=model.manual_backward)
        model.manual_backward = backward  # type: ignore[method-assign]
        trainer = fit(data, model, *callbacks)
        assert trainer.global_step == data.clock.updates
        models.append(model)
        backwards.append(backward.call_count)
        clocks.append(data.clock)
    assert clocks[0] == clocks[1]
    assert backwards == [0, clocks[1].updates]
    assert len(listening.norms) == clocks[1].updates
    assert min(listening.norms) > 0.0
    assert_same_state(*models)


def test_the_target_network_is_a_frozen_copy_that_no_optimiser_has() -> None:
    model = DQN([LEFT, RIGHT], NETWORK)
    assert_same_state(model.target_network, model.network)
    assert not any(parameter.requires_grad for parameter in model.target_network.parameters())
    optimised = {
        id(parameter)
        for group in model.configure_optimizers().param_groups
        for parameter in group["params"]
    }
    assert optimised == {id(parameter) for parameter in model.network.parameters()}


@pytest.mark.parametrize("mode", [True, False])
def test_the_target_network_stays_in_evaluation_mode(mode: bool) -> None:
    model = DQN([LEFT, RIGHT], NETWORK)
    before = deepcopy(model.target_network.state_dict())
    assert model.train(mode) is model
    assert model.training == mode
    assert not any(module.training for module in model.target_network.modules())
    assert_equal_tensors(model.target_network.state_dict(), before)


class Dropping(Torso):
    """Drops half of the observation while training."""

    num_features = 3

    def __init__(self, tasks: Sequence[Any]) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        return (self.dropout(observation),)


def test_acting_is_done_in_evaluation_mode_and_without_gradient() -> None:
    model = DQN([LEFT, RIGHT], partial(QNetwork, torso=Dropping)).train()
    observation, task = torch.randn(2, 5, 3), torch.tensor([0, 1])
    values = model.action_values(observation, task)
    assert values.shape == (2, 5, 3)
    assert not values.requires_grad
    assert torch.equal(model.action_values(observation, task), values)


def test_the_network_is_in_training_mode_during_its_updates_alone() -> None:
    class Moody(DQN):
        """Notes its network's mode."""

        updating: list[bool]
        acting: list[bool]

        def losses(self, *arguments: Any, **options: Any) -> Losses:
            self.updating.append(self.network.training)
            return super().losses(*arguments, **options)

        def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
            self.acting.append(self.network.training)
            return super().action_values(observation, task)

    data = small_data()
    model = Moody(data.task_infos, partial(QNetwork, torso=Dropping))
    model.updating, model.acting = [], []
    fit(data, model, EpsilonDecay(0.5, 0.5))
    assert (set(model.updating), set(model.acting)) == ({True}, {False})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"network": QNetwork, "objective": TD, "optimizer": torch.optim.AdamW},
        {"network": NETWORK, "optimizer": partial(Adam, lr=1e-2), "max_grad_norm": None},
        {
            "network": partial(
                QNetwork,
                torso=partial(MLPTorso, hidden=[4, 5], layer_norm=True, activation=nn.Tanh),
                head=partial(DuelingHead, hidden=3, loss="huber"),
            ),
            "objective": partial(TD, bootstrap="max"),
            "learning_rate_schedule": Exponential(1.0, 0.1, half_life=50),
        },
    ],
    ids=["defaults", "classes", "partials", "nested partials"],
)
def test_a_saved_learner_is_rebuilt_from_its_checkpoint_alone(
    options: dict[str, Any], tmp_path: Path
) -> None:
    data = small_data({"a": COUNTING, "b": TaskSpec(env=VECTOR, score_range=(0.0, 1.0))})
    model = DQN(data.task_infos, **options)
    path = tmp_path / "last.ckpt"
    fit(data, model, TargetNetworkSync(7)).save_checkpoint(path)
    torch.load(path, weights_only=True)
    loaded = DQN.load_from_checkpoint(path)
    assert_same_state(loaded, model)
    assert loaded.tasks == data.task_infos
    assert dict(loaded.hparams) == dict(model.hparams)
    assert str(loaded) == str(model)
    assert str(loaded.configure_optimizers()) == str(model.configure_optimizers())
    batch = random_batch(data.task_infos)
    assert torch.equal(loaded.losses(batch).td, model.losses(batch).td)


class Foreign(QNetwork):
    """A network that a user wrote."""


def test_a_class_from_elsewhere_is_named_and_can_be_passed(tmp_path: Path) -> None:
    data = small_data()
    network = partial(Foreign, torso=partial(MLPTorso, hidden=[4]))
    model = DQN(data.task_infos, network)
    path = tmp_path / "last.ckpt"
    fit(data, model).save_checkpoint(path)
    with pytest.raises(TypeError, match=r"^`network` must be passed .+ Got '.*\.Foreign' with"):
        DQN.load_from_checkpoint(path)
    assert_same_state(DQN.load_from_checkpoint(path, network=network), model)


def test_arguments_replace_those_of_the_checkpoint(tmp_path: Path) -> None:
    data = small_data()
    path = tmp_path / "last.ckpt"
    fit(data, small_model(data, max_grad_norm=3.0)).save_checkpoint(path)
    assert DQN.load_from_checkpoint(path).max_grad_norm == 3.0
    assert DQN.load_from_checkpoint(path, max_grad_norm=5.0).max_grad_norm == 5.0


def test_heads_of_a_checkpoint_are_found_by_name(tmp_path: Path) -> None:
    data = small_data({"a": COUNTING, "b": COUNTING})
    model = small_model(data)
    path = tmp_path / "last.ckpt"
    fit(data, model).save_checkpoint(path)
    b, a = (data.task_infos[index] for index in (1, 0))
    swapped = DQN.load_from_checkpoint(path, tasks=[b, a])
    observation = torch.randn(2, 5, 3)
    values = model.action_values(observation, torch.tensor([0, 1]))
    assert torch.equal(swapped.action_values(observation, torch.tensor([1, 0])), values)
    alone = DQN.load_from_checkpoint(path, tasks=[b], strict=False)
    torch.testing.assert_close(alone.action_values(observation[1:], torch.tensor([0])), values[1:])


class Shifted(DQN):
    """A learner with an argument of its own."""

    def __init__(self, tasks: Any, shift: float = 0.0, **options: Any) -> None:
        super().__init__(tasks, **options)
        self.shift = shift


def test_arguments_of_a_subclass_are_saved_too(tmp_path: Path) -> None:
    data = small_data()
    model = Shifted(data.task_infos, shift=0.25, network=NETWORK, max_grad_norm=2.0)
    path = tmp_path / "last.ckpt"
    fit(data, model).save_checkpoint(path)
    loaded = Shifted.load_from_checkpoint(path)
    assert (loaded.shift, loaded.max_grad_norm) == (0.25, 2.0)
    assert_same_state(loaded, model)


class AtStart(Callback):
    """Notes what a run begins with."""

    def __init__(self) -> None:
        self.model: dict[str, Tensor] = {}
        self.optimizer: dict[str, Any] = {}
        self.epsilon = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.model = deepcopy(pl_module.state_dict())
        self.optimizer = deepcopy(trainer.optimizers[0].state_dict())
        self.epsilon = trainer.datamodule.epsilon_of("count")  # type: ignore[attr-defined]


def test_a_resumed_run_goes_on_with_weights_optimiser_clock_and_epsilon(tmp_path: Path) -> None:
    path = str(tmp_path / "last.ckpt")
    decay = partial(EpsilonDecay, start=1.0, end=0.0, decay_env_steps=200)
    data = small_data(total_env_steps=60)
    model = small_model(data)
    trainer = fit(data, model, decay(), TargetNetworkSync(7))
    trainer.save_checkpoint(path)
    clock = deepcopy(data.clock)

    resumed, start = small_data(total_env_steps=120), AtStart()
    second = small_model(resumed)
    assert not torch.equal(_flat(second.network), _flat(model.network))
    trainer_2 = quiet_trainer(decay(), TargetNetworkSync(7), start)
    trainer_2.fit(second, resumed, ckpt_path=path, weights_only=True)
    assert_equal_tensors(start.model, model.state_dict())
    saved = trainer.optimizers[0].state_dict()
    assert start.optimizer["param_groups"] == saved["param_groups"]
    for index, state in saved["state"].items():
        assert_equal_tensors(start.optimizer["state"][index], state)
    assert start.epsilon == pytest.approx(1.0 - clock.env_steps["count"] / 200)
    assert resumed.clock.total_env_steps >= 120
    per_phase = resumed.clock.updates / resumed.clock.phases
    assert per_phase == clock.updates / clock.phases == 2


def test_of_several_callbacks_that_do_the_same_the_last_stays() -> None:
    first, second = TargetNetworkSync(1), TargetNetworkSync(2)
    decays = EpsilonDecay(end=0.5), EpsilonDecay(end=0.1)
    data = small_data()
    trainer = fit(data, small_model(data), first, decays[0], second, decays[1])
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    kinds = (TargetNetworkSync, EpsilonDecay)
    assert [c for c in callbacks if isinstance(c, kinds)] == [second, decays[1]]


@pytest.mark.parametrize(
    ("own", "count"), [([], 1), ([TargetNetworkSync(3), EpsilonDecay(end=0.5)], 1)]
)
def test_default_callbacks_fill_what_a_trainer_lacks(own: list[Callback], count: int) -> None:
    data = small_data()
    model = small_model(data)
    trainer = fit(data, model, *own)
    trainer.validate(model, data, verbose=False)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for kind in (TargetNetworkSync, EpsilonDecay):
        assert [type(callback) for callback in callbacks].count(kind) == count
    assert all(callback in callbacks for callback in own)


class Rows(Callback):
    """Keeps what was logged with every phase."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.rows.append({name: float(v) for name, v in trainer.callback_metrics.items()})


def test_a_row_of_metrics_says_how_training_goes_and_where_it_stands() -> None:
    data = small_data({"a": COUNTING, "b": COUNTING})
    rows = Rows()
    model = _watched(data, max_grad_norm=0.01)
    fit(data, model, rows, log_every_n_steps=1)
    last = rows.rows[-1]
    for name in ("a", "b"):
        for metric in ("train/td_loss", "train/q_mean", "train/action_gap", "rollout/epsilon"):
            assert f"{metric}/{name}" in last
        assert f"rollout/episode_return/{name}" in last
        assert last[f"rollout/env_steps/{name}"] == data.clock.env_steps[name]
        assert last[f"rollout/episodes/{name}"] == data.clock.episodes[name] > 0
    assert last["step"] == last["env_steps"] == data.clock.total_env_steps
    assert last["updates"] == data.clock.updates
    # The norm is that of the last update before it was clipped.
    assert last["train/grad_norm"] == pytest.approx(float(_gradient(model, model.made[-1]).norm()))


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("max_grad_norm", [None, 10.0])
def test_metrics_are_logged_in_every_nth_phase(every: int, max_grad_norm: float | None) -> None:
    data = small_data(evaluate_every_env_steps=400)
    rows = Rows()
    model = small_model(data, max_grad_norm=max_grad_norm)
    fit(data, model, rows, log_every_n_steps=every)
    updates = [row.get("updates", 0.0) for row in rows.rows]
    due = [2.0 * (phase // every * every) for phase in range(1, len(updates) + 1)]
    assert updates == due


def test_logging_can_be_switched_off() -> None:
    data = small_data(evaluate_every_env_steps=400)
    rows = Rows()
    fit(data, small_model(data), rows, log_every_n_steps=0)
    assert rows.rows[0] == {}


def test_large_counts_are_logged_exactly() -> None:
    data = small_data()
    model = small_model(data)
    data.clock.env_steps["count"] = 2**24 + 1
    trainer = quiet_trainer()
    (metrics,) = trainer.validate(model, data, verbose=False)
    assert metrics["step"] == 2**24 + 1


@pytest.mark.parametrize(("stage", "prefix"), [("validate", "val"), ("test", "test")])
def test_an_evaluation_reports_scores_by_task(stage: str, prefix: str) -> None:
    tasks = {
        "raw": TaskSpec(env=VECTOR, kwargs={"pattern": (3, -5)}),
        "ranged": TaskSpec(env=VECTOR, score_range=(-10.0, 10.0)),
        "rated": TaskSpec(env=VECTOR, kwargs={"pattern": (2,)}, success_key="success"),
    }
    data = small_data(tasks)
    (metrics,) = getattr(quiet_trainer(), stage)(small_model(data), data, verbose=False)
    scores = {name: metrics[f"{prefix}/score/{name}"] for name in tasks}
    assert scores["raw"] == metrics[f"{prefix}/episode_return/raw"]
    assert scores["ranged"] == pytest.approx(
        (metrics[f"{prefix}/episode_return/ranged"] + 10.0) / 20.0
    )
    assert scores["rated"] == metrics[f"{prefix}/success/rated"] == 1.0
    assert metrics[f"{prefix}/score/mean"] == pytest.approx(sum(scores.values()) / 3)
    assert metrics[f"{prefix}/score/worst"] == min(scores.values())
    assert metrics[f"{prefix}/episode_length/rated"] == 2.0


def test_every_evaluation_starts_afresh() -> None:
    data = small_data({"cartpole": TaskSpec(env="CartPole-v1")})
    model, trainer = small_model(data), quiet_trainer()
    scores = []
    for epsilon in (0.0, 1.0):
        data.eval_epsilon = epsilon
        (metrics,) = trainer.validate(model, data, verbose=False)
        assert metrics["val/score/mean"] == metrics["val/score/cartpole"]
        scores.append(metrics["val/score/mean"])
    assert scores[0] != scores[1]


def test_lightnings_sanity_check_leaves_no_trace() -> None:
    checked, unchecked = small_data(), small_data()
    models = []
    for data, steps in ((checked, 2), (unchecked, 0)):
        torch.manual_seed(0)
        models.append(small_model(data))
        fit(data, models[-1], num_sanity_val_steps=steps)
    assert checked.clock == unchecked.clock
    assert_same_state(models[0], models[1])


def test_the_same_seed_gives_the_same_run() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        data = small_data(seed=seed)
        models.append(small_model(data))
        fit(data, models[-1])
    assert torch.equal(_flat(models[0].network), _flat(models[1].network))
    assert not torch.equal(_flat(models[0].network), _flat(models[2].network))


def test_values_are_float32_under_mixed_precision() -> None:
    data = small_data()
    model = _watched(data)
    fit(data, model, precision="bf16-mixed")
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.losses(model.made[-1].batch)
    assert losses.td.dtype == losses.td_error.dtype == torch.float32
    assert model.action_values(torch.zeros(1, 1, 3), torch.tensor([0])).dtype == torch.float32


def test_data_of_other_tasks_are_refused() -> None:
    data = small_data({"a": COUNTING})
    model = DQN(small_data({"b": COUNTING}).task_infos, NETWORK)
    with pytest.raises(ValueError, match=r"^`datamodule\.tasks` must be .+\['b'\]\. Got \['a'\]\."):
        fit(data, model)


def test_data_that_is_no_data_module_of_this_package_is_refused() -> None:
    class Plain(lightning.LightningDataModule):
        """Has phases but no tasks."""

        exploration = small_data().exploration

        def train_dataloader(self) -> list[int]:
            return [0]

        val_dataloader = train_dataloader

    with pytest.raises(
        ValueError, match=r"^`datamodule` must be a RolloutDataModule\. Got 'Plain'"
    ):
        quiet_trainer().fit(small_model(small_data()), Plain())


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"tasks": []}, "tasks"),
        ({"tasks": [LEFT, LEFT]}, "tasks"),
    ],
    ids=str,
)
def test_an_argument_out_of_range_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        DQN(**{"tasks": [LEFT], "network": NETWORK, **options})


def test_a_part_that_no_checkpoint_could_name_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"^`network` must be a class"):
        DQN([LEFT], network=lambda tasks: QNetwork(tasks))


def test_tasks_may_be_given_as_plain_mappings() -> None:
    plain = DQN([LEFT.as_dict(), RIGHT.as_dict()], NETWORK)
    assert plain.tasks == [LEFT, RIGHT]
    assert isinstance(plain.network.head, LinearHead)
    assert_no_gradient(plain.parameters())
