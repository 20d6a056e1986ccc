import pytest
import torch
from helpers.runs import COUNTING, SMALL
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn import RolloutDataModule
from lit_mtdqn.data import EveryTask
from lit_mtdqn.data.fragments import orders


class _OnlyTheFirst(EveryTask):
    """Looks like the default and is none."""


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(1, 4)),
    updates=st.integers(1, 6),
    batch_size=st.integers(1, 9),
)
def test_valid_rows_are_drawn_alike_often(
    seed: int, shape: tuple[int, int, int], updates: int, batch_size: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(shape, generator=generator) < 0.7
    valid[0] = True
    drawn = orders(valid, updates, batch_size, generator)
    assert drawn.shape == (updates, shape[1], batch_size)
    for group in range(shape[1]):
        rows = valid[:, group].flatten()
        counts = torch.bincount(drawn[:, group].flatten(), minlength=len(rows))
        assert (counts[~rows] == 0).all()
        assert counts[rows].max() - counts[rows].min() <= 1
        assert counts.sum() == updates * batch_size


def test_the_order_follows_from_the_generator() -> None:
    valid = torch.ones(4, 2, 3, dtype=torch.bool)
    one, same, other = (orders(valid, 2, 6, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"phase_vector_steps": 1, "replay_ratio": 0.5}, "phase_vector_steps"),
        ({"batch_size": 2}, "batch_size"),
        ({"batch_size": 6}, "batch_size"),
        ({"sampler": _OnlyTheFirst()}, "sampler"),
        ({"tasks": {"count": {"env": COUNTING.env, "n_step": 2}}}, "tasks.count.n_step"),
        ({"tasks": {"count": {"env": COUNTING.env, "replay": "kept"}}}, "tasks.count.replay"),
        (
            {"tasks": {"a": {"env": COUNTING.env}, "b": {"env": COUNTING.env, "learns": False}}},
            "tasks.b.acts",
        ),
    ],
)
def test_what_needs_a_replay_is_refused(options: dict[str, object], name: str) -> None:
    tasks = {"tasks": {"count": COUNTING}}
    given = {**SMALL, **tasks, **options, "keeps_replays": False}
    with pytest.raises(ValueError, match=f"^`{name}` must .* where `keeps_replays` is false"):
        RolloutDataModule(**given)
