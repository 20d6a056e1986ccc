"""Every head, and the noise of some, in a learner."""

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, assert_no_gradient, assert_same_state
from helpers.batches import random_batch
from helpers.heads import ALL, HEADS, IQN, NOISY, PLAIN, each
from helpers.runs import COUNTING, fit, small_data
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_mtdqn import DQN, TaskInfo
from lit_mtdqn.algorithms.base import Parameters
from lit_mtdqn.callbacks import EpsilonDecay, TargetNetworkSync
from lit_mtdqn.networks import DrawsNoise, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import TD
from lit_mtdqn.types import Losses, Transition

INFOS = [
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
]
DRAWING = {"noisy": partial(LinearHead, noisy_sigma=0.5), "implicit": IQN}


def _network(head: Any) -> Any:
    return partial(QNetwork, torso=partial(MLPTorso, hidden=[6]), head=head)


def _model(head: Any, **options: Any) -> DQN:
    torch.manual_seed(0)
    return DQN(INFOS, _network(head), **options)


def _buffers(model: DQN) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@each(ALL)
def test_losses_are_pure(head: Any) -> None:
    model, batch = _model(head), random_batch(INFOS)
    model.network.train()
    model.network.resample_noise()
    model.target_network.resample_noise()
    buffers, state = _buffers(model), deepcopy(model.state_dict())
    generator = torch.get_rng_state()
    first, second = model.losses(batch), model.losses(batch)
    assert torch.equal(first.td, second.td)
    assert torch.equal(first.td_error, second.td_error)
    given = model.losses(batch, dict(model.network.named_parameters()))
    assert torch.equal(given.td, first.td)
    assert torch.equal(torch.get_rng_state(), generator)
    assert_equal_tensors(model.state_dict(), state)
    assert_equal_tensors(_buffers(model), buffers)
    assert_no_gradient(model.parameters())


@pytest.mark.parametrize("bootstrap", ["double", "max", "munchausen"])
@each(HEADS)
def test_losses_are_float32_under_autocast(head: Any, bootstrap: Any) -> None:
    model = _model(head, objective=partial(TD, bootstrap=bootstrap))
    model.network.resample_noise()
    model.target_network.resample_noise()
    batch = random_batch(INFOS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses(batch)
    assert losses.td.dtype == losses.td_error.dtype == torch.float32
    assert losses.td.shape == losses.td_error.shape == (2, 4)


@each(ALL)
def test_a_learner_is_rebuilt_from_its_checkpoint_alone(head: Any, tmp_path: Path) -> None:
    model = _model(head)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, path)
    loaded = DQN.load_from_checkpoint(path)
    assert_same_state(loaded, model)
    assert str(loaded) == str(model)
    batch = random_batch(INFOS)
    assert torch.equal(loaded.losses(batch).td, model.losses(batch).td)


class Watched(DQN):
    """Keeps the noise of both networks in each update, and what is on when it acts."""

    drawn: list[tuple[list[Tensor], list[Tensor]]]
    acted_noisily: list[bool]

    def losses(
        self,
        batch: Transition,
        parameters: Parameters | None = None,
        target: Tensor | None = None,
    ) -> Losses:
        networks = self.network, self.target_network
        self.drawn.append(tuple([b.clone() for b in _noise(n)] for n in networks))  # type: ignore[arg-type]
        return super().losses(batch, parameters, target)

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        again = super().action_values(observation, task)
        values = super().action_values(observation, task)
        assert torch.equal(values, again)
        networks = self.network, self.target_network
        modules = [m for n in networks for m in n.modules() if isinstance(m, DrawsNoise)]
        self.acted_noisily.append(any(module._is_noisy for module in modules))
        return values


def _noise(network: QNetwork) -> list[Tensor]:
    return [b for n, b in network.named_buffers() if n.endswith(("noise", "drawn"))]


