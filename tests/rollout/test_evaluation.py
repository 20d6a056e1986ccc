import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting_env import SINGLE, VECTOR, mask_at, reward_at, signed_length
from helpers.failing_env import FAILING
from helpers.policies import Policy, constant
from torch import Tensor

from lit_mtdqn.envs import Layout, TaskEnv
from lit_mtdqn.rollout import make_evaluation_env, play_episodes, require_numbers
from lit_mtdqn.types import Episodes, NonFiniteError, TaskSpec

# Identities 10 to 14 play first episodes of 1, -2, 3, -9 and 1 steps.
SEED, EPISODES, PATTERN = 10, 5, (3, -9, 1, -2)
GAMMA = 0.5
LAYOUT = Layout((3,), 4, np.dtype(np.float32))
BACKENDS = pytest.mark.parametrize("env", [SINGLE, VECTOR], ids=["sync", "vector"])
Arguments = dict[str, Any]


def _second_action() -> Policy:
    """Prefer action 1 among the first two; the padding looks better."""
    return constant(0.0, 1.0, 9.0, 9.0)


def _play(policy: Policy, env: str = VECTOR, **options: Any) -> Episodes:
    arguments: Arguments = {"num_actions": 2, "epsilon": 0.0, "seed": SEED, "max_steps": 1_000}
    fields = {name: options.pop(name) for name in ("action_mask_key", "kwargs") if name in options}
    fields.setdefault("kwargs", {"pattern": PATTERN})
    spec = TaskSpec(env=env, gamma=GAMMA, success_key="success", **fields)
    task_env = TaskEnv("a", spec, EPISODES, LAYOUT)
    return play_episodes(policy, task_env, 0, **{**arguments, **options})


def _by_episode(number: Callable[[int, int], float]) -> list[float]:
    """Apply a function of identity and signed length to the first episode of every copy."""
    identities = range(SEED, SEED + EPISODES)
    return [number(identity, signed_length(PATTERN, identity, 0)) for identity in identities]


def _discounted(identity: int, length: int) -> float:
    return sum(GAMMA**step * reward_at(identity, 0, step) for step in range(length))


@BACKENDS
def test_the_first_episode_of_every_copy_is_reported(env: str) -> None:
    episodes = _play(_second_action(), env)
    returns = _by_episode(lambda i, n: sum(reward_at(i, 0, step) for step in range(abs(n))))
    assert episodes.task == "a"
    assert episodes.episode_return.tolist() == returns
    assert episodes.episode_length.tolist() == _by_episode(lambda _, n: abs(n))


@BACKENDS
def test_success_counts_in_the_first_episode_alone(env: str) -> None:
    episodes = _play(_second_action(), env)
    assert episodes.success is not None
    # The short truncated episode is followed by successful ones while the long one goes on.
    assert episodes.success.tolist() == _by_episode(lambda _, n: n > 0)


@BACKENDS
def test_bias_is_the_first_value_minus_the_discounted_return_and_truncation_bootstraps(
    env: str,
) -> None:
    # Values of action 1, the greedy one: 7 at the start, 100 + step later.
    def values(observation: Tensor, task: Tensor) -> Tensor:
        step = observation[..., 2]
        best = torch.where(step == 0, 7.0, 100.0 + step)
        return torch.stack([best - 1.0, best, best + 1.0, best + 2.0], -1)

    def bias(identity: int, length: int) -> float:
        steps = abs(length)
        rest = 0.0 if length > 0 else GAMMA**steps * (100.0 + steps)
        return 7.0 - (_discounted(identity, steps) + rest)

    assert _play(Policy(values), env).q_bias.tolist() == pytest.approx(_by_episode(bias))


def test_after_max_steps_an_episode_counts_as_it_stands() -> None:
    episodes = _play(_second_action(), max_steps=2)
    returns = _by_episode(lambda i, n: sum(reward_at(i, 0, s) for s in range(min(abs(n), 2))))
    assert episodes.episode_return.tolist() == returns
    assert episodes.episode_length.tolist() == _by_episode(lambda _, n: min(abs(n), 2))
    assert episodes.success is not None
    assert episodes.success.tolist() == _by_episode(lambda _, n: n == 1)


def test_what_max_steps_cuts_off_counts_as_predicted() -> None:
    def bias(identity: int, length: int) -> float:
        steps = min(abs(length), 2)
        terminated = length > 0 and length <= 2
        rest = 0.0 if terminated else GAMMA**steps * 1.0
        return 1.0 - (_discounted(identity, steps) + rest)

    episodes = _play(_second_action(), max_steps=2)
    assert episodes.q_bias.tolist() == pytest.approx(_by_episode(bias))


