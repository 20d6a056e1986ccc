from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.asserts import assert_same_state, complaint
from helpers.picture_env import PATH, SIZE
from helpers.runs import fit, small_data, small_model
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from lit_mtdqn import TaskSpec
from lit_mtdqn.callbacks import EpisodeVideos

DRAWN = TaskSpec(env=PATH, kwargs={"pattern": (3, -5)})


class Tape(WandbLogger):
    """Records the films that it is given, and the size of each in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.films: list[tuple[str, int, tuple[int, int]]] = []

    @property
    def experiment(self) -> None:
        """Start nothing."""

    def log_video(self, key: str, videos: list[Any], step: int | None = None, **_: Any) -> None:
        (path,) = videos
        assert Path(path).suffix == ".gif"
        with Image.open(path) as film:
            self.films.append((key, step or 0, film.size))

    def log_metrics(self, *_: Any, **__: Any) -> None:
        """Record nothing."""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Record nothing."""


def films_of(videos: EpisodeVideos, **options: Any) -> list[tuple[str, int, tuple[int, int]]]:
    tape = Tape()
    data = small_data({"drawn": DRAWN}, **options)
    fit(data, small_model(data), videos, logger=tape)
    return tape.films


def test_films_are_spread_over_the_env_steps_of_a_run() -> None:
    """100 env steps, 8 a phase, an evaluation every 5 phases after 10 env steps of warm-up."""
    every = [step for _, step, _ in films_of(EpisodeVideos(per_run=100))]
    assert len(every) >= 3
    seldom = [step for _, step, _ in films_of(EpisodeVideos(per_run=2))]
    assert seldom == [
        next(step for step in every if step >= 50),
        next(step for step in every if step >= 100),
    ]


def test_a_film_is_of_what_the_task_draws() -> None:
    ((key, _, size),) = films_of(EpisodeVideos(per_run=1))
    assert (key, size) == ("video/drawn", SIZE[::-1])


def test_what_cannot_be_drawn_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    tape, data = Tape(), small_data()
    with caplog.at_level("INFO"):
        fit(data, small_model(data), EpisodeVideos(per_run=100), logger=tape)
    assert tape.films == []
    assert sum("No films of count" in record.getMessage() for record in caplog.records) == 1


def test_training_goes_on_as_it_would_without() -> None:
    data = [small_data({"drawn": DRAWN}) for _ in range(2)]
    plain, filmed = (small_model(one) for one in data)
    filmed.load_state_dict(plain.state_dict())
    fit(data[0], plain, EpisodeVideos())
    fit(data[1], filmed, EpisodeVideos(per_run=100), logger=Tape())
    assert_same_state(filmed, plain)


def test_no_films_are_refused() -> None:
    with pytest.raises(ValueError, match=complaint("EpisodeVideos.per_run")):
        EpisodeVideos(per_run=0)
