"""Methods that start from another run: from the command line, and column by column."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors
from helpers.runs import COUNTING, fit, small_data
from torch import Tensor, nn

from lit_mtdqn import DQN, MultiTaskDQN
from lit_mtdqn.callbacks import PartLearningRates, RunReport, WeightTransfer
from lit_mtdqn.cli import main
from lit_mtdqn.networks import Columns, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.networks.parts import names_of_parts
from lit_mtdqn.scaling import PopArt

METHODS = Path("configs/methods")
CARTPOLE = ["--config", "configs/dqn/cartpole.yaml"]
BRIEF = [
    "--config=configs/overlays/smoke.yaml",
    "--trainer.enable_progress_bar=false",
    "--data.total_env_steps=1000",
    "--data.eval_max_steps=5",
    "--data.test_episodes=1",
]
TASKS = """
data:
  tasks:
    source: {env: CartPole-v1, acts: false, learns: false}
    light: {env: lit_mtdqn/ContextualCartPole-v0, kwargs: {context: {gravity: 5.0}}}
"""
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one task."""
    folder = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunReport, "on_fit_end", lambda *_: None)
        main(["fit", *CARTPOLE, *BRIEF, f"--run_dir={folder / 'run'}"])
    return folder / "run"


def _learned(folder: Path) -> Weights:
    model = DQN.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    return dict(model.network.state_dict())


def _fit(method: Path, folder: Path, *options: str) -> Weights:
    """Return what a run with a method ends with."""
    overlay = ["--config", str(method)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunReport, "on_fit_end", lambda *_: None)
        main(["fit", *CARTPOLE, *BRIEF, *overlay, f"--run_dir={folder / 'run'}", *options])
    return _learned(folder / "run")


def _equal(found: Weights, expected: Weights) -> set[str]:
    return {name for name in found if torch.equal(found[name], expected[name])}


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        ("fine_tuning", ""),
        ("first_layers", ""),
        ("shrink_and_perturb", ""),
        ("head_only", "torso"),
        ("frozen_trunk", "torso"),
    ],
)
def test_a_method_keeps_of_the_source_what_it_says(
    method: str, kept: str, source: Path, tmp_path: Path
) -> None:
    found = _fit(METHODS / f"{method}.yaml", tmp_path, f"--trainer.callbacks.source={source}")
    expected = {name for name in found if kept and name.startswith(kept)}
    assert _equal(found, _learned(source)) == expected


def test_a_trunk_thaws_from_the_heads_down(source: Path, tmp_path: Path) -> None:
    sooner = (METHODS / "gradual_unfreezing.yaml").read_text().replace("1000", "10")
    assert "begin: 10}" in sooner
    assert "begin: 2000}" in sooner
    method = tmp_path / "sooner.yaml"
    method.write_text(sooner)
    found = _fit(method, tmp_path, f"--trainer.callbacks.source={source}")
    assert _equal(found, _learned(source)) == {"torso.layers.0.weight", "torso.layers.0.bias"}


def _columns(found: Weights, name: str) -> Weights:
    """Return a column as a torso's."""
    start = f"sharing.columns.{name}."
    return {n.replace(start, "torso."): t for n, t in found.items() if n.startswith(start)}


def test_a_column_is_the_source_or_random_and_stays(source: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(TASKS)
    given = [f"--config={tasks}", "--model.optimizer.weight_decay=0.1"]
    from_run = [f"--trainer.callbacks.source={source}", "--trainer.callbacks.tasks.source=cartpole"]
    found = _fit(METHODS / "progressive.yaml", tmp_path / "progressive", *given, *from_run)
    expected = _learned(source)
    assert_equal_tensors(
        _columns(found, "source"), {n: t for n, t in expected.items() if n.startswith("torso")}
    )
    for name in ("weight", "bias"):
        name = f"head.values.{{}}.{name}"
        assert torch.equal(found[name.format("source")], expected[name.format("cartpole")])
    random = _fit(METHODS / "progressive_random.yaml", tmp_path / "random", *given)
    assert found.keys() == random.keys()
    assert not _equal(_columns(random, "source"), _columns(found, "source"))


# Of two layers of one unit.
UNITS = partial(
    QNetwork, torso=partial(MLPTorso, hidden=[1, 1]), head=partial(LinearHead, init_scale=1.0)
)
LATERAL = partial(Columns, coupling="lateral", order=["source"], adapter_size=8)
OLD = replace(COUNTING, acts=False, learns=False)


def test_a_new_column_receives_by_hand_numbers() -> None:
    infos = small_data({"source": OLD, "new": COUNTING}).task_infos
    network = partial(UNITS, sharing=partial(LATERAL, strength=0.5))(infos)
    state = network.state_dict()
    for name, tensor in state.items():
        if not name.endswith("scale"):
            tensor.fill_(0.0 if name.endswith("bias") else 1.0)
    state["sharing.columns.source.layers.0.weight"].fill_(2.0)
    network.load_state_dict(state)
    observation = torch.ones(2, 1, *infos[0].observation_shape)
    size = float(observation[0].sum())
    old, new = network(observation, torch.tensor([0, 1])).layers[-1].flatten().tolist()
    # First layers 2 n and n, second ones 2 n and n + 0.5 * 2 n, and what the head sees of the new
    # column half of the old one's features more.
    assert old == 2.0 * size
    assert new == size + size + 0.5 * 2.0 * size


def test_a_new_column_learns_beside_one_of_another_run_that_acts_as_it_did(tmp_path: Path) -> None:
    torch.manual_seed(1)
    data = small_data()
    torso = partial(MLPTorso, hidden=[8, 8], activation=nn.LeakyReLU)
    taught = MultiTaskDQN(data.task_infos, partial(UNITS, torso=torso))
    fit(data, taught).save_checkpoint(tmp_path / "source.ckpt")

    def run(*callbacks: Any) -> tuple[Weights, MultiTaskDQN]:
        torch.manual_seed(2)
        data = small_data({"source": OLD, "new": COUNTING})
        decaying = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
        network = partial(UNITS, torso=torso, sharing=LATERAL)
        model = MultiTaskDQN(data.task_infos, network, optimizer=decaying, scale=PopArt)
        before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        fit(data, model, PartLearningRates({"source": 0.0}), *callbacks)
        return before, model

    transfer = WeightTransfer(
        str(tmp_path / "source.ckpt"),
        parts=["source"],
        names={"sharing.columns.source": "torso"},
        tasks={"source": "count"},
    )
    before, model = run(transfer)
    after, own = model.network.state_dict(), taught.network.state_dict()
    theirs = {name: tensor for name, tensor in own.items() if name.startswith("torso")}
    assert_equal_tensors(_columns(after, "source"), theirs)
    observation = torch.randn(1, 20, *data.task_infos[0].observation_shape)
    told = taught.action_values(observation, torch.tensor([0]))
    assert torch.equal(model.action_values(observation, torch.tensor([0])), told)
    old = names_of_parts(model.network, ["source"], None, "test")
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved >= after.keys() - old
    # What the new task does depends on the old column, and a random one is another one.
    values = model.action_values(observation, torch.tensor([1]))
    random_before, random = run()
    assert_equal_tensors(
        _columns(random.network.state_dict(), "source"), _columns(random_before, "source")
    )
    assert not torch.allclose(random.action_values(observation, torch.tensor([1])), values)
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if name.startswith("sharing.columns"):
                # Rows by name: new, source.
                parameter[1].zero_()
    assert not torch.allclose(model.action_values(observation, torch.tensor([1])), values)
