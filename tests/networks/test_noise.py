import math
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from torch import Tensor

from lit_mtdqn.functional.parameters import split_by_weight_decay
from lit_mtdqn.networks import NoisyLinear, NoisyTaskLinear, TaskLinear
from lit_mtdqn.networks.noise import task_linear

IN, OUT = 5, 3
BOTH = torch.tensor([0, 1])


def _layer(sigma: float = 0.5) -> NoisyTaskLinear:
    torch.manual_seed(0)
    return NoisyTaskLinear(["left", "right"], IN, [2, OUT], noisy_sigma=sigma)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _signed_root(noise: Tensor) -> Tensor:
    return noise.sign() * noise.abs().sqrt()


def test_noise_is_the_product_of_factors_of_inputs_and_outputs() -> None:
    layer, features = _layer(), torch.randn(2, 4, IN)
    layer.resample_noise(_generator())
    drawn = _signed_root(torch.empty(2, IN + OUT).normal_(generator=_generator()))
    output = layer(features, BOTH)
    for row in range(2):
        inputs, outputs = drawn[row, :IN], drawn[row, IN:]
        weight = layer.weight[row] + layer.sigma_weight[row] * torch.outer(inputs, outputs)
        bias = layer.bias[row] + layer.sigma_bias[row] * outputs
        torch.testing.assert_close(output[row], features[row] @ weight + bias)


def test_a_shared_noisy_layer_is_made_alike() -> None:
    torch.manual_seed(0)
    layer, features = NoisyLinear(IN, OUT), torch.randn(2, 4, IN)
    torch.testing.assert_close(layer(features), features @ layer.weight.T + layer.bias)
    layer.resample_noise(_generator())
    drawn = _signed_root(torch.empty(IN + OUT).normal_(generator=_generator()))
    weight = layer.weight + layer.sigma_weight * torch.outer(drawn[IN:], drawn[:IN])
    expected = features @ weight.T + layer.bias + layer.sigma_bias * drawn[IN:]
    torch.testing.assert_close(layer(features), expected)


def test_without_noise_it_is_the_layer_of_the_mean_weights() -> None:
    noisy, plain = _layer(), TaskLinear(["left", "right"], IN, [2, OUT])
    plain.load_state_dict({k: v for k, v in noisy.state_dict().items() if "sigma" not in k})
    features = torch.randn(2, 4, IN)
    expected = plain(features, BOTH)
    assert torch.equal(noisy(features, BOTH), expected)
    noisy.resample_noise()
    assert not torch.equal(noisy(features, BOTH), expected)
    noisy.drop_noise()
    assert torch.equal(noisy(features, BOTH), expected)


@pytest.mark.parametrize("layer", [_layer(), NoisyLinear(IN, OUT)], ids=["per head", "shared"])
def test_evaluation_mode_drops_the_noise_and_training_mode_draws_none(layer: Any) -> None:
    arguments = (torch.randn(2, 4, IN), BOTH)[: 2 if isinstance(layer, TaskLinear) else 1]
    mean = layer(*arguments)
    layer.resample_noise()
    layer.train()
    assert not torch.equal(layer(*arguments), mean)
    layer.eval()
    assert torch.equal(layer(*arguments), mean)
    layer.train()
    assert torch.equal(layer(*arguments), mean)


def test_a_draw_in_evaluation_mode_holds_so_that_a_target_network_has_noise() -> None:
    layer, features = _layer().eval(), torch.randn(2, 4, IN)
    mean = layer(features, BOTH)
    layer.resample_noise()
    assert not torch.equal(layer(features, BOTH), mean)


def test_heads_have_noise_of_their_own() -> None:
    layer = NoisyTaskLinear(["left", "right"], IN, [OUT, OUT], init_scale=0.0)
    layer.resample_noise()
    left, right = layer(torch.ones(2, 1, IN), BOTH)
    assert not torch.equal(left, right)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_the_scale_of_noise_starts_as_the_paper_says(sigma: float) -> None:
    layer = _layer(sigma)
    expected = sigma / math.sqrt(IN)
    assert torch.equal(layer.sigma_weight[1], torch.full((IN, OUT), expected))
    assert torch.equal(layer.sigma_bias[1], torch.full((1, OUT), expected))
    # The narrow head has no third output.
    assert (layer.sigma_weight[0, :, 2] == 0.0).all()
    assert (layer.sigma_bias[0, :, 2] == 0.0).all()


def test_noise_has_mean_zero_and_the_scale_of_sigma() -> None:
    layer = NoisyTaskLinear(["only"], 100, [50], init_scale=0.0, noisy_sigma=0.5)
    features, generator = torch.ones(1, 1, 100), _generator()
    outputs = []
    for _ in range(400):
        layer.resample_noise(generator)
        outputs.append(layer(features, torch.tensor([0])).detach())
    found = torch.stack(outputs)
    # The signed root of a normal number has variance E|x| = sqrt(2 / pi); factors multiply.
    variance = 0.25 * (2.0 / math.pi) * (1.0 + 1.0 / 100 / math.sqrt(2.0 / math.pi))
    assert abs(float(found.mean())) < 0.02
    assert float(found.var()) == pytest.approx(variance, rel=0.1)


def test_scales_learn_while_there_is_noise() -> None:
    layer = _layer()
    layer.resample_noise()
    layer(torch.randn(2, 4, IN), BOTH).square().sum().backward()
    assert layer.sigma_weight.grad is not None
    assert layer.sigma_bias.grad is not None
    assert (layer.sigma_weight.grad[1] != 0.0).all()


def test_scales_are_saved_by_the_names_of_heads() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in _layer().state_dict().items()}
    assert shapes == {
        "left.weight": (IN, 2),
        "left.bias": (2,),
        "left.sigma_weight": (IN, 2),
        "left.sigma_bias": (2,),
        "right.weight": (IN, OUT),
        "right.bias": (OUT,),
        "right.sigma_weight": (IN, OUT),
        "right.sigma_bias": (OUT,),
    }


def test_scales_do_not_decay() -> None:
    layer = _layer()
    decayed, spared = split_by_weight_decay(layer)
    assert [id(p) for p in decayed] == [id(layer.weight)]
    assert {id(p) for p in spared} == {id(layer.bias), id(layer.sigma_weight), id(layer.sigma_bias)}


def test_a_layer_is_noisy_only_where_a_scale_is_given() -> None:
    assert type(task_linear(["left"], IN, [OUT])) is TaskLinear
    assert type(task_linear(["left"], IN, [OUT], noisy_sigma=0.5)) is NoisyTaskLinear


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_a_scale_of_zero_or_below_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match=complaint("noisy_sigma")):
        _layer(sigma)
    with pytest.raises(ValueError, match=complaint("noisy_sigma")):
        NoisyLinear(IN, OUT, sigma)
