from functools import partial

import torch
from helpers.asserts import assert_equal_tensors

from lit_mtdqn import TaskInfo
from lit_mtdqn.networks import Columns, MLPTorso, QNetwork
from lit_mtdqn.networks.flat import flat_from_saved, flat_parameters, saved_from_flat

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
]
NETWORK = partial(QNetwork, torso=partial(MLPTorso, hidden=[5]), sharing=Columns)


def test_numbers_go_from_one_row_to_saved_names_and_back() -> None:
    network = NETWORK(INFOS)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    row = flat_parameters(network)
    saved = saved_from_flat(network, row.detach())
    assert_equal_tensors(saved, before)
    assert torch.equal(flat_from_saved(network, saved), row)
    doubled = saved_from_flat(network, 2.0 * row.detach())
    assert_equal_tensors(doubled, {name: 2.0 * tensor for name, tensor in before.items()})
    assert_equal_tensors(network.state_dict(), before)


def test_what_is_not_named_is_0_and_so_is_padding() -> None:
    network = NETWORK(INFOS)
    ones = {name: torch.ones_like(tensor) for name, tensor in network.state_dict().items()}
    given = {name: tensor for name, tensor in ones.items() if ".narrow." in name}
    assert float(flat_from_saved(network, given).sum()) == sum(t.numel() for t in given.values())
    assert float(flat_from_saved(network, ones).sum()) == sum(t.numel() for t in ones.values())
    assert len(flat_parameters(network)) > sum(t.numel() for t in ones.values())
