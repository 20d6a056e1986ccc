import torch
from torch import Tensor

from lit_mtdqn.types import Phase, Transition

K, S, B = 3, 2, 4


def _numbered(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).view(shape)


def _transitions(extra: dict[str, Tensor]) -> Transition:
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
    mask = _numbered(K, S, B, 2) % 3 == 0
    transitions = _transitions({"next_action_mask": mask})
    batches = list(transitions.minibatches())
    assert len(batches) == K
    for k, batch in enumerate(batches):
        for name in Transition._fields[:-1]:
            assert torch.equal(getattr(batch, name), getattr(transitions, name)[k]), name
        assert batch.extra.keys() == {"next_action_mask"}
        assert torch.equal(batch.extra["next_action_mask"], mask[k])


def test_minibatches_are_views_and_copy_nothing() -> None:
    transitions = _transitions({"mask": torch.zeros(K, S, B)})
    last = list(transitions.minibatches())[-1]
    transitions.observation[-1].fill_(-7)
    transitions.extra["mask"][-1].fill_(1.0)
    assert (last.observation == -7).all()
    assert (last.extra["mask"] == 1.0).all()


def test_minibatches_need_no_extra_tensors() -> None:
    assert [batch.extra for batch in _transitions({}).minibatches()] == [{}] * K


def test_a_phase_moves_with_all_of_its_tensors_and_keeps_its_metrics() -> None:
    phase = Phase(_transitions({"mask": torch.zeros(K, S, B)}), {"rollout/epsilon/left": 0.5})
    moved = phase.to(torch.device("meta"))
    tensors = [*moved.transitions[:-1], moved.transitions.extra["mask"]]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.rollout == {"rollout/epsilon/left": 0.5}
