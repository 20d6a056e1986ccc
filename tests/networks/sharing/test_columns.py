from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint, count_parameters
from helpers.sharing import SIZE, THREE, TORSO, dense, mlp, observations, sharing_of
from torch import Tensor

from lit_mtdqn.networks import Columns

NAMES = ["left", "right", "up"]
ORDER = ["right", "up", "left"]
ALL = torch.arange(3)
TRUNK = (SIZE * 8 + 8) + (8 * 6 + 6)


def test_independent_columns_are_independent_networks() -> None:
    sharing = sharing_of("columns")
    state, observation = sharing.state_dict(), observations(THREE)
    layers = sharing(observation, ALL).layers
    for task, name in enumerate(NAMES):
        for found, expected in zip(
            layers, mlp(state, "columns.", name, observation[task]), strict=True
        ):
            torch.testing.assert_close(found[task], expected)


def _layer(state: dict[str, Tensor], layer: int, name: str, inputs: Tensor) -> Tensor:
    return dense(state, f"columns.{name}.layers.{2 * layer}", inputs).relu()


def test_cross_stitch_units_mix_the_outputs_of_all_columns_at_every_layer() -> None:
    sharing = sharing_of("cross_stitch")
    state, observation = sharing.state_dict(), observations(THREE)
    features = sharing(observation, ALL).features
    for task, own in enumerate(NAMES):
        inputs = dict.fromkeys(NAMES, observation[task])
        for layer in range(2):
            outputs = {name: _layer(state, layer, name, inputs[name]) for name in NAMES}
            inputs = {
                to: sum(
                    state[f"mixing.{to}.{source}.weight"][layer] * outputs[source]
                    for source in NAMES
                )
                for to in NAMES
            }
        torch.testing.assert_close(features[task], inputs[own])


def test_cross_stitch_units_start_near_the_identity() -> None:
    state = Columns(THREE, TORSO, coupling="cross_stitch").state_dict()
    for to in NAMES:
        weights = {source: state[f"mixing.{to}.{source}.weight"].tolist() for source in NAMES}
        for source, found in weights.items():
            assert found == pytest.approx([0.9 if source == to else 0.05] * 2)


def test_cross_stitch_units_that_are_the_identity_leave_independent_columns() -> None:
    torch.manual_seed(0)
    stitched = Columns(THREE, TORSO, coupling="cross_stitch", strength=0.0)
    torch.manual_seed(0)
    independent = Columns(THREE, TORSO)
    observation, task = observations(THREE), torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        stitched(observation, task).features, independent(observation, task).features
    )


def test_columns_that_the_order_does_not_name_come_last() -> None:
    state = Columns(THREE, TORSO, coupling="lateral", order=["up"]).state_dict()
    adapters = {key.split("down.")[1] for key in state if "down." in key}
    pairs = {tuple(key.split(".")[:2]) for key in adapters}
    assert pairs == {("left", "up"), ("right", "up"), ("right", "left")}


def _lateral(state: dict[str, Tensor], own: str, observation: Tensor) -> Tensor:
    """Return the features of one column by equation 2, without gradient."""
    first = {name: _layer(state, 0, name, observation) for name in ORDER}
    second = {
        name: _layer(state, 1, name, first[name]) + _received(state, 0, name, first)
        for name in ORDER
    }
    return second[own] + _received(state, 1, own, second)


def _received(
    state: dict[str, Tensor], adapter: int, own: str, before: dict[str, Tensor]
) -> Tensor | float:
    """Return what one column receives from outputs of those before it."""
    hidden: Tensor | float = 0.0
    for source in ORDER[: ORDER.index(own)]:
        key = f"mixing.adapters.{adapter}.down.{own}.{source}"
        hidden = hidden + state[f"{key}.scale"] * before[source] @ state[f"{key}.weight"]
    if isinstance(hidden, float):
        return 0.0
    return hidden.relu() @ state[f"mixing.adapters.{adapter}.up.{own}.weight"]


def test_columns_receive_from_those_before_them() -> None:
    sharing = sharing_of("lateral")
    state, observation = sharing.state_dict(), observations(THREE)
    state = {name: t.squeeze() if name.endswith("scale") else t for name, t in state.items()}
    features = sharing(observation, ALL).features
    for task, name in enumerate(NAMES):
        torch.testing.assert_close(features[task], _lateral(state, name, observation[task]))


