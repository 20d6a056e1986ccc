"""Contexts: the numbers of the physics that tasks may change."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lit_mtdqn.functional.arrays import Table
from lit_mtdqn.types import Array, require

Floats = Array
Context = Mapping[str, float]

# Those of Gymnasium's CartPole-v1.
DEFAULT_CONTEXT: dict[str, float] = {
    "gravity": 9.8,  # m/s^2
    "length": 0.5,  # m, half of the pole's
    "cart_mass": 1.0,  # kg
    "pole_mass": 0.1,  # kg
    "force": 10.0,  # N
}
CONTEXT_NAMES = tuple(DEFAULT_CONTEXT)
_DEFAULTS = Table(np.array([[number] for number in DEFAULT_CONTEXT.values()]))


def context_table(context: Context | Sequence[Context] | None) -> Floats:
    """Return contexts as columns, [5, number of contexts], in the order of `CONTEXT_NAMES`.

    Args:
        context: One mapping, several, or None for the default; what a mapping leaves out has its
            default.

    Raises:
        ValueError: If there is no context, a name is unknown or a value is not above 0.
    """
    contexts = [context or {}] if isinstance(context, Mapping | None) else list(context)
    require(len(contexts) >= 1, "context", "hold at least one context", context)
    return np.stack([_column(entry) for entry in contexts], axis=1)


def relative_context(values: Floats) -> Floats:
    """Return contexts [5, N] as relative deviations from the default, which becomes 0."""
    return values / _DEFAULTS.beside(values) - 1.0


def _column(context: Any) -> Floats:
    is_mapping = isinstance(context, Mapping)
    require(is_mapping, "context", "be a mapping, or a list of mappings", context)
    unknown = sorted(set(context) - set(CONTEXT_NAMES))
    require(not unknown, "context", f"have keys among {list(CONTEXT_NAMES)}", unknown)
    for name, value in context.items():
        require(0.0 < value < np.inf, f"context.{name}", "be above 0", value)
    return np.array([float({**DEFAULT_CONTEXT, **context}[name]) for name in CONTEXT_NAMES])
