import math

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from torch.nn import functional as F

from lit_mtdqn.networks import TaskLinear

SIZE, OUT = 4, 3


def _layer(*heads: str, seed: int = 0) -> TaskLinear:
    torch.manual_seed(seed)
    layer = TaskLinear(heads, SIZE, [OUT] * len(heads))
    torch.nn.init.normal_(layer.bias)
    return layer


def _outputs(layer: TaskLinear, heads: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Return each task's output for the same features."""
    features = torch.linspace(-1.0, 1.0, 2 * SIZE).view(1, 2, SIZE)
    return {head: layer(features, torch.tensor([task])).detach() for task, head in enumerate(heads)}


@pytest.mark.parametrize("tasks", [[0, 1], [1, 0], [0], [1], [1, 0, 1]], ids=str)
def test_each_group_passes_through_the_layer_of_its_task(tasks: list[int]) -> None:
    layer = _layer("left", "right")
    features = torch.randn(len(tasks), 2, SIZE)
    output = layer(features, torch.tensor(tasks))
    for group, row in enumerate(tasks):
        expected = F.linear(features[group], layer.weight[row].T, layer.bias[row])
        torch.testing.assert_close(output[group], expected)


def test_rows_are_saved_one_by_one_under_the_names_of_their_heads() -> None:
    state = _layer("right", "left").state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "left.weight": (SIZE, OUT),
        "left.bias": (OUT,),
        "right.weight": (SIZE, OUT),
        "right.bias": (OUT,),
    }


def test_a_saved_state_does_not_follow_later_changes() -> None:
    layer = _layer("left")
    state = layer.state_dict()
    saved = state["left.weight"].clone()
    torch.nn.init.zeros_(layer.weight)
    assert torch.equal(state["left.weight"], saved)


def test_reordering_tasks_does_not_swap_their_heads() -> None:
    before, after = ("left", "right", "up"), ("up", "left", "right")
    saved, loaded = _layer(*before, seed=1), _layer(*after, seed=2)
    loaded.load_state_dict(saved.state_dict())
    assert_equal_tensors(_outputs(loaded, after), _outputs(saved, before))


def test_rows_lie_in_the_order_of_names_so_that_an_optimisers_moments_fit_reordered_tasks() -> None:
    saved, loaded = _layer("left", "right", "up", seed=1), _layer("up", "left", "right", seed=2)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.weight, saved.weight)
    assert torch.equal(loaded.bias, saved.bias)


def test_an_added_head_keeps_its_own_start_and_the_others_load_by_name() -> None:
    saved, loaded = _layer("right", "up", seed=1), _layer("left", "right", "up", seed=2)
    fresh = _outputs(loaded, ("left", "right", "up"))
    keys = loaded.load_state_dict(saved.state_dict(), strict=False)
    assert sorted(keys.missing_keys) == ["left.bias", "left.weight"]
    assert keys.unexpected_keys == []
    trained = _outputs(saved, ("right", "up"))
    assert_equal_tensors(_outputs(loaded, ("left", "right", "up")), fresh | trained)


def test_a_removed_head_is_ignored_and_the_others_load_by_name() -> None:
    saved, loaded = _layer("left", "right", "up", seed=1), _layer("up", seed=2)
    keys = loaded.load_state_dict(saved.state_dict(), strict=False)
    assert keys.missing_keys == []
    assert sorted(keys.unexpected_keys) == [
        "left.bias",
        "left.weight",
        "right.bias",
        "right.weight",
    ]
    expected = _outputs(saved, ("left", "right", "up"))
    assert_equal_tensors(_outputs(loaded, ("up",)), {"up": expected["up"]})


@pytest.mark.parametrize(
    ("heads", "trouble"),
    [(("left", "right"), r"Missing key.*right\.bias"), ((), r"Unexpected key.*left\.bias")],
)
def test_strict_loading_refuses_unlike_heads(heads: tuple[str, ...], trouble: str) -> None:
    saved = _layer("left", "up")
    with pytest.raises(RuntimeError, match=f"(?s){trouble}"):
        _layer("up", *heads).load_state_dict(saved.state_dict())


