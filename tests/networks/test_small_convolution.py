from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from lit_mtdqn.networks.small_convolution import MOST_BYTES, SmallConvolution

# Channels in and out, kernel, stride, height and width of images.
SMALL = [(4, 16, 3, 1, (10, 10)), (3, 8, 2, 1, (7, 7)), (2, 5, 3, 2, (9, 12)), (1, 2, 4, 1, (4, 4))]
LARGE = [(4, 3, 3, 1, (11, 11)), (4, 8, 3, 2, (40, 9))]


def _pair(
    channels: int, out: int, kernel: int, stride: int, shape: tuple[int, int]
) -> tuple[SmallConvolution, nn.Conv2d]:
    torch.manual_seed(0)
    ours = SmallConvolution(channels, out, kernel, stride, shape)
    theirs = nn.Conv2d(channels, out, kernel, stride)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def _calls_of_the_library(module: nn.Module, images: Tensor) -> int:
    """Return how often a forward pass asks for PyTorch's convolution."""
    with patch.object(nn.Conv2d, "forward", return_value=torch.zeros(())) as library:
        module(images)
    return library.call_count


@pytest.mark.parametrize("sizes", SMALL + LARGE, ids=str)
def test_outputs_and_gradients_are_those_of_the_library(sizes: Any) -> None:
    ours, theirs = _pair(*sizes)
    images = torch.rand(6, sizes[0], *sizes[-1])
    results = []
    for module in (ours, theirs):
        output = module(images)
        torch.autograd.backward(output.square().sum())
        results.append((output, *(parameter.grad for parameter in module.parameters())))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", SMALL, ids=str)
def test_small_images_are_learned_from_without_the_library(sizes: Any) -> None:
    ours, _ = _pair(*sizes)
    assert _calls_of_the_library(ours, torch.rand(6, sizes[0], *sizes[-1])) == 0


@pytest.mark.parametrize("sizes", LARGE, ids=str)
def test_large_images_are_left_to_the_library(sizes: Any) -> None:
    ours, _ = _pair(*sizes)
    assert _calls_of_the_library(ours, torch.rand(6, sizes[0], *sizes[-1])) == 1


def test_what_learns_no_weights_or_too_many_or_other_images_is_left_to_the_library() -> None:
    ours, _ = _pair(*SMALL[0])
    images = torch.rand(6, 4, 10, 10)
    with torch.no_grad():
        assert _calls_of_the_library(ours, images) == 1
    assert _calls_of_the_library(ours, images.clone().requires_grad_()) == 1
    fitting = MOST_BYTES // (36 * 64 * 4)
    assert _calls_of_the_library(ours, torch.rand(fitting, 4, 10, 10)) == 0
    assert _calls_of_the_library(ours, torch.rand(fitting + 1, 4, 10, 10)) == 1
    for shape in [(6, 4, 9, 9), (6, 3, 10, 10), (6, 5, 10, 10), (4, 10, 10)]:
        assert _calls_of_the_library(ours, torch.rand(shape)) == 1
    assert _calls_of_the_library(ours.to("meta"), images.to("meta")) == 1


def test_no_images_make_no_output() -> None:
    ours, theirs = _pair(*SMALL[0])
    images = torch.rand(0, 4, 10, 10)
    assert ours(images).shape == theirs(images).shape == (0, 16, 8, 8)


def test_an_export_holds_for_any_number_of_images() -> None:
    ours, theirs = _pair(*SMALL[0])
    dynamic = {"input": {0: torch.export.Dim.AUTO}}
    exported = torch.export.export(ours, (torch.rand(6, 4, 10, 10),), dynamic_shapes=dynamic)
    images = torch.rand(3, 4, 10, 10)
    torch.testing.assert_close(exported.module()(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_images_that_need_a_gradient_have_it() -> None:
    ours, theirs = _pair(*SMALL[0])
    gradients = []
    for module in (ours, theirs):
        images = torch.rand(6, 4, 10, 10, generator=torch.Generator().manual_seed(0))
        torch.autograd.backward(module(images.requires_grad_()).square().sum())
        gradients.append(images.grad)
    assert gradients[0] is not None
    torch.testing.assert_close(*gradients)


def test_checkpoints_hold_what_those_of_the_library_do() -> None:
    ours, theirs = _pair(*SMALL[0])
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_parameters_of_each_of_several_groups_have_their_own_gradient() -> None:
    ours, theirs = _pair(*SMALL[1])
    images = torch.rand(3, 5, 3, 7, 7)
    found = []
    for module in (ours, theirs):
        weights = torch.stack([module.weight.detach() * (1.0 + i) for i in range(3)])
        weights.requires_grad_()

        def one(weight: Tensor, rows: Tensor, module: nn.Module = module) -> Tensor:
            output: Tensor = torch.func.functional_call(module, {"weight": weight}, (rows,))
            return output

        output = torch.func.vmap(one)(weights, images)
        (gradient,) = torch.autograd.grad(output.square().sum(), weights)
        found.append((output, gradient))
    for one_of, other in zip(*found, strict=True):
        torch.testing.assert_close(one_of, other, rtol=1e-4, atol=1e-4)
