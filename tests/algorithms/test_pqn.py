from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.counting_env import VECTOR
from helpers.runs import COUNTING, fit, quiet_trainer, small_data
from torchjd.aggregation import UPGrad

from lit_mtdqn import DQN, PQN, RolloutDataModule, TaskSpec
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.callbacks import (
    EpsilonDecay,
    GradientAgreement,
    NetworkHealth,
    ReplayCheckpoint,
    TargetNetworkSync,
    TaskAffinity,
)
from lit_mtdqn.data.fragments import FragmentSource
from lit_mtdqn.functional.returns import lambda_returns
from lit_mtdqn.networks import DrawsNoise, HLGaussHead, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import TD, Align, DeepSupervision, ImportanceWeights, QLambda
from lit_mtdqn.scaling import PopArt, ReturnNormaliser
from lit_mtdqn.types import Phase

NETWORK = partial(QNetwork, torso=partial(MLPTorso, hidden=[8], layer_norm=True))
TWO = {"one": COUNTING, "two": TaskSpec(env=VECTOR, kwargs={"num_actions": 3}, gamma=0.5)}


def _data(tasks: dict[str, TaskSpec] | None = None, **options: Any) -> RolloutDataModule:
    return small_data(tasks, **{"keeps_replays": False, "warmup_env_steps": 0, **options})


def _model(data: RolloutDataModule, **options: Any) -> PQN:
    return PQN(data.task_infos, **{"network": NETWORK, **options})


