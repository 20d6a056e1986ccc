from functools import partial
from typing import Any

import pytest
from helpers.asserts import complaint

from lit_mtdqn import TaskInfo
from lit_mtdqn.networks import Columns, ConvTorso, MLPTorso, QNetwork
from lit_mtdqn.networks.parts import names_of_parts, parts_of_parameters

LEFT = TaskInfo(name="left", observation_shape=(4,), num_actions=2)
RIGHT = TaskInfo(name="right", observation_shape=(4,), num_actions=3)
NETWORK = partial(QNetwork, torso=partial(MLPTorso, hidden=[5, 6]))


def _network(*infos: TaskInfo, make: Any = NETWORK) -> QNetwork:
    network: QNetwork = make(list(infos))
    return network


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["trunk"], ["torso.layers.0", "torso.layers.2"]),
        (["heads"], ["head.values.left", "head.values.right"]),
        (["torso.layers.2"], ["torso.layers.2"]),
        (["torso.layers.0", "head.values.left"], ["head.values.left", "torso.layers.0"]),
        (["torso.layers.0.bias"], ["torso.layers.0"]),
    ],
    ids=str,
)
def test_parts_are_the_trunk_the_heads_or_beginnings_of_names(
    parts: list[str], expected: list[str]
) -> None:
    names = names_of_parts(_network(LEFT, RIGHT), parts, None, "Asker")
    assert sorted({name.rpartition(".")[0] for name in names}) == expected


def test_a_name_that_only_begins_alike_is_another() -> None:
    infos = [
        TaskInfo(name=name, observation_shape=(4,), num_actions=2) for name in ("left", "left_2")
    ]
    names = names_of_parts(_network(*infos), ["head.values.left"], None, "Asker")
    assert names == ["head.values.left.weight", "head.values.left.bias"]


IMAGE = TaskInfo(
    name="left",
    observation_shape=(3, 10, 10),
    num_actions=2,
    observation_kind="image",
    observation_high=1.0,
)
CONV = partial(ConvTorso, channels=[2, 3], kernel_sizes=[3, 3], strides=[1, 1], hidden=4)


@pytest.mark.parametrize(
    ("make", "infos", "layers", "expected"),
    [
        (NETWORK, [LEFT], 1, ["torso.layers.0"]),
        (NETWORK, [LEFT], 2, ["torso.layers.0", "torso.layers.2"]),
        (
            partial(QNetwork, torso=partial(MLPTorso, hidden=[5, 6], layer_norm=True)),
            [LEFT],
            1,
            ["torso.layers.0", "torso.layers.1"],
        ),
        (
            partial(QNetwork, torso=CONV),
            [IMAGE],
            2,
            ["torso.convolutions.0.0", "torso.convolutions.1.0"],
        ),
        (
            partial(NETWORK, sharing=Columns),
            [LEFT, RIGHT],
            1,
            ["sharing.columns.left.layers.0", "sharing.columns.right.layers.0"],
        ),
    ],
    ids=["mlp", "all", "normalised", "conv", "columns"],
)
def test_the_first_layers_are_those_of_every_torso(
    make: Any, infos: list[TaskInfo], layers: int, expected: list[str]
) -> None:
    names = names_of_parts(make(infos), ["all"], layers, "Asker")
    assert sorted({name.rpartition(".")[0] for name in names}) == expected


def test_unknown_parts_are_refused_by_a_list_of_those_there_are() -> None:
    with pytest.raises(ValueError, match=complaint("Asker.parts")) as error:
        names_of_parts(_network(LEFT), ["encoder"], None, "Asker")
    assert "trunk, heads, torso.layers.0" in str(error.value)


@pytest.mark.parametrize(("parts", "layers"), [(["heads"], 1), (["all"], 0), (["all"], 3)])
def test_layers_without_any_are_refused(parts: list[str], layers: int) -> None:
    with pytest.raises(ValueError, match=complaint("Asker.layers")):
        names_of_parts(_network(LEFT), parts, layers, "Asker")


def test_the_name_of_a_task_is_all_that_it_has_to_itself() -> None:
    lateral = partial(Columns, coupling="lateral", order=["left"])
    network = _network(LEFT, RIGHT, make=partial(NETWORK, sharing=lateral))
    # Adapters are of those that receive: the ones from left to right are not left's.
    adapters = {
        f"sharing.mixing.adapters.{n}.{m}" for n in (0, 1) for m in ("down.right.left", "up.right")
    }
    for name, received in (("left", set()), ("right", adapters)):
        names = names_of_parts(network, [name], None, "Asker")
        assert {name.rpartition(".")[0] for name in names} == {
            f"sharing.columns.{name}.layers.0",
            f"sharing.columns.{name}.layers.2",
            f"head.values.{name}",
            *received,
        }


def test_parameters_belong_to_the_last_of_their_parts_and_stacks_row_by_row() -> None:
    network = _network(LEFT, RIGHT)
    names = {part: names_of_parts(network, [part], None, "Asker") for part in ("all", "torso")}
    names["right"] = ["head.values.right.weight"]
    found = parts_of_parameters(network, names)
    by_name = {name: found[parameter] for name, parameter in network.named_parameters()}
    assert by_name == {
        "torso.layers.0.weight": ["torso"],
        "torso.layers.0.bias": ["torso"],
        "torso.layers.2.weight": ["torso"],
        "torso.layers.2.bias": ["torso"],
        "head.values.weight": ["all", "right"],
        "head.values.bias": ["all", "all"],
    }


def test_parameters_of_no_part_are_left_out() -> None:
    network = _network(LEFT, RIGHT, make=partial(NETWORK, sharing=Columns))
    names = {"left": names_of_parts(network, ["sharing.columns.left"], 1, "Asker")}
    found = parts_of_parameters(network, names)
    by_name = {name: found.get(parameter) for name, parameter in network.named_parameters()}
    of_left = {name for name, parts in by_name.items() if parts is not None}
    assert of_left == {f"sharing.columns.layers__0__{name}" for name in ("weight", "bias")}
    assert all(by_name[name] == ["left", None] for name in of_left)
