"""Optimisers with the settings that value learning wants."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lit_mtdqn.functional.parameters import split_by_weight_decay
from lit_mtdqn.types import require


class Adam(torch.optim.Adam):
    """PyTorch's Adam, fused, with an epsilon that suits temporal-difference errors.

    Args:
        params: Parameters; given by the learner.
        lr: Step size.
        eps: Added to the root of the second moment. Larger damps the steps that follow small
            gradients; PyTorch's usual 1e-8 lets rare small gradients step as far as large ones.
        betas: Decay rates of the moments.
        weight_decay: Pull of the weights to zero, added to the gradient.

    Raises:
        ValueError: If `lr` is negative.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 5e-4,
        eps: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        require(lr >= 0.0, "lr", "be at least 0", lr)
        super().__init__(
            params,
            lr=lr,
            betas=(betas[0], betas[1]),
            eps=eps,
            weight_decay=weight_decay,
            fused=True,
        )


def build_optimizer(
    factory: Any, modules: Iterable[nn.Module], extra: Iterable[dict[str, Any]] = ()
) -> torch.optim.Optimizer:
    """Return the optimiser of the modules' trainable parameters.

    Under weight decay, biases, embeddings and normalisations get a group of their own without it.

    Args:
        factory: Takes parameters or groups of them.
        modules: What learns.
        extra: Further groups, with rules of their own.

    Raises:
        ValueError: If the optimiser evaluates losses by itself, as LBFGS does.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for module in modules:
        for found, kept in zip(split_by_weight_decay(module), (decayed, spared), strict=True):
            kept.extend(found)
    optimizer: torch.optim.Optimizer = factory([*decayed, *spared])
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    must = "step by gradients alone, without evaluating the loss again"
    by_gradients = closure is None or closure.default is not inspect.Parameter.empty
    require(by_gradients, "model.optimizer", must, type(optimizer).__name__)
    if optimizer.defaults.get("weight_decay"):
        groups = [({}, decayed), ({"weight_decay": 0.0}, spared)]
        optimizer = factory([{"params": found, **rule} for rule, found in groups if found])
    for group in extra:
        optimizer.add_param_group({"weight_decay": 0.0, **group})
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer
