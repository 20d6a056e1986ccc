from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import complaint, count_parameters
from helpers.sharing import (
    LEFT,
    SIZE,
    THREE,
    TORSO,
    dense,
    mlp,
    network_of,
    observations,
)
from torch import Tensor
from torch.nn import functional as F

from lit_mtdqn.networks import Experts, MLPTorso
from lit_mtdqn.types import Clock, Linear, Prediction

NAMES = ["left", "right", "up"]
ALL = torch.arange(3)
EXPERTS = [f"expert_{index:02d}" for index in range(3)]
TRUNK = (SIZE * 8 + 8) + (8 * 6 + 6)


def _outputs(state: dict[str, Tensor], observation: Tensor) -> Tensor:
    """Return the features [N, E, F] of all experts for the rows of one task."""
    return torch.stack([mlp(state, "experts.", name, observation)[-1] for name in EXPERTS], 1)


def _gate(state: dict[str, Tensor], key: str, observation: Tensor) -> Tensor:
    return observation @ state[f"{key}.weight"] + state[f"{key}.bias"]


def _softmax(state: dict[str, Tensor], name: str, observation: Tensor) -> tuple[Tensor, Tensor]:
    weights = _gate(state, f"router.logits.gate.{name}", observation).softmax(-1)
    return weights, (weights.unsqueeze(-1) * _outputs(state, observation)).sum(1)


def _gumbel(state: dict[str, Tensor], name: str, observation: Tensor) -> tuple[Tensor, Tensor]:
    best = int(state[f"router.logits.{name}.weight"].argmax())
    weights = F.one_hot(torch.tensor(best), 3).float().expand(5, -1)
    return weights, _outputs(state, observation)[:, best]


def _attention(state: dict[str, Tensor], name: str, observation: Tensor) -> tuple[Tensor, Tensor]:
    embedding = F.normalize(state[f"router.embedding.{name}.weight"], dim=0)
    query = F.linear(embedding, state["router.query.weight"], state["router.query.bias"])
    outputs = _outputs(state, observation)
    key = F.linear(outputs, state["router.key.weight"])
    parts, weights = [], []
    for head in range(2):
        similarity = key[..., 4 * head : 4 * head + 4] @ query[4 * head : 4 * head + 4] / 2.0
        weights.append(similarity.softmax(-1))
        part = outputs[..., 3 * head : 3 * head + 3]
        parts.append((weights[-1].unsqueeze(-1) * part).sum(1))
    return torch.stack(weights).mean(0), torch.cat(parts, -1)


def _moore(state: dict[str, Tensor], name: str, observation: Tensor) -> tuple[Tensor, Tensor]:
    columns, triangle = torch.linalg.qr(_outputs(state, observation).mT)
    signs = torch.diagonal(triangle, dim1=-2, dim2=-1).sign()
    weights = state[f"router.weights.{name}.weight"]
    return weights.expand(5, -1), (columns * (signs * weights).unsqueeze(1)).sum(-1)


def _per_layer(state: dict[str, Tensor], name: str, observation: Tensor) -> tuple[Tensor, Tensor]:
    mixture = _gate(state, f"gates.gate.{name}", observation).view(5, 3, 3).softmax(-1)
    hidden = torch.stack([mlp(state, "experts.", e, observation)[0] for e in EXPERTS], 1)
    hidden = mixture @ hidden
    outputs = torch.stack(
        [dense(state, f"experts.{e}.layers.2", hidden[:, i]).relu() for i, e in enumerate(EXPERTS)],
        1,
    )
    weights = _gate(state, f"router.logits.gate.{name}", observation).softmax(-1)
    return weights, (weights.unsqueeze(-1) * outputs).sum(1)