def test_every_policy_meets_the_same_starts() -> None:
    policies = constant(0.0, 1.0), constant(1.0, 0.0)
    spec = TaskSpec(env="CartPole-v1")
    env = TaskEnv("a", spec, EPISODES, Layout((4,), 2, np.dtype(np.float32)))
    starts = []
    for seed in (SEED, SEED, SEED + 1):
        for policy in policies:
            play_episodes(policy, env, 0, num_actions=2, epsilon=0.3, seed=seed, max_steps=10)
            starts.append(policy.asked[0][0])
            policy.asked.clear()
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[4])


def test_the_policy_is_asked_for_one_task() -> None:
    policy = _second_action()
    task_env = TaskEnv("a", TaskSpec(env=VECTOR), EPISODES, LAYOUT)
    play_episodes(policy, task_env, 3, num_actions=2, epsilon=0.0, seed=0, max_steps=9)
    for observation, task in policy.asked:
        assert observation.shape == (1, EPISODES, 3)
        assert task.tolist() == [3]


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_padded_and_forbidden_actions_are_never_taken(epsilon: float) -> None:
    def values(observation: Tensor, task: Tensor) -> Tensor:
        forbidden = (observation[..., 0] + observation[..., 2]).long() % 3
        return torch.nn.functional.one_hot(forbidden, 4) + torch.tensor([0.0, 0.0, 0.0, 9.0])

    taken: list[tuple[np.ndarray, np.ndarray]] = []
    kwargs = {"pattern": (20,), "num_actions": 3}
    spec = TaskSpec(env=VECTOR, action_mask_key="mask", kwargs=kwargs)
    env = TaskEnv("a", spec, EPISODES, LAYOUT)
    step = env.step

    def recorded(action: np.ndarray) -> Any:
        row = step(action)
        taken.append((row.observation, action))
        return row

    env.step = recorded  # type: ignore[method-assign]
    play_episodes(Policy(values), env, 0, num_actions=3, epsilon=epsilon, seed=SEED, max_steps=20)
    assert len(taken) == 20
    for observations, actions in taken:
        for (identity, _, moment), action in zip(observations, actions, strict=True):
            assert mask_at(int(identity), int(moment), 3)[action]


def test_random_draws_follow_from_the_seed() -> None:
    spec = TaskSpec(env="CartPole-v1")
    env = TaskEnv("a", spec, EPISODES, Layout((4,), 2, np.dtype(np.float32)))
    returns = [
        play_episodes(
            constant(0.0, 1.0), env, 0, num_actions=2, epsilon=1.0, seed=seed, max_steps=500
        ).episode_return.tolist()
        for seed in (1, 1, 2)
    ]
    assert returns[0] == returns[1] != returns[2]


SIZES = pytest.mark.parametrize("copies", [1, 4, 6, 7])


@SIZES
@BACKENDS
def test_rounds_of_copies_play_the_episodes_of_as_many_copies(env: str, copies: int) -> None:
    def values(observation: Tensor, task: Tensor) -> Tensor:
        first = observation[..., 0] + observation[..., 2]
        return torch.stack([first, 1.0 - first, first, first], -1)

    spec = TaskSpec(env=env, gamma=GAMMA, success_key="success", kwargs={"pattern": PATTERN})
    at_once, in_rounds = (
        play_episodes(
            Policy(values),
            TaskEnv("a", spec, size, LAYOUT),
            0,
            num_actions=2,
            epsilon=0.0,
            seed=SEED,
            max_steps=20,
            episodes=7,
        )
        for size in (7, copies)
    )
    for name in ("episode_return", "episode_length", "success", "q_bias"):
        found, wanted = getattr(in_rounds, name), getattr(at_once, name)
        assert found.tolist() == wanted.tolist(), name
        assert len(set(found.tolist())) > 1, name


@SIZES
def test_rounds_without_a_report_of_success_have_none(copies: int) -> None:
    env = TaskEnv("a", TaskSpec(env=SINGLE), copies, LAYOUT)
    episodes = play_episodes(
        _second_action(), env, 0, num_actions=2, epsilon=0.0, seed=0, max_steps=9, episodes=7
    )
    assert episodes.success is None
    assert len(episodes.episode_return) == 7


