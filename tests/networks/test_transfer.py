from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from torch import Tensor

from lit_mtdqn import TaskInfo
from lit_mtdqn.networks import (
    Columns,
    ConvTorso,
    DuelingHead,
    LinearHead,
    MLPTorso,
    QNetwork,
    SharedTrunk,
)
from lit_mtdqn.networks.parts import names_of_parts
from lit_mtdqn.networks.transfer import describe, plan_moves, received

LEFT = TaskInfo(name="left", observation_shape=(4,), num_actions=2)
RIGHT = TaskInfo(name="right", observation_shape=(4,), num_actions=3)
NETWORK = partial(QNetwork, torso=partial(MLPTorso, hidden=[5, 6]))


def _network(*infos: TaskInfo, seed: int = 0, make: Any = NETWORK) -> QNetwork:
    torch.manual_seed(seed)
    network: QNetwork = make(list(infos))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return network


def _moves(own: QNetwork, other: QNetwork, parts: Any = ("all",), **options: Any) -> Any:
    wanted = names_of_parts(own, parts, options.pop("layers", None), "WeightTransfer")
    given: dict[str, Any] = {"tasks": {}, "names": {}, "exact": False, **options}
    return plan_moves(own, other.state_dict(), wanted, **given)


def _outcomes(moves: Any) -> dict[str, str]:
    return {move.name: move.outcome for move in moves}


def test_a_network_of_the_same_tasks_receives_all_and_stays_as_it_is_until_it_loads() -> None:
    own, other = _network(LEFT, RIGHT), _network(RIGHT, LEFT, seed=1)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    moves = _moves(own, other)
    assert set(_outcomes(moves).values()) == {"moved"}
    state = received(own, other.state_dict(), moves, keep=1.0)
    assert_equal_tensors(own.state_dict(), before)
    assert_equal_tensors(state, dict(other.state_dict()))


def test_heads_follow_their_names_and_others_are_told() -> None:
    own = _network(LEFT, RIGHT)
    other = _network(RIGHT, TaskInfo(name="up", observation_shape=(4,), num_actions=2), seed=1)
    outcomes = _outcomes(_moves(own, other))
    heads = {name: outcome for name, outcome in outcomes.items() if name.startswith("head.")}
    assert heads == {
        "head.values.left.weight": "fresh",
        "head.values.left.bias": "fresh",
        "head.values.right.weight": "moved",
        "head.values.right.bias": "moved",
        "head.values.up.weight": "ignored",
        "head.values.up.bias": "ignored",
    }


def test_a_task_may_take_the_head_of_another_as_far_as_actions_go() -> None:
    own, other = _network(LEFT), _network(RIGHT, seed=1)
    moves = _moves(own, other, ["heads"], tasks={"left": "right"})
    state = received(own, other.state_dict(), moves, keep=1.0)
    assert _outcomes(moves)["head.values.left.weight"] == "adapted"
    theirs = other.state_dict()["head.values.right.weight"]
    assert torch.equal(state["head.values.left.weight"], theirs[:, :2])


def test_what_overlaps_is_moved_and_the_rest_stays() -> None:
    wide = TaskInfo(name="left", observation_shape=(7,), num_actions=2)
    own, other = _network(wide), _network(LEFT, seed=1)
    name = "torso.layers.0.weight"
    state = received(own, other.state_dict(), _moves(own, other), keep=1.0)
    assert torch.equal(state[name][:, :4], other.state_dict()[name])
    assert torch.equal(state[name][:, 4:], own.state_dict()[name][:, 4:])


IMAGE = {"observation_kind": "image", "num_actions": 2, "name": "left"}


def _seeing(size: int, channels: int, seed: int = 0, **sharing: Any) -> QNetwork:
    """Return a network of one convolution, whose images have `size - 2` rows and columns."""
    info = TaskInfo(observation_shape=(1, size, size), **IMAGE)  # type: ignore[arg-type]
    torso = partial(ConvTorso, channels=[channels], kernel_sizes=[3], strides=[1], hidden=5)
    return _network(info, make=partial(QNetwork, torso=torso, **sharing), seed=seed)


