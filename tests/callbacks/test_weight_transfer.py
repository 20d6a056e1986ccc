import csv
import pickle
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from helpers.batches import random_batch
from helpers.counting_env import SINGLE, VECTOR
from helpers.runs import fit, quiet_trainer, small_data, small_model
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_mtdqn import DQN, MultiTaskDQN, PolicyDistillation, TaskSpec
from lit_mtdqn.callbacks import TargetNetworkSync, WeightTransfer
from lit_mtdqn.networks import C51Head, Columns, DuelingHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import Match
from lit_mtdqn.scaling import PopArt, ReturnNormaliser
from lit_mtdqn.types import Clock

COUNT = TaskSpec(env=VECTOR)
# Units of which none is ever without gradient.
NETWORK = partial(QNetwork, torso=partial(MLPTorso, hidden=[8], activation=torch.nn.LeakyReLU))


class OwnScale(PopArt):
    """A scale that is none of the package's."""


def _saved(
    tmp_path: Path, tasks: Any = None, kind: Any = DQN, seed: int = 1, **options: Any
) -> tuple[str, DQN]:
    """Return a run's checkpoint and its learner."""
    torch.manual_seed(seed)
    data = small_data(tasks)
    model = kind(data.task_infos, **{"network": NETWORK, **options})
    folder = tmp_path / "source" / "checkpoints"
    fit(data, model).save_checkpoint(folder / "last.ckpt")
    return str(folder / "last.ckpt"), model


