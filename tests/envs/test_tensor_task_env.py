import numpy as np
import pytest
import torch

from lit_mtdqn.envs import Layout, TaskEnv, TensorTaskEnv
from lit_mtdqn.types import StepRow, TaskSpec

NUM_ENVS = 5
CPU = torch.device("cpu")
LAYOUT = Layout((20,), 9, np.dtype(np.float32))
SPEC = TaskSpec(env="lit_mtdqn/ContextualCartPole-v0", time_limit=12, success_key="success")


def _play(env: TaskEnv, steps: int) -> list[StepRow]:
    actions = torch.from_numpy(np.random.default_rng(0).integers(2, size=(steps, NUM_ENVS)))
    return [env.step(action) for action in actions]


def test_rows_keep_the_contract_of_arrays() -> None:
    env = TensorTaskEnv("pole", SPEC, NUM_ENVS, LAYOUT, CPU)
    observation, mask = env.reset(3)
    assert mask is None
    over = torch.zeros(NUM_ENVS, dtype=torch.bool)
    ends = 0
    for row in _play(env, 60):
        assert torch.equal(row.observation, observation)
        assert row.next_observation.shape == (NUM_ENVS, 20)
        assert (row.next_observation[:, 4:] == 0.0).all()
        assert torch.equal(row.valid, ~over)
        ended = row.terminated | row.truncated
        assert not (ended & over).any()
        assert torch.equal(row.reward, row.valid.float())
        assert not (row.extra["success"] & ~row.truncated).any()
        observation, over, ends = row.next_observation, ended, ends + int(ended.sum())
    assert ends > 10
    dtypes = [part.dtype for part in (row.observation, row.reward, row.valid, row.truncated)]
    assert dtypes == [torch.float32, torch.float32, torch.bool, torch.bool]


def test_without_a_success_key_nothing_succeeds() -> None:
    spec = TaskSpec(env=SPEC.env, time_limit=5)
    env = TensorTaskEnv("pole", spec, NUM_ENVS, LAYOUT, CPU)
    env.reset(0)
    rows = _play(env, 8)
    assert any(row.truncated.any() for row in rows)
    assert not any(row.extra["success"].any() for row in rows)


def test_a_restored_state_goes_on_exactly() -> None:
    env = TensorTaskEnv("pole", SPEC, NUM_ENVS, LAYOUT, CPU)
    env.reset(0)
    _play(env, 12)
    state = env.get_state()
    assert state is not None
    wanted = _play(env, 40)
    env.set_state(state)
    for row, expected in zip(_play(env, 40), wanted, strict=True):
        assert torch.equal(row.observation, expected.observation)
        assert torch.equal(row.valid, expected.valid)


def test_a_task_that_would_stand_still_is_refused() -> None:
    env = TensorTaskEnv("pole", SPEC, NUM_ENVS, LAYOUT, CPU)
    with pytest.raises(NotImplementedError, match="all tasks act"):
        env.idle(torch.zeros(NUM_ENVS, dtype=torch.int64))
