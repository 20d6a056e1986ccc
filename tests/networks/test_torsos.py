from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import complaint, count_parameters
from torch import nn

from lit_mtdqn.networks import ConvTorso, MinAtarTorso, MLPTorso, Torso
from lit_mtdqn.networks.torsos import ChannelNorm
from lit_mtdqn.types import TaskInfo


def _vector(size: int = 4) -> list[TaskInfo]:
    return [TaskInfo(name="left", observation_shape=(size,), num_actions=2)]


def _image(channels: int, side: int, high: float = 255.0) -> list[TaskInfo]:
    return [
        TaskInfo(
            name="left",
            observation_shape=(channels, side, side),
            num_actions=2,
            observation_kind="image",
            observation_high=high,
        )
    ]


def _pixels(channels: int, side: int, high: int = 255) -> torch.Tensor:
    return torch.randint(high + 1, (3, channels, side, side), dtype=torch.uint8)


def test_an_mlp_returns_the_output_of_every_layer_and_the_features_last() -> None:
    torso = MLPTorso(_vector(), hidden=(16, 8))
    outputs = torso(torch.randn(3, 4))
    assert [tuple(output.shape) for output in outputs] == [(3, 16), (3, 8)]
    assert torso.num_features == 8
    assert all((output >= 0.0).all() for output in outputs)


@pytest.mark.parametrize(
    ("hidden", "layer_norm", "parameters"),
    [
        ((128, 128), False, (4 * 128 + 128) + (128 * 128 + 128)),
        ((128, 128), True, (4 * 128 + 128) + (128 * 128 + 128) + 2 * (128 + 128)),
        ((5,), False, 4 * 5 + 5),
    ],
)
def test_an_mlp_has_its_layers_parameters(
    hidden: tuple[int, ...], layer_norm: bool, parameters: int
) -> None:
    assert count_parameters(MLPTorso(_vector(), hidden, layer_norm)) == parameters


def test_layer_norm_makes_features_independent_of_the_scale_of_the_input() -> None:
    torch.manual_seed(0)
    observation = torch.randn(3, 4)
    for layer_norm in (True, False):
        torso = MLPTorso(_vector(), hidden=(64,), layer_norm=layer_norm)
        linear = torso.layers[0]
        assert isinstance(linear, nn.Linear)
        nn.init.zeros_(linear.bias)
        (small,), (large,) = torso(100.0 * observation), torso(1000.0 * observation)
        assert torch.allclose(small, large, rtol=1e-3, atol=1e-3) == layer_norm


def test_the_activation_of_an_mlp_is_a_choice() -> None:
    torso = MLPTorso(_vector(), hidden=(8,), activation=nn.Tanh)
    assert (torso(torch.full((1, 4), -100.0))[0] < 0.0).any()


@pytest.mark.parametrize("hidden", [(), (8, 0)])
def test_an_mlp_refuses_widths_that_are_none(hidden: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=complaint("hidden")):
        MLPTorso(_vector(), hidden=hidden)


def test_the_default_convolutions_are_those_of_the_atari_network() -> None:
    torso = ConvTorso(_image(4, 84))
    outputs = torso(_pixels(4, 84))
    shapes = [tuple(output.shape) for output in outputs]
    assert shapes == [(3, 32 * 20 * 20), (3, 64 * 9 * 9), (3, 64 * 7 * 7), (3, 512)]
    assert torso.num_features == 512
    convolutions = (8 * 8 * 4 * 32 + 32) + (4 * 4 * 32 * 64 + 64) + (3 * 3 * 64 * 64 + 64)
    assert count_parameters(torso) == convolutions + (64 * 7 * 7 * 512 + 512)


def test_the_minatar_network_has_the_sizes_of_its_paper() -> None:
    torso = MinAtarTorso(_image(6, 10, high=1.0))
    outputs = torso(_pixels(6, 10, high=1))
    assert [tuple(output.shape) for output in outputs] == [(3, 16 * 8 * 8), (3, 128)]
    assert count_parameters(torso) == (3 * 3 * 6 * 16 + 16) + (16 * 8 * 8 * 128 + 128)


def test_layer_norm_is_one_more_pair_of_vectors_in_each_layer() -> None:
    plain = count_parameters(MinAtarTorso(_image(4, 10)))
    assert count_parameters(MinAtarTorso(_image(4, 10), layer_norm=True)) == plain + 2 * (16 + 128)


