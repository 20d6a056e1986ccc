import numpy as np
import torch

from lit_mtdqn.replay import FragmentAccumulator
from lit_mtdqn.types import StepRow, TaskSpec

SPECS = [
    TaskSpec(env="unused", gamma=0.9),
    TaskSpec(env="unused", gamma=0.5, reward_clip=(-1.0, 1.0)),
]


def _row(number: int, *, valid: bool = True, terminated: bool = False) -> StepRow:
    """Return a vector step of 2 tasks with 3 environments; the flags are those of the first."""
    shape = (2, 3)
    flags = {"valid": np.ones(shape, bool), "terminated": np.zeros(shape, bool)}
    flags["valid"][0, 0], flags["terminated"][0, 0] = valid, terminated
    return StepRow(
        observation=np.full((*shape, 4), number, np.float32),
        action=np.full(shape, number, np.int32),
        reward=np.full(shape, number, np.float32),
        truncated=np.zeros(shape, bool),
        next_observation=np.full((*shape, 4), number + 1, np.float32),
        extra={"success": np.ones(shape)},
        **flags,
    )


def test_steps_come_out_in_their_order_and_once() -> None:
    fragments = FragmentAccumulator(SPECS, [3, 5])
    for number in range(4):
        fragments.add(_row(number, terminated=number == 1, valid=number != 2))
    first = fragments.emit()
    assert first.reward.shape == (4, 2, 3)
    assert first.action.dtype == torch.int64
    assert first.action[:, 0, 1].tolist() == [0, 1, 2, 3]
    assert first.next_observation[:, 1, 2, 0].tolist() == [1, 2, 3, 4]
    # Clipped in the second task alone; gammas are the tasks'.
    assert first.reward[:, :, 1].tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]
    torch.testing.assert_close(first.discount[:, 0, 0], torch.tensor([0.9, 0.0, 0.9, 0.9]))
    assert (first.discount[:, 1] == 0.5).all()
    assert first.weight[:, 0, 0].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert first.task.tolist() == [3, 5]
    assert not first.extra
    fragments.add(_row(4))
    assert fragments.emit().action[:, 0, 0].tolist() == [4]


def test_masks_come_along() -> None:
    fragments = FragmentAccumulator(SPECS, [0, 1])
    mask = np.zeros((2, 3, 2), bool)
    fragments.add(_row(0)._replace(action_mask=mask, next_action_mask=~mask))
    extra = fragments.emit().extra
    assert extra["action_mask"].shape == (1, 2, 3, 2)
    assert extra["next_action_mask"].all()
    assert not extra["action_mask"].any()
