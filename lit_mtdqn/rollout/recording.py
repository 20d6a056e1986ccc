"""One episode as pictures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lit_mtdqn.envs import Layout, TaskEnv
from lit_mtdqn.rollout.evaluation import play_episodes
from lit_mtdqn.rollout.seeding import TEST_SEED
from lit_mtdqn.types import ActionValues, Episodes, StepRow, TaskSpec

Array = np.ndarray
DEFAULT_FPS = 30.0
MAX_WIDTH = 480  # px
MAX_FRAMES = 120
# Viewers slow down what is shown for less than 0.02 s; longer than 0.1 s looks like a slide show.
SHORTEST_FRAME, LONGEST_FRAME, LAST_FRAME = 0.02, 0.1, 1.5  # s
PALETTE_FRAMES, PALETTE_COLOURS = 12, 128


class UnrenderableError(Exception):
    """An environment gives no pictures; the message says why in one line."""


class Recording(NamedTuple):
    """A filmed episode.

    Attributes:
        frames: uint8 [F, H, W, 3], evenly spaced, and the state in which the episode ended.
        seconds: The environment's own time between two frames.
        outcome: The episode.
    """

    frames: Array
    seconds: float
    outcome: Episodes


def record_episode(
    policy: ActionValues,
    task: str,
    spec: TaskSpec,
    layout: Layout,
    task_index: int,
    *,
    num_actions: int,
    max_steps: int,
    seed: int = TEST_SEED,
    max_frames: int = MAX_FRAMES,
) -> Recording:
    """Play a greedy episode of one task and film it.

    Args:
        policy: Acts.
        task: Name of the task.
        spec: The task.
        layout: Padded shapes of the run.
        task_index: The task's place among all tasks.
        num_actions: Actions that the task really has.
        max_steps: Env steps after which the episode is left as it stands.
        seed: Seed of the start; by default the test's.
        max_frames: Most frames kept; of a longer episode every second, fourth, ... state is.

    Raises:
        UnrenderableError: If the environment gives no pictures.
    """
    env = _FilmedEnv.make(task, spec, layout, max_frames)
    try:
        outcome = play_episodes(
            policy,
            env,
            task_index,
            num_actions=num_actions,
            epsilon=0.0,
            seed=seed,
            max_steps=max_steps,
        )
        return env.cut(outcome)
    finally:
        env.close()


def write_gif(recording: Recording, path: str | Path) -> None:
    """Write a recording as an endless GIF.

    It runs at the environment's own speed, or faster where that would take less than ten frames a
    second. The last frame stays for a while.

    Args:
        recording: What was filmed.
        path: File to write.
    """
    images = [_fitted(Image.fromarray(frame)) for frame in recording.frames]
    palette = _shared_palette(images)
    # Without dithering still areas stay equal from frame to frame and take no room in the file.
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    seconds = float(np.clip(recording.seconds, SHORTEST_FRAME, LONGEST_FRAME))
    durations = [round(1000 * seconds)] * (len(indexed) - 1) + [round(1000 * LAST_FRAME)]
    indexed[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=durations,
        loop=0,
        # Pillow would "optimise" by giving every frame a palette of its own.
        optimize=False,
    )


class _FilmedEnv(TaskEnv):
    """One copy of a task's environment that films itself."""

    def __init__(self, task: str, spec: TaskSpec, layout: Layout, max_frames: int) -> None:
        super().__init__(task, spec, 1, layout, render_mode="rgb_array")
        self._max_frames = max_frames
        self._frames: list[Array] = []
        self._spacing = 1
        self._step = 0

    @classmethod
    def make(cls, task: str, spec: TaskSpec, layout: Layout, max_frames: int) -> _FilmedEnv:
        try:
            with warnings.catch_warnings():
                # Gymnasium's about an unknown render mode; the error says the same.
                warnings.simplefilter("ignore")
                return cls(task, spec, layout, max_frames)
        except ValueError as error:
            raise UnrenderableError(_first_line(error)) from error

    def reset(self, seed: int | None = None) -> tuple[Array, Array | None]:
        started = super().reset(seed)
        self._frames, self._spacing, self._step = [], 1, 0
        self._film()
        return started

    def step(self, action: Array) -> StepRow:
        row = super().step(action)
        self._step += 1
        self._film()
        return row

    def cut(self, outcome: Episodes) -> Recording:
        """Return the film, up to the state in which the environment stands."""
        if self._step % self._spacing:
            self._frames.append(self._picture())
        fps = float(self.env.metadata.get("render_fps") or DEFAULT_FPS)
        return Recording(np.stack(self._frames), self._spacing / fps, outcome)

    def _film(self) -> None:
        # One place stays free for the last state.
        if self._step % self._spacing == 0 and len(self._frames) == self._max_frames - 1:
            self._frames = self._frames[::2]
            self._spacing *= 2
        if self._step % self._spacing == 0:
            self._frames.append(self._picture())

    def _picture(self) -> Array:
        try:
            pictures: Any = self.env.render()
        except Exception as error:  # whatever third-party drawing runs into
            raise UnrenderableError(_first_line(error)) from error
        picture = None if pictures is None else np.asarray(pictures[0])
        if picture is None or picture.ndim != 3 or picture.dtype != np.uint8:
            raise UnrenderableError("`render()` returns no RGB picture")
        return picture


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _fitted(image: Image.Image) -> Image.Image:
    if image.width <= MAX_WIDTH:
        return image
    height = round(image.height * MAX_WIDTH / image.width)
    return image.resize((MAX_WIDTH, height), Image.Resampling.LANCZOS)


def _shared_palette(images: list[Image.Image]) -> Image.Image:
    """Return an image with the palette that suits all frames, found from some of them."""
    chosen = images[:: max(len(images) // PALETTE_FRAMES, 1)]
    sheet = Image.fromarray(np.concatenate([np.asarray(image) for image in chosen]))
    # Median cut alone would lose small vivid things to large areas.
    return sheet.quantize(PALETTE_COLOURS, Image.Quantize.MEDIANCUT, kmeans=2)
