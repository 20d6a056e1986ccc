from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from torchjd.aggregation import Aggregator, CAGrad, Krum, Mean
from torchjd.scalarization import FAMO, UW, Scalarizer

from lit_mtdqn.balancing.building import build_part


def _entry(path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": init_args}


@pytest.mark.parametrize(
    "factory",
    [UW, partial(UW), _entry("torchjd.scalarization.UW")],
    ids=["class", "partial", "plain"],
)
def test_a_part_gets_what_is_known_of_it(factory: Any) -> None:
    part = build_part(Scalarizer, factory, shape=3, n_tasks=5)
    assert type(part) is UW
    assert part.log_var.shape == (3,)


@pytest.mark.parametrize(
    "factory",
    [partial(FAMO, shape=4, lr=0.5), _entry("torchjd.scalarization.FAMO", shape=4, lr=0.5)],
)
def test_what_is_given_goes_before_what_is_known(factory: Any) -> None:
    part = build_part(Scalarizer, factory, shape=3)
    assert part.min_losses.shape == (4,)
    assert part.lr == 0.5


def test_an_entry_may_do_without_arguments() -> None:
    part = build_part(Aggregator, {"class_path": "torchjd.aggregation.Mean"})
    assert type(part) is Mean


@pytest.mark.parametrize(
    "path", ["torchjd.aggregation.Nothing", "nowhere.Mean", "Mean", "torch.nn.Linear", None]
)
def test_what_is_no_such_part_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match=complaint("aggregator")):
        build_part(Aggregator, {"class_path": path})


@pytest.mark.parametrize(
    "factory",
    [
        CAGrad,
        partial(CAGrad, c=0.5, d=1),  # type: ignore[call-arg]
        _entry("torchjd.aggregation.Krum", wrong=1),
    ],
    ids=["missing", "unknown", "plain"],
)
def test_arguments_that_do_not_fit_are_refused(factory: Any) -> None:
    with pytest.raises(ValueError, match=r"^`aggregator.init_args` must fit (CAGrad|Krum)\("):
        build_part(Aggregator, factory)


def test_arguments_are_checked_by_the_part_itself() -> None:
    part = build_part(Aggregator, partial(Krum, n_byzantine=1))
    assert part(torch.eye(5)).shape == (5,)
