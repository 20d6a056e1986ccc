"""What a learner does for the sharing of its network."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, assert_same_state, complaint
from helpers.batches import random_batch
from helpers.runs import COUNTING, fit, small_data
from helpers.sharing import SHARINGS, shake
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import DQN
from lit_mtdqn.callbacks import TargetNetworkSync
from lit_mtdqn.networks import Columns, Experts, MLPTorso, QNetwork
from lit_mtdqn.types import Clock, Linear

TASKS = {"right": COUNTING, "left": COUNTING, "up": COUNTING}
GUMBEL = partial(Experts, router="gumbel", num_experts=3)


def _model(sharing: Any, data: Any = None, **options: Any) -> DQN:
    torch.manual_seed(0)
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=[8, 6]), sharing=sharing)
    return DQN((data or small_data(TASKS)).task_infos, network, **options)


@pytest.mark.parametrize("name", SHARINGS)
def test_two_calls_of_the_loss_are_equal_and_change_nothing(name: str) -> None:
    model = _model(SHARINGS[name])
    model.network.train()
    batch = random_batch(model.tasks)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    losses = model.losses(batch), model.losses(batch, dict(model.network.named_parameters()))
    assert torch.equal(losses[0].td, losses[1].td)
    assert_equal_tensors(losses[0].auxiliary, losses[1].auxiliary)
    assert torch.equal(torch.get_rng_state(), generator)
    assert_equal_tensors(model.state_dict(), state)


@pytest.mark.parametrize(
    ("sharing", "terms"), [(SHARINGS["none"], []), (SHARINGS["softmax"], ["load_balance"])]
)
def test_the_loss_has_the_terms_of_the_sharing(sharing: Any, terms: list[str]) -> None:
    model = _model(sharing)
    batch = random_batch(model.tasks)
    losses = model.losses(batch)
    assert list(losses.auxiliary) == terms
    expected = (losses.td * batch.weight).mean() + sum(losses.auxiliary.values())
    torch.testing.assert_close(model.total_loss(losses, batch), expected)


def test_noise_changes_the_loss_and_no_part_of_the_target() -> None:
    model = _model(GUMBEL)
    batch = random_batch(model.tasks)
    before = model.objective(batch, model.network, model.target_network)
    losses = []
    model.network.train()
    for _ in range(10):
        model.network.resample_noise()
        model.target_network.resample_noise()
        td = model.objective(batch, model.network, model.target_network)
        assert torch.equal(td.target, before.target)
        losses.append(td.loss)
    assert any(not torch.equal(loss, before.loss) for loss in losses)


class Noting(Callback):
    """Notes the noise and the temperature after every update."""

    def __init__(self) -> None:
        self.noise: list[torch.Tensor] = []
        self.temperatures: list[float] = []

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        router = learner.network.sharing.router
        self.noise.append(router.noise.clone())
        self.temperatures.append(float(router.temperature))


def test_every_update_has_noise_and_a_temperature_of_its_own() -> None:
    data, noting = small_data(TASKS), Noting()
    schedule = Linear(start=1.0, end=0.5, duration=5)
    model = _model(partial(GUMBEL, temperature=schedule), data)
    fit(data, model, noting)
    assert len(noting.noise) == data.clock.updates > 6
    assert len({tuple(noise.flatten().tolist()) for noise in noting.noise}) == len(noting.noise)
    expected = [schedule(update) for update in range(1, data.clock.updates + 1)]
    assert noting.temperatures == pytest.approx(expected)


class Gaps(Callback):
    """Notes how far the columns lie from their mean."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        stacks = learner.network.sharing.parameters()
        gaps = [(stack - stack.mean(0)).square().sum() for stack in stacks]
        self.gaps.append(float(torch.stack(gaps).detach().sum()))


def test_columns_are_pulled_at_the_learning_rate_of_the_moment_and_before_the_target_follows() -> (
    None
):
    data, gaps = small_data(TASKS), Gaps()
    optimizer = partial(torch.optim.SGD, lr=0.1)
    # The gradient is clipped to next to nothing, so that the pull alone moves the columns.
    model = _model(
        partial(Columns, coupling="pull", strength=0.5),
        data,
        optimizer=optimizer,
        max_grad_norm=1e-9,
        learning_rate_schedule=Linear(start=1.0, end=0.0, duration=10),
    )
    fit(data, model, gaps, TargetNetworkSync(1))
    factors = [after / before for before, after in zip(gaps.gaps, gaps.gaps[1:8], strict=False)]
    # (1 - 4 T strength rate)^2, T = 3; update u + 1 has the schedule's rate of u.
    expected = [(1.0 - 0.6 * (1.0 - update / 10)) ** 2 for update in range(1, 8)]
    assert factors == pytest.approx(expected, rel=1e-3)
    assert_same_state(model.target_network, model.network)


