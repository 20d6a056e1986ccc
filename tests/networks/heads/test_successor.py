from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from torch import Tensor

from lit_mtdqn.functional.gradients import GroupParameters
from lit_mtdqn.networks import MLPTorso, QNetwork, SharedTrunk, SuccessorHead, predict_by_group
from lit_mtdqn.types import Prediction, TaskInfo

SIZE = 6
ONE = TaskInfo(name="one", observation_shape=(SIZE,), num_actions=2)
TWO = replace(ONE, name="two", head="two")
FAR = replace(ONE, name="far", head="far", learns=False)
INFOS = [TWO, FAR, ONE]
GIVEN = {"far": [1.0, -2.0, 0.5]}
TASKS = torch.tensor([0, 1, 2])


def _built(**options: Any) -> SuccessorHead:
    torch.manual_seed(0)
    given: dict[str, Any] = {"cumulants": 3, "weights": GIVEN, "init_scale": 1.0}
    return SuccessorHead(INFOS, SIZE, **{**given, **options})


def _psi(head: SuccessorHead, features: Tensor, task: int) -> Tensor:
    """Return what a task's own policy gathers after observations [B, F], [B, A, D]."""
    output: Tensor = head(features.unsqueeze(0), torch.tensor([task]))
    return output[0, ..., 1:]


def _predicted(output: Tensor) -> Prediction:
    return Prediction(torch.zeros(0), (), output)


@pytest.mark.parametrize("options", [{}, {"dueling": True}, {"hidden": 5}], ids=str)
def test_values_are_the_best_that_learning_policies_make_of_the_tasks_weights(options: Any) -> None:
    head, features = _built(**options), torch.randn(3, 4, SIZE)
    torch.nn.init.normal_(head.weights.weight)
    output = head(features, TASKS)
    assert output.shape == (3, 4, 2, 4)
    for group, task in enumerate(TASKS.tolist()):
        policies = torch.stack([_psi(head, features[group], policy) for policy in (0, 2)])
        weights = head.weights(torch.tensor([task]))[0]
        torch.testing.assert_close(output[group, ..., 0], (policies @ weights).amax(0))
        torch.testing.assert_close(output[group, ..., 1:], _psi(head, features[group], task))
    assert torch.equal(head.q_values(_predicted(output)), output[..., 0])


def test_without_improvement_each_task_has_its_own_policy() -> None:
    infos = [TWO, replace(FAR, head="two"), ONE]
    head = SuccessorHead(infos, SIZE, 3, GIVEN, improve=False, init_scale=1.0)
    torch.nn.init.normal_(head.weights.weight)
    features = torch.randn(3, 4, SIZE)
    output = head(features, TASKS)
    worth = head.weights(TASKS)
    own = (output[..., 1:] * worth[:, None, None]).sum(-1)
    torch.testing.assert_close(output[..., 0], own)
    assert torch.equal(_psi(head, features[0], 0), _psi(head, features[0], 1))


def test_weights_are_as_given_or_begin_at_nothing_and_are_learned() -> None:
    head = _built()
    assert_table(head.weights(TASKS).detach(), [[0.0] * 3, GIVEN["far"], [0.0] * 3])
    assert head.weights.is_given.tolist() == [False, True, False]
    assert head.weights.weight.requires_grad
    every = {name: [1.0, 0.0, 0.0] for name in ("one", "two", "far")}
    assert not _built(weights=every).weights.weight.requires_grad


def test_given_weights_are_no_state_and_receive_no_gradient() -> None:
    head = _built()
    assert [name for name in head.state_dict() if name.startswith("weights.")] == [
        "weights.one.weight",
        "weights.two.weight",
    ]
    torch.nn.init.normal_(head.weights.weight)
    assert_table(head.weights(TASKS)[1].detach(), GIVEN["far"])
    head(torch.randn(3, 4, SIZE), TASKS)[..., 0].sum().backward()
    gradient = head.weights.weight.grad
    assert gradient is not None
    reached = dict(zip(head.weights.row_names, gradient.any(-1).tolist(), strict=True))
    assert reached == {"far": False, "one": True, "two": True}


