"""Contextual CartPole: Gymnasium's dynamics by default, other physics on request."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from lit_mtdqn.envs.suites import contextual_cartpole
from lit_mtdqn.envs.suites.contextual_cartpole import (
    CONTEXT_NAMES,
    DEFAULT_CONTEXT,
    ENV_ID,
    ContextualCartPoleEnv,
    ContextualCartPoleVectorEnv,
)

NUM_ENVS = 8
UNLIKE = {"gravity": 3.0, "length": 1.5, "cart_mass": 4.0, "pole_mass": 1.0, "force": 5.0}
LEFT, RIGHT = 0, 1

Array = NDArray[Any]


def balance(observation: Array) -> Array:
    """Push to where the pole falls; good for some hundred steps."""
    return (observation[:, 2] + 0.3 * observation[:, 3] > 0.0).astype(np.int64)


def random_actions(steps: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(2, size=(steps, NUM_ENVS))


def test_with_the_default_context_it_steps_and_resets_as_gymnasiums_batched_cartpole() -> None:
    theirs = gymnasium.make_vec(
        "CartPole-v1", num_envs=NUM_ENVS, vectorization_mode="vector_entry_point"
    )
    ours = ContextualCartPoleVectorEnv(NUM_ENVS)
    observation, _ = theirs.reset(seed=3)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], observation)
    ends = np.zeros(2, np.int64)
    for step, action in enumerate(random_actions(2_500)):
        if step % 1_250 >= 250:  # long episodes, up to the time limit, after short ones
            action = balance(observation)
        expected, actual = theirs.step(action), ours.step(action)
        for wanted, found in zip(expected[:4], actual[:4], strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
        observation = expected[0]
        ends += expected[2].sum(), expected[3].sum()
    assert (ends > 10).all()


def test_a_single_one_steps_as_gymnasiums_single_cartpole() -> None:
    theirs, ours = gymnasium.make("CartPole-v1").unwrapped, ContextualCartPoleEnv()
    for seed in range(5):
        np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
        terminated = False
        for action in random_actions(60, seed)[:, 0]:
            if terminated:
                break
            observation, reward, terminated, _, _ = theirs.step(action)
            found, its_reward, its_end, truncated, info = ours.step(action)
            np.testing.assert_array_equal(found, observation)
            assert (its_reward, its_end, truncated) == (reward, terminated, False)
            assert info == {"success": False}


def reference_step(state: Array, context: dict[str, float], right: bool) -> Array:
    """One step as Gymnasium's single CartPole makes it, with its attributes changed."""
    env: Any = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    env.state = state
    env.gravity, env.length, env.force_mag = (context[n] for n in ("gravity", "length", "force"))
    env.masscart, env.masspole = context["cart_mass"], context["pole_mass"]
    env.total_mass = env.masspole + env.masscart
    env.polemass_length = env.masspole * env.length
    env.step(int(right))
    return np.asarray(env.state)


@pytest.mark.parametrize("name", CONTEXT_NAMES)
def test_every_number_of_a_context_changes_the_physics_as_it_would_in_gymnasium(name: str) -> None:
    context = {**DEFAULT_CONTEXT, name: UNLIKE[name]}
    env = ContextualCartPoleVectorEnv(2, {name: UNLIKE[name]})
    env.reset(seed=0)
    for _ in range(5):
        states = env.get_state()["states"]
        env.step(np.array([LEFT, RIGHT]))
        for place, right in enumerate((False, True)):
            wanted = reference_step(states[:, place], context, right)
            np.testing.assert_allclose(env.get_state()["states"][:, place], wanted, rtol=1e-12)
            assert not np.allclose(wanted, reference_step(states[:, place], DEFAULT_CONTEXT, right))


