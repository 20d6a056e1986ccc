"""What holds for every head."""

from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.heads import ALL, DUELING, HEADS, HIDDEN, KINDS, NOISY, each
from torch import Tensor

from lit_mtdqn.functional.td import greedy_actions
from lit_mtdqn.networks import DrawsNoise, Head, LayeredHead
from lit_mtdqn.types import Prediction, TaskInfo

SIZE = 16
BOTH = torch.tensor([0, 1])


def _task(name: str, num_actions: int, head: str = "") -> TaskInfo:
    return TaskInfo(name=name, observation_shape=(SIZE,), num_actions=num_actions, head=head)


LEFT, RIGHT = _task("left", 2), _task("right", 3)


def _built(head: Any, *tasks: TaskInfo, seed: int = 0) -> LayeredHead:
    torch.manual_seed(seed)
    built: LayeredHead = head(tasks or (LEFT, RIGHT), SIZE)
    return built


def _draw(head: Head, seed: int = 0) -> None:
    """Draw noise wherever the head has some."""
    generator = torch.Generator().manual_seed(seed)
    for module in head.modules():
        if isinstance(module, DrawsNoise):
            module.resample_noise(generator)


def _predict(head: Head, features: Tensor, task: Tensor) -> Prediction:
    fractions = head.fractions(features.shape[1])
    return Prediction(features, (), head(features, task), taus=fractions)


def _values(head: Head, features: Tensor, task: Tensor) -> Tensor:
    return head.q_values(_predict(head, features, task)).detach()


@each(ALL)
def test_a_head_has_a_value_per_row_and_padded_action(head: Any) -> None:
    built, features = _built(head), torch.randn(2, 5, SIZE)
    assert _values(built, features, BOTH).shape == (2, 5, 3)
    _draw(built)
    assert _values(built, features, BOTH).shape == (2, 5, 3)


@each(KINDS)
def test_initial_values_are_all_near_zero_or_the_middle_of_the_support(head: Any) -> None:
    values = _values(_built(head), torch.rand(2, 50, SIZE) * 2.0 - 1.0, BOTH)
    assert float(values.abs().max()) < 0.2


@each(ALL)
def test_all_tasks_at_once_are_each_task_alone(head: Any) -> None:
    built, features = _built(head), torch.randn(3, 5, SIZE)
    task = torch.tensor([1, 0, 1])
    _draw(built)
    together = _values(built, features, task)
    for group in range(3):
        alone = _values(built, features[group : group + 1], task[group : group + 1])
        torch.testing.assert_close(alone[0], together[group])


@each(ALL)
def test_the_batched_layers_are_those_of_each_head_by_itself(head: Any) -> None:
    built = _built(head)
    for index, info in enumerate((LEFT, RIGHT)):
        single = _built(head, info, seed=1)
        own = {k: v for k, v in built.state_dict().items() if k in single.state_dict()}
        single.load_state_dict(own)
        features = torch.randn(1, 5, SIZE)
        expected = _values(built, features, torch.tensor([index]))[..., : info.num_actions]
        torch.testing.assert_close(_values(single, features, torch.tensor([0])), expected)


@each(ALL)
def test_reordering_tasks_does_not_swap_their_heads(head: Any) -> None:
    saved, loaded = _built(head, LEFT, RIGHT), _built(head, RIGHT, LEFT, seed=1)
    loaded.load_state_dict(saved.state_dict())
    features = torch.randn(2, 5, SIZE)
    _draw(saved)
    _draw(loaded)
    values = _values(saved, features, BOTH)
    torch.testing.assert_close(_values(loaded, features, BOTH.flip(0)), values)


@each(ALL)
def test_everything_that_is_saved_belongs_to_a_named_head_or_a_shared_layer(head: Any) -> None:
    for name in _built(head).state_dict():
        assert {"left", "right"} & set(name.split(".")) or "stream" in name or "embedding" in name


@each(ALL)
def test_the_loss_of_one_task_leaves_the_other_head_alone(head: Any) -> None:
    built, features = _built(head), torch.randn(1, 5, SIZE)
    _draw(built)
    prediction = _predict(built, features, torch.tensor([0]))
    action = torch.zeros(1, 5, dtype=torch.int64)
    target = built.target(torch.randn(1, 5), torch.full((1, 5), 0.9), prediction, action)
    loss, _ = built.loss(prediction, action, target)
    torch.autograd.backward(loss.sum())
    rows = {n: p for n, p in built.named_parameters() if n.split(".")[0] in LAYERS}
    assert rows
    for name, parameter in rows.items():
        assert parameter.grad is not None, name
        assert (parameter.grad[0] != 0.0).any(), name
        assert (parameter.grad[1] == 0.0).all(), name


LAYERS = ("values", "value", "advantage")


