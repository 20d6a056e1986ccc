from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import lightning
import pytest
from helpers.runs import COUNTING, fit, quiet_trainer, small_data, small_model
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from tqdm import tqdm

from lit_mtdqn.callbacks import EnvStepProgressBar


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar on paper, kept after it was closed."""

    drawn: ClassVar[list["Bar"]] = []

    def __init__(self, **options: Any) -> None:
        self.paper = StringIO()
        self.first = options["initial"]
        super().__init__(**options, file=self.paper, ncols=120)
        self.drawn.append(self)


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    """Return the bars that a run draws, none yet."""
    monkeypatch.setattr("lit_mtdqn.callbacks.progress_bar.tqdm", Bar)
    monkeypatch.setattr(Bar, "drawn", [])
    return Bar.drawn


def test_the_bar_measures_the_budget_of_env_steps_and_ends_where_the_clock_does(
    bars: list[Bar],
) -> None:
    data = small_data()
    fit(data, small_model(data), enable_progress_bar=True)
    (bar,) = bars
    assert (bar.total, bar.first, bar.n) == (100, 0, data.clock.total_env_steps)
    assert "100/100" in bar.paper.getvalue()
    assert "env steps" in bar.paper.getvalue()


def test_without_a_budget_of_env_steps_it_measures_updates(bars: list[Bar]) -> None:
    data = small_data(total_env_steps=None, total_updates=16)
    fit(data, small_model(data), enable_progress_bar=True)
    (bar,) = bars
    assert (bar.total, bar.first, bar.n) == (16, 0, data.clock.updates)
    assert " updates" in bar.paper.getvalue()


def test_it_never_shows_more_than_the_budget(bars: list[Bar]) -> None:
    data = small_data(total_env_steps=97)
    fit(data, small_model(data), enable_progress_bar=True)
    assert data.clock.total_env_steps > 97
    assert bars[0].n == 97


def test_it_shows_the_latest_score_of_every_task_and_their_mean(bars: list[Bar]) -> None:
    data = small_data({"a": COUNTING, "b": COUNTING})
    trainer = fit(data, small_model(data), enable_progress_bar=True)
    metrics = trainer.callback_metrics
    last = bars[0].paper.getvalue()
    for name in ("a", "b", "mean"):
        assert f"{name}={float(metrics[f'val/score/{name}']):.2f}" in last
    assert "worst" not in last
    assert "updates/s=" in last


def test_it_takes_the_place_of_lightnings_bar_and_of_no_other(bars: list[Bar]) -> None:
    class Own(TQDMProgressBar):
        """A user's bar."""

    data = small_data()
    assert isinstance(
        fit(data, small_model(data), enable_progress_bar=True).progress_bar_callback,
        EnvStepProgressBar,
    )
    data = small_data()
    own = Own(refresh_rate=0)
    assert fit(data, small_model(data), own, enable_progress_bar=True).progress_bar_callback is own
    assert len(bars) == 1


def test_without_a_progress_bar_nothing_is_drawn(bars: list[Bar]) -> None:
    data = small_data()
    fit(data, small_model(data))
    assert bars == []


def test_a_disabled_bar_draws_nothing(bars: list[Bar]) -> None:
    bar = EnvStepProgressBar()
    bar.disable()
    data = small_data()
    fit(data, small_model(data), bar, enable_progress_bar=True)
    assert bars[0].paper.getvalue() == ""


def test_a_resumed_run_starts_where_the_clock_stands(bars: list[Bar], tmp_path: Path) -> None:
    data = small_data(total_env_steps=60)
    path = str(tmp_path / "last.ckpt")
    fit(data, small_model(data)).save_checkpoint(path)
    resumed = small_data()
    trainer = quiet_trainer(enable_progress_bar=True)
    trainer.fit(small_model(resumed), resumed, ckpt_path=path, weights_only=True)
    (bar,) = bars
    assert (bar.first, bar.n) == (data.clock.total_env_steps, 100)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_an_evaluation_alone_counts_the_tasks_that_were_played(bars: list[Bar], stage: str) -> None:
    data = small_data({"a": COUNTING, "b": COUNTING})
    trainer = quiet_trainer(enable_progress_bar=True)
    getattr(trainer, stage)(small_model(data), data, verbose=False)
    (bar,) = bars
    assert (bar.total, bar.n, bar.disable) == (2, 2, True)
    assert f"{stage}: 100%" in bar.paper.getvalue()
    assert "1/2 tasks" in bar.paper.getvalue()


def test_an_evaluation_in_training_opens_no_second_bar_and_counts_no_task(bars: list[Bar]) -> None:
    data = small_data({"a": COUNTING, "b": COUNTING})
    fit(data, small_model(data), enable_progress_bar=True)
    (bar,) = bars
    assert "validate" not in bar.paper.getvalue()
    assert bar.n == min(data.clock.total_env_steps, 100)


def test_a_test_after_training_has_a_bar_of_its_own(bars: list[Bar]) -> None:
    data = small_data()
    model = small_model(data)
    trainer = fit(data, model, enable_progress_bar=True)
    trainer.test(model, data, verbose=False)
    assert [bar.total for bar in bars] == [100, 1]


def test_a_test_that_fails_closes_its_bar(bars: list[Bar], monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_data()
    model = small_model(data)

    def fail(*_: Any) -> None:
        raise RuntimeError("no test today")

    monkeypatch.setattr(model, "test_step", fail)
    with pytest.raises(RuntimeError, match="no test today"):
        quiet_trainer(enable_progress_bar=True).test(model, data, verbose=False)
    (bar,) = bars
    assert (bar.n, bar.disable) == (0, True)


class Failing(Callback):
    """Ends a run in its third phase."""

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 2:
            raise RuntimeError("no more")


def test_an_interrupted_run_leaves_its_last_state(bars: list[Bar]) -> None:
    data = small_data()
    with pytest.raises(RuntimeError, match="no more"):
        fit(data, small_model(data), Failing(), enable_progress_bar=True)
    (bar,) = bars
    assert bar.n == data.clock.total_env_steps
    assert bar.disable  # closed


class Talking(Callback):
    """Prints through the model."""

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any
    ) -> None:
        pl_module.print("hello", "there")


def test_lines_are_printed_above_the_bar(
    bars: list[Bar], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[str] = []
    monkeypatch.setattr(Bar, "write", lambda _, text: written.append(text))
    data = small_data()
    fit(data, small_model(data), Talking(), enable_progress_bar=True)
    assert written == ["hello there"] * data.clock.phases
    assert "hello" not in capsys.readouterr().out


def test_without_a_bar_lines_are_printed_as_usual(capsys: pytest.CaptureFixture[str]) -> None:
    EnvStepProgressBar().print("hello", "there", sep="-")
    assert capsys.readouterr().out == "hello-there\n"
