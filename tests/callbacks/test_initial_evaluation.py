import pytest
import torch
from helpers.asserts import assert_same_state
from helpers.counting_env import SINGLE
from helpers.runs import COUNTING, fit, small_data, small_model
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from lit_mtdqn import DQN, TaskSpec
from lit_mtdqn.callbacks import InitialEvaluation

TASKS = {"count": COUNTING, "far": TaskSpec(env=SINGLE, acts=False, learns=False)}


class Taped(DummyLogger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


def _trained(*callbacks: InitialEvaluation, logger: Logger | bool = False) -> DQN:
    torch.manual_seed(0)
    data = small_data(TASKS)
    model = small_model(data)
    fit(data, model, *callbacks, logger=logger)
    return model


def test_curves_begin_before_the_first_step_with_all_tasks() -> None:
    logger = Taped()
    _trained(InitialEvaluation(), logger=logger)
    step, metrics = logger.rows[0]
    assert step == 0
    assert metrics.keys() >= {"val/score/count", "val/score/far", "val/score/mean"}
    later = [row for at, row in logger.rows if at and "val/score/count" in row]
    assert later
    # The counting environment returns what it returns, whoever plays.
    assert metrics["val/score/count"] == pytest.approx(float(later[0]["val/score/count"]))


def test_training_is_the_same_without_it() -> None:
    assert_same_state(_trained(InitialEvaluation()), _trained())


def test_a_run_that_goes_on_is_not_begun_again() -> None:
    logger = Taped()
    data = small_data(TASKS)
    model = small_model(data)
    fit(data, model)
    data.total_env_steps = 200
    fit(data, model, InitialEvaluation(), logger=logger)
    assert all(step and step > 100 for step, _ in logger.rows)
