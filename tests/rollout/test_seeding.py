import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.rollout.seeding import TEST_SEED, VALIDATION_SEED, training_seed

# The episodes of one evaluation start from this many seeds, one after another, at most.
EPISODES = 500_000
COPIES = 100_000


@given(seed=st.integers(-(2**63), 2**64), purpose=st.text(max_size=8), rank=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_training_selection_and_test_never_share_a_seed(seed: int, purpose: str, rank: int) -> None:
    first = training_seed(seed, purpose, rank)
    assert VALIDATION_SEED + EPISODES < TEST_SEED
    assert first > TEST_SEED + EPISODES
    assert first + COPIES < 2**31


@pytest.mark.parametrize(
    "other", [(8, "left", 0), (7, "right", 0), (7, "left", 1)], ids=["run", "purpose", "rank"]
)
def test_seeds_differ_by_run_by_purpose_and_by_rank(other: tuple[int, str, int]) -> None:
    assert training_seed(7, "left", 0) == training_seed(7, "left", 0) != training_seed(*other)
