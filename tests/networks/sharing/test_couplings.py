import torch
from helpers.asserts import assert_table

from lit_mtdqn.networks.sharing.couplings import CrossStitch, Lateral


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
    lateral = Lateral(order, [1, 1], adapter_size=1, strength=0.5)
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
