import pytest
import torch
from helpers.asserts import complaint
from torch import nn

from lit_mtdqn.networks.rows import NamedRows, TaskEmbedding, TaskRows, shared_parameters


class Rows(NamedRows):
    """Two stacks of rows, one of them a buffer."""

    def __init__(self, *names: str) -> None:
        super().__init__(names)
        self.weight = nn.Parameter(torch.arange(3.0 * len(names)).view(-1, 3))
        self.register_buffer("count", torch.zeros(len(names)))
        self.register_buffer("noise", torch.zeros(len(names)), persistent=False)


def test_parameters_and_kept_buffers_are_saved_by_row() -> None:
    state = Rows("right", "left").state_dict()
    assert {name: tuple(row.shape) for name, row in state.items()} == {
        "left.weight": (3,),
        "right.weight": (3,),
        "left.count": (),
        "right.count": (),
    }
    assert state["right.weight"].tolist() == [3.0, 4.0, 5.0]


def test_rows_load_by_name_into_more_and_fewer_rows() -> None:
    saved = Rows("a", "c")
    saved.load_state_dict({**saved.state_dict(), "c.count": torch.tensor(7.0)})
    more, fewer = Rows("a", "b", "c"), Rows("c")
    assert sorted(more.load_state_dict(saved.state_dict(), strict=False).missing_keys) == [
        "b.count",
        "b.weight",
    ]
    fewer.load_state_dict(saved.state_dict(), strict=False)
    assert more.weight[2].tolist() == fewer.weight[0].tolist() == [3.0, 4.0, 5.0]
    assert fewer.get_buffer("count").tolist() == [7.0]


def test_the_row_of_a_task_follows_the_order_of_names() -> None:
    lookup = TaskRows(["up", "left", "right"])
    assert lookup.rows_of(torch.tensor([0, 1, 2, 2])).tolist() == [2, 0, 1, 1]  # type: ignore[union-attr]
    assert lookup.rows_of(torch.tensor([1, 2, 0])).tolist() == [0, 1, 2]  # type: ignore[union-attr]


def test_all_rows_in_their_order_need_no_copy() -> None:
    lookup = TaskRows(["left", "right"])
    assert lookup.rows_of(torch.tensor([0, 1])) is None
    assert lookup.rows_of(torch.tensor([1])) is not None
    assert lookup.rows_of(torch.tensor([1, 0])) is not None


def test_rows_are_shared_as_soon_as_two_tasks_use_one() -> None:
    assert not TaskRows(["left", "right"]).is_shared
    assert TaskRows(["left", "right", "left"]).is_shared


def test_embeddings_have_length_1_and_belong_to_their_task() -> None:
    embedding = TaskEmbedding(["up", "left"], 5)
    found = embedding(torch.tensor([0, 1, 0]))
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))
    assert torch.equal(found[0], found[2])
    found[0].sum().backward()
    assert embedding.weight.grad is not None
    assert (embedding.weight.grad[0] == 0.0).all()
    assert (embedding.weight.grad[1] != 0.0).any()


def test_an_embedding_of_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("embedding_dim")):
        TaskEmbedding(["up"], 0)


def test_shared_parameters_are_all_but_the_rows_of_single_tasks() -> None:
    network = nn.Sequential(nn.Linear(2, 2), Rows("a", "b"), NamedRows(["a"], shared=True))
    both = nn.Parameter(torch.zeros(1))
    network[2].register_parameter("both", both)
    assert {id(p) for p in shared_parameters(network)} == {
        id(p) for p in (*network[0].parameters(), both)
    }