def test_a_pull_that_would_diverge_is_refused_before_the_first_env_step() -> None:
    data = small_data(TASKS)
    model = _model(partial(Columns, coupling="pull", strength=500.0), data)
    with pytest.raises(ValueError, match=complaint("strength")):
        fit(data, model)
    assert data.clock.total_env_steps == 0


class Rows(Callback):
    """Keeps the last row of metrics."""

    def __init__(self) -> None:
        self.row: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.row = {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_the_use_of_experts_is_logged_by_task() -> None:
    data, rows = small_data(TASKS), Rows()
    fit(data, _model(SHARINGS["softmax"], data), rows, log_every_n_steps=1)
    for task in TASKS:
        usage = [rows.row[f"train/expert_usage/{task}/{expert}"] for expert in range(3)]
        assert sum(usage) == pytest.approx(1.0)
        assert 0.0 <= rows.row[f"train/router_entropy/{task}"] <= 1.0987


@pytest.mark.parametrize("name", SHARINGS)
def test_a_run_with_every_sharing_is_rebuilt_from_its_checkpoint_alone(
    name: str, tmp_path: Path
) -> None:
    data, path = small_data(TASKS), tmp_path / "last.ckpt"
    model = _model(SHARINGS[name], data)
    before = [parameter.detach().clone() for parameter in model.network.parameters()]
    fit(data, model).save_checkpoint(path)
    moved = zip(before, model.network.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved)
    loaded = DQN.load_from_checkpoint(path)
    assert_same_state(loaded, model)
    batch = random_batch(model.tasks)
    torch.testing.assert_close(loaded.losses(batch).td, model.losses(batch).td)


def _values(model: DQN, names: list[str]) -> dict[str, torch.Tensor]:
    observation = torch.linspace(0.0, 1.0, 20).view(1, 5, 4)
    index = {info.name: place for place, info in enumerate(model.tasks)}
    observation = observation[..., : model.tasks[0].observation_shape[0]]
    return {n: model.action_values(observation, torch.tensor([index[n]])) for n in names}


# A mixture of columns is another one with one column more or less.
@pytest.mark.parametrize("name", [name for name in SHARINGS if name != "cross_stitch"])
def test_parts_follow_their_tasks_when_these_are_reordered_removed_and_added(
    name: str, tmp_path: Path
) -> None:
    path, options = (
        tmp_path / "last.ckpt",
        {"order": ["right", "left"]} if name == "lateral" else {},
    )
    data = small_data(TASKS)
    model = _model(partial(SHARINGS[name], **options), data)
    shake(model)
    fit(data, model).save_checkpoint(path)
    right, left, up = model.tasks
    reordered = DQN.load_from_checkpoint(path, tasks=[right, up, left])
    removed = DQN.load_from_checkpoint(path, tasks=[right, left], strict=False)
    new = replace(up, name="new", head="new")
    added = DQN.load_from_checkpoint(path, tasks=[right, left, up, new], strict=False)
    _assert_close(reordered, model, ["right", "left", "up"])
    _assert_close(removed, model, ["right", "left"])
    _assert_close(added, model, ["right", "left", "up"])


def _assert_close(found: DQN, expected: DQN, names: list[str]) -> None:
    for values, others in zip(
        _values(found, names).values(), _values(expected, names).values(), strict=True
    ):
        torch.testing.assert_close(values, others)


@pytest.mark.parametrize("name", SHARINGS)
def test_what_has_no_neutral_zero_does_not_decay(name: str) -> None:
    model = _model(SHARINGS[name], optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1))
    decayed, spared = model.configure_optimizers().param_groups
    names = {id(p): key for key, p in model.network.named_parameters()}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    spared_names = {names[id(parameter)] for parameter in spared["params"]}
    for key in names.values():
        neutral = (
            "bias",
            "scale",
            "embedding.weight",
            "mixing.weight",
            "router.logits.weight",
            "router.weights.weight",
        )
        assert (key in spared_names) == key.endswith(neutral), key
