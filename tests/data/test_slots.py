import pytest

from lit_mtdqn.data.slots import Slot, is_acting
from lit_mtdqn.replay import Replay
from lit_mtdqn.types import TaskSpec


@pytest.mark.parametrize(
    ("acts", "replay", "is_played"),
    [(True, None, True), (False, None, False), (True, "folder", False), (False, "folder", False)],
)
@pytest.mark.parametrize("learns", [False, True])
def test_a_slot_acts_unless_it_must_not_or_brings_a_replay(
    acts: bool, replay: str | None, is_played: bool, learns: bool
) -> None:
    spec = TaskSpec(env="count", acts=acts, replay=replay, learns=learns)
    slot = Slot("count", 0, spec, Replay(1, seed=0))
    assert (slot.acts, is_acting(spec), slot.learns) == (is_played, is_played, learns)