def test_images_are_normalised_over_the_channels_at_each_place() -> None:
    norm = ChannelNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0]))
        norm.bias.copy_(torch.tensor([0.0, 5.0]))
    # One place after another, of which channels have 1 and 3, and 10 and -10.
    image = torch.tensor([[1.0, 10.0], [3.0, -10.0]]).view(1, 2, 1, 2)
    expected = torch.tensor([[-1.0, 1.0], [7.0, 3.0]]).view(1, 2, 1, 2)
    torch.testing.assert_close(norm(image), expected, rtol=0.0, atol=1e-4)


def test_pixels_are_divided_by_their_largest_value() -> None:
    planes, pictures = MinAtarTorso(_image(4, 10, high=1.0)), MinAtarTorso(_image(4, 10))
    pictures.load_state_dict(planes.state_dict())
    bits = _pixels(4, 10, high=1)
    torch.testing.assert_close(pictures(bits * 255)[-1], planes(bits)[-1])
    assert not torch.allclose(pictures(bits)[-1], planes(bits)[-1])


@pytest.mark.parametrize(
    ("channels", "kernel_sizes", "strides"), [([8], [3], [1, 1]), ([8, 8], [3], [1]), ([], [], [])]
)
def test_convolutions_of_unlike_or_no_length_are_refused(
    channels: list[int], kernel_sizes: list[int], strides: list[int]
) -> None:
    with pytest.raises(ValueError, match=complaint("channels, kernel_sizes, strides")):
        ConvTorso(_image(4, 10), channels, kernel_sizes, strides)


@pytest.mark.parametrize(
    ("torso", "tasks", "sentence"),
    [
        (MLPTorso, _image(4, 10), r"image .*\(4, 10, 10\).*ConvTorso.* Got MLPTorso.*vector"),
        (ConvTorso, _vector(), r"vector .*\(4,\).*MLPTorso.* Got ConvTorso.*image"),
        (MinAtarTorso, _vector(), r"vector .*\(4,\).*MLPTorso.* Got MinAtarTorso.*image"),
    ],
)
def test_observations_of_the_wrong_kind_are_refused_with_what_to_use_instead(
    torso: type[Torso], tasks: list[TaskInfo], sentence: str
) -> None:
    with pytest.raises(ValueError, match=rf"^`torso` must take {sentence}"):
        torso(tasks)


@pytest.mark.parametrize(
    ("torso", "tasks"),
    [
        (partial(MLPTorso, hidden=(8, 6, 5), layer_norm=True), _vector()),
        (partial(ConvTorso, hidden=6, layer_norm=True), _image(4, 40)),
        (MinAtarTorso, _image(4, 10, high=1.0)),
    ],
    ids=["mlp", "convolutions", "minatar"],
)
def test_the_chain_of_layers_makes_what_the_torso_makes(torso: Any, tasks: list[TaskInfo]) -> None:
    made = torso(tasks)
    observation = torch.randint(2, (2, *tasks[0].observation_shape)).float()
    output = observation
    for layer, size, expected in zip(
        made.chain(), made.layer_sizes, made(observation), strict=True
    ):
        for module in layer:
            output = module(output)
        assert output.shape[1] == size
        assert torch.equal(output.flatten(1), expected)


@pytest.mark.parametrize(
    ("torso", "sizes"),
    [
        (partial(MLPTorso, hidden=(8, 5), width_multiplier=0.5), (4, 2)),
        (partial(MLPTorso, hidden=(8, 5), width_multiplier=2.0), (16, 10)),
        (partial(MLPTorso, hidden=(8, 5), width_multiplier=0.01), (1, 1)),
    ],
)
def test_a_multiplier_widens_all_layers(torso: Any, sizes: tuple[int, ...]) -> None:
    made = torso(_vector())
    assert tuple(layer.shape[-1] for layer in made(torch.rand(1, 4))) == sizes
    assert made.num_features == sizes[-1]


def test_a_multiplier_widens_channels_and_the_dense_layer() -> None:
    made = MinAtarTorso(_image(4, 10), channels=4, hidden=6, width_multiplier=1.5)
    assert made.layer_sizes == (6, 9)
    assert made(torch.zeros(1, 4, 10, 10))[-1].shape == (1, 9)


def test_a_multiplier_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("width_multiplier")):
        MLPTorso(_vector(), width_multiplier=0.0)
