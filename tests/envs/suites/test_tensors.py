"""Suites on a device: the numbers of the arrays, from starts of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from lit_mtdqn.envs.suites.batched import PlaceableVectorEnv
from lit_mtdqn.envs.suites.contextual_cartpole import ContextualCartPoleVectorEnv
from lit_mtdqn.envs.suites.driving import TASK_IDS, DrivingVectorEnv

NUM_ENVS = 16
CONTEXTS = [{"length": 1.0}, {"gravity": 4.0}]
Make = Callable[..., PlaceableVectorEnv]
Arrays = dict[str, Any]


def _driving(task: str, **options: Any) -> Make:
    return lambda num_envs=NUM_ENVS, device=None: DrivingVectorEnv(
        task, num_envs, 60, device=device, **options
    )


def _cartpole(**options: Any) -> Make:
    return lambda num_envs=NUM_ENVS, device=None: ContextualCartPoleVectorEnv(
        num_envs, CONTEXTS, max_episode_steps=25, device=device, **options
    )


EXACT = {
    **{task: _driving(task) for task in TASK_IDS},
    "late and shifted": _driving(
        "pedestrian", detection_range=8.0, sensor_gain=0.8, sensor_bias=0.1
    ),
    "cartpole": _cartpole(observe_context=True),
    "cartpole of copies": _cartpole(draw_context="copy"),
}
NOISY = {"noise": _driving("traffic_light", observation_noise=0.2)}


def _actions(env: PlaceableVectorEnv, steps: int) -> np.ndarray:
    space: Any = env.single_action_space
    return np.random.default_rng(0).integers(space.n, size=(steps, env.num_envs))


def _as_arrays(state: Arrays) -> Arrays:
    """Return a state of tensors for an environment of arrays, but for its generator."""
    return {name: part.numpy().copy() for name, part in state.items() if name != "generator"}


@pytest.mark.parametrize("name", EXACT)
def test_every_step_is_that_of_arrays_from_the_same_state(name: str) -> None:
    arrays, tensors = EXACT[name](), EXACT[name](device="cpu")
    arrays.reset(seed=0)
    tensors.reset(seed=0)
    generator = arrays.np_random.bit_generator.state
    ends = np.zeros(2, np.int64)
    starting = np.zeros(NUM_ENVS, bool)
    for action in _actions(arrays, 150):
        arrays.set_state({**_as_arrays(tensors.get_state()), "generator": generator})  # type: ignore[attr-defined]
        *wanted, told = arrays.step(action)
        *found, its_told = tensors.step(torch.from_numpy(action))
        # Those that start draw starts of their own; their observations come with the next step.
        wanted[0][starting] = found[0].numpy()[starting]
        for column, expected in zip(
            [*found, *its_told.values()], [*wanted, *told.values()], strict=True
        ):
            assert column.dtype == torch.from_numpy(expected).dtype
            np.testing.assert_allclose(column.numpy(), expected, rtol=1e-6, atol=1e-7)
        starting = told["_success"]
        ends += wanted[2].sum(), wanted[3].sum()
    assert (ends > 5).all()


@pytest.mark.parametrize("name", [*EXACT, *NOISY])
def test_starts_are_distributed_as_those_of_arrays(name: str) -> None:
    make = (EXACT | NOISY)[name]
    wanted = make(3_000).reset(seed=1)[0]
    env = make(100, device="cpu")
    starts = [env.reset(seed=2)[0]]
    over = torch.zeros(100, dtype=torch.bool)
    for action in _actions(env, 200):
        observation, _, terminated, truncated, _ = env.step(torch.from_numpy(action))
        starts.append(observation[over])
        over = terminated | truncated
    found = torch.cat(starts).numpy()
    assert len(found) > 200
    for column, expected in zip(found.T, wanted.T, strict=True):
        assert ks_2samp(column, expected).pvalue > 1e-4


@pytest.mark.parametrize("name", [*EXACT, *NOISY])
def test_the_step_after_an_end_starts_an_episode_and_touches_no_other(name: str) -> None:
    env = (EXACT | NOISY)[name](device="cpu")
    env.reset(seed=0)
    over = torch.zeros(NUM_ENVS, dtype=torch.bool)
    resets = 0
    for action in _actions(env, 120):
        before = env.get_state()["states"]  # type: ignore[attr-defined]
        _, reward, terminated, truncated, info = env.step(torch.from_numpy(action))
        after = env.get_state()["states"]  # type: ignore[attr-defined]
        ended = terminated | truncated
        assert not (over & (ended | info["success"] | info["_success"])).any()
        assert (reward[over] == 0.0).all()
        # Position and the like move by little where no episode starts.
        assert (after[0] - before[0])[~over].abs().max() <= 2.5
        resets += int(over.sum())
        over = ended
    assert resets > 10


@pytest.mark.parametrize("name", ["pedestrian", "cartpole", "noise"])
def test_the_same_seed_and_a_restored_state_give_the_same_rows(name: str) -> None:
    make = (EXACT | NOISY)[name]
    env, twin = make(device="cpu"), make(device="cpu")
    actions = torch.from_numpy(_actions(env, 60))

    def play(played: PlaceableVectorEnv) -> Tensor:
        return torch.stack([played.step(action)[0] for action in actions])

    assert torch.equal(env.reset(seed=5)[0], twin.reset(seed=5)[0])
    assert torch.equal(play(env), play(twin))
    state = env.get_state()  # type: ignore[attr-defined]
    expected = play(env)
    assert not torch.equal(expected, play(env))
    env.set_state(state)  # type: ignore[attr-defined]
    assert torch.equal(play(env), expected)
    assert not torch.equal(env.reset()[0], twin.reset(seed=5)[0])


@pytest.mark.parametrize("name", ["pedestrian", "cartpole"])
def test_what_a_step_returns_does_not_change_later(name: str) -> None:
    env = EXACT[name](device="cpu")
    env.reset(seed=0)
    actions = torch.from_numpy(_actions(env, 40))
    *columns, info = env.step(actions[0])
    columns += info.values()
    copies = [column.clone() for column in columns]
    for action in actions[1:]:
        env.step(action)
    for column, copy in zip(columns, copies, strict=True):
        assert torch.equal(column, copy)