def _run(head: Any, *callbacks: Callback) -> Watched:
    torch.manual_seed(0)
    data = small_data({"a": COUNTING, "b": COUNTING})
    model = Watched(data.task_infos, _network(head))
    model.drawn, model.acted_noisily = [], []
    fit(data, model, *callbacks)
    assert len(model.drawn) == data.clock.updates > 0
    return model


@each(DRAWING)
def test_every_update_draws_noise_for_both_networks(head: Any) -> None:
    model = _run(head, TargetNetworkSync(1))
    seen = [noise for update in model.drawn for network in update for noise in network]
    assert len(seen) == 2 * len(model.drawn)
    for index, noise in enumerate(seen):
        assert (noise != 0.0).any()
        assert not any(torch.equal(noise, other) for other in seen[:index])


@each(DRAWING)
def test_evaluation_and_metrics_are_without_noise(head: Any) -> None:
    model = _run(head)
    assert model.acted_noisily
    assert not any(model.acted_noisily)


@each(DRAWING)
def test_runs_of_one_seed_are_equal(head: Any) -> None:
    assert_same_state(_run(head), _run(head))


def test_training_acts_on_exploring_values() -> None:
    class Silent(DQN):
        """Never asked for values without noise while it trains."""

        explored = 0

        def exploring_values(self, observation: Tensor, task: Tensor) -> Tensor:
            self.explored += 1
            return super().exploring_values(observation, task)

    data = small_data(evaluate_every_env_steps=400)
    model = Silent(data.task_infos, _network(DRAWING["noisy"]))
    fit(data, model, EpsilonDecay(0.0, 0.0), limit_val_batches=0)
    assert model.explored > 20


@pytest.mark.parametrize(
    ("head", "explores"), [(DRAWING["noisy"], True), (DRAWING["implicit"], False)]
)
def test_exploring_values_differ_by_noise_alone(head: Any, explores: bool) -> None:
    model = _model(head)
    observation, task = torch.randn(2, 5, 3), torch.tensor([0, 1])
    mean = model.action_values(observation, task)
    found = [model.exploring_values(observation, task) for _ in range(2)]
    assert all(torch.equal(values, mean) != explores for values in found)
    assert torch.equal(found[0], found[1]) != explores
    assert torch.equal(model.action_values(observation, task), mean)


@each(PLAIN)
def test_a_network_without_noisy_layers_draws_nothing_when_it_explores(head: Any) -> None:
    model = _model(head)
    observation, before = torch.zeros(2, 5, 3), torch.get_rng_state()
    model.exploring_values(observation, torch.tensor([0, 1]))
    assert torch.equal(torch.get_rng_state(), before)


@each({name: head for name, head in NOISY.items() if "hidden" not in name})
def test_an_update_moves_the_scales_of_noise(head: Any) -> None:
    class Stepped(Callback):
        """Keeps the scales from before."""

        before: dict[str, Tensor]

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            named = pl_module.network.named_parameters()
            self.before = {name: p.detach().clone() for name, p in named if "sigma" in name}

    stepped = Stepped()
    data = small_data({"a": COUNTING}, total_env_steps=20)
    model = DQN(data.task_infos, _network(head))
    fit(data, model, stepped)
    after = dict(model.network.named_parameters())
    assert stepped.before
    assert all((after[name] != before).any() for name, before in stepped.before.items())


def test_a_network_without_noise_is_never_asked_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: QNetwork, generator: torch.Generator | None = None) -> None:
        raise AssertionError("no noise to draw")

    monkeypatch.setattr(QNetwork, "resample_noise", refuse)
    data = small_data()
    fit(data, DQN(data.task_infos, _network(LinearHead)))


def test_a_run_of_mixed_precision_is_saved_and_loaded(tmp_path: Path) -> None:
    data = small_data()
    model = DQN(data.task_infos, _network(partial(IQN, dueling=True, noisy_sigma=0.5)))
    trainer = fit(data, model, precision="bf16-mixed")
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    assert_same_state(DQN.load_from_checkpoint(path), model)
