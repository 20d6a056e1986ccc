"""The numbers of reports against those of rliable (Agarwal et al. 2021), the authors' own code.

It needs the extra `rliable`, which `make test-slow` installs.
"""

from __future__ import annotations

import numpy as np
import pytest

from lit_mtdqn.analysis.comparison import standings
from lit_mtdqn.analysis.statistics import (
    performance_profile,
    resampled_scores,
    stratified_bootstrap_interval,
)

pytestmark = [
    pytest.mark.slow,
    # The bootstrap under rliable takes another kind of seed than rliable gives it.
    pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning"),
]
Array = np.ndarray
REPETITIONS = 20_000
# The ends of two bootstraps of that many draws of scores such as these differ by less.
MONTE_CARLO = 0.01


def two_methods() -> dict[str, Array]:
    """Return scores of two methods, three seeds and three tasks."""
    draws = np.random.default_rng(5)
    return {
        "plain": draws.normal(0.5, 0.2, (3, 3)),
        "better": draws.normal([0.6, 0.7, 0.9], 0.1, (3, 3)),
    }


def of_rliable(own: Array, whole_runs: bool) -> tuple[float, Array]:
    """Return rliable's interquartile mean and the ends of its interval, [2]."""
    from rliable import library, metrics

    # It draws every task by itself: as numbers of runs, whole runs are drawn.
    runs = np.arange(len(own))[:, None]
    means, ends = library.get_interval_estimates(
        {"": runs if whole_runs else own},
        lambda drawn: np.array([metrics.aggregate_iqm(own[drawn[:, 0]] if whole_runs else drawn)]),
        reps=REPETITIONS,
        random_state=np.random.RandomState(1),
    )
    return float(means[""][0]), np.squeeze(ends[""])


@pytest.mark.parametrize("whole_runs", [False, True])
def test_interquartile_means_and_intervals_are_those_of_rliable(whole_runs: bool) -> None:
    scores = two_methods()
    found = standings(scores, np.random.default_rng(0), whole_runs=whole_runs)
    for method, own in scores.items():
        mean, ends = of_rliable(own, whole_runs)
        assert found[method].iqm == pytest.approx(mean, abs=1e-12)
        longer = stratified_bootstrap_interval(
            own, np.random.default_rng(2), resamples=REPETITIONS, whole_runs=whole_runs
        )
        assert longer == pytest.approx(ends, abs=MONTE_CARLO)
        # Those of a report have fewer draws.
        assert found[method][1:] == pytest.approx(ends, abs=3 * MONTE_CARLO)


def test_performance_profiles_and_their_bands_are_those_of_rliable() -> None:
    from rliable import library

    scores, thresholds = two_methods(), np.linspace(0.0, 1.2, 7)
    profiles, bands = library.create_performance_profile(scores, thresholds, reps=REPETITIONS)
    for method, own in scores.items():
        assert performance_profile(own, thresholds) == pytest.approx(profiles[method])
        drawn = resampled_scores(own, np.random.default_rng(3), REPETITIONS, whole_runs=False)
        found = [performance_profile(sample, thresholds) for sample in drawn]
        # A share of nine scores moves in steps of a ninth.
        ends = np.quantile(found, [0.025, 0.975], axis=0)
        assert np.abs(ends - bands[method]).max() <= 1 / 9 + 1e-9
