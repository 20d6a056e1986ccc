"""Coefficients that change with the clock.

A schedule is called with a count; the parameter that takes it says in which unit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from lit_mtdqn.types.checks import require


class Schedule(ABC):
    """A number that depends on a count of env steps or of updates."""

    @abstractmethod
    def __call__(self, count: int) -> float:
        """Return the value at `count`."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that it comes to or approaches."""


@dataclass(frozen=True)
class Constant(Schedule):
    """Always the same value.

    Args:
        value: The value.

    Example:
        >>> Constant(0.1)(1_000)
        0.1
    """

    value: float

    def __call__(self, count: int) -> float:
        """Return the value, whatever the count."""
        return self.value

    @property
    def bounds(self) -> tuple[float, float]:
        """The value, twice."""
        return self.value, self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """Moves in a straight line from one value to another and stays there.

    Args:
        start: Value until `begin`.
        end: Value from `begin + duration` on.
        duration: Length of the line, in the unit of the parameter that takes the schedule: env
            steps of a task, or updates. Larger is slower.
        begin: Count at which the line starts, in the same unit.

    Raises:
        ValueError: If `duration` is below 1 or `begin` is negative.

    Example:
        >>> Linear(start=1.0, end=0.0, duration=10)(4)
        0.6
    """

    start: float
    end: float
    duration: int
    begin: int = 0

    def __post_init__(self) -> None:
        require(self.duration >= 1, "duration", "be at least 1", self.duration)
        require(self.begin >= 0, "begin", "be at least 0", self.begin)

    def __call__(self, count: int) -> float:
        """Return the value at `count`."""
        progress = min(max((count - self.begin) / self.duration, 0.0), 1.0)
        return (1.0 - progress) * self.start + progress * self.end

    @property
    def bounds(self) -> tuple[float, float]:
        """Its two values, the smaller first."""
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class Exponential(Schedule):
    """Falls towards a value, halving its distance every `half_life` counts.

    Args:
        start: Value at 0.
        end: Value approached.
        half_life: Counts after which half the distance is gone. Larger is slower.

    Raises:
        ValueError: If `half_life` is below 1.

    Example:
        >>> Exponential(start=1.0, end=0.0, half_life=10)(20)
        0.25
    """

    start: float
    end: float
    half_life: int

    def __post_init__(self) -> None:
        require(self.half_life >= 1, "half_life", "be at least 1", self.half_life)

    def __call__(self, count: int) -> float:
        """Return the value at `count`."""
        return float(self.end + (self.start - self.end) * 0.5 ** (count / self.half_life))

    @property
    def bounds(self) -> tuple[float, float]:
        """Its two values, the smaller first."""
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class Sigmoid(Schedule):
    """Rises from 0 to a value along the upper half of a sigmoid, and stays there.

    `end (2 / (1 + exp(-steepness p)) - 1)`, where p goes from 0 to 1: with the usual steepness 85 %
    of the value at a quarter of the way.

    Args:
        end: Value approached; 1 - 1e-4 of it is reached with the usual steepness.
        duration: Counts until p is 1. Larger is slower.
        steepness: Above 0. Larger rises earlier.

    Raises:
        ValueError: If `duration` is below 1 or `steepness` is not above 0.

    Example:
        >>> round(Sigmoid(end=1.0, duration=10)(1), 3)
        0.462

    References:
        Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks", section 5.2.2,
        https://arxiv.org/abs/1505.07818.
    """

    end: float
    duration: int
    steepness: float = 10.0

    def __post_init__(self) -> None:
        require(self.duration >= 1, "duration", "be at least 1", self.duration)
        require(self.steepness > 0.0, "steepness", "be above 0", self.steepness)

    def __call__(self, count: int) -> float:
        """Return the value at `count`."""
        progress = min(count / self.duration, 1.0)
        # The same as 2 / (1 + exp(-x)) - 1.
        return self.end * math.tanh(0.5 * self.steepness * progress)

    @property
    def bounds(self) -> tuple[float, float]:
        """Zero and the value approached, the smaller first."""
        return min(0.0, self.end), max(0.0, self.end)


def value_at(coefficient: float | Schedule, count: int) -> float:
    """Return a coefficient's value, whether it is a number or a schedule."""
    return coefficient(count) if isinstance(coefficient, Schedule) else coefficient


def bounds_of(coefficient: float | Schedule) -> tuple[float, float]:
    """Return the smallest and the largest value of a coefficient, a number or a schedule."""
    return coefficient.bounds if isinstance(coefficient, Schedule) else (coefficient, coefficient)
