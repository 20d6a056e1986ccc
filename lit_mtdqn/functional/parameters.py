"""Whole networks as values: copied, averaged, frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NORMALISATIONS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


@torch.no_grad()
def update_target_(target: nn.Module, online: nn.Module, polyak_tau: float = 1.0) -> None:
    """Move a target network towards the online network, in place.

    `target <- (1 - polyak_tau) * target + polyak_tau * online`; buffers are copied.

    Args:
        target: Network of the same structure as `online`.
        online: Network to follow.
        polyak_tau: Share of the way, in (0, 1]. 1 copies.

    References:
        Lillicrap et al. 2016, "Continuous control with deep reinforcement learning",
        https://arxiv.org/abs/1509.02971.
    """
    targets: list[Tensor] = list(target.parameters())
    sources: list[Tensor] = list(online.parameters())
    if polyak_tau == 1.0:
        torch._foreach_copy_(targets, sources)
    else:
        torch._foreach_lerp_(targets, sources, polyak_tau)
    for buffer, source in zip(target.buffers(), online.buffers(), strict=True):
        buffer.copy_(source)


def freeze_(module: nn.Module) -> nn.Module:
    """Stop gradients to a module, in place, put it in evaluation mode and return it."""
    return module.requires_grad_(False).eval()


@torch.no_grad()
def clip_gradients_(parameters: list[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale all gradients together, in place, so that their norm is at most `max_norm`.

    The same as `torch.nn.utils.clip_grad_norm_` in half its time, which is a fiftieth of an update
    of a small network.

    Args:
        parameters: Those without a gradient are left out.
        max_norm: Largest Euclidean norm; None only measures.

    Returns:
        The norm before clipping.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if max_norm is not None:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def split_by_weight_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters that weight decay suits, and the others.

    The others are biases, embeddings and the gains of normalisations, which decay would pull away
    from their neutral values without regularising anything, and the scales of noisy layers, by
    which decay would end exploration.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            special = isinstance(owner, (*NORMALISATIONS, nn.Embedding))
            special = special or name.endswith("bias") or name.startswith("sigma")
            (spared if special else decayed).append(parameter)
    return decayed, spared
