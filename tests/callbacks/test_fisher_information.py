from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from helpers.asserts import assert_equal_tensors, assert_table, complaint
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import fit, quiet_trainer, small_data, small_model
from helpers.sources import random_importance, save_run
from helpers.standalone import Standalone
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from lit_mtdqn import DQN, MultiTaskDQN, PolicyDistillation, TaskInfo, TaskSpec
from lit_mtdqn.callbacks import FisherInformation, ReplayCheckpoint
from lit_mtdqn.functional.distillation import relative_temperature
from lit_mtdqn.networks import (
    C51Head,
    Columns,
    DuelingHead,
    Experts,
    ImplicitQuantileHead,
    LinearHead,
    MLPTorso,
    Prior,
    QNetwork,
)
from lit_mtdqn.networks.flat import flat_from_saved, flat_parameters, saved_from_flat
from lit_mtdqn.objectives import TD, Anchor
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import Transition

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
]
TORSO = partial(MLPTorso, hidden=[5], activation=nn.Tanh)
NETWORK = partial(QNetwork, torso=TORSO, head=partial(LinearHead, init_scale=1.0))
COUNT = TaskSpec(env=VECTOR)


def _model(network: Any = NETWORK, seed: int = 0, **options: Any) -> MultiTaskDQN:
    torch.manual_seed(seed)
    model = MultiTaskDQN(INFOS, network, **{"scale": None, **options})
    Standalone(model)
    model.network.eval()
    return model


def _measured(model: DQN, batch: Transition, **options: Any) -> Tensor:
    return FisherInformation(**{"normalise": False, **options}).measure(model, batch)


