from pathlib import Path

from lit_mtdqn.analysis.short_names import short_names


def test_a_folder_has_its_last_part_as_a_name_where_no_other_has() -> None:
    folders = [Path("/runs/dqn/cartpole"), Path("/runs/pqn/cartpole"), Path("/runs/pqn/acrobot")]
    names = short_names(dict.fromkeys(folders, 1))
    assert list(names.values()) == ["dqn/cartpole", "pqn/cartpole", "acrobot"]


def test_a_name_has_as_many_parts_as_it_must_and_is_not_taken() -> None:
    folders = {Path("/runs/dqn/today"): 2, Path("/runs/pqn"): 1}
    names = short_names(folders, taken=["pqn"])
    assert list(names.values()) == ["dqn/today", "runs/pqn"]


def test_a_folder_whose_ends_are_all_taken_has_its_whole_path() -> None:
    assert short_names({Path("/pqn"): 1}, taken=["pqn"]) == {Path("/pqn"): "/pqn"}
    folders = dict.fromkeys([Path("/a/b"), Path("/x/a/b")], 1)
    assert list(short_names(folders).values()) == ["/a/b", "x/a/b"]