@pytest.mark.parametrize("own", ORDER)
def test_only_its_own_column_and_adapters_learn_from_a_task(own: str) -> None:
    sharing = sharing_of("lateral")
    task = torch.tensor([NAMES.index(own)])
    sharing(observations(THREE, groups=1, rows=50), task).features.square().sum().backward()
    for module in sharing.modules():
        for parameter in module.parameters(recurse=False):
            for row, name in enumerate(module.row_names):
                learns = name.split(".")[0] == own
                assert (parameter.grad[row] != 0.0).any() == learns, name


def test_columns_are_pulled_to_their_mean_by_the_share_of_the_penalty() -> None:
    sharing = Columns(THREE, TORSO, coupling="pull", strength=0.5)
    before = [parameter.detach().clone() for parameter in sharing.parameters()]
    sharing.pull(learning_rate=0.1)
    for parameter, old in zip(sharing.parameters(), before, strict=True):
        mean = old.mean(0, keepdim=True)
        torch.testing.assert_close(parameter.detach(), old - 4 * 3 * 0.5 * 0.1 * (old - mean))


def test_a_pull_of_a_half_goes_half_of_the_way_to_the_mean() -> None:
    sharing = Columns(THREE[:2], TORSO, coupling="pull", strength=0.5)
    with torch.no_grad():
        for parameter in sharing.parameters():
            parameter[0], parameter[1] = 0.0, 4.0
    sharing.pull(learning_rate=0.125)  # 4 * 2 * 0.5 * 0.125
    for parameter in sharing.parameters():
        assert (parameter[0] == 1.0).all()
        assert (parameter[1] == 3.0).all()


def test_a_pull_that_would_diverge_is_refused() -> None:
    sharing = Columns(THREE, TORSO, coupling="pull", strength=1.0)
    sharing.pull(learning_rate=0.16)
    with pytest.raises(ValueError, match=complaint("strength")) as error:
        sharing.pull(learning_rate=0.17)
    assert "4 * 3 tasks * strength * learning rate 0.17 below 2" in str(error.value)


def test_one_column_has_nobody_to_be_pulled_to() -> None:
    sharing = Columns(THREE[:1], TORSO, coupling="pull")
    before = {name: t.clone() for name, t in sharing.state_dict().items()}
    sharing.pull(learning_rate=0.1)
    assert_equal_tensors(sharing.state_dict(), before)


@pytest.mark.parametrize(
    ("coupling", "parameters"),
    [
        ("none", 0),
        ("pull", 0),
        ("cross_stitch", 2 * 3 * 3),
        # Three pairs of columns, two that receive, at the second layer and at the heads.
        ("lateral", 3 * (8 * 5 + 1) + 2 * 5 * 6 + 3 * (6 * 5 + 1) + 2 * 5 * 6),
    ],
)
def test_columns_have_the_parameters_of_networks_and_coupling(
    coupling: Any, parameters: int
) -> None:
    sharing = Columns(THREE, TORSO, coupling=coupling, adapter_size=5)
    assert count_parameters(sharing) == 3 * TRUNK + parameters


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"coupling": "soft"}, "coupling"),
        ({"coupling": "pull", "strength": -1.0}, "strength"),
        ({"coupling": "cross_stitch", "strength": 1.5}, "strength"),
        ({"coupling": "lateral", "adapter_size": 0}, "adapter_size"),
        ({"coupling": "lateral", "order": ["left", "left"]}, "order"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: Any, name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        Columns(THREE, TORSO, **options)


@pytest.mark.parametrize("coupling", ["none", "cross_stitch", "lateral"])
def test_a_column_without_a_group_in_the_batch_learns_from_no_other_task_unless_stitched(
    coupling: Any,
) -> None:
    sharing = partial(Columns, coupling=coupling)(THREE, TORSO)
    sharing(observations(THREE, groups=2), torch.tensor([0, 1])).features.sum().backward()
    weight = sharing.columns.layers__0__weight
    assert isinstance(weight, Tensor)
    assert weight.grad is not None
    assert bool((weight.grad[2] != 0.0).any()) == (coupling == "cross_stitch")
