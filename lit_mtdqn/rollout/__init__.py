"""Acting: exploration, collection, statistics of episodes, greedy evaluation."""

from lit_mtdqn.rollout.background import BackgroundSteps
from lit_mtdqn.rollout.boltzmann import Boltzmann
from lit_mtdqn.rollout.collector import Collector
from lit_mtdqn.rollout.device_statistics import DeviceStatistics
from lit_mtdqn.rollout.evaluation import (
    gather_episodes,
    make_evaluation_env,
    most_rounds,
    play_episodes,
    require_numbers,
    unplayed,
)
from lit_mtdqn.rollout.exploration import EpsilonGreedy
from lit_mtdqn.rollout.returns import ReturnTracker
from lit_mtdqn.rollout.statistics import EpisodeStatistics
from lit_mtdqn.rollout.wrong_numbers import WrongNumber, wrong_number

__all__ = [
    "BackgroundSteps",
    "Boltzmann",
    "Collector",
    "DeviceStatistics",
    "EpisodeStatistics",
    "EpsilonGreedy",
    "ReturnTracker",
    "WrongNumber",
    "gather_episodes",
    "make_evaluation_env",
    "most_rounds",
    "play_episodes",
    "require_numbers",
    "unplayed",
    "wrong_number",
]
