from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import complaint, count_parameters
from helpers.sharing import (
    LEFT,
    RIGHT,
    SIZE,
    THREE,
    TORSO,
    UP,
    dense,
    mlp,
    observations,
    sharing_of,
)
from torch import Tensor
from torch.nn import functional as F

from lit_mtdqn.networks import (
    DuelingHead,
    MinAtarTorso,
    QNetwork,
    SharedTrunk,
)
from lit_mtdqn.types import TaskInfo

NAMES = ["left", "right", "up"]
ALL = torch.arange(3)
TRUNK = (SIZE * 8 + 8) + (8 * 6 + 6)


def _sharing(**options: Any) -> SharedTrunk:
    return SharedTrunk(THREE, TORSO, **options)


def _layer(state: dict[str, Tensor], layer: int, inputs: Tensor) -> Tensor:
    return dense(state, f"torso.layers.{2 * layer}", inputs).relu()


def _rows(state: dict[str, Tensor], key: str, inputs: Tensor) -> Tensor:
    return inputs @ state[f"{key}.weight"] + state[f"{key}.bias"]


def test_an_embedding_of_the_task_is_put_before_the_observation() -> None:
    sharing = sharing_of("concat")
    state, observation = sharing.state_dict(), observations(THREE)
    features = sharing(observation, ALL).features
    for task, name in enumerate(NAMES):
        embedding = F.normalize(state[f"embedding.{name}.weight"], dim=0).expand(5, -1)
        hidden = _layer(state, 0, torch.cat([embedding, observation[task]], -1))
        torch.testing.assert_close(features[task], _layer(state, 1, hidden))


def test_each_layer_is_scaled_and_shifted_as_the_embedding_says() -> None:
    sharing = sharing_of("film")
    state, observation = sharing.state_dict(), observations(THREE)
    features = sharing(observation, ALL).features
    for task, name in enumerate(NAMES):
        embedding = F.normalize(state[f"embedding.{name}.weight"], dim=0)
        changes = dense(state, "film.generator", embedding)
        scale, shift = [1.0 + changes[:8], 1.0 + changes[8:14]], [changes[14:22], changes[22:]]
        hidden = observation[task]
        for layer in range(2):
            hidden = _layer(state, layer, hidden) * scale[layer] + shift[layer]
        torch.testing.assert_close(features[task], hidden)


def test_each_task_sees_shared_outputs_through_masks_of_its_own() -> None:
    sharing = sharing_of("mask")
    state, observation = sharing.state_dict(), observations(THREE)
    features = sharing(observation, ALL).features
    for task, name in enumerate(NAMES):
        shared, seen = observation[task], torch.empty(5, 0)
        for layer in range(2):
            shared = _layer(state, layer, shared)
            hidden = _rows(state, f"masks.squeeze.{layer}.{name}", torch.cat([shared, seen], -1))
            seen = (
                shared * 2.0 * _rows(state, f"masks.masks.{layer}.{name}", hidden.relu()).sigmoid()
            )
        torch.testing.assert_close(features[task], seen)


def test_layers_after_the_branch_belong_to_one_task() -> None:
    sharing = sharing_of("branch")
    state, observation = sharing.state_dict(), observations(THREE)
    features = sharing(observation, ALL).features
    for task, name in enumerate(NAMES):
        hidden = dense(state, "trunk.0.0", observation[task]).relu()
        torch.testing.assert_close(features[task], mlp(state, "branches.", name, hidden, 1)[-1])


@pytest.mark.parametrize("conditioning", ["film", "mask"])
def test_conditioning_starts_as_the_identity(conditioning: Any) -> None:
    sharing = _sharing(conditioning=conditioning)
    observation = observations(THREE)
    plain = sharing.torso(observation)[-1]
    torch.testing.assert_close(sharing(observation, ALL).features, plain)


