from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting_env import identity_of, reward_at
from helpers.picture_env import FPS, PATH, SIZE, step_shown
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from torch import Tensor

from lit_mtdqn.envs import probe_tasks
from lit_mtdqn.rollout.recording import (
    Recording,
    UnrenderableError,
    record_episode,
    write_gif,
)
from lit_mtdqn.rollout.seeding import TEST_SEED
from lit_mtdqn.types import Episodes, TaskSpec

Array = np.ndarray


class FirstAction:
    """Prefers action 0."""

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(1, observation.shape[1], 2)


def film(length: int = 5, env: str = PATH, max_steps: int = 1_000, **options: Any) -> Recording:
    kwargs = {"pattern": (length,), **options.pop("kwargs", {})}
    spec = TaskSpec(env=env, kwargs=kwargs, success_key="success")
    layout, _ = probe_tasks({"task": spec})
    return record_episode(
        FirstAction(), "task", spec, layout, 0, num_actions=2, max_steps=max_steps, **options
    )


def steps_shown(recording: Recording) -> list[int]:
    return [step_shown(frame) for frame in recording.frames]


def save(tmp_path: Path, frames: Array, seconds: float = 0.05) -> Image.Image:
    outcome = Episodes("task", np.zeros(1), np.ones(1, int), None, np.zeros(1))
    write_gif(Recording(frames, seconds, outcome), tmp_path / "film.gif")
    return Image.open(tmp_path / "film.gif")


def coloured(colours: list[tuple[int, int, int]], height: int = 20, width: int = 30) -> Array:
    return np.stack([np.full((height, width, 3), colour, np.uint8) for colour in colours])


def test_every_state_of_a_short_episode_is_filmed() -> None:
    recording = film(5)
    assert recording.frames.dtype == np.uint8
    assert recording.frames.shape == (6, *SIZE, 3)
    assert steps_shown(recording) == [0, 1, 2, 3, 4, 5]
    assert recording.seconds == 1 / FPS


def test_an_episode_is_filmed_whole_as_long_as_it_may_go_on() -> None:
    assert steps_shown(film(8, max_frames=10)) == list(range(9))
    assert steps_shown(film(9, max_frames=10)) == [0, 2, 4, 6, 8, 9]


def test_a_long_episode_is_thinned_evenly_and_keeps_its_end() -> None:
    recording = film(21, max_frames=10)
    assert steps_shown(recording) == [0, 4, 8, 12, 16, 20, 21]
    assert recording.seconds == 4 / FPS


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 150), max_frames=st.integers(3, 20))
def test_films_are_short_even_and_whole(length: int, max_frames: int) -> None:
    recording = film(length, max_frames=max_frames)
    spacing = round(recording.seconds * FPS)
    shown = steps_shown(recording)
    assert shown == sorted({*range(0, length, spacing), length})
    assert len(shown) <= max_frames
    assert spacing == 1 or 2 * len(shown) >= max_frames


def test_the_outcome_is_that_of_the_filmed_episode() -> None:
    outcome = film(4).outcome
    identity = identity_of(TEST_SEED)
    assert outcome.episode_return.tolist() == [sum(reward_at(identity, 0, t) for t in range(4))]
    assert outcome.episode_length.tolist() == [4]
    assert outcome.success is not None
    assert outcome.success.tolist() == [True]


def test_an_endless_episode_is_left_at_the_limit() -> None:
    assert steps_shown(film(1_000, max_steps=7)) == list(range(8))


def test_the_start_is_the_first_of_the_test() -> None:
    assert film().frames[0, 0, 0, 2] == identity_of(TEST_SEED) % 256


def test_another_seed_films_another_start() -> None:
    assert film(seed=7).frames[0, 0, 0, 2] == 7


@pytest.mark.parametrize(
    ("env", "kwargs", "reason"),
    [
        ("helpers.counting_env:CountingEnv", {}, "unexpected keyword argument 'render_mode'"),
        ("Counting-v0", {}, "unexpected keyword argument 'render_mode'"),
        (PATH, {"picture": "none"}, "returns no RGB picture"),
        (PATH, {"picture": "fail"}, "^no display$"),
    ],
)
def test_an_environment_without_pictures_says_why_in_one_line(
    env: str, kwargs: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnrenderableError, match=reason) as raised:
        film(env=env, kwargs=kwargs)
    assert "\n" not in str(raised.value)


def test_a_gif_shows_all_frames_for_ever(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 0, 255), (12, 200, 34)]
    with save(tmp_path, coloured(colours)) as image:
        shown = [frame.convert("RGB").getpixel((3, 3)) for frame in ImageSequence.Iterator(image)]
        assert shown == colours
        assert image.info["loop"] == 0


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(0.05, 50), (1 / 30, 30), (1 / 60, 20), (0.1, 100), (0.8, 100)]
)
def test_a_gif_runs_at_the_speed_of_the_environment_within_what_viewers_show_well(
    tmp_path: Path, seconds: float, milliseconds: int
) -> None:
    with save(tmp_path, coloured([(0, 0, 0), (9, 9, 9), (99, 99, 99)]), seconds) as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    # The file counts in hundredths of a second.
    assert durations == [milliseconds, milliseconds, 1500]


def test_wide_frames_are_shrunk_in_proportion(tmp_path: Path) -> None:
    with save(tmp_path, coloured([(1, 2, 3), (3, 2, 1)], height=400, width=600)) as image:
        assert image.size == (480, 320)


def test_small_frames_keep_their_size(tmp_path: Path) -> None:
    with save(tmp_path, coloured([(1, 2, 3), (3, 2, 1)])) as image:
        assert image.size == (30, 20)


def test_one_palette_serves_all_frames(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), np.uint8)
    with save(tmp_path, frames) as image:
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert len(np.unique(np.concatenate(shown).reshape(-1, 3), axis=0)) <= 256


def grassland() -> Array:
    """Return a frame of many shades of green."""
    noise = np.random.default_rng(0).integers(-9, 9, (200, 300, 3))
    shade = np.linspace(20, 140, 200 * 300).reshape(200, 300, 1) * (0.8, 1.0, 0.5)
    return (shade + noise).clip(0, 255).astype(np.uint8)


def test_a_small_vivid_thing_keeps_its_colour(tmp_path: Path) -> None:
    frames = np.stack([grassland()] * 3)
    frames[:, 50:54, 60:64] = (250, 10, 20)
    with save(tmp_path, frames) as image:
        red = image.convert("RGB").getpixel((61, 51))
    assert isinstance(red, tuple)
    assert np.abs(np.subtract(red, (250, 10, 20))).max() < 30


def test_what_stands_still_stays_equal_from_frame_to_frame(tmp_path: Path) -> None:
    frames = np.stack([grassland()] * 3)
    for place, frame in enumerate(frames):
        frame[:20, 40 * place : 40 * place + 40] = (250, 10, 20)
    with save(tmp_path, frames) as image:
        shown = [np.asarray(frame.convert("RGB"))[20:] for frame in ImageSequence.Iterator(image)]
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[1], shown[2])