class Watching(PQN):
    """Notes the phases that it is given and what becomes of them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[tuple[Phase, Phase, dict[str, torch.Tensor]]] = []

    def prepare_phase(self, phase: Phase) -> Phase:
        prepared = super().prepare_phase(phase)
        weights = {n: p.detach().clone() for n, p in self.network.state_dict().items()}
        self.seen.append((phase, prepared, weights))
        return prepared


def _watched(tasks: dict[str, TaskSpec] | None = None, **options: Any) -> Watching:
    torch.manual_seed(0)
    data = _data(tasks)
    model = Watching(data.task_infos, network=NETWORK, **options)
    fit(data, model)
    return model


def test_each_phase_is_learned_from_once_played_with_returns_of_the_network_before_it() -> None:
    model = _watched(TWO, objective=partial(QLambda, trace_decay=0.5))
    assert len(model.seen) > 5
    network = NETWORK(model.tasks)
    for phase, prepared, weights in model.seen:
        network.load_state_dict(weights)
        played = phase.transitions
        length, groups, envs = played.reward.shape
        assert (length, groups, envs) == (4, 2, 2)
        value = torch.stack(
            [
                network.action_values(played.next_observation[t], played.task)
                .masked_fill(~model.network.action_mask[played.task].unsqueeze(1), -torch.inf)
                .amax(-1)
                for t in range(length)
            ]
        )
        goes_on = torch.cat([played.weight[1:], played.weight[:1]]) > 0
        returns = lambda_returns(played.reward, played.discount, value, goes_on, 0.5)
        assert phase.order is not None
        for k, s, b in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(4)):
            time, env = divmod(int(phase.order[k, s, b]), envs)
            learned = prepared.transitions
            torch.testing.assert_close(learned.reward[k, s, b], returns[time, s, env])
            assert torch.equal(learned.observation[k, s, b], played.observation[time, s, env])
        assert (prepared.transitions.weight == 1.0).all()


def test_phases_follow_one_another_without_a_gap() -> None:
    model = _watched()
    steps = torch.cat([phase.transitions.observation[:, 0, 0] for phase, _, _ in model.seen])
    following = torch.cat([p.transitions.next_observation[:, 0, 0] for p, _, _ in model.seen])
    valid = torch.cat([phase.transitions.weight[:, 0, 0] for phase, _, _ in model.seen]) > 0
    # What was seen next is seen now, but where an episode has just ended.
    assert torch.equal(following[:-1][valid[1:]], steps[1:][valid[1:]])
    assert len(steps) == 4 * len(model.seen)


def test_there_is_one_network_and_no_replay() -> None:
    data = _data()
    model = _model(data)
    assert model.target_network is model.network
    assert not any(name.startswith("target_network") for name in model.state_dict())
    count = sum(parameter.numel() for parameter in model.network.parameters())
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    trainer = fit(data, model)
    assert [len(slot.replay) for slot in data.slots] == [0]
    assert not any(isinstance(one, TargetNetworkSync) for one in trainer.callbacks)  # type: ignore[attr-defined]
    assert any(isinstance(one, EpsilonDecay) for one in trainer.callbacks)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"scale": PopArt},
        {
            "network": partial(NETWORK, head=HLGaussHead),
            "scale": ReturnNormaliser,
        },
        {"balancer": partial(Aggregated, aggregator=UPGrad)},
        {"network": partial(NETWORK, head=partial(LinearHead, noisy_sigma=0.5))},
    ],
    ids=["popart", "hl_gauss", "upgrad", "noisy"],
)
def test_scales_heads_and_balancers_are_those_of_other_learners(options: dict[str, Any]) -> None:
    data = _data(TWO)
    model = _model(data, **options)
    before = [parameter.detach().clone() for parameter in model.network.parameters()]
    fit(data, model)
    moved = zip(model.network.parameters(), before, strict=True)
    assert any(not torch.equal(now, then) for now, then in moved)
    assert all(torch.isfinite(p).all() for p in model.network.parameters())


def test_popart_corrects_the_one_head_once() -> None:
    data = _data(TWO)
    model = _model(data, scale=PopArt)
    assert model.heads_of_values() == [model.network.head]


def test_a_checkpoint_brings_it_back(tmp_path: Path) -> None:
    data = _data()
    model = _model(data)
    trainer = fit(data, model)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = PQN.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.target_network is loaded.network
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_the_same_seed_gives_the_same_network() -> None:
    one, same = (_watched().network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_diagnostics_look_at_the_last_phase() -> None:
    data = _data(TWO)
    model = _model(data)
    fit(data, model)
    seen = data.look(5)
    assert seen.reward.shape == (2, 5)
    assert (seen.weight == 1.0).all()
    assert seen.task.tolist() == [0, 1]
    # Returns and not rewards, as updates learn from.
    assert not seen.discount.any()
    assert torch.equal(data.look(5).reward, seen.reward)
    assert model.task_gradients(seen).by_task.shape[0] == 2


def test_callbacks_that_look_into_a_learner_see_minibatches() -> None:
    data = _data(TWO)
    looking = NetworkHealth(1), GradientAgreement(1), TaskAffinity(1)
    trainer = fit(data, _model(data), *looking, log_every_n_steps=1)
    found = trainer.callback_metrics
    assert any("cosine" in name for name in found)
    assert any("affinity" in name for name in found)


@pytest.mark.parametrize("scale", [None, PopArt, ReturnNormaliser])
def test_returns_are_folded_in_the_unit_of_rewards(scale: Any) -> None:
    data = _data(TWO)
    model = _model(data, scale=scale)
    fit(data, model)
    assert isinstance(data.source, FragmentSource)
    phase = data.source.glimpse(4)
    played = phase.transitions
    values = model.action_values(played.next_observation.transpose(0, 1).flatten(1, 2), played.task)
    allowed = model.network.action_mask[played.task].unsqueeze(1)
    best = values.masked_fill(~allowed, -torch.inf).amax(-1).view(2, 4, 2).transpose(0, 1)
    goes_on = torch.cat([played.weight[1:], played.weight[:1]]) > 0
    wanted = lambda_returns(played.reward, played.discount, best, goes_on, 0.65)
    assert phase.order is not None
    drawn = played._replace(reward=wanted).drawn(phase.order)
    learned = model.prepare_phase(phase).transitions
    torch.testing.assert_close(learned.reward, drawn.reward)
    assert learned.next_observation.numel() == 0


def test_a_last_state_may_allow_no_action() -> None:
    data = _data()
    model = _model(data)
    fit(data, model)
    assert isinstance(data.source, FragmentSource)
    phase = data.source.glimpse(8)
    played = phase.transitions
    mask = torch.ones(*played.reward.shape, 2, dtype=torch.bool)
    mask[1] = False
    played = played._replace(
        discount=torch.where(mask.any(-1), played.discount, 0.0),
        extra={"action_mask": torch.ones_like(mask), "next_action_mask": mask},
    )
    learned = model.prepare_phase(phase._replace(transitions=played)).transitions
    assert torch.isfinite(learned.reward).all()
    assert learned.extra.keys() == {"action_mask"}


def test_noise_of_objectives_is_drawn_too() -> None:
    data = _data()
    noisy = partial(LinearHead, noisy_sigma=0.5)
    torso = partial(MLPTorso, hidden=[8, 8], layer_norm=True)
    network: Any = partial(QNetwork, torso=torso, head=noisy)
    model = _model(data, network=network, objectives=[DeepSupervision])
    torch.manual_seed(1)
    model.resample_noise()
    drawing = [one for one in model.modules() if isinstance(one, DrawsNoise)]
    assert len(drawing) == 2
    before = [{n: b.clone() for n, b in one.named_buffers()} for one in drawing]
    model.resample_noise()
    for one, then in zip(drawing, before, strict=True):
        assert any(not torch.equal(b, then[n]) for n, b in one.named_buffers())


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    data = _data(total_env_steps=50)
    trainer = fit(data, _model(data))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    data = _data(total_env_steps=100)
    model = _model(data)
    quiet_trainer().fit(model, data, ckpt_path=tmp_path / "last.ckpt")
    assert data.clock.total_env_steps >= 100
    assert data.clock.updates == 2 * data.clock.phases


def test_held_out_tasks_are_tested_alone() -> None:
    tasks = {**TWO, "far": TaskSpec(env=VECTOR, acts=False, learns=False, head="one")}
    data = _data(tasks)
    trainer = fit(data, _model(data))
    assert data.clock.env_steps["far"] == 0
    trainer.test(_model(data), small_data(tasks), verbose=False)
    assert "test/episode_return/far" in trainer.callback_metrics


def test_a_network_without_normalised_layers_is_warned_of() -> None:
    data = _data()
    with pytest.warns(UserWarning, match="unstable without normalised layers"):
        fit(data, _model(data, network=partial(QNetwork, torso=partial(MLPTorso, hidden=[8]))))


def test_objectives_that_need_single_steps_or_other_tasks_are_refused() -> None:
    tasks = {"one": COUNTING, "two": TaskSpec(env=VECTOR, head="one")}
    data = _data(tasks)
    weigh: Any = partial(ImportanceWeights, sources={"one": "two"})
    with pytest.raises(ValueError, match=complaint("model.objectives")):
        _model(data, objectives=[weigh])
    data = _data({"one": COUNTING, "two": TaskSpec(env=VECTOR, acts=False, learns=False)})
    with pytest.raises(ValueError, match=complaint("model.objectives")):
        _model(data, objectives=[Align])


def _fit_with(*callbacks: Any, model: Callable[[Any], Any] = _model, **options: Any) -> None:
    data = _data(**options)
    quiet_trainer(*callbacks).fit(model(data), data)


def _dqn(data: RolloutDataModule) -> DQN:
    return DQN(data.task_infos, NETWORK)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("datamodule.keeps_replays")):
        _fit_with(keeps_replays=True)
    with pytest.raises(ValueError, match=complaint("datamodule.keeps_replays")):
        _fit_with(model=_dqn)
    with pytest.raises(ValueError, match="`model` must have a target network of its own"):
        _fit_with(TargetNetworkSync())
    with pytest.raises(ValueError, match="`ReplayCheckpoint` must be left out"):
        _fit_with(ReplayCheckpoint())
    objective: Any = QLambda
    data = small_data()
    replaying = DQN(data.task_infos, NETWORK, objective=objective)
    with pytest.raises(ValueError, match=complaint("model.objective")):
        fit(data, replaying)
    data = _data()
    objective = TD
    with pytest.raises(ValueError, match=complaint("model.objective")):
        _model(data, objective=objective)
