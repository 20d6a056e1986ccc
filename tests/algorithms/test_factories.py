import pickle
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lit_mtdqn.algorithms import Adam
from lit_mtdqn.algorithms.factories import as_factory, as_plain, from_plain, trusted_class
from lit_mtdqn.networks import DuelingHead, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import TD
from lit_mtdqn.types import Constant, Exponential, Linear, TaskInfo

TASK = TaskInfo(name="left", observation_shape=(4,), num_actions=2, score_range=(0.0, 1.0))
NETWORK = partial(
    QNetwork,
    torso=partial(MLPTorso, hidden=(8, 4), layer_norm=True, activation=nn.Tanh),
    head=partial(DuelingHead, hidden=3),
)
PLAIN_NETWORK = {
    "class_path": "lit_mtdqn.networks.q_network.QNetwork",
    "init_args": {
        "torso": {
            "class_path": "lit_mtdqn.networks.torsos.MLPTorso",
            "init_args": {
                "hidden": [8, 4],
                "layer_norm": True,
                "activation": {
                    "class_path": "torch.nn.modules.activation.Tanh",
                    "init_args": {},
                },
            },
        },
        "head": {
            "class_path": "lit_mtdqn.networks.heads.scalar.DuelingHead",
            "init_args": {"hidden": 3},
        },
    },
}


def make_network(tasks: Sequence[TaskInfo | Mapping[str, Any]]) -> QNetwork:
    return QNetwork(tasks)


def test_a_factory_is_written_as_configuration_files_write_it() -> None:
    assert as_plain(NETWORK, "network") == PLAIN_NETWORK


def test_a_rebuilt_factory_builds_the_same_network() -> None:
    rebuilt = from_plain(PLAIN_NETWORK, "network")([TASK])
    assert str(rebuilt) == str(NETWORK([TASK]))
    rebuilt.load_state_dict(NETWORK([TASK]).state_dict())


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        0.5,
        "mse",
        [1, [2.0, "three"]],
        QNetwork,
        TD,
        Adam,
        torch.optim.AdamW,
        partial(TD, bootstrap="max"),
        partial(Adam, lr=1e-3, betas=(0.9, 0.99)),
        partial(partial(LinearHead, loss="huber"), init_scale=0.0),
        NETWORK,
        Constant(0.1),
        Linear(1.0, 0.1, duration=10, begin=5),
        Exponential(1.0, 0.1, half_life=3),
        partial(nn.Sequential, parts={"first": nn.ReLU, "second": [nn.Tanh]}),
        [TASK],
    ],
    ids=str,
)
def test_a_plain_form_loads_safely_and_means_the_same(value: Any, tmp_path: Path) -> None:
    plain = as_plain(value, "part")
    torch.save(plain, tmp_path / "plain.pt")
    loaded = torch.load(tmp_path / "plain.pt", weights_only=True)
    assert loaded == plain
    assert as_plain(from_plain(loaded, "part"), "part") == plain


def test_schedules_are_rebuilt_as_objects() -> None:
    schedule = Linear(1.0, 0.1, duration=10, begin=5)
    assert from_plain(as_plain(schedule, "schedule"), "schedule") == schedule


def test_classes_inside_mappings_are_rebuilt_too() -> None:
    plain = as_plain({"first": {"inner": nn.ReLU}}, "parts")
    rebuilt = from_plain(plain, "parts")["first"]["inner"]
    assert isinstance(rebuilt(), nn.ReLU)


def test_infos_become_mappings_that_a_network_takes() -> None:
    (plain,) = as_plain([TASK], "tasks")
    assert TaskInfo(**plain) == TASK


@pytest.mark.parametrize("number", [np.float64(0.5), np.int64(3)])
def test_numbers_of_numpy_become_pythons(number: np.generic) -> None:
    plain = as_plain(number, "learning rate")
    assert type(plain) is type(number.item())
    assert plain == number.item()


