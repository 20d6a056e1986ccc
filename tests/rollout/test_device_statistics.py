from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lit_mtdqn.data.device import fetch
from lit_mtdqn.rollout import DeviceStatistics, EpisodeStatistics
from lit_mtdqn.rollout.statistics import WINDOW
from lit_mtdqn.types import StepRow

TASKS, NUM_ENVS = ["left", "right"], 4


def _rows(count: int, ending: float) -> Iterator[StepRow]:
    """Yield rows that end episodes at random, followed by reset rows."""
    generator = np.random.default_rng(0)
    shape = len(TASKS), NUM_ENVS
    over = np.zeros(shape, bool)
    for _ in range(count):
        ended = (generator.random(shape) < ending) & ~over
        late = generator.random(shape) < 0.5
        yield StepRow(
            observation=np.zeros((*shape, 1), np.float32),
            action=np.zeros(shape, np.int64),
            reward=generator.standard_normal(shape, dtype=np.float32) * ~over,
            terminated=ended & ~late,
            truncated=ended & late,
            next_observation=np.zeros((*shape, 1), np.float32),
            valid=~over,
            extra={"success": ended & (generator.random(shape) < 0.3)},
        )
        over = ended


def _as_tensors(row: StepRow) -> StepRow:
    columns = [None if column is None else torch.from_numpy(column) for column in row[:-1]]
    extra = {name: torch.from_numpy(part) for name, part in row.extra.items()}
    return StepRow._make((*columns, extra))


@pytest.mark.parametrize("ending", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("vector_steps", [1, 7, 200])
def test_told_by_phases_they_are_those_counted_row_by_row(ending: float, vector_steps: int) -> None:
    reports = [True, False]
    ours = DeviceStatistics(TASKS, NUM_ENVS, reports, device=torch.device("cpu"))
    theirs = EpisodeStatistics(TASKS, NUM_ENVS, reports)
    for step, row in enumerate(_rows(400, ending), 1):
        ours.add(_as_tensors(row))
        theirs.add(row)
        if step % vector_steps:
            continue
        counts, episodes = fetch(ours.latest())
        ours.take(counts, episodes)
        assert ours.episodes == theirs.episodes
        for name, mean in theirs.state_dict().items():
            assert ours.state_dict()[name]["values"] == pytest.approx(mean["values"])
    assert ours.episodes["left"] > (WINDOW if ending == 0.3 else 10)


def test_no_more_is_told_than_the_means_cover() -> None:
    statistics = DeviceStatistics(TASKS, NUM_ENVS, [True, True], device=torch.device("cpu"))
    for row in _rows(300, 0.9):
        statistics.add(_as_tensors(row))
    counts, episodes = statistics.latest()
    assert counts.min() > 3 * WINDOW
    assert episodes.shape == (2, 3, WINDOW)
