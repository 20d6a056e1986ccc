import pytest

from lit_mtdqn.analysis.comparison import Standing
from lit_mtdqn.analysis.verdicts import interval_text, listed, verdict, warnings


def _standing(low: float, high: float, runs: int = 5) -> Standing:
    return Standing((low + high) / 2, low, high, runs)


def test_a_single_run_has_no_interval() -> None:
    assert interval_text(_standing(0.5, 0.5, runs=1)) == "one run, no interval"
    assert interval_text(_standing(0.5, 0.5, runs=2)) == "95 % interval 0.50 to 0.50"


@pytest.mark.parametrize(
    ("best_runs", "second_runs", "second_high", "said"),
    [
        (2, 2, 0.4, "the intervals do not overlap"),
        (5, 5, 0.7, "the intervals overlap: more seeds may turn them round"),
        (1, 5, 0.4, "a single run does not say whether other seeds would turn them round"),
        (5, 1, 0.4, "a single run does not say whether other seeds would turn them round"),
        (1, 1, 0.4, "a single run does not say whether other seeds would turn them round"),
    ],
)
def test_intervals_are_compared_where_both_methods_have_several_runs(
    best_runs: int, second_runs: int, second_high: float, said: str
) -> None:
    best = _standing(0.6, 0.8, best_runs)
    assert verdict(best, _standing(0.2, second_high, second_runs)) == said


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ((4, 2), ["Intervals are too narrow: they are of fewer than 5 runs."]),
        ((5, 2), ["Intervals of b are too narrow: they are of fewer than 5 runs."]),
        ((1, 4), ["Intervals of b are too narrow: they are of fewer than 5 runs."]),
        ((5, 5), []),
        ((1, 1), []),
    ],
)
def test_intervals_of_few_runs_are_said_to_be_too_narrow(
    runs: tuple[int, int], said: list[str]
) -> None:
    order = {name: _standing(0.2, 0.4, count) for name, count in zip("ab", runs, strict=True)}
    assert warnings(order) == said


def test_names_are_listed_as_people_do() -> None:
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]