@pytest.mark.parametrize(
    ("kind", "one_by_one"),
    [
        ("softmax", _softmax),
        ("gumbel", _gumbel),
        ("attention", _attention),
        ("moore", _moore),
        ("per_layer", _per_layer),
    ],
)
def test_experts_are_mixed_as_their_router_says(
    kind: str, one_by_one: Callable[[dict[str, Tensor], str, Tensor], tuple[Tensor, Tensor]]
) -> None:
    network: Any = network_of(kind, torso=partial(MLPTorso, hidden=(8, 6)))
    if kind == "moore":  # three positive vectors are far from dependent once every unit is alive
        with torch.no_grad():
            for name, parameter in network.sharing.named_parameters():
                if name.endswith("bias"):
                    parameter.add_(1.0)
    state, observation = network.sharing.state_dict(), observations(THREE)
    shared = network.sharing(observation, ALL)
    for task, name in enumerate(NAMES):
        weights, features = one_by_one(state, name, observation[task])
        torch.testing.assert_close(shared.router[task], weights)
        torch.testing.assert_close(shared.features[task], features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("router", ["softmax", "attention", "linear"])
def test_routers_start_near_uniform(router: Any) -> None:
    shared = Experts(THREE, TORSO, router=router, num_heads=2)(observations(THREE), ALL)
    assert shared.router is not None
    assert (shared.router - 0.25).abs().max() < 0.05


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"router": "softmax"}, 3 * (SIZE * 3 + 3)),
        ({"router": "gumbel"}, 3 * 3),
        ({"router": "linear", "orthogonal": True}, 3 * 3),
        (
            {"router": "attention", "num_heads": 2, "embedding_dim": 8},
            3 * 8 + (8 * 8 + 8) + 6 * 8,
        ),
        ({"per_layer": True}, 3 * (SIZE * 3 + 3) + 3 * (SIZE * 9 + 9)),
    ],
    ids=str,
)
def test_experts_have_their_parameters_and_those_of_the_router(
    options: Any, parameters: int
) -> None:
    sharing = Experts(THREE, TORSO, num_experts=3, **options)
    assert count_parameters(sharing) == 3 * TRUNK + parameters


def _gumbel_network() -> Any:
    network: Any = network_of("gumbel")
    with torch.no_grad():
        network.sharing.router.logits.weight.zero_()
    return network


def test_in_training_each_task_uses_one_expert_which_fresh_noise_may_change() -> None:
    network = _gumbel_network().train()
    observation, seen = observations(THREE), set()
    for _ in range(40):
        network.resample_noise()
        router = network(observation, ALL).router
        assert torch.equal(router, router[:, :1].expand_as(router))
        assert set(router.detach().unique().tolist()) == {0.0, 1.0}
        assert torch.equal(network(observation, ALL).router, router)
        seen.add(tuple(router[:, 0].argmax(-1).tolist()))
    assert len(seen) > 10


