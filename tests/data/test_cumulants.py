"""What tasks accumulate, on its way from environments to minibatches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.counting_env import SINGLE, VECTOR
from helpers.runs import fit, quiet_trainer, small_data, small_model

from lit_mtdqn import RolloutDataModule, TaskSpec
from lit_mtdqn.data import FixedShares
from lit_mtdqn.envs import TaskEnv, probe_tasks

WORTH = {"a": [2.0, -3.0], "b": [0.5, 7.0]}
TASKS = {
    name: TaskSpec(
        env="lit_mtdqn/Gathering-v0",
        kwargs={"worth": worth, "field": ["A.B", ".B."], "max_episode_steps": 7},
        cumulants_key="cumulants",
        gamma=0.5,
    )
    for name, worth in WORTH.items()
}


def _ready(tasks: dict[str, TaskSpec], **options: Any) -> RolloutDataModule:
    data = small_data(tasks, **options)
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(small_model(data))
    data.setup("fit")
    return data


@pytest.mark.parametrize("backend", ["vector", "sync"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_they_are_folded_as_rewards_are_even_where_tasks_stand_still(
    backend: Any, n_step: int
) -> None:
    tasks = {name: replace(spec, backend=backend, n_step=n_step) for name, spec in TASKS.items()}
    sampler = FixedShares({"a": 7.0, "b": 1.0}, steers="env_steps")
    # All at random.
    data = _ready(tasks, sampler=sampler, warmup_env_steps=400, total_env_steps=1_000)
    assert data.source is not None
    data.clock.phases = 1
    for _ in range(40):
        batch = data.source.next_phase().transitions
    assert batch.extra["cumulants"].shape == (*batch.reward.shape, 2)
    for slot, worth in zip(data.slots, WORTH.values(), strict=True):
        rows = slot.replay.sample(500)
        assert len(set(rows["reward"].tolist())) >= 3
        torch.testing.assert_close(rows["cumulants"] @ torch.tensor(worth), rows["reward"])


def test_a_task_may_stand_still_from_the_first_phase_of_a_resumed_run() -> None:
    data = _ready(TASKS, sampler=FixedShares({"a": 1.0, "b": 0.0}, steers="env_steps"))
    assert data.source is not None
    data.clock.phases = 5
    # Nothing is stored of the one that waits, until all are warm.
    batch = data.source.next_phase().transitions
    assert batch.extra["cumulants"].shape[-1] == 2


def test_tasks_without_any_have_no_such_column() -> None:
    plain = {name: replace(spec, cumulants_key=None) for name, spec in TASKS.items()}
    data = _ready(plain)
    assert data.source is not None
    assert data.source.next_phase().transitions.extra == {}


@pytest.mark.parametrize("env", [SINGLE, VECTOR])
def test_an_environment_that_lacks_the_key_is_refused(env: str) -> None:
    spec = TaskSpec(env=env, cumulants_key="cumulants")
    task_env = TaskEnv("count", spec, 2, probe_tasks({"count": spec})[0])
    with pytest.raises(ValueError, match=complaint("tasks.count.cumulants_key")):
        task_env.reset(0)


def test_tasks_that_act_or_learn_have_all_some_or_none() -> None:
    other = replace(TASKS["b"], cumulants_key=None)
    with pytest.raises(ValueError, match=complaint("tasks")):
        small_data({"a": TASKS["a"], "b": other})
    small_data({"a": TASKS["a"], "b": replace(other, acts=False, learns=False)})


def test_a_stored_replay_without_them_is_refused(tmp_path: Path) -> None:
    plain = small_data({"a": replace(TASKS["a"], cumulants_key=None)})
    fit(plain, small_model(plain))
    plain.dump_replay(tmp_path)
    stored = replace(TASKS["a"], replay=str(tmp_path / "a"))
    with pytest.raises(ValueError, match=complaint("cumulants_key")):
        _ready({"a": stored, "b": TASKS["b"]})