def _by_loop(model: DQN, batch: Transition, kind: str, temperature: float) -> Tensor:
    """Return the information by one backward pass for each row and action."""
    network, rows = model.network, batch.action.shape[1]
    parameters = list(network.parameters())
    total = torch.zeros_like(flat_parameters(network))
    for group, number in enumerate(batch.task.tolist()):
        count = model.tasks[number].num_actions
        task = batch.task[group : group + 1]
        q_values = network.action_values(batch.observation[group : group + 1], task)
        gap = relative_temperature(q_values[..., :count], temperature)
        for row in range(rows):
            observation = batch.observation[group, row].view(1, 1, -1)
            values = network.q_values(network(observation, task))[0, 0, :count]
            log_policy = (values / gap.squeeze()).log_softmax(-1)
            for action in range(count):
                term = log_policy[action] if kind == "policy" else values[action]
                share = float(log_policy[action].detach().exp()) if kind == "policy" else 1 / count
                found = torch.autograd.grad(
                    term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                total += share * torch.cat([g.flatten() for g in found]).square() / rows
    return total


NETWORKS = {
    "hard": NETWORK,
    "dueling": partial(QNetwork, torso=TORSO, head=partial(DuelingHead, hidden=4, init_scale=1.0)),
    "c51": partial(QNetwork, torso=TORSO, head=partial(C51Head, num_atoms=3, init_scale=1.0)),
    "quantiles": partial(QNetwork, torso=TORSO, head=ImplicitQuantileHead),
    "columns": partial(NETWORK, sharing=partial(Columns, coupling="cross_stitch")),
    "experts": partial(NETWORK, sharing=partial(Experts, num_experts=2)),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", ["policy", "values"])
def test_it_is_what_a_loop_over_rows_and_actions_finds(kind: Any, network: str) -> None:
    model, batch = _model(NETWORKS[network]), random_batch(INFOS, rows=5)
    found = _measured(model, batch, kind=kind)
    expected = _by_loop(model, batch, kind, temperature=0.5)
    assert (expected > 0.0).any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_a_linear_networks_is_that_computed_by_hand() -> None:
    # Q(s, a) = features w_a + b_a: the squared gradient of a value is the squared features.
    model, batch = _model(), random_batch(INFOS, rows=3)
    found = _measured(model, batch, kind="values")
    features = model.network(batch.observation, batch.task).features.detach()
    expected = flat_from_saved(
        model.network,
        {
            f"head.values.{info.name}.weight": features[group]
            .square()
            .mean(0)
            .unsqueeze(1)
            .expand(-1, info.num_actions)
            / info.num_actions
            for group, info in enumerate(INFOS)
        }
        | {
            f"head.values.{info.name}.bias": torch.full((info.num_actions,), 1 / info.num_actions)
            for info in INFOS
        },
    )
    head = flat_from_saved(
        model.network,
        {
            name: torch.ones_like(tensor)
            for name, tensor in model.network.state_dict().items()
            if name.startswith("head.")
        },
    )
    torch.testing.assert_close(found * head, expected, rtol=1e-4, atol=1e-7)


def test_with_a_prior_it_is_of_what_tasks_act_by() -> None:
    infos = [replace(info, num_actions=3) for info in INFOS]
    torch.manual_seed(0)
    prior = partial(Prior, alpha=0.9, temperature=1.0)
    distral: Any = partial(TD, bootstrap="distral")
    model = MultiTaskDQN(infos, partial(NETWORK, prior=prior), distral, scale=None)
    Standalone(model)
    network, batch = model.network, random_batch(infos, rows=1, groups=[0])
    # One row: the sum over actions of squared gradients of the logarithm of the policy.
    found = _measured(model, batch, temperature=0.5, relative=False)
    preferences = network.preferences(network(batch.observation, batch.task))[0, 0]
    log_policy = (preferences / 0.5).log_softmax(-1)
    expected = torch.zeros_like(found)
    for term in log_policy:
        parameters = list(network.parameters())
        pieces = torch.autograd.grad(
            term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        expected += term.detach().exp() * torch.cat([g.flatten() for g in pieces]).square()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    of_prior = saved_from_flat(network, found)
    assert any((t > 0.0).any() for name, t in of_prior.items() if name.startswith("prior."))


def test_students_of_policies_are_measured_by_the_policy_that_they_say() -> None:
    torch.manual_seed(0)
    model, batch = PolicyDistillation(INFOS, network=NETWORK), random_batch(INFOS, rows=3)
    model.use_teachers(dict.fromkeys(("wide", "narrow"), model))
    Standalone(model)
    found = _measured(model, batch)
    plain = _model()
    plain.network.load_state_dict(model.network.state_dict())
    assert_table(found, _measured(plain, batch, temperature=1.0, relative=False))
    kind: Any
    for kind, owner in (("values", model), ("policy", model), ("values", plain)):
        callback = FisherInformation(kind)
        if kind == "values" and owner is model:
            with pytest.raises(ValueError, match=complaint("FisherInformation.kind")):
                callback.setup(owner.trainer, owner, "fit")
        else:
            callback.setup(owner.trainer, owner, "fit")


def test_few_rows_at_a_time_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = _model(), random_batch(INFOS, rows=5)
    whole = _measured(model, batch)
    count = flat_parameters(model.network).numel()
    monkeypatch.setattr("lit_mtdqn.callbacks.fisher_information.NUMBERS", 2 * count)
    torch.testing.assert_close(_measured(model, batch), whole)


def test_what_states_forbid_counts_for_nothing() -> None:
    model, batch = _model(), random_batch(INFOS, rows=5)
    mask = torch.zeros(2, 5, 4, dtype=torch.bool)
    mask[..., 0] = True
    found = _measured(model, batch._replace(extra={"action_mask": mask}), relative=False)
    assert (found == 0.0).all()


def test_a_policys_has_no_unit_under_any_scale_and_no_word_of_rewritten_heads() -> None:
    model, batch = _model(scale=PopArt), random_batch(INFOS, rows=6)
    assert model.scale is not None
    before = _measured(model, batch)
    factor = torch.tensor([10.0, 0.02])
    model.network.head.rescale_(factor, torch.tensor([3.0, -2.0]))
    after = _measured(model, batch)
    trunk = sum(parameter.numel() for parameter in model.network.torso.parameters())
    torch.testing.assert_close(after[:trunk], before[:trunk], rtol=1e-3, atol=1e-6)
    # What is held of a head is a product with squared weights, which is as it was.
    weights = model.network.head.values.weight  # type: ignore[union-attr]
    width = weights.numel()  # type: ignore[operator]
    head = slice(trunk, trunk + width)
    by_row = (factor**2)[[1, 0]].view(-1, 1, 1).expand_as(weights).flatten()  # type: ignore[arg-type]
    torch.testing.assert_close(after[head] * by_row, before[head], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("network", ["hard", "columns"])
def test_normalised_tasks_count_alike_in_what_they_share(network: str) -> None:
    # Without cross-stitching columns share nothing, and all parameters count.
    given = NETWORK if network == "hard" else partial(NETWORK, sharing=Columns)
    model, batch = _model(given), random_batch(INFOS, rows=6)
    shared = {"hard": "torso.", "columns": ""}[network]

    def mean(*groups: int, **options: Any) -> float:
        own = batch._replace(**_only(batch, list(groups)))
        found = saved_from_flat(model.network, _measured(model, own, **options))
        counted = {n: t for n, t in found.items() if n.startswith(shared)}
        padded = sum(p.numel() for n, p in model.network.named_parameters() if n.startswith(shared))
        return float(sum(tensor.sum() for tensor in counted.values())) / padded

    means = [mean(group, normalise=True) for group in range(2)]
    assert means == pytest.approx([1.0, 1.0])
    assert mean(0, 1, normalise=True) == pytest.approx(2.0)
    assert mean(0) != pytest.approx(mean(1), rel=0.05)


def _only(batch: Transition, groups: list[int]) -> dict[str, Any]:
    fields = batch._asdict()
    return {n: f[groups] for n, f in fields.items() if isinstance(f, Tensor)}


def test_online_what_anchors_held_counts_on_and_decays(tmp_path: Path) -> None:
    source = _model(seed=4)
    importance = random_importance(source.network)
    folder = save_run(tmp_path / "run", source, importance)
    fisher: Any = partial(Anchor, sources=[folder])
    alike: Any = partial(Anchor, sources=[folder], importance="equal")
    batch = random_batch(INFOS)
    plain = _measured(_model(), batch)
    held = flat_from_saved(source.network, importance)
    for objectives, expected in (([alike], plain), ([alike, fisher], plain + 0.25 * held)):
        model = _model(objectives=objectives)
        torch.testing.assert_close(_measured(model, batch, decay=0.25), expected)
        assert_table(_measured(model, batch), plain)


def _run(folder: Path, *callbacks: Any, **options: Any) -> tuple[Any, DQN]:
    torch.manual_seed(2)
    data = small_data({"b": COUNT, "a": COUNT}, **options)
    model = DQN(data.task_infos, NETWORK)
    trainer = fit(data, model, *callbacks, default_root_dir=folder)
    return trainer, model


def test_a_run_writes_it_beside_its_checkpoint_by_the_names_of_tasks(tmp_path: Path) -> None:
    trainer, model = _run(tmp_path, FisherInformation(rows=64))
    found = torch.load(tmp_path / "checkpoints" / "fisher.pt", weights_only=True)
    assert found["global_step"] == trainer.global_step > 0
    importance = found["importance"]
    assert importance.keys() == model.network.state_dict().keys()
    assert all(
        tensor.shape == model.network.state_dict()[n].shape for n, tensor in importance.items()
    )
    for task in "ab":
        assert (importance[f"head.values.{task}.bias"] > 0.0).any()
    trainer.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    data = small_data({"a": COUNT})
    anchor: Any = partial(Anchor, sources=[str(tmp_path)])
    later = MultiTaskDQN(data.task_infos, NETWORK, objectives=[anchor])
    metrics = fit(data, later, log_every_n_steps=1).callback_metrics
    assert float(metrics["train/anchor"]) > 0.0


def test_looking_changes_nothing_that_is_learned_later(tmp_path: Path) -> None:
    weights = []
    for name, callbacks in {"plain": [], "measured": [FisherInformation(rows=64)]}.items():
        folder = tmp_path / name
        trainer, _ = _run(folder, *callbacks, ReplayCheckpoint(), total_env_steps=80)
        trainer.save_checkpoint(folder / "half.ckpt")
        torch.manual_seed(5)
        data = small_data({"b": COUNT, "a": COUNT}, total_env_steps=160)
        model = DQN(data.task_infos, NETWORK)
        again = quiet_trainer(ReplayCheckpoint(), default_root_dir=folder)
        again.fit(model, data, ckpt_path=folder / "half.ckpt")
        weights.append(dict(model.state_dict()))
    assert_equal_tensors(*weights)


class Interrupt(Callback):
    """Presses Ctrl-C in the second phase."""

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 1:
            raise KeyboardInterrupt


def test_an_interrupted_run_and_one_that_is_over_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        _run(tmp_path, FisherInformation(), Interrupt())
    assert not (tmp_path / "checkpoints").exists()
    trainer, model = _run(tmp_path / "first")
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = quiet_trainer(FisherInformation(), default_root_dir=tmp_path)
    again.fit(model, small_data({"b": COUNT, "a": COUNT}), ckpt_path=tmp_path / "last.ckpt")
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_that_ended_without_its_file_writes_it_when_it_is_resumed(tmp_path: Path) -> None:
    fisher = tmp_path / "checkpoints" / "fisher.pt"
    trainer, _ = _run(tmp_path, FisherInformation(rows=64), ReplayCheckpoint())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    expected = torch.load(fisher, weights_only=True)
    stale = {**expected, "global_step": expected["global_step"] - 1}
    for left in ("none", "stale", "damaged"):
        if left == "damaged":
            fisher.write_bytes(fisher.read_bytes()[:200])
        else:
            fisher.unlink()
        if left == "stale":
            torch.save(stale, fisher)
        torch.manual_seed(5)
        data = small_data({"b": COUNT, "a": COUNT})
        model = DQN(data.task_infos, NETWORK)
        callbacks = (FisherInformation(rows=64), ReplayCheckpoint())
        again = quiet_trainer(*callbacks, default_root_dir=tmp_path)
        again.fit(model, data, ckpt_path=tmp_path / "last.ckpt")
        found = torch.load(fisher, weights_only=True)
        assert found["global_step"] == expected["global_step"]
        torch.testing.assert_close(found["importance"], expected["importance"])


def test_only_learners_with_a_network_are_measured() -> None:
    callback = FisherInformation()
    with pytest.raises(ValueError, match=complaint("model")):
        callback.setup(quiet_trainer(), lightning.LightningModule(), "fit")
    callback.setup(quiet_trainer(), small_model(small_data()), "fit")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"kind": "all"}, "kind"),
        ({"rows": 0}, "rows"),
        ({"temperature": 0.0}, "temperature"),
        ({"decay": 1.5}, "decay"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(f"FisherInformation.{name}")):
        FisherInformation(**options)