@pytest.mark.parametrize("conditioning", ["film", "mask"])
def test_channels_of_images_are_conditioned_as_a_whole(conditioning: Any) -> None:
    pixels = TaskInfo(
        name="left", observation_shape=(2, 5, 5), num_actions=2, observation_kind="image"
    )
    tasks = [pixels, TaskInfo(**{**pixels.as_dict(), "name": "right"})]
    torso = partial(MinAtarTorso, channels=4, hidden=6)
    sharing = SharedTrunk(tasks, torso, conditioning=conditioning)
    with torch.no_grad():
        for name, parameter in sharing.named_parameters():
            if not name.startswith("torso"):
                parameter.add_(torch.randn_like(parameter))
    observation = torch.randint(2, (2, 3, 2, 5, 5), dtype=torch.uint8)
    plain = sharing.torso(observation)[0].view(2, 3, 4, 9)
    found = sharing(observation, torch.arange(2)).layers[0].view(2, 3, 4, 9)
    if conditioning == "film":
        scale, shift = sharing.film(sharing.embedding(torch.arange(2)))[0]
    else:
        scale, shift = found.sum(-1, keepdim=True) / plain.sum(-1, keepdim=True), torch.zeros(1)
        scale = scale.nan_to_num(0.0)
    torch.testing.assert_close(found, plain * scale + shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, TRUNK),
        ({"conditioning": "concat", "embedding_dim": 3}, TRUNK + 3 * 8 + 3 * 3),
        ({"conditioning": "film", "embedding_dim": 3}, TRUNK + 3 * 3 + 4 * 2 * (8 + 6)),
        (
            {"conditioning": "mask", "mask_hidden": 5},
            TRUNK + 3 * ((8 * 5 + 5) + (5 * 8 + 8) + (14 * 5 + 5) + (5 * 6 + 6)),
        ),
        ({"conditioning": "branch"}, (SIZE * 8 + 8) + 3 * (8 * 6 + 6)),
    ],
    ids=str,
)
def test_a_trunk_has_the_parameters_of_its_parts(options: Any, parameters: int) -> None:
    assert count_parameters(_sharing(**options)) == parameters


@pytest.mark.parametrize("head", [None, partial(DuelingHead, hidden=4)], ids=["linear", "dueling"])
def test_strict_sharing_has_one_head_and_the_actions_of_each_task(head: Any) -> None:
    tasks = [TaskInfo(**{**LEFT.as_dict(), "num_actions": 2}), RIGHT, UP]
    sharing = partial(SharedTrunk, one_head=True)
    network = QNetwork(tasks, TORSO, sharing=sharing, **({"head": head} if head else {}))
    allowed = network.allowed_actions(ALL)
    assert allowed is not None
    assert allowed.sum(-1).flatten().tolist() == [2, 3, 3]
    heads = {key.split(".")[2] for key in network.state_dict() if key.startswith("head.v")}
    assert "shared" in heads
    assert not heads & {"left", "right", "up"}
    observation = torch.randn(1, 5, SIZE).expand(3, -1, -1)
    _, right, up = network.action_values(observation, ALL)
    torch.testing.assert_close(right, up)
    shared = {id(parameter) for parameter in network.shared_parameters()}
    assert shared == {id(parameter) for parameter in network.parameters()}


def test_the_streams_of_a_dueling_head_are_shared() -> None:
    network = QNetwork(THREE, TORSO, partial(DuelingHead, hidden=4))
    shared = {id(parameter) for parameter in network.shared_parameters()}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in shared}
    assert names == {
        *(f"torso.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")),
        *(
            f"head.{stream}_stream.0.{kind}"
            for stream in ("value", "advantage")
            for kind in ("weight", "bias")
        ),
    }


def test_an_embedding_cannot_be_put_before_images() -> None:
    image = TaskInfo(
        name="left", observation_shape=(4, 10, 10), num_actions=2, observation_kind="image"
    )
    with pytest.raises(ValueError, match=complaint("conditioning")) as error:
        SharedTrunk([image], MinAtarTorso, conditioning="concat")
    assert "film" in str(error.value)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"conditioning": "fim"}, "conditioning"),
        ({"conditioning": "concat", "embedding_dim": 0}, "embedding_dim"),
        ({"conditioning": "mask", "mask_hidden": 0}, "mask_hidden"),
        ({"conditioning": "branch", "branch_depth": 0}, "branch_depth"),
        ({"conditioning": "branch", "branch_depth": 2}, "branch_depth"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: Any, name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        _sharing(**options)
