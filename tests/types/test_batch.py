import torch
from torch import Tensor

from lit_mtdqn.types import Phase, Transition

K, S, B = 3, 2, 4


def _numbered(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).view(shape)


def _transitions(extra: dict[str, Tensor], observed: dict[str, Tensor] | None = None) -> Transition:
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
        observed=observed or {},
    )


def test_minibatches_are_the_k_slices_of_a_phase() -> None:
    mask = _numbered(K, S, B, 2) % 3 == 0
    seen = _numbered(K, B, 5)
    transitions = _transitions({"next_action_mask": mask}, {"far": seen})
    batches = list(transitions.minibatches())
    assert len(batches) == K
    for k, batch in enumerate(batches):
        for name in Transition._fields[:-2]:
            assert torch.equal(getattr(batch, name), getattr(transitions, name)[k]), name
        assert batch.extra.keys() == {"next_action_mask"}
        assert torch.equal(batch.extra["next_action_mask"], mask[k])
        assert batch.observed.keys() == {"far"}
        assert torch.equal(batch.observed["far"], seen[k])


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
    transitions = _transitions({"mask": torch.zeros(K, S, B)}, {"far": torch.zeros(K, B, 5)})
    moved = Phase(transitions, {"rollout/epsilon/left": 0.5}).to(torch.device("meta"))
    named = (moved.transitions.extra["mask"], moved.transitions.observed["far"])
    tensors = [*moved.transitions[:-2], *named]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.rollout == {"rollout/epsilon/left": 0.5}


def test_rows_of_fragments_are_drawn_by_time_and_then_by_environment() -> None:
    fragments = _transitions({"next_action_mask": _numbered(K, S, B, 2)})
    fragments = fragments._replace(task=torch.tensor([7, 9]))
    # Two minibatches of three rows; row 5 of a group is that of time 1 and environment 1.
    order = torch.tensor([[[5, 0, 5], [11, 1, 2]], [[3, 4, 6], [0, 0, 10]]])
    drawn = fragments.drawn(order)
    for k in range(2):
        for group in range(S):
            for place in range(3):
                time, env = divmod(int(order[k, group, place]), B)
                for name in ("observation", "action", "reward", "discount", "weight"):
                    own, all_rows = getattr(drawn, name), getattr(fragments, name)
                    assert torch.equal(own[k, group, place], all_rows[time, group, env]), name
                mask = drawn.extra["next_action_mask"][k, group, place]
                assert torch.equal(mask, fragments.extra["next_action_mask"][time, group, env])
    assert drawn.task.tolist() == [[7, 9], [7, 9]]
    assert len(list(drawn.minibatches())) == 2


def test_a_phase_moves_its_order_along() -> None:
    order = torch.zeros(1, 1, 1, dtype=torch.int64)
    moved = Phase(_transitions({}), {}, {}, order).to(torch.device("meta"))
    assert moved.order is not None
    assert moved.order.device.type == moved.transitions.reward.device.type == "meta"