def test_copies_of_unlike_contexts_do_not_touch_one_another() -> None:
    contexts = [{"gravity": 3.0}, {"length": 2.0}]
    env = ContextualCartPoleVectorEnv(NUM_ENVS, contexts, draw_context="copy")
    env.reset(seed=1)
    alone = [ContextualCartPoleVectorEnv(NUM_ENVS, context) for context in contexts]
    places = [env.context["gravity"] == 3.0, env.context["gravity"] != 3.0]
    assert all(place.any() for place in places)
    for single in alone:
        single.reset(seed=0)
        single.set_state({**env.get_state(), "context": single.get_state()["context"]})
    for action in random_actions(6):
        observation = env.step(action)[0]
        for single, place in zip(alone, places, strict=True):
            np.testing.assert_array_equal(single.step(action)[0][place], observation[place])


@pytest.mark.parametrize("draw_context", ["episode", "copy"])
def test_contexts_are_drawn_for_episodes_or_kept_by_copies(draw_context: Any) -> None:
    contexts = [{"length": 0.5 + 0.25 * number} for number in range(6)]
    env = ContextualCartPoleVectorEnv(NUM_ENVS, contexts, draw_context, max_episode_steps=2)
    env.reset(seed=0)
    first = env.context["length"]
    assert len(set(first)) > 2
    seen = {place: {length} for place, length in enumerate(first)}
    for _ in range(30):
        before = env.context["length"]
        over = env.step(np.zeros(NUM_ENVS, np.int64))[3]
        np.testing.assert_array_equal(env.context["length"][over], before[over])
        for place, length in enumerate(env.context["length"]):
            seen[place].add(length)
    counts = [len(lengths) for lengths in seen.values()]
    assert min(counts) > 2 if draw_context == "episode" else max(counts) == 1


def test_a_reset_draws_contexts_anew_and_a_seed_repeats_them() -> None:
    contexts = [{"force": 5.0 + number} for number in range(9)]
    env = ContextualCartPoleVectorEnv(NUM_ENVS, contexts, draw_context="copy")
    drawn = []
    for seed in (0, 1, 0):
        env.reset(seed=seed)
        drawn.append(env.context["force"].tolist())
    assert drawn[0] == drawn[2] != drawn[1]


def test_one_context_changes_no_draw() -> None:
    plain, long = ContextualCartPoleVectorEnv(4), ContextualCartPoleVectorEnv(4, {"length": 2.0})
    np.testing.assert_array_equal(plain.reset(seed=5)[0], long.reset(seed=5)[0])


def test_the_context_is_observed_on_request_as_deviation_from_the_default() -> None:
    env = ContextualCartPoleVectorEnv(2, {"gravity": 4.9, "force": 30.0}, observe_context=True)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    assert env.observation_space.contains(observation)
    np.testing.assert_allclose(observation[:, 4:], [[-0.5, 0.0, 0.0, 0.0, 2.0]] * 2, atol=1e-6)
    hidden = ContextualCartPoleVectorEnv(2, {"gravity": 4.9, "force": 30.0})
    np.testing.assert_array_equal(hidden.reset(seed=0)[0], observation[:, :4])


def test_an_observed_context_changes_with_the_episode_that_it_belongs_to() -> None:
    contexts = [{"gravity": 4.9}, {"gravity": 19.6}]
    env = ContextualCartPoleVectorEnv(NUM_ENVS, contexts, observe_context=True, max_episode_steps=3)
    env.reset(seed=0)
    for _ in range(20):
        observation = env.step(np.zeros(NUM_ENVS, np.int64))[0]
        np.testing.assert_allclose(observation[:, 4], env.context["gravity"] / 9.8 - 1.0, atol=1e-6)


def test_success_is_to_stand_at_the_time_limit() -> None:
    env = ContextualCartPoleVectorEnv(2, max_episode_steps=12)
    observation, _ = env.reset(seed=0)
    for _ in range(12):
        action = np.array([balance(observation)[0], RIGHT])
        observation, _, terminated, truncated, info = env.step(action)
        if terminated[1]:
            assert not info["success"][1]
            assert info["_success"][1]
    assert (truncated[0], info["success"][0], info["_success"][0]) == (True, True, True)


