import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_mtdqn.analysis.checkpoint_form import check_form

NETWORK = {"class_path": "lit_mtdqn.networks.QNetwork", "init_args": {"torso": None}}
TASK = {"name": "a", "observation_shape": [3], "num_actions": 2}
SCALE = {"class_path": "lit_mtdqn.scaling.PopArt"}
WEIGHTS = {"network.w": torch.zeros(2)}
PATH = Path("some.ckpt")


def _saved(state: Any = WEIGHTS, **given: Any) -> dict[str, Any]:
    return {"state_dict": state, "hyper_parameters": {"tasks": [TASK], "network": NETWORK, **given}}


def _statistics(value: Any) -> dict[str, Any]:
    return {**WEIGHTS, "scale._extra_state": value}


@pytest.mark.parametrize(
    "saved",
    [
        _saved(),
        _saved(scale=SCALE, state=_statistics({"a": torch.zeros(2)})),
        _saved({**WEIGHTS, "balancer._extra_state": {"tasks": ["a"]}}),
        _saved(network={"class_path": "own.Network", "init_args": {"head": "of_words"}}),
    ],
)
def test_what_a_run_leaves_is_taken_as_it_is(saved: dict[str, Any]) -> None:
    assert check_form(saved, PATH, "source") is saved


@pytest.mark.parametrize(
    ("saved", "must", "found"),
    [
        (torch.zeros(2), "with a `state_dict`", "'Tensor'"),
        ({"model": 1}, "with a `state_dict`", "['model']"),
        (_saved({1: torch.zeros(2)}), "with a `state_dict`", "{1: tensor([0., 0.])}"),
        (_saved({"w": torch.zeros(2)}), "with weights under `network.`", "['w']"),
        (_saved({"network.w": [0.0]}), "with a `state_dict` of tensors", "{'network.w': 'list'}"),
        ({"state_dict": WEIGHTS}, "with `hyper_parameters` that name tasks and network", "None"),
        (_saved(tasks=None), "whose `tasks` each have a name", "None"),
        (_saved(tasks=[]), "whose `tasks` each have a name", "[]"),
        (_saved(tasks=["a"]), "whose `tasks` each have a name", "['a']"),
        (_saved(tasks=[{"name": 1}]), "whose `tasks` each have a name", "[{'name': 1}]"),
        (_saved(tasks=[{**TASK, "name": 1}]), "whose `tasks` each have a name", "'name': 1"),
        (_saved(network="x"), "with a `network` in its `hyper_parameters` that names", "'x'"),
        (_saved(network=None), "with a `network` in its `hyper_parameters` that names", "None"),
        (
            _saved(network={"class_path": 1}),
            "whose `hyper_parameters` describe classes by",
            "{'class_path': 1}",
        ),
        (
            _saved(optimizer=[{"init_args": {}}]),
            "whose `hyper_parameters` describe classes by",
            "{'init_args': {}}",
        ),
        (
            _saved(scale={**SCALE, "init_args": [1]}),
            "whose `hyper_parameters` describe classes by",
            "'init_args': [1]",
        ),
        (_saved(scale="x"), "with a `scale` in its `hyper_parameters` that is null or", "'x'"),
        (_saved(scale=SCALE), "with statistics of its `scale`", "None"),
        (_saved(_statistics({"a": [1]}), scale=SCALE), "with statistics of its", "{'a': [1]}"),
        (_saved(_statistics({})), "that names the `scale`", "None"),
    ],
)
def test_what_readers_could_not_rely_on_is_refused_with_what_was_found(
    saved: Any, must: str, found: str
) -> None:
    told = rf"^`source` must be a checkpoint of this package, {re.escape(must)}.*"
    with pytest.raises(ValueError, match=rf"{told} Got some\.ckpt: .*{re.escape(found)}"):
        check_form(saved, PATH, "source")
