import numpy as np
import pytest

from lit_mtdqn.analysis.heat_maps import gradient_agreement
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
