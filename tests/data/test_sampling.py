import torch

from lit_mtdqn.data import EveryTask


def test_every_slot_gets_one_row_group_of_every_update() -> None:
    assert EveryTask().draw(2, 3, torch.Generator()).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_nothing_is_drawn_where_nothing_is_random() -> None:
    generator = torch.Generator()
    before = generator.get_state()
    EveryTask().draw(2, 3, generator)
    assert torch.equal(generator.get_state(), before)


def test_scores_change_nothing() -> None:
    sampler = EveryTask()
    sampler.on_scores({"left": 0.5})
    assert sampler.draw(1, 2, torch.Generator()).tolist() == [[0, 1]]