def test_experts_are_drawn_as_often_as_the_softmax_of_the_logits_says() -> None:
    network: Any = network_of("gumbel", [LEFT])
    with torch.no_grad():
        network.sharing.router.logits.weight.copy_(torch.tensor([[0.5, 0.3, 0.2]]).log())
    counts = torch.zeros(3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        network.resample_noise(generator)
        counts += network(torch.zeros(1, 1, SIZE), ALL[:1]).router.detach()[0, 0]
    # Four standard deviations of a share of 2000 draws.
    assert (counts / 2000 - torch.tensor([0.5, 0.3, 0.2])).abs().max() < 0.045


def test_noise_from_a_generator_is_that_of_its_seed() -> None:
    network = _gumbel_network()
    drawn = []
    for seed in (3, 4, 3):
        network.resample_noise(torch.Generator().manual_seed(seed))
        drawn.append(network.sharing.router.noise.clone())
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_acting_and_targets_know_no_noise() -> None:
    network = _gumbel_network()
    observation = observations(THREE)
    values = network.action_values(observation, ALL)
    network.train()
    for _ in range(10):
        network.resample_noise()
        assert torch.equal(network.action_values(observation, ALL), values)
        assert torch.equal(network.exploring_values(observation, ALL), values)
        with torch.no_grad():
            assert torch.equal(network(observation, ALL).output, values)
    network.eval()
    assert torch.equal(network(observation, ALL).output, values)


def test_the_choice_of_an_expert_is_learned_through_the_softmax() -> None:
    network: Any = network_of("gumbel").train()
    network(observations(THREE), ALL).output.square().sum().backward()
    gradient = network.sharing.router.logits.weight.grad
    assert (gradient != 0.0).all()


def test_all_rows_of_orthogonal_experts_are_orthonormal() -> None:
    sharing = Experts(THREE, partial(MLPTorso, hidden=(32, 16)), orthogonal=True, num_experts=3)
    found: list[Tensor] = []
    sharing.router.register_forward_pre_hook(lambda _, inputs: found.append(inputs[2]))
    sharing(observations(THREE), ALL)
    vectors = found[0].flatten(1, 2).transpose(0, 1)
    torch.testing.assert_close(
        vectors @ vectors.mT, torch.eye(3).expand(15, 3, 3), atol=1e-4, rtol=0.0
    )


def test_the_temperature_follows_the_count_of_updates_and_is_saved() -> None:
    schedule = Linear(start=4.0, end=0.5, duration=10)
    sharing = Experts(THREE, TORSO, temperature=schedule)
    assert float(sharing.router.temperature) == 4.0
    sharing.on_update_end(None, None, Clock(updates=4))
    assert float(sharing.router.temperature) == pytest.approx(2.6)
    loaded = Experts(THREE, TORSO, temperature=schedule)
    loaded.load_state_dict(sharing.state_dict())
    observation = observations(THREE)
    assert torch.equal(loaded(observation, ALL).features, sharing(observation, ALL).features)


def test_a_high_temperature_mixes_more_evenly() -> None:
    network: Any = network_of("softmax")
    observation = observations(THREE)
    sharp = network(observation, ALL).router
    network.sharing.router.temperature.fill_(100.0)
    even = network(observation, ALL).router
    assert (even - 1.0 / 3.0).abs().max() < 0.1 < (sharp - 1.0 / 3.0).abs().max()


def _prediction(router: Tensor) -> Prediction:
    return Prediction(torch.empty(0), (), torch.empty(0), router)


def test_unequal_use_is_an_auxiliary_term_of_its_weight() -> None:
    router = torch.tensor([[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]])
    terms = Experts(THREE, TORSO, 3, balance_weight=0.5).auxiliary(_prediction(router), ALL)
    assert {name: float(term) for name, term in terms.items()} == {"load_balance": 1.5}


@pytest.mark.parametrize("options", [{"balance_weight": 0.0}, {"router": "linear"}], ids=str)
def test_without_shares_or_weight_nothing_is_added(options: Any) -> None:
    sharing = Experts(THREE, TORSO, 3, **options)
    assert sharing.auxiliary(_prediction(torch.rand(2, 1, 3)), ALL) == {}


def test_metrics_tell_unequal_use_and_by_task_usage_and_entropy() -> None:
    router = torch.tensor([[[0.5, 0.5, 0.0]], [[0.0, 0.0, 1.0]]])
    metrics = Experts(THREE, TORSO, 3).metrics(_prediction(router), torch.tensor([2, 0]))
    found = {name: round(float(value), 4) for name, value in metrics.items()}
    assert found == {
        "load_imbalance": 1.125,  # 3 * (0.5 * 0.25 + 0 * 0.25 + 0.5 * 0.5)
        "expert_usage/left/0": 0.0,
        "expert_usage/left/1": 0.0,
        "expert_usage/left/2": 1.0,
        "router_entropy/left": 0.0,
        "expert_usage/up/0": 0.5,
        "expert_usage/up/1": 0.5,
        "expert_usage/up/2": 0.0,
        "router_entropy/up": 0.6931,
    }


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_experts": 1}, "num_experts"),
        ({"num_experts": 7, "orthogonal": True}, "num_experts"),
        ({"router": "hard"}, "router"),
        ({"router": "gumbel", "per_layer": True}, "router"),
        ({"router": "attention", "num_heads": 4}, "num_heads"),
        ({"router": "attention", "num_heads": 3}, "num_heads"),
        ({"router": "attention", "num_heads": 0}, "num_heads"),
        ({"temperature": 0.0}, "temperature"),
        ({"balance_weight": -1.0}, "balance_weight"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: Any, name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        Experts(THREE, TORSO, **options)
