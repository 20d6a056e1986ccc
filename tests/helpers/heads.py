"""Every kind of head, small and with outputs that differ from the start."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from lit_mtdqn.networks import (
    C51Head,
    DuelingHead,
    HLGaussHead,
    ImplicitQuantileHead,
    LinearHead,
    QuantileHead,
)

IQN = partial(
    ImplicitQuantileHead,
    num_fractions=6,
    num_target_fractions=5,
    num_acting_fractions=4,
    num_cosines=8,
)
PLAIN: dict[str, Any] = {
    "linear": LinearHead,
    "c51": partial(C51Head, num_atoms=7, v_min=-3.0, v_max=3.0),
    "hl_gauss": partial(HLGaussHead, num_bins=7, v_min=-4.0, v_max=4.0),
    "quantile": partial(QuantileHead, num_quantiles=5),
    "implicit": IQN,
}
DUELING: dict[str, Any] = {
    "dueling": DuelingHead,
    **{
        f"dueling {name}": partial(head, dueling=True)
        for name, head in PLAIN.items()
        if name != "linear"
    },
}
KINDS: dict[str, Any] = {**PLAIN, **DUELING}
# `init_scale=1` lets outputs differ from the start.
HEADS: dict[str, Any] = {name: partial(head, init_scale=1.0) for name, head in KINDS.items()}
HIDDEN: dict[str, Any] = {
    f"hidden {name}": partial(head, hidden=5) for name, head in HEADS.items() if name != "linear"
}
NOISY: dict[str, Any] = {
    f"noisy {name}": partial(head, noisy_sigma=0.5) for name, head in {**HEADS, **HIDDEN}.items()
}
ALL: dict[str, Any] = {**HEADS, **HIDDEN, **NOISY}


def each(heads: dict[str, Any]) -> pytest.MarkDecorator:
    """Run a test with each of some heads, as its argument `head`."""
    return pytest.mark.parametrize("head", heads.values(), ids=heads.keys())