@pytest.mark.parametrize(
    "value",
    [
        lambda tasks: QNetwork(tasks),
        make_network,
        partial(make_network),
        partial(MLPTorso, [TASK]),
        nn.ReLU(),
    ],
    ids=["lambda", "function", "partial of a function", "positional argument", "object"],
)
def test_what_no_configuration_could_name_is_refused_in_one_sentence(value: object) -> None:
    with pytest.raises(TypeError, match=r"^`network` must be a class, or .+\. Got .+\.\Z"):
        as_plain(value, "network")


def test_a_complaint_names_the_part_within_the_part() -> None:
    torso = partial(MLPTorso, activation=lambda: nn.ReLU())
    with pytest.raises(TypeError, match=r"^`network\.torso\.activation` must"):
        as_plain(partial(QNetwork, torso=torso), "network")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a package on the path that leaves a file when it is imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def plant(name: str) -> Path:
        flag = tmp_path / "imported"
        code = f"import pathlib, torch\npathlib.Path({str(flag)!r}).touch()\n"
        (tmp_path / f"{name}.py").write_text(f"{code}class Network(torch.nn.Module): ...\n")
        return flag

    return plant


@pytest.mark.parametrize("module", ["planted_elsewhere", "lit_mtdqn_planted", "torch_nn"])
@pytest.mark.parametrize("depth", [0, 1], ids=["outermost", "nested"])
def test_a_class_from_elsewhere_is_refused_without_importing_it(
    module: str, depth: int, planted: Callable[[str], Path]
) -> None:
    flag = planted(module)
    entry: dict[str, Any] = {"class_path": f"{module}.Network", "init_args": {"width": 3}}
    if depth:
        entry = {"class_path": PLAIN_NETWORK["class_path"], "init_args": {"torso": [entry]}}
    name = "network.torso" if depth else "network"
    with pytest.raises(TypeError, match=rf"^`{name}` must be passed .+ '{module}\.Network'"):
        from_plain(entry, "network")
    assert not flag.exists()
    assert module not in sys.modules


@pytest.mark.parametrize(
    "path",
    [
        "torch.nn.Parameter",
        "torch.nn.functional.relu",
        "torch.nn.init.torch",
        "torch.nn.NoSuchModule",
        "torch.nn.no_such_module.Network",
        "torch.optim.lr_scheduler.LambdaLR",
        "torch.load",
        "lit_mtdqn.types.TaskInfo",
        "lit_mtdqn.algorithms.base.torch.hub.load",
        "builtins.eval",
        "eval",
    ],
)
def test_a_path_that_builds_no_part_of_a_learner_is_refused(path: str) -> None:
    with pytest.raises(TypeError, match=r"^`network` must be passed"):
        from_plain({"class_path": path}, "network")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("torch.nn.ReLU", nn.ReLU),
        ("torch.optim.AdamW", torch.optim.AdamW),
        ("lit_mtdqn.networks.QNetwork", QNetwork),
        ("lit_mtdqn.types.Linear", Linear),
        ("lit_mtdqn.objectives.TD", TD),
    ],
)
def test_parts_of_this_package_and_of_pytorch_are_found_by_name(path: str, found: type) -> None:
    assert trusted_class(path) is found


@pytest.mark.parametrize("form", [QNetwork, NETWORK, PLAIN_NETWORK, make_network])
def test_every_form_of_a_factory_can_be_called(form: object) -> None:
    assert isinstance(as_factory(form)([TASK]), QNetwork)


def _of_a_parser(parser: object, cls: type, **options: Any) -> Any:
    return cls(**options)


def test_factories_keep_nothing_of_the_parser_that_bound_them() -> None:
    parser = threading.Lock()
    bound: Any = partial(_of_a_parser, parser)
    head = partial(bound, LinearHead, init_scale=0.5)
    network = partial(bound, QNetwork, head=head, torso=partial(bound, MLPTorso, hidden=(8, 4)))
    factory: Any = as_factory(network)
    assert factory.func is QNetwork
    built = pickle.loads(pickle.dumps(factory([TASK])))
    assert built.layer_sizes == (8, 4)
    assert isinstance(built.make_head(3), LinearHead)
