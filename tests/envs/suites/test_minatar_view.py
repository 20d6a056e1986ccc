"""MinAtar seen mirrored, shrunk and through noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lit_mtdqn.envs import make_vector_env
from lit_mtdqn.envs.suites.minatar import MinAtarVectorEnv
from lit_mtdqn.envs.suites.minatar.view import View
from lit_mtdqn.types import TaskSpec

NUM_ENVS = 3
GENERATOR = np.random.default_rng(0)

Array = NDArray[Any]


def see(picture: list[str], **view: Any) -> list[str]:
    """Return what is seen of one picture, whose set cells are `#`."""
    planes = np.array([[[cell == "#"] for cell in row] for row in picture])[None]
    seen = View(**view).see(planes, GENERATOR)
    assert seen.dtype == np.bool_
    return ["".join("#" if cell else "." for cell in row[:, 0]) for row in seen[0]]


def rollout(env: MinAtarVectorEnv, steps: int = 60, seed: int | None = 5) -> list[Array]:
    """Play at random; return observations, rewards and ends, [steps, NUM_ENVS, ...]."""
    if seed is not None:
        env.reset(seed=seed)
    count = int(env.single_action_space.n)  # type: ignore[attr-defined]
    actions = np.random.default_rng(3).integers(count, size=(steps, NUM_ENVS))
    rows = [env.step(action)[:4] for action in actions]
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(
    ("flip", "seen"),
    [
        ("horizontal", [".#", "##"]),
        ("vertical", ["##", "#."]),
        ("both", ["##", ".#"]),
        (None, ["#.", "##"]),
    ],
)
def test_a_picture_is_mirrored(flip: str | None, seen: list[str]) -> None:
    assert see(["#.", "##"], flip=flip) == seen


def test_a_shrunken_picture_loses_nothing_that_is_set() -> None:
    # Five cells become three: the first two, the next two, the last.
    picture = ["#....", ".....", "...#.", ".....", "....#"]
    assert see(picture, zoom=0.6) == [".....", ".#...", "..#..", "...#.", "....."]
    assert see(picture, zoom=1.0) == picture
    assert see(picture, zoom=0.01) == [".....", ".....", "..#..", ".....", "....."]


@pytest.mark.parametrize("zoom", [0.3, 0.5, 0.75, 0.8])
@pytest.mark.parametrize("place", range(10))
def test_every_cell_stays_in_sight_and_in_order(zoom: float, place: int) -> None:
    row = ["." * place + "#" + "." * (9 - place)]
    seen = see(row * 10, zoom=zoom)
    length = round(10 * zoom)
    assert [line.count("#") for line in seen].count(1) == length
    (column,) = {line.index("#") for line in seen if "#" in line}
    assert column == (10 - length) // 2 + place * length // 10


def test_noise_turns_over_its_share_of_all_bits_anew_at_every_frame() -> None:
    planes = np.zeros((8, 50, 50, 4), bool)
    planes[:4] = True
    view = View(noise=0.1)
    wrong = [view.see(planes, GENERATOR) ^ planes for _ in range(2)]
    for errors in wrong:
        np.testing.assert_allclose([errors[:4].mean(), errors[4:].mean()], 0.1, atol=0.01)
    np.testing.assert_allclose((wrong[0] & wrong[1]).mean(), 0.01, atol=0.003)


@pytest.mark.parametrize("game", ["breakout", "seaquest"])
def test_a_view_changes_the_picture_and_nothing_else(game: str) -> None:
    planes, *rest = rollout(MinAtarVectorEnv(game, num_envs=NUM_ENVS))
    flipped, *its_rest = rollout(MinAtarVectorEnv(game, num_envs=NUM_ENVS, flip="horizontal"))
    np.testing.assert_array_equal(flipped, planes[:, :, :, ::-1])
    assert flipped.dtype == planes.dtype
    noisy, *noisy_rest = rollout(MinAtarVectorEnv(game, num_envs=NUM_ENVS, noise=0.02))
    np.testing.assert_allclose((noisy != planes).mean(), 0.02, rtol=0.2)
    for others in (its_rest, noisy_rest):
        for found, wanted in zip(others, rest, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_a_seed_repeats_the_noise_and_a_restored_state_continues_it() -> None:
    env = MinAtarVectorEnv("breakout", num_envs=NUM_ENVS, noise=0.1)
    first, again, other = (rollout(env, seed=seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    state = env.get_state()
    expected = rollout(env, seed=None)[0]
    fresh = MinAtarVectorEnv("breakout", num_envs=NUM_ENVS, noise=0.1)
    fresh.set_state(state)
    np.testing.assert_array_equal(rollout(fresh, seed=None)[0], expected)


def test_a_task_is_seen_as_its_arguments_say() -> None:
    kwargs = {"flip": "vertical", "zoom": 0.8, "noise": 0.01}
    env: Any = make_vector_env("a", TaskSpec(env="MinAtar/Breakout-v1", kwargs=kwargs), NUM_ENVS)
    assert env.unwrapped._view == View(flip="vertical", zoom=0.8, noise=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip": "sideways"}, "`flip` must be one of horizontal, vertical, both or null"),
        ({"zoom": 0.0}, r"`zoom` must lie in \(0, 1\]"),
        ({"zoom": 1.5}, r"`zoom` must lie in \(0, 1\]"),
        ({"noise": 0.6}, r"`noise` must lie in \[0, 0.5\]"),
    ],
)
def test_wrong_views_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MinAtarVectorEnv("breakout", **arguments)