@pytest.mark.parametrize(("mine", "theirs"), [(2, 3), (3, 2)])
def test_dense_layers_behind_convolutions_take_whole_channels(mine: int, theirs: int) -> None:
    own, other = _seeing(6, mine), _seeing(6, theirs, seed=1)
    found = other.state_dict()
    state = received(own, found, _moves(own, other), keep=1.0)
    name, both = "torso.dense.0.weight", min(mine, theirs)
    dense, source = (tensor.view(5, -1, 16) for tensor in (state[name], found[name]))
    assert torch.equal(dense[:, :both], source[:, :both])
    assert torch.equal(dense[:, both:], own.state_dict()[name].view(5, -1, 16)[:, both:])


@pytest.mark.parametrize(
    ("size", "channels"), [(8, 4), (4, 16)], ids=["other shape", "by chance of one shape"]
)
@pytest.mark.parametrize("sharing", [{}, {"sharing": Columns}], ids=["torso", "columns"])
def test_dense_layers_that_see_images_of_another_size_stay(
    size: int, channels: int, sharing: Any
) -> None:
    own, other = _seeing(6, 4, **sharing), _seeing(size, channels, seed=1, **sharing)
    moves = _moves(own, other)
    (name,) = (name for name in own.state_dict() if name.endswith("dense.0.weight"))
    places = (size - 2) ** 2
    reason = f"16 places of an image, in the source {places}"
    assert [move for move in moves if move.name == name] == [(name, None, "fresh", reason)]
    outcomes = _outcomes(moves)
    with pytest.raises(ValueError, match=complaint("WeightTransfer.source")) as error:
        _moves(own, other, [name], exact=True)
    assert name in str(error.value)
    assert reason in str(error.value)
    assert outcomes[name.replace("weight", "bias")] == "moved"
    assert outcomes[name.replace("dense.0", "convolutions.0.0")] in ("moved", "adapted")


def test_tensors_with_other_axes_stay() -> None:
    own, other = _network(LEFT), _network(LEFT, seed=1).state_dict()
    found = {**other, "torso.layers.0.weight": torch.zeros(5, 4, 1)}
    names = list(own.state_dict())
    moves = plan_moves(own, found, names, tasks={}, names={}, exact=False)
    move = next(move for move in moves if move.name == "torso.layers.0.weight")
    reason = "(5, 4), in the source (5, 4, 1)"
    assert move == ("torso.layers.0.weight", None, "fresh", reason)


def test_kernels_of_another_size_stay() -> None:
    info = TaskInfo(observation_shape=(1, 8, 8), **IMAGE)  # type: ignore[arg-type]
    makes = (
        partial(ConvTorso, channels=[2], kernel_sizes=[size], strides=[1], hidden=5)
        for size in (3, 4)
    )
    own, other = (_network(info, make=partial(QNetwork, torso=torso)) for torso in makes)
    outcomes = _outcomes(_moves(own, other))
    assert outcomes["torso.convolutions.0.0.weight"] == "fresh"
    assert outcomes["torso.convolutions.0.0.bias"] == "moved"
    assert outcomes["torso.dense.0.bias"] == "moved"


def test_a_task_embedding_keeps_its_columns_under_observations_of_another_size() -> None:
    concat = partial(SharedTrunk, conditioning="concat", embedding_dim=3)
    wide = TaskInfo(name="left", observation_shape=(6,), num_actions=2)
    make = partial(NETWORK, sharing=concat)
    own, other = _network(wide, make=make), _network(LEFT, make=make, seed=1)
    state = received(own, other.state_dict(), _moves(own, other), keep=1.0)
    own.load_state_dict(state)
    observation = torch.randn(1, 5, 6)
    observation[..., 4:] = 0.0
    # What only the wider one observes is 0: both see the same.
    features = own(observation, torch.tensor([0])).features
    theirs = other(observation[..., :4], torch.tensor([0])).features
    torch.testing.assert_close(features, theirs)


def test_a_torso_may_become_a_column() -> None:
    own = _network(LEFT, RIGHT, make=partial(NETWORK, sharing=Columns))
    other = _network(LEFT, seed=1)
    moves = _moves(own, other, names={"sharing.columns.right": "torso"})
    state, theirs = received(own, other.state_dict(), moves, keep=1.0), other.state_dict()
    name = "layers.2.weight"
    assert torch.equal(state[f"sharing.columns.right.{name}"], theirs[f"torso.{name}"])
    assert _outcomes(moves)[f"sharing.columns.left.{name}"] == "fresh"


