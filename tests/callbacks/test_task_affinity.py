from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import COUNTING, NETWORK, fit, small_data
from lightning.pytorch.loggers import CSVLogger

from lit_mtdqn import MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.analysis.relatedness import advice, clear_affinities
from lit_mtdqn.callbacks import RunReport, TaskAffinity

INFOS = [TaskInfo(name=name, observation_shape=(3,), num_actions=2) for name in "abc"]


class Told:
    """A learner whose affinities are told."""

    tasks = INFOS

    def __init__(self, affinity: list[list[float]]) -> None:
        self.affinity = torch.tensor(affinity)
        self.asked: list[Any] = []

    def tasks_over_ranks(self, batch: Any) -> list[int]:
        return sorted(set(batch.task.tolist()))

    def task_affinity(self, batch: Any, share: float) -> torch.Tensor:
        self.asked.append(share)
        return self.affinity


def test_metrics_lead_from_the_task_stepped_for_to_the_other() -> None:
    learner: Any = Told([[1.0, 0.25], [-0.5, 0.9]])
    found = TaskAffinity(share=0.02).metrics(learner, random_batch(INFOS, groups=[2, 0, 2]))
    assert {name: pytest.approx(float(value)) for name, value in found.items()} == {
        "affinity/a/a": 1.0,
        "affinity/a/c": 0.25,
        "affinity/c/a": -0.5,
        "affinity/c/c": 0.9,
    }
    assert learner.asked == [0.02]


@pytest.mark.parametrize("own", [0.4, 1.6, -30.0, float("nan"), float("-inf")])
def test_a_step_that_leaves_its_slope_says_nothing_of_others(own: float) -> None:
    learner: Any = Told([[own, 0.25], [-0.5, 0.51]])
    found = TaskAffinity().metrics(learner, random_batch(INFOS[:2]))
    assert found.keys() == {"affinity/a/a", "affinity/b/a", "affinity/b/b"}


def test_a_run_logs_affinities_and_its_report_tells_tasks_by_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = small_data({"a": COUNTING, "b": TaskSpec(env=VECTOR, weight=2.0)})
    model = MultiTaskDQN(data.task_infos, NETWORK)
    logger = CSVLogger(tmp_path, name="", version="")
    # Rewards of up to 3 and a new network: its slopes hold for short steps only.
    callbacks = TaskAffinity(1, share=1e-3), RunReport(gifs=False)
    fit(data, model, *callbacks, logger=logger, log_every_n_steps=1)
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert metrics["affinity/a/a"].values == pytest.approx(1.0, abs=0.5)
    assert len(metrics["affinity/a/b"].values) > 1
    report = tmp_path / "report"
    assert (report / "task_affinity.png").stat().st_size > 0
    header, row = (report / "relatedness.csv").read_text().splitlines()
    assert header == "task,other,cosine,affinity_to_other,affinity_from_other"
    name, other, cosine, there, back = row.split(",")
    assert (name, other, cosine) == ("a", "b", "")
    assert float(there) == pytest.approx(metrics["affinity/a/b"].values.mean())
    assert float(back) == pytest.approx(metrics["affinity/b/a"].values.mean())
    said = advice(clear_affinities(metrics, ["a", "b"]), ["a", "b"])
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_of_nothing_or_all_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=complaint("share")):
        TaskAffinity(share=share)