def test_a_surplus_copy_does_not_prolong_a_round() -> None:
    # Identity 5, beside the last of five episodes, would play 50 steps.
    kwargs = {"pattern": (1, 1, 1, 1, 1, 50)}
    env = TaskEnv("a", TaskSpec(env=SINGLE, kwargs=kwargs), 2, LAYOUT)
    policy = _second_action()
    arguments: Arguments = {"num_actions": 2, "epsilon": 0.0, "max_steps": 99}
    play_episodes(policy, env, 0, seed=0, episodes=5, **arguments)
    assert len(policy.asked) == 3 * 2


def test_rounds_draw_random_actions_of_their_own() -> None:
    spec = TaskSpec(env="helpers.chain:ChainEnv", kwargs={"states": 2, "endless": True})
    env = TaskEnv("a", spec, 1, Layout((2,), 2, np.dtype(np.float32)))
    arguments: Arguments = {"num_actions": 2, "epsilon": 1.0, "max_steps": 40}
    episodes = play_episodes(constant(0.0, 1.0), env, 0, seed=0, episodes=4, **arguments)
    assert len(set(episodes.episode_return.tolist())) > 1


@pytest.mark.parametrize(
    ("env", "episodes", "copies"),
    [
        (SINGLE, 5, 5),
        (SINGLE, 32, 32),
        (SINGLE, 33, 17),
        (SINGLE, 100, 25),
        (SINGLE, 500, 32),
        (VECTOR, 5, 5),
        (VECTOR, 500, 500),
    ],
)
def test_single_copies_are_at_most_32_and_a_batched_form_plays_all_at_once(
    env: str, episodes: int, copies: int
) -> None:
    assert make_evaluation_env("a", TaskSpec(env=env), episodes, LAYOUT).num_envs == copies


@pytest.mark.parametrize(("timeout", "wanted"), [(None, None), (1.0, 60.0), (90.0, 90.0)])
def test_evaluation_restarts_nothing_and_waits_at_least_a_minute(
    timeout: float | None, wanted: float | None
) -> None:
    spec = TaskSpec(env=SINGLE, backend="async", restarts=3, step_timeout=timeout)
    env = make_evaluation_env("a", spec, 1, LAYOUT)
    env.close()
    assert (env.spec.restarts, env.spec.step_timeout) == (0, wanted)


@pytest.mark.filterwarnings("ignore:.*ERROR")
def test_an_evaluation_ends_by_an_error_of_its_task_where_an_environment_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lit_mtdqn.rollout.evaluation.STARTING", 1.0)
    kwargs = {"how": "hang", "when": "step", "only_in": None, "parent": os.getpid(), "after": 1}
    spec = TaskSpec(env=FAILING, kwargs=kwargs, backend="async", restarts=3, step_timeout=0.5)
    env = make_evaluation_env("maze", spec, 1, LAYOUT)
    arguments: Arguments = {"num_actions": 2, "epsilon": 0.0, "max_steps": 40}
    with pytest.raises(RuntimeError, match=r"^`tasks\.maze\.env` must .* no answer within 1\.0 s"):
        play_episodes(_second_action(), env, 0, seed=0, **arguments)


def test_a_task_that_reports_no_success_has_none() -> None:
    env = TaskEnv("a", TaskSpec(env=VECTOR), EPISODES, LAYOUT)
    episodes = play_episodes(
        _second_action(), env, 0, num_actions=2, epsilon=0.0, seed=0, max_steps=9
    )
    assert episodes.success is None


@pytest.mark.parametrize(("how", "value"), [("nan", "nan"), ("reward", "inf")])
def test_an_episode_without_numbers_is_no_score(how: str, value: str) -> None:
    kwargs = {"how": how, "when": "step", "only_in": SEED + 3, "parent": 0, "after": 1}
    episodes = _play(_second_action(), FAILING, kwargs=kwargs)
    assert np.isfinite(episodes.episode_return).tolist() == [True, True, True, False, True]
    said = (
        f"`episode_return` of task a must be finite. Got {value} in episode 3 (the first is 0) of "
        f"an evaluation from seed {SEED}, from its rewards or observations."
    )
    with pytest.raises(NonFiniteError, match=re.escape(said)):
        require_numbers([episodes], SEED)


def test_what_a_copy_returns_after_its_episode_does_not_matter() -> None:
    # The first copy's episode has 1 step, others have up to 5.
    kwargs = {"how": "nan", "when": "step", "only_in": SEED, "parent": 0, "after": 1}
    require_numbers([_play(_second_action(), FAILING, kwargs=kwargs)], SEED)