class Watch(Callback):
    """Notes both networks' state before the first update and after every one."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.target: dict[str, Tensor] = {}
        self.moments = -1

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.target = _copy(pl_module.target_network)
        self.moments = len(trainer.optimizers[0].state)
        self.note(pl_module)

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        self.note(learner)

    def note(self, learner: Any) -> None:
        self.states.append(_copy(learner.network))


def _copy(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _run(*callbacks: Callback, tasks: Any = None, **options: Any) -> tuple[Watch, DQN]:
    torch.manual_seed(2)
    data, watch = small_data(tasks), Watch()
    model = small_model(data, **{"network": NETWORK, **options})
    fit(data, model, *callbacks, TargetNetworkSync(1000), watch)
    return watch, model


def test_a_run_starts_from_the_weights_with_an_equal_target_and_no_moments(tmp_path: Path) -> None:
    path, source = _saved(tmp_path)
    watch, _ = _run(WeightTransfer(path))
    assert_equal_tensors(watch.states[0], _copy(source.network))
    assert_equal_tensors(watch.target, _copy(source.network))
    assert watch.moments == 0
    last, first = watch.states[-1], watch.states[0]
    assert all(not torch.equal(last[name], first[name]) for name in first)


def test_a_folder_means_its_last_network_or_its_best(tmp_path: Path) -> None:
    path, source = _saved(tmp_path)
    folder = Path(path).parents[1]
    torch.save(torch.load(path, weights_only=True), folder / "checkpoints" / "best.ckpt")
    Path(path).unlink()
    watch, _ = _run(WeightTransfer(str(folder), checkpoint="best"))
    assert_equal_tensors(watch.states[0], _copy(source.network))
    with pytest.raises(ValueError, match=complaint("WeightTransfer.source")):
        _run(WeightTransfer(str(folder)))


def _evaluated(path: str, *scores: float, success: str | None = None) -> str:
    """Write mean scores, and that a task reports success, beside a checkpoint."""
    folder = Path(path).parents[1]
    success = "val/success/none" if success is None else f"val/success/{success}"
    with (folder / "metrics.csv").open("w", newline="") as file:
        rows = [[10 * place, score, score] for place, score in enumerate(scores)]
        csv.writer(file).writerows([["step", "val/score/mean", success], *rows])
    return str(folder)


def test_of_several_runs_the_one_with_the_best_mean_score_is_taken(tmp_path: Path) -> None:
    """By evaluations: of the last network, or of the best; tests are for reports."""
    scores = {"last": [0.5, 0.7], "best": [0.9, 0.1]}
    sources, folders = {}, []
    for seed, (name, values) in enumerate(scores.items()):
        path, sources[name] = _saved(tmp_path / name, seed=seed)
        Path(path).with_name("best.ckpt").write_bytes(Path(path).read_bytes())
        folders.append(_evaluated(path, *values))
    for name in scores:
        watch, _ = _run(WeightTransfer(folders, checkpoint=name))  # type: ignore[arg-type]
        assert_equal_tensors(watch.states[0], _copy(sources[name].network))
    with pytest.raises(ValueError, match=complaint("WeightTransfer.source")):
        _run(WeightTransfer([*folders, str(tmp_path)]))


def test_a_trunk_of_many_tasks_starts_from_the_best_specialist(tmp_path: Path) -> None:
    # By scores, of returns in units of their own.
    ranged = replace(COUNT, score_range=(-20.0, 10.0))
    reached = {"up": (0.4, ranged), "down": (0.8, ranged), "left": (0.6, COUNT)}
    sources, folders = {}, []
    for seed, (name, (score, task)) in enumerate(reached.items()):
        path, sources[name] = _saved(tmp_path / name, {name: task}, MultiTaskDQN, seed)
        folders.append(_evaluated(path, score, success="left" if name == "left" else None))
    torch.manual_seed(2)
    data, watch = small_data(dict.fromkeys(reached, COUNT)), Watch()
    model = MultiTaskDQN(data.task_infos, NETWORK)
    fresh = _copy(model.network)
    fit(data, model, WeightTransfer(folders, ["trunk"]), watch)
    theirs = _copy(sources["down"].network)
    for name, tensor in watch.states[0].items():
        assert torch.equal(tensor, fresh[name] if name.startswith("head.") else theirs[name]), name
    assert all(not torch.equal(watch.states[-1][name], fresh[name]) for name in fresh)


def test_raw_returns_of_unlike_tasks_do_not_say_which_specialist_is_best(tmp_path: Path) -> None:
    folders = []
    ranged = replace(COUNT, score_range=(-20.0, 10.0))
    for seed, (name, task) in enumerate({"up": COUNT, "down": ranged}.items()):
        path, _ = _saved(tmp_path / name, {name: task}, seed=seed)
        folders.append(_evaluated(path, 90.0))
    with pytest.raises(ValueError, match=complaint("WeightTransfer.source")) as error:
        _run(WeightTransfer(folders, ["trunk"]))
    assert "raw returns of ['up']" in str(error.value)


def test_evaluation_alone_moves_nothing() -> None:
    data = small_data()
    quiet_trainer(WeightTransfer("nowhere.ckpt")).validate(small_model(data), data, verbose=False)


def test_a_resumed_run_keeps_what_it_has_learned_and_needs_no_source(tmp_path: Path) -> None:
    path, _ = _saved(tmp_path)

    transfer = WeightTransfer(path)

    def run(steps: int, resumed: Path | None = None) -> tuple[Any, DQN, Watch]:
        torch.manual_seed(3)
        data, watch = small_data(total_env_steps=steps), Watch()
        model = small_model(data, network=NETWORK)
        trainer = quiet_trainer(transfer, watch)
        trainer.fit(model, data, ckpt_path=resumed)
        return trainer, model, watch

    trainer, first, _ = run(60)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    Path(path).unlink()
    _, resumed, went_on = run(100, tmp_path / "half.ckpt")
    assert_equal_tensors(went_on.states[0], _copy(first.network))
    learned = _copy(resumed.network)
    _move(small_data(), resumed, transfer)
    assert_equal_tensors(_copy(resumed.network), learned)


def test_a_second_fit_goes_on_with_what_was_learned_and_another_learner_receives(
    tmp_path: Path,
) -> None:
    path, source = _saved(tmp_path)
    transfer, data = WeightTransfer(path), small_data()
    model = small_model(data, network=NETWORK)
    fit(data, model, transfer)
    other = small_model(small_data(), network=NETWORK)
    _move(small_data(), other, transfer)
    assert_equal_tensors(_copy(other.network), _copy(source.network))
    learned = _copy(model.network)
    _move(small_data(), model, transfer)
    assert_equal_tensors(_copy(model.network), learned)
    assert pickle.loads(pickle.dumps(transfer)).sources == [path]


def test_a_model_without_a_network_is_refused() -> None:
    transfer, model = WeightTransfer("nowhere.ckpt"), lightning.LightningModule()
    transfer.setup(quiet_trainer(), model, "test")
    with pytest.raises(TypeError, match=complaint("model")):
        transfer.setup(quiet_trainer(), model, "fit")


def test_several_act_one_after_another(tmp_path: Path) -> None:
    path, source = _saved(tmp_path)
    columns = partial(NETWORK, sharing=Columns)
    tasks = {"left": COUNT, "right": COUNT}
    callbacks = [
        WeightTransfer(
            path,
            parts=[f"sharing.columns.{name}", f"head.values.{name}"],
            names={f"sharing.columns.{name}": "torso"},
            tasks={name: "count"},
        )
        for name in tasks
    ]
    watch, _ = _run(*callbacks, tasks=tasks, network=columns)
    theirs = _copy(source.network)
    for name, tensor in watch.states[0].items():
        own = name.replace("sharing.columns.left", "torso").replace("left", "count")
        own = own.replace("sharing.columns.right", "torso").replace("right", "count")
        assert torch.equal(tensor, theirs[own]), name


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"source": "nowhere.ckpt"}, "WeightTransfer.source"),
        ({"parts": ["trnk"]}, "WeightTransfer.parts"),
        ({"tasks": {"count": "zebra"}}, "WeightTransfer.tasks"),
        ({"exact": True}, "WeightTransfer.source: {narrow}"),
    ],
    ids=["missing", "part", "task", "exact"],
)
def test_of_several_none_moves_anything_before_all_are_checked(
    options: dict[str, Any], name: str, tmp_path: Path
) -> None:
    path, source = _saved(tmp_path, scale=PopArt)
    narrow = partial(NETWORK, torso=partial(MLPTorso, hidden=[4]))
    other, _ = _saved(tmp_path / "narrow", network=narrow)
    data = small_data()
    model = small_model(data, network=NETWORK, scale=PopArt)
    before = deepcopy(model.state_dict())
    first = WeightTransfer(path)
    refused = WeightTransfer(**{"source": other, "parts": ["torso"], **options})
    with pytest.raises(ValueError, match=complaint(name.format(narrow=other))):
        _start(data, model, first, refused)
    assert_equal_tensors(model.state_dict(), before)
    # When that is mended, both move.
    _start(small_data(), model, first, WeightTransfer(other, parts=["torso"]))
    narrow_bias = torch.load(other, weights_only=True)["state_dict"]["network.torso.layers.0.bias"]
    for network in (model.network, model.target_network):
        state, theirs = _copy(network), _copy(source.network)
        assert torch.equal(state["head.values.count.weight"], theirs["head.values.count.weight"])
        assert torch.equal(state["torso.layers.0.bias"][:4], narrow_bias)
        assert torch.equal(state["torso.layers.0.bias"][4:], theirs["torso.layers.0.bias"][4:])


def test_of_several_the_last_counts_and_each_mixes_with_what_those_before_it_left(
    tmp_path: Path,
) -> None:
    saved = [_saved(tmp_path / str(seed), seed=seed) for seed in range(2)]
    data = small_data()
    model = small_model(data, network=NETWORK)
    _start(data, model, WeightTransfer(saved[0][0]), WeightTransfer(saved[1][0], keep=0.25))
    first, second = (_copy(source.network) for _, source in saved)
    expected = {name: torch.lerp(first[name], second[name], 0.25) for name in first}
    torch.testing.assert_close(_copy(model.network), expected)
    torch.testing.assert_close(_copy(model.target_network), expected)


def test_a_head_says_the_same_under_the_unit_that_an_earlier_transfer_has_left(
    tmp_path: Path,
) -> None:
    scaled, _ = _saved(tmp_path / "scaled", kind=MultiTaskDQN)
    raw, source = _saved(tmp_path / "raw")
    data = small_data()
    model = MultiTaskDQN(data.task_infos, NETWORK, scale=PopArt)
    _start(data, model, WeightTransfer(scaled), WeightTransfer(raw))
    assert float(model.scale.spread[0]) != 1.0  # type: ignore[union-attr]
    observation, task = torch.randn(1, 4, 3), torch.tensor([0])
    there = source.action_values(observation, task)
    torch.testing.assert_close(model.action_values(observation, task), there)


def test_a_scale_of_ones_own_comes_to_a_model_that_has_it_and_to_no_other(tmp_path: Path) -> None:
    path, source = _saved(tmp_path, scale=OwnScale)
    assert source.scale is not None
    assert float(source.scale.spread[0]) != 1.0
    _refused(path, "WeightTransfer.source", scale=PopArt)
    data = small_data()
    model = small_model(data, network=NETWORK, scale=OwnScale)
    _move(data, model, path, ["all"])
    assert model.scale is not None
    assert torch.equal(model.scale.spread, source.scale.spread)
    observation, task = torch.randn(1, 4, 3), torch.tensor([0])
    there = source.action_values(observation, task)
    torch.testing.assert_close(model.action_values(observation, task), there)


def test_the_tables_of_several_call_nothing_fresh_that_comes_by_another(
    tmp_path: Path, caplog: Any
) -> None:
    path, _ = _saved(tmp_path)
    data = small_data({"count": COUNT, "new": COUNT})
    model = MultiTaskDQN(data.task_infos, NETWORK)
    with caplog.at_level("INFO"):
        _start(data, model, *(WeightTransfer(path, [part]) for part in ("trunk", "count")))
    lines = caplog.text.splitlines()
    places = [at for at, line in enumerate(lines) if f"Weights of {path}:" in line]
    assert [lines[at + 1 : at + 4] for at in places] == [
        [
            "weights          outcome  reason",
            "torso.layers.0   moved",
            "head.values.new  fresh    not in `parts`",
        ],
        [
            "weights            outcome  reason",
            "head.values.count  moved",
            "head.values.new    fresh    not in `parts`",
        ],
    ]


def test_the_table_tells_why_layers_are_not_asked_for(tmp_path: Path, caplog: Any) -> None:
    deep = partial(NETWORK, torso=partial(MLPTorso, hidden=[8, 8]))
    path, _ = _saved(tmp_path, network=deep)
    data = small_data()
    with caplog.at_level("INFO"):
        _move(data, small_model(data, network=deep), path, layers=1)
    assert "torso.layers.2     fresh    not in the first 1 `layers` of `parts`\n" in caplog.text


def test_what_nothing_fits_into_is_refused_with_its_path(tmp_path: Path) -> None:
    path, _ = _saved(tmp_path, {"zebra": COUNT})
    for options in ({"parts": ["heads"]}, {"exact": True}):
        with pytest.raises(ValueError, match=complaint(f"WeightTransfer.source: {path}")) as error:
            _move(small_data(), small_model(small_data(), network=NETWORK), path, **options)
        expected, found = str(error.value).split("Got")
        assert "head.values.count" in expected
        assert "head.values.zebra" in found


def _move(data: Any, model: Any, source: Any, parts: Any = ("all",), **options: Any) -> None:
    """Move weights and train nothing."""
    given = isinstance(source, WeightTransfer)
    _start(data, model, source if given else WeightTransfer(source, parts, **options))


def _start(data: Any, model: Any, *transfers: WeightTransfer) -> None:
    trainer = quiet_trainer(*transfers)
    trainer.fit_loop.max_epochs = 0
    trainer.fit(model, data)


def _refused(path: str, name: str, **options: Any) -> None:
    """Assert that a transfer is refused, and that nothing has been moved."""
    data = small_data()
    model = small_model(data, **{"network": NETWORK, **options})
    before = deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=complaint(name)):
        _move(data, model, path)
    assert_equal_tensors(model.state_dict(), before)


@pytest.mark.parametrize("own", [PopArt, None], ids=["same", "none"])
def test_moved_heads_say_in_raw_rewards_what_they_said(own: Any, tmp_path: Path) -> None:
    tasks = {"a": COUNT, "b": COUNT}
    path, source = _saved(tmp_path, tasks, MultiTaskDQN)
    data = small_data({"b": COUNT, "c": COUNT, "a": COUNT})
    model = MultiTaskDQN(data.task_infos, NETWORK, scale=own)
    _move(data, model, path)
    assert float(source.scale.spread[0]) != 1.0  # type: ignore[union-attr]
    batch = random_batch(source.tasks)
    there = source.action_values(batch.observation, torch.tensor([0, 1]))
    here = model.action_values(batch.observation, torch.tensor([2, 0]))
    torch.testing.assert_close(here, there)


def test_bounded_heads_take_the_sources_scale_with_them_and_refuse_any_other(
    tmp_path: Path,
) -> None:
    head = partial(NETWORK, head=C51Head)
    path, source = _saved(tmp_path, network=head, scale=ReturnNormaliser)
    assert source.scale is not None
    assert float(source.scale.spread[0]) != 1.0
    _refused(path, "model.scale", network=head)
    _refused(path, "model.scale", network=head, scale=partial(ReturnNormaliser, v_max=1.0))
    data = small_data()
    model = small_model(data, network=head, scale=ReturnNormaliser)
    _move(data, model, path)
    observation = torch.randn(1, 4, 3)
    task = torch.tensor([0])
    found = model.action_values(observation, task)
    torch.testing.assert_close(found, source.action_values(observation, task))


def test_heads_do_not_move_under_a_scale_that_would_misread_them(tmp_path: Path) -> None:
    sources: list[dict[str, Any]] = [{}, {"kind": MultiTaskDQN, "scale": PopArt}]
    for options in sources:
        path, _ = _saved(tmp_path, **options)
        _refused(path, "model.scale", scale=ReturnNormaliser)
        data = small_data()
        _move(data, small_model(data, network=NETWORK, scale=ReturnNormaliser), path, ["trunk"])


def test_heads_of_another_kind_stay(tmp_path: Path) -> None:
    path, source = _saved(tmp_path, network=partial(NETWORK, head=C51Head))
    data = small_data()
    model = small_model(data, network=NETWORK)
    before = _copy(model.network)
    _move(data, model, path)
    for name, tensor in _copy(model.network).items():
        theirs = before if name.startswith("head.") else _copy(source.network)
        assert torch.equal(tensor, theirs[name]), name
    for options in ({"parts": ["heads"]}, {"exact": True}):
        with pytest.raises(ValueError, match="LinearHead, in the source C51Head"):
            _move(data, model, path, **options)


@pytest.mark.parametrize(
    ("mine", "theirs", "told"),
    [
        ({"v_max": 400.0}, {}, "v_max 400.0, in the source 10.0"),
        ({"num_atoms": 7}, {"num_atoms": 5}, "num_atoms 7, in the source 5"),
        ({"v_max": 10}, {"num_atoms": 51}, ""),
    ],
    ids=str,
)
def test_heads_of_one_kind_and_another_meaning_stay(
    mine: Any, theirs: Any, told: str, tmp_path: Path, caplog: Any
) -> None:
    path, source = _saved(tmp_path, network=partial(NETWORK, head=partial(C51Head, **theirs)))
    model = small_model(small_data(), network=partial(NETWORK, head=partial(C51Head, **mine)))
    before = _copy(model.network.head)
    with caplog.at_level("INFO"):
        _move(small_data(), model, path)
    assert_equal_tensors(_copy(model.network.head), before if told else _copy(source.network.head))
    assert told in caplog.text


def test_heads_of_a_policy_are_no_heads_of_values(tmp_path: Path) -> None:
    path, _ = _saved(tmp_path)
    for kind, moves in (("policy_kl", False), ("mse", True)):
        data = small_data()
        given: dict[str, Any] = {"network": NETWORK, "match": partial(Match, kind=kind)}  # type: ignore[arg-type]
        student = PolicyDistillation(data.task_infos, {"count": path}, **given)
        student_path = tmp_path / f"{kind}.ckpt"
        fit(data, student).save_checkpoint(student_path)
        data = small_data()
        model = small_model(data, network=NETWORK)
        before = _copy(model.network)
        _move(data, model, str(student_path))
        for name, tensor in _copy(model.network).items():
            stays = name.startswith("head.") and not moves
            theirs = before if stays else _copy(student.network)
            assert torch.equal(tensor, theirs[name]), name
    # From policy to policy they move.
    data = small_data()
    again = PolicyDistillation(data.task_infos, {"count": path}, network=NETWORK)
    _move(data, again, str(tmp_path / "policy_kl.ckpt"))
    source = PolicyDistillation.load_from_checkpoint(tmp_path / "policy_kl.ckpt")
    assert_equal_tensors(_copy(again.network), _copy(source.network))


def test_the_unit_of_a_held_out_task_is_that_of_the_task_whose_head_it_has(tmp_path: Path) -> None:
    held = replace(COUNT, head="h", learns=False)
    tasks = {"a": replace(COUNT, head="h"), "z": held}
    path, source = _saved(tmp_path, tasks, MultiTaskDQN)
    data = small_data({"new": COUNT})
    model = MultiTaskDQN(data.task_infos, NETWORK, scale=None)
    _move(data, model, path, tasks={"new": "h"})
    observation = torch.randn(1, 4, 3)
    found = model.action_values(observation, torch.tensor([0]))
    torch.testing.assert_close(found, source.action_values(observation, torch.tensor([0])))


@pytest.mark.parametrize("own", [PopArt, None], ids=["same", "none"])
def test_tasks_that_the_source_lacks_have_the_unit_of_the_head_that_they_share(
    own: Any, tmp_path: Path
) -> None:
    path, source = _saved(tmp_path, kind=MultiTaskDQN)
    held = replace(COUNT, head="count", learns=False)
    data = small_data({"count": COUNT, "view": held})
    model = MultiTaskDQN(data.task_infos, NETWORK, scale=own)
    _move(data, model, path)
    observation = torch.randn(1, 4, 3).expand(2, -1, -1)
    there = source.action_values(observation[:1], torch.tensor([0]))
    here = model.action_values(observation, torch.tensor([0, 1]))
    torch.testing.assert_close(here, there.expand_as(here))


@pytest.mark.parametrize("own", [PopArt, None], ids=["same", "none"])
def test_a_head_that_moves_by_its_name_brings_its_own_unit(own: Any, tmp_path: Path) -> None:
    tasks = {"a": COUNT, "b": replace(COUNT, gamma=0.5)}
    path, source = _saved(tmp_path, tasks, MultiTaskDQN)
    data = small_data({"a": COUNT})
    model = MultiTaskDQN(data.task_infos, NETWORK, scale=own)
    _move(data, model, path, names={"head.values.a": "head.values.b"})
    observation = torch.randn(1, 4, 3)
    there = source.action_values(observation, torch.tensor([1]))
    torch.testing.assert_close(model.action_values(observation, torch.tensor([0])), there)


def test_a_head_of_two_heads_has_no_unit(tmp_path: Path) -> None:
    dueling = partial(NETWORK, head=DuelingHead)
    path, _ = _saved(tmp_path, {"a": COUNT, "b": COUNT}, MultiTaskDQN, network=dueling)
    data = small_data({"a": COUNT})
    model = MultiTaskDQN(data.task_infos, dueling)
    with pytest.raises(ValueError, match=complaint("WeightTransfer.names")):
        _move(data, model, path, names={"head.value.a": "head.value.b"})


def test_a_head_of_two_tasks_brings_the_one_unit_that_it_has(tmp_path: Path) -> None:
    richer = TaskSpec(env=SINGLE, kwargs={"offset": 9.0}, head="h")
    tasks = {"a": replace(COUNT, head="h"), "b": richer}
    path, source = _saved(tmp_path, tasks, MultiTaskDQN, scale=ReturnNormaliser)
    assert len(set(source.scale.spread.tolist())) == 1  # type: ignore[union-attr]
    data = small_data(tasks)
    model = MultiTaskDQN(data.task_infos, NETWORK, scale=None)
    _move(data, model, path)
    seen, task = torch.randn(2, 4, 3), torch.tensor([0, 1])
    torch.testing.assert_close(model.action_values(seen, task), source.action_values(seen, task))
    model = MultiTaskDQN(data.task_infos, NETWORK, scale=ReturnNormaliser)
    _move(data, model, path)
    assert torch.equal(model.scale.spread, source.scale.spread)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("no checkpoint"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"weights": {}}, path),
        lambda path: torch.save({"state_dict": [1]}, path),
        lambda path: torch.save({"state_dict": {"policy.weight": torch.zeros(2)}}, path),
        lambda path: torch.save({"state_dict": {"network.a": torch.zeros(2)}}, path),
    ],
    ids=["text", "list", "dict", "state", "other", "arguments"],
)
def test_files_of_others_are_refused_and_nothing_is_moved(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "foreign.ckpt"
    make(path)
    data = small_data()
    model = small_model(data)
    before = _copy(model)
    with pytest.raises(ValueError, match=r"^`WeightTransfer.source` must be a checkpoint of this"):
        fit(data, model, WeightTransfer(str(path)))
    assert_equal_tensors(_copy(model), before)
    assert data.clock.total_env_steps == 0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"keep": 0.0}, "WeightTransfer.keep"),
        ({"keep": 1.5}, "WeightTransfer.keep"),
        ({"parts": []}, "WeightTransfer.parts"),
        ({"parts": "trunk"}, "WeightTransfer.parts"),
        ({"checkpoint": "bst"}, "WeightTransfer.checkpoint"),
        ({"source": []}, "WeightTransfer.source"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        WeightTransfer(**{"source": "a.ckpt", **options})


def test_less_than_all_of_what_comes_is_kept(tmp_path: Path, caplog: Any) -> None:
    path, source = _saved(tmp_path)
    with caplog.at_level("INFO"):
        watch, _ = _run(WeightTransfer(path, keep=0.5))
    told = f"Weights of {path}, 0.5 of them and 0.5 of what was here before:"
    assert told in caplog.text
    torch.manual_seed(2)
    fresh = _copy(small_model(small_data(), network=NETWORK).network)
    name = "torso.layers.0.weight"
    expected = torch.lerp(fresh[name], _copy(source.network)[name], 0.5)
    torch.testing.assert_close(watch.states[0][name], expected)
