import errno
from functools import partial

import pytest
import torch
from helpers.runs import small_data

from lit_mtdqn import DQN
from lit_mtdqn.cli.errors import building, complaint, complaint_of, exit_code_for, one_sentence
from lit_mtdqn.networks import MLPTorso, QNetwork


def test_a_sentence_of_ours_is_found_in_the_middle_of_a_wrapped_message() -> None:
    message = (
        "Does not validate against any of the Union subtypes\nErrors:\n"
        "  - `gamma` must lie in [0, 1]. Got 2.0.\n  - Expected a <class 'NoneType'>\n"
    )
    assert one_sentence(message) == "`gamma` must lie in [0, 1]. Got 2.0."


def test_the_parsers_nested_keys_become_one_path() -> None:
    message = (
        'Parser key "model":\n  - Problem:\n    Parser key "network":\n'
        "      Option 'hiden' is not accepted. Got value: Namespace(a=1)\n"
        "  - Expected a <class 'NoneType'>\n"
    )
    expected = "`model.network` must fit its type. Option 'hiden' is not accepted."
    assert one_sentence(message) == expected


def test_a_key_given_twice_is_named_with_its_line() -> None:
    message = 'Problems parsing config: found duplicate key a\n  in "<file>", line 4, column 5'
    assert one_sentence(message) == "`config` must name each key once. Got 'a' again in line 4."


@pytest.mark.parametrize("message", ["unrecognized arguments: --nope", "anything else"])
def test_what_is_short_already_stays(message: str) -> None:
    assert one_sentence(message) == message


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory",
        "`step` must follow a `reset`",
        "x must be 1. Got 2.",
        "`a` is bad. Got 1",
    ],
)
def test_what_others_raise_is_no_complaint_of_ours(message: str) -> None:
    assert complaint(message) is None


def test_a_complaint_ends_with_its_line() -> None:
    message = "In setup:\n`a` x `b` must be whole. Got 0.5. Take 1.\nmore"
    assert complaint(message) == "`a` x `b` must be whole. Got 0.5. Take 1."


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_folder_is_told_in_one_sentence(number: int) -> None:
    sentence = complaint_of(OSError(number, "No space left on device", "runs/a/metrics.csv"))
    assert sentence is not None
    assert sentence.startswith("`run_dir` must be a folder that can be written to")
    assert "Got runs/a/metrics.csv: No space left on device." in sentence


def test_other_errors_of_the_system_are_no_complaints() -> None:
    assert complaint_of(FileNotFoundError(errno.ENOENT, "No such file", "a.csv")) is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("of 256000000000 bytes"),
        torch.OutOfMemoryError("of 256000000000 bytes"),
        RuntimeError("can't allocate memory: you tried to allocate 256000000000 bytes"),
    ],
)
def test_what_does_not_fit_into_memory_is_told_in_one_sentence(error: Exception) -> None:
    said = complaint_of(error)
    assert said is not None
    assert said.startswith("`data.num_envs`, ")
    assert "256000000000 bytes" in said
    assert exit_code_for(error) == 2


def test_what_cannot_be_built_is_named_with_what_it_is_for_and_their_plain_arguments() -> None:
    torso = partial(MLPTorso, hidden=[8, None])  # type: ignore[list-item]
    said = r"`MLPTorso` must be .* of .*`hidden`=\[8, None\].*, for `QNetwork`.* Got TypeError: "
    with pytest.raises(ValueError, match=said), building():
        DQN(small_data().task_infos, network=partial(QNetwork, torso=torso))