def test_rows_of_a_task_are_found_under_the_sources_name_for_it() -> None:
    columns = partial(NETWORK, sharing=Columns, head=DuelingHead)
    up = TaskInfo(name="up", observation_shape=(4,), num_actions=2)
    own, other = _network(LEFT, RIGHT, make=columns), _network(up, make=columns, seed=1)
    moves = _moves(own, other, tasks={"left": "up"})
    outcomes = _outcomes(moves)
    for name, outcome in outcomes.items():
        assert outcome == ("moved" if "left" in name else "fresh"), name
    assert len(outcomes) == len(own.state_dict())


def _lateral(*names: str, seed: int = 0) -> QNetwork:
    """Return columns of which each receives from those before it."""
    infos = [TaskInfo(name=name, observation_shape=(4,), num_actions=2) for name in names]
    lateral = partial(Columns, coupling="lateral", order=names, strength=1.0)
    return _network(*infos, make=partial(NETWORK, sharing=lateral), seed=seed)


@pytest.mark.parametrize("tasks", [{}, {"a": "c", "b": "d"}], ids=["same names", "other names"])
def test_columns_bring_along_what_they_receive_by(tasks: Any) -> None:
    own, other = _lateral("a", "b", "new"), _lateral(*(tasks.values() or "ab"), seed=1)
    moves = _moves(own, other, ["a", "b"], tasks=tasks)
    own.load_state_dict(received(own, other.state_dict(), moves, keep=1.0))
    observation, task = torch.randn(2, 5, 4), torch.tensor([0, 1])
    found = own.action_values(observation, task)
    assert torch.equal(found, other.action_values(observation, task))
    assert "ignored" not in _outcomes(moves).values()


def test_less_than_all_is_kept_of_what_comes() -> None:
    own, other = _network(LEFT), _network(LEFT, seed=1)
    state = received(own, other.state_dict(), _moves(own, other), keep=0.8)
    pairs = zip(own.state_dict().values(), other.state_dict().values(), strict=True)
    expected: list[Tensor] = [0.2 * mine + 0.8 * theirs for mine, theirs in pairs]
    torch.testing.assert_close(list(state.values()), expected)


def test_unlike_shapes_are_refused_where_exactness_is_asked() -> None:
    own, other = _network(LEFT), _network(RIGHT, seed=1)
    with pytest.raises(ValueError, match=complaint("WeightTransfer.source")) as error:
        _moves(own, other, tasks={"left": "right"}, exact=True)
    for told in ("head.values.left.weight", "head.values.right.weight", "(6, 2)", "(6, 3)"):
        assert told in str(error.value)


def test_what_the_source_lacks_is_refused_where_exactness_is_asked() -> None:
    own, other = _network(LEFT, RIGHT), _network(RIGHT, seed=1)
    name = "WeightTransfer.source: runs/a"
    with pytest.raises(ValueError, match=complaint(name)) as error:
        _moves(own, other, exact=True, name=name)
    expected, found = str(error.value).split("Got")
    assert "['head.values.left']" in expected
    assert "'head.values.right'" in found
    # What nobody asked for may be lacking.
    outcomes = _outcomes(_moves(own, other, ["trunk", "right"], exact=True))
    assert outcomes["head.values.left.weight"] == "fresh"


def test_a_tensor_that_is_lacking_in_a_module_that_is_not_has_its_whole_name() -> None:
    own, found = _network(LEFT), dict(_network(LEFT, seed=1).state_dict())
    name = "torso.layers.0.bias"
    del found[name]
    names = list(own.state_dict())
    moves = plan_moves(own, found, names, tasks={}, names={}, exact=False)
    assert describe(moves).splitlines()[1:3] == [
        "torso.layers.0.weight  moved",
        f"{name}    fresh    the source has no {name}",
    ]
    with pytest.raises(ValueError, match=complaint("WeightTransfer.source")) as error:
        plan_moves(own, found, names, tasks={}, names={}, exact=True)
    assert f"['{name}']" in str(error.value)


