import numpy as np
import pytest

from lit_mtdqn.analysis.heat_maps import (
    gradient_agreement,
    stage_scores,
    task_affinity,
    transfer_gains,
)
from lit_mtdqn.analysis.metrics_file import Curve


def _curve(*values: float) -> Curve:
    return Curve(np.arange(len(values)), np.array(values))


METRICS = {
    "gradients/cosine/a/b": _curve(-1.0, 0.0),
    "gradients/cosine/a/c": _curve(0.25),
    "gradients/cosine/b/c": _curve(0.0, 1.0),
    "gradients/share/a": _curve(0.5, 0.7),
    "gradients/share/b": _curve(0.3, 0.1),
    "gradients/share/c": _curve(0.2, 0.2),
}


def test_cells_are_means_over_the_run() -> None:
    figure = gradient_agreement(METRICS, ["a", "b", "c"])
    assert figure is not None
    cosines, shares = (np.asarray(panel.images[0].get_array()) for panel in figure.axes)
    np.testing.assert_allclose(cosines, [[1, -0.5, 0.25], [-0.5, 1, 0.5], [0.25, 0.5, 1]])
    np.testing.assert_allclose(shares, [[0.6], [0.2], [0.2]])


def test_cells_say_their_number() -> None:
    figure = gradient_agreement(METRICS, ["a", "b", "c"])
    assert figure is not None
    texts = [text.get_text() for text in figure.axes[0].texts]
    texts = [text.replace("\N{MINUS SIGN}", "-") for text in texts]
    assert texts == ["1.00", "-0.50", "0.25", "-0.50", "1.00", "0.50", "0.25", "0.50", "1.00"]


def test_a_task_without_gradients_has_no_row() -> None:
    figure = gradient_agreement(METRICS, ["held_out", "a", "b"])
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "b"]


@pytest.mark.parametrize("tasks", [[], ["a"], ["x", "y"]])
def test_one_task_agrees_with_itself(tasks: list[str]) -> None:
    assert gradient_agreement(METRICS, tasks) is None


AFFINITIES = {
    "affinity/a_b/a_b": _curve(1.0, 0.98),
    "affinity/a_b/c": _curve(-0.5, 0.1),
    "affinity/c/a_b": _curve(-0.004, 0.0),
    "affinity/c/c": _curve(0.9),
}


def test_affinities_lead_from_rows_to_columns() -> None:
    figure = task_affinity(AFFINITIES, ["held_out", "a_b", "c"])
    assert figure is not None
    (panel,) = figure.axes
    table = np.asarray(panel.images[0].get_array())
    np.testing.assert_allclose(table, [[0.99, -0.2], [-0.002, 0.9]])
    texts = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in panel.texts]
    assert texts == ["0.99", "-0.20", "0.00", "0.90"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a b", "c"]
    assert (panel.get_ylabel(), panel.get_xlabel()) == ("a step for", "lowers the loss of")


def test_affinities_that_nobody_logged_are_drawn_as_a_dash() -> None:
    known = {name: curve for name, curve in AFFINITIES.items() if name != "affinity/c/a_b"}
    figure = task_affinity(known, ["a_b", "c"])
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts][2] == "\N{EN DASH}"


@pytest.mark.parametrize("tasks", [[], ["c"], ["x", "y"]])
def test_one_task_has_no_affinity_to_draw(tasks: list[str]) -> None:
    assert task_affinity(AFFINITIES, tasks) is None


def test_scores_after_stages_frame_what_was_learned() -> None:
    scores = np.array([[0.9, np.nan], [0.3, 1.0], [0.2, 0.4]])
    learned = np.array([[True, False], [False, True], [False, False]])
    (panel,) = stage_scores(scores, learned, ["first", "second", "third"], ["a_task", "b"]).axes
    texts = [text.get_text() for text in panel.texts]
    assert texts == ["0.90", "\N{EN DASH}", "0.30", "1.00", "0.20", "0.40"]
    frames = [patch.get_extents().get_points() for patch in panel.patches]
    centres = [panel.transData.inverted().transform(points.mean(0)) for points in frames]
    np.testing.assert_allclose(centres, [(0, 0), (1, 1)], atol=1e-9)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["first", "second", "third"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["a task", "b"]


def test_gains_have_a_row_per_source_and_a_column_per_target() -> None:
    (panel,) = transfer_gains(np.array([[0.5, -0.25, 0.0]]), ["a"], ["b", "c", "d"]).axes
    texts = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in panel.texts]
    assert texts == ["0.50", "-0.25", "0.00"]
    assert (panel.get_ylabel(), panel.get_xlabel()) == ("learned first", "learned then")
