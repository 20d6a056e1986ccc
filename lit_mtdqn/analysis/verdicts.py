"""What so many runs allow one to say of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lit_mtdqn.analysis.comparison import Standing
from lit_mtdqn.analysis.panels import readable_value

# `stratified_bootstrap_interval` says how far intervals of so many can be trusted.
ENOUGH_RUNS = 5


def interval_text(standing: Standing) -> str:
    """Return how sure a method's interquartile mean is."""
    if not standing.has_interval:
        return "one run, no interval"
    return f"95 % interval {span(standing.low, standing.high)}"


def verdict(best: Standing, second: Standing) -> str:
    """Return how sure it is that one method is better than the next."""
    if not (best.has_interval and second.has_interval):
        return "a single run does not say whether other seeds would turn them round"
    if second.high >= best.low:
        return "the intervals overlap: more seeds may turn them round"
    return "the intervals do not overlap"


def warnings(order: Mapping[str, Standing]) -> list[str]:
    """Return a sentence that names the methods whose intervals are of too few runs, if any are."""
    few = [method for method, one in order.items() if 1 < one.runs < ENOUGH_RUNS]
    if not few:
        return []
    named = "" if len(few) == len(order) else f" of {listed(few)}"
    return [f"Intervals{named} are too narrow: they are of fewer than {ENOUGH_RUNS} runs."]


def span(low: float, high: float) -> str:
    """Return two ends as people write them."""
    return f"{readable_value(low)} to {readable_value(high)}"


def listed(names: Sequence[str]) -> str:
    """Return at least one name as people list them: a, b and c."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