def test_a_source_with_nothing_that_is_wanted_is_refused() -> None:
    own, other = _network(LEFT), _network(RIGHT, seed=1)
    with pytest.raises(ValueError, match=complaint("WeightTransfer.source")) as error:
        _moves(own, other, ["heads"])
    assert "head.values.left" in str(error.value)
    assert "head.values.right" in str(error.value)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"tasks": {"up": "left"}}, "tasks"),
        ({"tasks": {"left": "up"}}, "tasks"),
        ({"names": {"torsoo": "torso"}}, "names"),
        ({"names": {"torso": "torsoo"}}, "names"),
        # Words for parts begin no names.
        ({"names": {"trunk": "torso"}}, "names"),
    ],
    ids=str,
)
def test_names_that_either_side_lacks_are_refused_whatever_else_fits(
    options: Any, name: str
) -> None:
    with pytest.raises(ValueError, match=complaint(f"WeightTransfer.{name}")) as error:
        _moves(_network(LEFT), _network(LEFT, seed=1), **options)
    assert "left" in str(error.value)


def test_what_means_something_else_stays_and_says_why() -> None:
    own, other = _network(LEFT), _network(LEFT, seed=1)
    unlike = dict.fromkeys(names_of_parts(own, ["heads"], None, "WeightTransfer"), "1 m, not 1 ft")
    assert describe(_moves(own, other, unlike=unlike)).splitlines() == [
        "weights           outcome  reason",
        "torso.layers.0    moved",
        "torso.layers.2    moved",
        "head.values.left  fresh    1 m, not 1 ft",
    ]
    with pytest.raises(ValueError, match=complaint("WeightTransfer.source")) as error:
        _moves(own, other, ["heads"], unlike=unlike)
    assert str(error.value).endswith("Got ['1 m, not 1 ft'].")


def test_the_table_has_a_line_for_each_module_and_reason() -> None:
    own, other = _network(LEFT), _network(RIGHT, seed=1, make=partial(NETWORK, head=LinearHead))
    assert describe(_moves(own, other)).splitlines() == [
        "weights            outcome  reason",
        "torso.layers.0     moved",
        "torso.layers.2     moved",
        "head.values.left   fresh    the source has no head.values.left",
        "head.values.right  ignored  the model has no head.values.right",
    ]


def test_the_table_tells_what_of_the_model_is_not_asked_for() -> None:
    own, other = _network(LEFT, RIGHT), _network(LEFT, seed=1)
    moves = _moves(own, other, ["trunk"])
    assert describe(moves).splitlines() == [
        "weights            outcome  reason",
        "torso.layers.0     moved",
        "torso.layers.2     moved",
        "head.values.left   fresh    not in `parts`",
        "head.values.right  fresh    not in `parts`",
    ]
    assert_equal_tensors(
        received(own, other.state_dict(), moves, keep=1.0),
        {
            name: (own if name.startswith("head.") else other).state_dict()[name]
            for name in own.state_dict()
        },
    )


def test_the_table_tells_what_the_source_has_beside_what_was_taken_in_its_place() -> None:
    own, other = _network(LEFT), _network(LEFT, RIGHT, seed=1)
    moves = _moves(own, other, ["heads"], names={"head.values.left": "head.values.right"})
    assert describe(moves).splitlines()[3:] == [
        "head.values.left.weight  adapted  (6, 2), in the source (6, 3)",
        "head.values.left.bias    adapted  (2,), in the source (3,)",
        "head.values.left         ignored  not asked for",
    ]


def test_lines_of_the_table_name_tensors_where_those_of_a_module_differ() -> None:
    noisy = partial(NETWORK, head=partial(LinearHead, noisy_sigma=0.5))
    own = _network(LEFT, make=noisy)
    other = _network(TaskInfo(name="left", observation_shape=(9,), num_actions=3), make=noisy)
    assert describe(_moves(own, other)).splitlines() == [
        "weights                                outcome  reason",
        "torso.layers.0.weight                  adapted  (5, 4), in the source (5, 9)",
        "torso.layers.0.bias                    moved",
        "torso.layers.2                         moved",
        "head.values.left.weight, sigma_weight  adapted  (6, 2), in the source (6, 3)",
        "head.values.left.bias, sigma_bias      adapted  (2,), in the source (3,)",
    ]