def test_a_restored_state_continues_exactly() -> None:
    contexts = [{"length": 0.5}, {"length": 2.0}, {"gravity": 20.0}]

    def rollout(env: ContextualCartPoleVectorEnv) -> list[Array]:
        steps = [env.step(action)[:4] for action in random_actions(150, seed=4)]
        return [np.stack(column) for column in zip(*steps, strict=True)]

    env = ContextualCartPoleVectorEnv(NUM_ENVS, contexts, observe_context=True)
    env.reset(seed=0)
    rollout(env)
    state = env.get_state()
    expected = rollout(env)
    fresh = ContextualCartPoleVectorEnv(NUM_ENVS, contexts, observe_context=True)
    fresh.set_state(state)
    for actual, wanted in zip(rollout(fresh), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_what_a_step_returns_does_not_change_later() -> None:
    env = ContextualCartPoleVectorEnv(NUM_ENVS, max_episode_steps=5)
    env.reset(seed=0)
    *arrays, info = env.step(random_actions(1)[0])
    arrays += info.values()
    copies = [array.copy() for array in arrays]
    for action in random_actions(12):
        env.step(action)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_single_environment_draws_a_context_per_episode_and_refuses_steps_after_the_end() -> None:
    contexts = [{"gravity": 4.9}, {"gravity": 19.6}]
    env = ContextualCartPoleEnv(contexts, observe_context=True, max_episode_steps=1)
    seen = {float(env.reset(seed=seed)[0][4]) for seed in range(20)}
    assert seen == {-0.5, 1.0}
    env.step(np.int64(RIGHT))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.int64(RIGHT))


@pytest.mark.parametrize("kwargs", [{}, {"context": UNLIKE, "observe_context": True}])
def test_single_environments_pass_the_checker(kwargs: dict[str, Any]) -> None:
    env = gymnasium.make(ENV_ID, **kwargs)
    with warnings.catch_warnings():
        # Velocities have no bounds, as in Gymnasium's own.
        warnings.filterwarnings("ignore", message=".*A Box observation space m.+imum value")
        check_env(env.unwrapped)


def test_the_id_makes_batches() -> None:
    env = gymnasium.make_vec(ENV_ID, num_envs=16, vectorization_mode="vector_entry_point")
    assert isinstance(env.unwrapped, ContextualCartPoleVectorEnv)
    assert env.reset(seed=0)[0].shape == (16, 4)


def test_importing_again_registers_nothing_twice() -> None:
    spec = gymnasium.spec(ENV_ID)
    importlib.reload(contextual_cartpole)
    assert gymnasium.spec(ENV_ID) is spec


def test_frames_show_the_length_of_the_pole() -> None:
    frames = []
    for context in ({}, {"length": 1.0}):
        env = gymnasium.make(ENV_ID, context=context, render_mode="rgb_array")
        env.reset(seed=0)
        frames.append(np.asarray(env.render()))
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((320, 480, 3), "uint8")}
    wood = [(frame == (202, 152, 101)).all(-1).sum() for frame in frames]
    assert 1.7 < wood[1] / wood[0] < 2.3


def test_without_a_render_mode_there_is_no_frame() -> None:
    assert ContextualCartPoleVectorEnv().render() is None
    assert ContextualCartPoleEnv().render() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "`num_envs` must be at least 1"),
        ({"max_episode_steps": 0}, "`max_episode_steps` must be at least 1"),
        ({"draw_context": "step"}, "`draw_context` must be one of"),
        ({"context": []}, "`context` must hold at least one context"),
        ({"context": [3.0]}, "`context` must be a mapping"),
        ({"context": {"mass": 1.0}}, r"`context` must have keys among .+'mass'"),
        ({"context": {"length": 0.0}}, r"`context\.length` must be above 0"),
        ({"context": [{}, {"force": -1.0}]}, r"`context\.force` must be above 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContextualCartPoleVectorEnv(**arguments)


@pytest.mark.parametrize("actions", [[0], [0, 2], [-1, 0]])
def test_wrong_actions_are_refused(actions: list[int]) -> None:
    env = ContextualCartPoleVectorEnv(2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="`actions` must"):
        env.step(np.array(actions))


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="`state` must hold 2 episodes"):
        ContextualCartPoleVectorEnv(2).set_state(ContextualCartPoleVectorEnv(3).get_state())
