"""Networks that are built to hold a checkpoint's weights, and nothing much larger."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Built = TypeVar("Built", bound=nn.Module)
# Beside the weights there are target networks, masks, and what initial weights are drawn in.
FACTOR, BESIDE = 8, 10**7
aten = torch.ops.aten
MAKERS = {
    aten.empty,
    aten.empty_strided,
    aten.zeros,
    aten.ones,
    aten.full,
    aten.rand,
    aten.randn,
    aten.eye,
}


class _Within(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to make more numbers than a module of so many could need, before they take memory."""

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = self._most = most

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in MAKERS and args and isinstance(args[0], list | tuple):
            self._left -= math.prod(args[0])
            if self._left < 0:
                raise ValueError(f"one of more than {self._most} numbers")
        return func(*args, **(kwargs or {}))


def build_to_hold(
    build: Callable[[], Built],
    weights: Mapping[str, Any],
    name: str,
    path: str | Path,
    *,
    strict: bool = True,
) -> Built:
    """Build a module and load weights into it.

    A small file that describes a huge network fills no memory.

    Args:
        build: Builds it.
        weights: What its `state_dict` is to be.
        name: What the user calls the file, for complaints.
        path: The file.
        strict: Whether all names must agree.

    Raises:
        ValueError: If the weights are not those of such a module.
    """
    held = sum(value.numel() for value in weights.values() if isinstance(value, Tensor))
    within = _Within(FACTOR * held + BESIDE)
    try:
        with within:
            module = build()
        module.load_state_dict(weights, strict=strict)
    except (RuntimeError, ValueError) as error:
        if "` must " in str(error):  # a complaint of this package's, which names what is wrong
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        must = "hold the weights of the network that it describes"
        raise ValueError(f"`{name}` must {must}. Got {path}: {reason}.") from error
    return module
