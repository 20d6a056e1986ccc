from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger

from lit_mtdqn.analysis.metrics_file import Curve, read_metrics


def write(folder: Path, text: str) -> Path:
    path = folder / "metrics.csv"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    return path


def as_lists(metrics: dict[str, Curve]) -> dict[str, tuple[list[int], list[float]]]:
    return {name: (steps.tolist(), values.tolist()) for name, (steps, values) in metrics.items()}


def test_each_metric_keeps_only_the_steps_at_which_it_was_logged(tmp_path: Path) -> None:
    path = write(tmp_path, "loss,score,step\n0.5,,10\n,7.0,20\n0.25,8.0,30\n")
    assert as_lists(read_metrics(path)) == {
        "loss": ([10, 30], [0.5, 0.25]),
        "score": ([20, 30], [7.0, 8.0]),
    }


def test_what_lightning_logged_is_read_back_though_names_appear_late(tmp_path: Path) -> None:
    logger = CSVLogger(save_dir=tmp_path, name="", version="run")
    logger.log_metrics({"updates": 1.0, "b": 2.5}, step=16)
    logger.save()
    logger.log_metrics({"updates": 2.0, "a": -1.0}, step=2**40)
    logger.save()
    assert as_lists(read_metrics(tmp_path / "run" / "metrics.csv")) == {
        "updates": ([16, 2**40], [1.0, 2.0]),
        "b": ([16], [2.5]),
        "a": ([2**40], [-1.0]),
    }


@pytest.mark.parametrize("half", ["0.12", "0.125,3", "0.125,30", ""])
def test_a_half_written_last_line_is_left_out(tmp_path: Path, half: str) -> None:
    path = write(tmp_path, f"loss,step\n0.5,10\n0.25,20\n{half}")
    assert as_lists(read_metrics(path)) == {"loss": ([10, 20], [0.5, 0.25])}


def test_a_file_without_rows_holds_no_metrics(tmp_path: Path) -> None:
    assert read_metrics(write(tmp_path, "")) == {}
    assert read_metrics(write(tmp_path, "loss,st")) == {}
    assert read_metrics(write(tmp_path, "loss,step\n")) == {}


def test_a_resumed_run_replaces_what_the_killed_one_logged_after_its_checkpoint(
    tmp_path: Path,
) -> None:
    killed = "loss,score,step\n1,,10\n2,,20\n,5,20\n3,,30\n,6,30\n"
    path = write(tmp_path, killed + "4,,20\n5,,40\n")
    assert as_lists(read_metrics(path)) == {
        "loss": ([10, 20, 20, 40], [1.0, 2.0, 4.0, 5.0]),
        "score": ([20], [5.0]),
    }


def test_steps_and_values_are_numbers_of_full_width(tmp_path: Path) -> None:
    curve = read_metrics(write(tmp_path, "loss,step\n0.1,16777217\n"))["loss"]
    assert [array.dtype for array in curve] == [np.dtype(np.int64), np.dtype(np.float64)]
    assert curve.env_steps.tolist() == [16777217]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 50),
            st.dictionaries(st.sampled_from("abc"), st.floats(-1e6, 1e6, width=32)),
        ),
        max_size=12,
    )
)
def test_reading_agrees_with_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, dict[str, float]]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["a", "b", "c", "step"])
        writer.writeheader()
        writer.writerows([{**values, "step": step} for step, values in rows])
    expected: dict[str, tuple[list[int], list[float]]] = {}
    for index, (step, values) in enumerate(rows):
        if all(step <= later for later, _ in rows[index:]):
            for name, value in values.items():
                steps, found = expected.setdefault(name, ([], []))
                steps.append(step)
                found.append(value)
    assert as_lists(read_metrics(path)) == expected