@each(ALL)
def test_a_padded_action_learns_nothing_and_moves_no_other_value(head: Any) -> None:
    built, features = _built(head), torch.randn(2, 5, SIZE)
    before = _values(built, features, BOTH)
    layer: Any = built.advantage if built.dueling else built.values
    padding = layer.weight.shape[-1] // 3
    with torch.no_grad():
        layer.bias[0, 0, -padding:] += torch.linspace(10.0, 50.0, padding)
    after = _values(built, features, BOTH)
    assert torch.equal(after[0, :, :2], before[0, :, :2])
    assert torch.equal(after[1], before[1])
    prediction = _predict(built, features, BOTH)
    target = built.target(torch.zeros(2, 5), torch.ones(2, 5), prediction, torch.ones(2, 5).long())
    loss, _ = built.loss(prediction, torch.ones(2, 5).long(), target)
    torch.autograd.backward(loss.sum())
    assert (layer.weight.grad[0, :, -padding:] == 0.0).all()


@each(HEADS)
def test_a_padded_action_is_never_chosen(head: Any) -> None:
    built, features = _built(head), torch.randn(2, 50, SIZE)
    mask = torch.tensor([[[True, True, False]], [[True, True, True]]])
    action = greedy_actions(_values(built, features, BOTH), mask)
    assert set(action[0].tolist()) == {0, 1}


@each(HEADS)
def test_the_target_follows_the_given_action_or_policy(head: Any) -> None:
    built, features = _built(head), torch.randn(2, 5, SIZE)
    prediction = _predict(built, features, BOTH)
    reward, discount = torch.randn(2, 5) * 0.1, torch.full((2, 5), 0.5)
    action = torch.randint(2, (2, 5))
    target = built.target(reward, discount, prediction, action)
    certain = torch.nn.functional.one_hot(action, 3).float()
    torch.testing.assert_close(built.target(reward, discount, prediction, certain), target)
    # Were the next output of the other action another, the target would be the same.
    other = torch.nn.functional.one_hot(1 - action, 3).bool()
    output = prediction.output.masked_fill(
        other if prediction.output.dim() == 3 else other.unsqueeze(-1), 77.0
    )
    moved = built.target(reward, discount, prediction._replace(output=output), action)
    torch.testing.assert_close(moved, target)


@each(HEADS)
def test_nothing_of_the_next_state_counts_where_an_episode_terminated(head: Any) -> None:
    built = _built(head)
    nowhere = torch.zeros(2, 5)
    action = torch.zeros(2, 5, dtype=torch.int64)
    targets = [
        built.target(nowhere + 1.0, nowhere, _predict(built, features, BOTH), action)
        for features in torch.randn(2, 2, 5, SIZE)
    ]
    torch.testing.assert_close(targets[0], targets[1])


@each(HEADS)
def test_a_target_receives_no_gradient_and_an_error_carries_none(head: Any) -> None:
    built, features = _built(head), torch.randn(2, 5, SIZE)
    prediction = _predict(built, features, BOTH)
    action = torch.zeros(2, 5, dtype=torch.int64)
    target = built.target(torch.ones(2, 5), torch.ones(2, 5), prediction, action)
    loss, error = built.loss(prediction, action, target.detach())
    assert loss.shape == error.shape == (2, 5)
    assert not error.requires_grad
    watched = target.detach().requires_grad_()
    torch.autograd.backward(built.loss(prediction, action, watched)[0].sum())
    assert watched.grad is None


@each(ALL)
def test_values_targets_and_losses_are_float32_under_autocast(head: Any) -> None:
    built, features = _built(head), torch.randn(2, 5, SIZE)
    _draw(built)
    action, numbers = torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5)
    policy = torch.full((2, 5, 3), 1.0 / 3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = _predict(built, features, BOTH)
    for choice in (action, policy):
        found = []
        for enabled in (True, False):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                target = built.target(numbers, numbers, prediction, choice)
                found.append((target, *built.loss(prediction, action, target)))
        assert {tensor.dtype for tensor in found[0]} == {torch.float32}
        for mixed, full in zip(*found, strict=True):
            assert torch.equal(mixed, full)


@each(HIDDEN)
def test_a_hidden_layer_is_shared_by_all_heads(head: Any) -> None:
    shapes = {n: p.shape for n, p in _built(head).named_parameters() if "stream" in n}
    assert set(shapes.values()) == {(5, SIZE), (5,)}


@each({**HIDDEN, **DUELING})
def test_a_negative_width_is_refused(head: Any) -> None:
    with pytest.raises(ValueError, match=complaint("hidden")):
        head([LEFT], SIZE, hidden=-1)


@each(NOISY)
def test_only_a_draw_changes_what_a_noisy_head_returns(head: Any) -> None:
    built, features = _built(head).train(), torch.randn(2, 5, SIZE)
    mean = _values(built, features, BOTH)
    assert torch.equal(_values(built, features, BOTH), mean)
    _draw(built, seed=1)
    first = _values(built, features, BOTH)
    assert torch.equal(_values(built, features, BOTH), first)
    _draw(built, seed=2)
    assert not torch.equal(_values(built, features, BOTH), first)
    _draw(built, seed=1)
    assert torch.equal(_values(built, features, BOTH), first)
    built.eval()
    assert torch.equal(_values(built, features, BOTH), mean)
    assert not torch.equal(first, mean)


@each({**HEADS, **NOISY})
def test_noise_is_not_saved(head: Any) -> None:
    before, built = _built(head).state_dict(), _built(head)
    _draw(built)
    after = built.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
