from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_same_state, assert_table
from helpers.counting_env import VECTOR
from helpers.runs import COUNTING, NETWORK, fit, small_data
from lightning.pytorch.loggers import CSVLogger
from torchjd import aggregation

from lit_mtdqn import MultiTaskDQN, RolloutDataModule, TaskSpec
from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.callbacks import GradientAgreement, RunReport
from lit_mtdqn.callbacks.gradient_agreement import _agreement

COSINE, SHARES = "gradients/cosine/a/b", ["gradients/share/a", "gradients/share/b"]


def _data() -> RolloutDataModule:
    return small_data({"a": COUNTING, "b": TaskSpec(env=VECTOR, weight=2.0)})


def _model(data: RolloutDataModule, balancer: Any = None) -> MultiTaskDQN:
    torch.manual_seed(0)
    return MultiTaskDQN(data.task_infos, NETWORK, balancer=balancer)


def test_agreement_is_a_cosine_and_lengths_are_shares_of_their_sum() -> None:
    found = _agreement(torch.tensor([[3.0, 0.0], [-1.0, 1.0]]), ["a", "b"])
    root = 2.0**0.5
    assert found.keys() == {COSINE, *SHARES}
    assert_table(found[COSINE], -1.0 / root)
    assert_table(found[SHARES[0]], 3.0 / (3.0 + root))
    assert_table(found[SHARES[1]], root / (3.0 + root))


def test_tasks_without_any_gradient_have_no_length() -> None:
    assert all(float(value) == 0.0 for value in _agreement(torch.zeros(2, 3), ["a", "b"]).values())


@pytest.mark.parametrize("balancer", [None, partial(Aggregated, aggregator=aggregation.PCGrad)])
def test_looking_changes_nothing(balancer: Any) -> None:
    models = []
    for callbacks in ([], [GradientAgreement(1)]):
        data = _data()
        models.append(_model(data, balancer))
        fit(data, models[-1], *callbacks, log_every_n_steps=1)
    first, second = models
    assert_same_state(first.network, second.network)


def test_rows_and_the_report_hold_what_it_found(tmp_path: Path) -> None:
    data = _data()
    logger = CSVLogger(tmp_path, name="", version="")
    callbacks = GradientAgreement(4), RunReport(gifs=False)
    fit(data, _model(data), *callbacks, logger=logger, log_every_n_steps=1)
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert len(metrics[COSINE].values) > 1
    assert abs(metrics[COSINE].values).max() <= 1.0
    total = sum(metrics[name].values for name in SHARES)
    assert total == pytest.approx(1.0)
    assert (tmp_path / "report" / "gradient_agreement.png").stat().st_size > 0