@pytest.mark.parametrize("strict", [True, False])
def test_a_wrong_shape_is_an_error_that_names_the_head(strict: bool) -> None:
    state = _layer("left", "right").state_dict()
    state["right.weight"] = torch.zeros(SIZE, OUT + 1)
    with pytest.raises(RuntimeError, match=r"size mismatch for right\.weight: .*\(4, 4\), \(4, 3"):
        _layer("left", "right").load_state_dict(state, strict=strict)


def test_loading_names_are_complete_inside_a_larger_module() -> None:
    saved = torch.nn.Sequential(torch.nn.Linear(SIZE, SIZE), _layer("left", seed=1))
    loaded = torch.nn.Sequential(torch.nn.Linear(SIZE, SIZE), _layer("left", "right", seed=2))
    keys = loaded.load_state_dict(saved.state_dict(), strict=False)
    assert sorted(keys.missing_keys) == ["1.right.bias", "1.right.weight"]
    assert torch.equal(loaded.state_dict()["1.left.weight"], saved.state_dict()["1.left.weight"])


def test_tasks_of_one_head_share_its_row() -> None:
    layer = TaskLinear(["shared", "own", "shared"], SIZE, [OUT] * 3)
    assert layer.weight.shape[0] == 2
    features = torch.randn(1, 2, SIZE).expand(3, -1, -1)
    shared, own, again = layer(features, torch.arange(3)).unbind(0)
    assert torch.equal(shared, again)
    assert not torch.equal(shared, own)


def test_the_loss_of_one_task_leaves_the_rows_of_other_heads_alone() -> None:
    layer = _layer("left", "right", "up")
    layer(torch.randn(2, 5, SIZE), torch.tensor([0, 2])).square().sum().backward()
    for gradient in (layer.weight.grad, layer.bias.grad):
        assert gradient is not None
        assert (gradient[1] == 0.0).all()
        assert (gradient[0] != 0.0).any()
        assert (gradient[2] != 0.0).any()


@pytest.mark.parametrize("init_scale", [1.0, 0.01, 0.0])
def test_initial_weights_are_uniform_within_the_scaled_bound(init_scale: float) -> None:
    torch.manual_seed(0)
    layer = TaskLinear(["left"], 100, [100], init_scale)
    bound = init_scale / math.sqrt(100)
    largest = float(layer.weight.detach().abs().max())
    assert 0.99 * bound <= largest <= bound
    assert (layer.bias == 0.0).all()


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("init_scale")):
        TaskLinear(["left"], SIZE, [OUT], init_scale=-1.0)


@pytest.mark.parametrize("shared", [False, True], ids=["vectors of each row", "vectors of all"])
@pytest.mark.parametrize("tasks", [[0, 1], [1, 0, 1]], ids=str)
def test_scaling_the_weights_is_scaling_the_features(tasks: list[int], shared: bool) -> None:
    layer = _layer("left", "right")
    features = torch.randn(len(tasks), 5, SIZE, requires_grad=True)
    scale = torch.randn(1 if shared else 5, 7, SIZE, requires_grad=True)
    task = torch.tensor(tasks)
    found = layer.scaled(features, scale, task)
    scaled = (features.unsqueeze(2) * scale).flatten(1, 2)
    expected = layer(scaled, task).view(len(tasks), 5, 7, OUT)
    torch.testing.assert_close(found, expected)
    inputs, direction = [features, scale, *layer.parameters()], torch.randn_like(expected)
    pulls = [torch.autograd.grad((o * direction).sum(), inputs) for o in (found, expected)]
    torch.testing.assert_close(pulls[0], pulls[1])


def test_under_autocast_the_products_have_all_digits_and_gradients_their_dtype() -> None:
    layer, task = _layer("left", "right"), torch.tensor([0, 1])
    features = torch.randn(2, 5, SIZE).bfloat16().requires_grad_()
    scale = torch.randn(5, 7, SIZE).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(features, task), layer.scaled(features, scale, task)
    expected = layer(features.float(), task), layer.scaled(features.float(), scale.float(), task)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    (gradient,) = torch.autograd.grad(found[0].sum() + found[1].sum(), features)
    assert gradient.dtype == torch.bfloat16
