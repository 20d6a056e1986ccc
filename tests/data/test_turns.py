import torch

from lit_mtdqn.data.turns import Turns

TASKS = ["left", "middle", "right"]


def test_turns_are_taken_by_who_is_owed_most() -> None:
    turns = Turns()
    share = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert turns.take(5, TASKS, share).tolist() == [0, 1, 2, 0, 0]
    assert turns.state_dict() == {"left": -0.5, "middle": 0.25, "right": 0.25}
    assert turns.take(3, TASKS, share).tolist() == [1, 2, 0]


def test_turns_go_on_by_name_when_tasks_are_reordered() -> None:
    share = torch.tensor([0.51, 0.28, 0.21], dtype=torch.float64)
    turns, again = Turns(), Turns()
    turns.take(5, TASKS, share)
    again.load_state_dict(turns.state_dict())
    order = [2, 0, 1]
    taken = again.take(4, [TASKS[place] for place in order], share[order])
    assert [order[place] for place in taken] == turns.take(4, TASKS, share).tolist()
