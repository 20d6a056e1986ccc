import torch
from helpers.asserts import assert_table
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mtdqn import TaskInfo
from lit_mtdqn.networks import ConvTorso, MLPTorso
from lit_mtdqn.networks.sharing.couplings import CrossStitch, Lateral

INFO = TaskInfo(name="a", observation_shape=(1,), num_actions=1)
IMAGE = TaskInfo(name="a", observation_shape=(1, 4, 5), num_actions=1, observation_kind="image")


def test_a_quarter_of_the_other_column_is_mixed_in() -> None:
    stitches = CrossStitch(["right", "left"], num_layers=1, strength=0.25)
    assert_table(stitches(0, torch.tensor([[[1.0]], [[3.0]]]), []), [[[1.5]], [[2.5]]])


def test_every_layer_has_a_mixture_of_its_own() -> None:
    stitches = CrossStitch(["left", "right"], num_layers=2, strength=0.0)
    with torch.no_grad():
        # From right to left, in the second layer alone.
        stitches.weight[1, 1] = 2.0
    outputs = torch.tensor([[[1.0]], [[3.0]]])
    assert_table(stitches(0, outputs, []), outputs)
    assert_table(stitches(1, outputs, [outputs]), [[[7.0]], [[3.0]]])


def _adding(order: list[str]) -> Lateral:
    """Return adapters of one unit that pass on half of the sum of what they receive."""
    torso = MLPTorso([INFO], hidden=[1, 1])
    lateral = Lateral(order, torso, [1, 1], adapter_size=1, strength=0.5)
    with torch.no_grad():
        for name, parameter in lateral.named_parameters():
            if name.endswith("weight"):
                parameter.fill_(1.0)
    return lateral


def test_a_column_receives_the_sum_of_all_columns_before_it() -> None:
    before = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    found = _adding(["b", "c", "a"])(1, torch.zeros(3, 1, 1), [before])
    # In the order of names: a comes last and receives from b and c, b first and from none.
    assert found.flatten().tolist() == [3.0, 0.0, 1.0]


def test_what_is_received_is_rectified() -> None:
    before = torch.tensor([-1.0, 2.0]).view(2, 1, 1)
    assert _adding(["a", "b"])(1, torch.zeros(2, 1, 1), [before]).flatten().tolist() == [0.0, 0.0]


def test_the_first_layer_receives_nothing() -> None:
    outputs = torch.ones(2, 1, 1)
    assert _adding(["a", "b"])(0, outputs, []) is outputs


def test_no_gradient_goes_back_to_the_column_before() -> None:
    before = torch.ones(2, 1, 1, requires_grad=True)
    outputs = torch.zeros(2, 1, 1, requires_grad=True)
    _adding(["a", "b"])(1, outputs, [before]).sum().backward()
    assert before.grad is None
    assert outputs.grad is not None


def test_heads_receive_from_the_features_of_columns_before_them() -> None:
    features = torch.tensor([3.0, 4.0]).view(2, 1, 1)
    found = _adding(["a", "b"])(2, features, [torch.zeros(2, 1, 1), features])
    assert found.flatten().tolist() == [3.0, 4.0 + 0.5 * 3.0]


def _convolving() -> tuple[Lateral, dict[str, Tensor]]:
    """Return adapters of three channels between columns of two convolutions, and what is saved."""
    torso = ConvTorso([IMAGE], channels=[4, 2], kernel_sizes=[1, 2], strides=[1, 2], hidden=6)
    lateral = Lateral(["a", "b"], torso, [4 * 20, 2 * 4, 6], adapter_size=3, strength=0.5)
    return lateral, lateral.state_dict()


def test_convolutions_receive_images_by_convolutions() -> None:
    lateral, state = _convolving()
    before, outputs = torch.randn(2, 7, 4, 4, 5), torch.randn(2, 7, 2, 2, 2)
    found = lateral(1, outputs, [before])
    down = 0.5 * state["adapters.0.down.b.a.weight"]
    hidden = torch.einsum("nchw,cd->ndhw", before[0], down).relu()
    expected = F.conv2d(hidden, state["adapters.0.up.b.weight"], stride=2)
    torch.testing.assert_close(found[1], outputs[1] + expected)
    assert torch.equal(found[0], outputs[0])


def test_dense_layers_receive_every_place_of_an_image() -> None:
    lateral, state = _convolving()
    before, outputs = torch.randn(2, 7, 2, 2, 2), torch.randn(2, 7, 6)
    down = 0.5 * state["adapters.1.down.b.a.weight"]
    # As wide as what is received, and no wider.
    assert down.shape == (2, 2)
    hidden = torch.einsum("nchw,cd->ndhw", before[0], down).relu().flatten(1)
    expected = outputs[1] + hidden @ state["adapters.1.up.b.weight"]
    torch.testing.assert_close(lateral(2, outputs, [before])[1], expected)


class Pooled(ConvTorso):
    """Ends in a convolution, and pools in between."""

    def chain(self) -> list[list[nn.Module]]:
        first, _, _ = super().chain()
        return [first, [nn.MaxPool2d(2)]]


def test_other_layers_receive_averages_over_the_image() -> None:
    torso = Pooled([IMAGE], channels=[4, 2], kernel_sizes=[1, 1], strides=[1, 1], hidden=6)
    torso.layer_sizes = (4, 4)
    lateral = Lateral(["a", "b"], torso, [4 * 20, 4 * 4], adapter_size=3, strength=0.5)
    state, before, outputs = (
        lateral.state_dict(),
        torch.randn(2, 7, 4, 4, 5),
        torch.randn(2, 7, 4, 2, 2),
    )
    for layer, (received, adapter) in enumerate(((before, 0), (outputs, 1)), 1):
        down = 0.5 * state[f"adapters.{adapter}.down.b.a.weight"]
        up = state[f"adapters.{adapter}.up.b.weight"]
        expected = outputs[1] + ((received[0].mean((2, 3)) @ down).relu() @ up)[..., None, None]
        torch.testing.assert_close(lateral(layer, outputs, [received])[1], expected)
