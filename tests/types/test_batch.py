import torch
from torch import Tensor

from lit_mtdqn.types import Transition

K, S, B = 3, 2, 4


def _numbered(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).view(shape)


def _phase(extra: dict[str, Tensor]) -> Transition:
    return Transition(
        observation=_numbered(K, S, B, 5),
        action=_numbered(K, S, B),
        reward=_numbered(K, S, B) + 0.5,
        discount=_numbered(K, S, B) * 0.1,
        next_observation=_numbered(K, S, B, 5) + 1,
        weight=torch.ones(K, S, B),
        replay_index=_numbered(K, S, B),
        task=_numbered(K, S),
        extra=extra,
    )


def test_minibatches_are_the_k_slices_of_a_phase() -> None:
    phase = _phase({"next_action_mask": _numbered(K, S, B, 2) % 3 == 0})
    batches = list(phase.minibatches())
    assert len(batches) == K
    for k, batch in enumerate(batches):
        for name in Transition._fields[:-1]:
            assert torch.equal(getattr(batch, name), getattr(phase, name)[k]), name
        assert batch.extra.keys() == {"next_action_mask"}
        assert torch.equal(batch.extra["next_action_mask"], phase.extra["next_action_mask"][k])


def test_minibatches_are_views_and_copy_nothing() -> None:
    phase = _phase({"mask": torch.zeros(K, S, B)})
    last = list(phase.minibatches())[-1]
    phase.observation[-1].fill_(-7)
    phase.extra["mask"][-1].fill_(1.0)
    assert (last.observation == -7).all()
    assert (last.extra["mask"] == 1.0).all()


def test_minibatches_need_no_extra_tensors() -> None:
    assert [batch.extra for batch in _phase({}).minibatches()] == [{}] * K