def test_a_task_without_weights_has_those_of_the_one_whose_head_it_has() -> None:
    head = SuccessorHead([ONE, replace(FAR, head="one")], SIZE, 2)
    torch.nn.init.normal_(head.weights.weight)
    assert torch.equal(*head.weights(torch.tensor([0, 1])))


def test_what_a_chain_gathers_is_what_was_worked_out_by_hand() -> None:
    # Three states in a row; action 1 goes right, action 0 stays. Leaving the first brings one of
    # the first cumulant, leaving the last one of the second and ends the episode.
    phi = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0]] * 2, [[0.0, 0.0], [0.0, 1.0]]])
    following = torch.tensor([[0, 1], [1, 2], [2, 2]])
    discount = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.0]])
    head = SuccessorHead([ONE], SIZE, 2)
    psi = torch.zeros(3, 2, 2)
    for _ in range(40):
        # Each state and action is a row; the policy goes right.
        after = psi[following].flatten(0, 1)
        output = torch.cat([torch.zeros(6, 2, 1), after], -1).unsqueeze(0)
        right = torch.ones(1, 6, dtype=torch.int64)
        target = head.target(phi.view(1, 6, 2), discount.view(1, 6), _predicted(output), right)
        psi = target.view(3, 2, 2)
    expected = [
        [[0.5, 0.125], [1.0, 0.25]],
        [[0.0, 0.25], [0.0, 0.5]],
        [[0.0, 0.5], [0.0, 1.0]],
    ]
    assert_table(psi, expected)


def test_the_loss_is_half_the_squared_error_and_the_error_its_length() -> None:
    output = torch.zeros(1, 2, 2, 3)
    output[0, 0, 1, 1:] = torch.tensor([1.0, 2.0])
    target = torch.tensor([[[4.0, 6.0], [0.0, 1.0]]])
    action = torch.tensor([[1, 0]])
    loss, error = SuccessorHead([ONE], SIZE, 2).loss(_predicted(output), action, target)
    assert_table(loss, [[12.5, 0.5]])
    assert_table(error, [[5.0, 1.0]])


def test_groups_may_have_parameters_of_their_own() -> None:
    network = QNetwork(
        INFOS,
        partial(MLPTorso, hidden=[5]),
        partial(SuccessorHead, cumulants=3, weights=GIVEN, init_scale=1.0),
    )
    observation, task = torch.randn(3, 4, SIZE), torch.tensor([2, 0, 2])
    shared = set(network.shared_parameters())
    named = {name: p for name, p in network.named_parameters() if p in shared}
    assert named.keys() == {"torso.layers.0.weight", "torso.layers.0.bias"}
    found = predict_by_group(network, GroupParameters.of(named, 3), observation, task)
    torch.testing.assert_close(found.output, network(observation, task).output)


def test_heads_and_weights_are_found_by_name_whatever_the_order_of_tasks() -> None:
    head = _built()
    torch.nn.init.normal_(head.weights.weight)
    turned = SuccessorHead(INFOS[::-1], SIZE, 3, GIVEN)
    turned.load_state_dict(head.state_dict())
    features = torch.randn(3, 4, SIZE)
    torch.testing.assert_close(turned(features.flip(0), TASKS), head(features, TASKS).flip(0))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"cumulants": 0}, "cumulants"),
        ({"weights": {"far": [1.0]}}, "weights"),
        ({"weights": {**GIVEN, "nowhere": [1.0, 1.0, 1.0]}}, "weights"),
        ({"weights": None}, "weights"),
        ({"improve": False}, "improve"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        _built(**options)


def test_tasks_with_unlike_actions_are_refused() -> None:
    with pytest.raises(ValueError, match=complaint("tasks")):
        SuccessorHead([ONE, replace(TWO, num_actions=3)], SIZE, 3)


def test_ways_of_sharing_that_give_tasks_features_of_their_own_are_refused() -> None:
    head = partial(SuccessorHead, cumulants=3, weights=GIVEN)
    with pytest.raises(ValueError, match=complaint("network.sharing")):
        QNetwork(INFOS, head=head, sharing=partial(SharedTrunk, conditioning="concat"))
