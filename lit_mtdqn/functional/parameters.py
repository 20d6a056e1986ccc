"""Whole networks as values: copied, averaged, frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TINY = 1e-6  # keeps a norm of 0 from dividing, as in PyTorch
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

    The same as `torch.nn.utils.clip_grad_norm_` in less than half its time
    (`benchmarks/speed_ups.py`).

    Args:
        parameters: Those without a gradient are left out.
        max_norm: Largest Euclidean norm; None only measures.

    Returns:
        The norm before clipping.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    # To look at the norm costs a CPU next to nothing; a GPU would be waited for.
    is_short = norm.is_cpu and max_norm is not None and float(norm) + TINY <= max_norm
    if max_norm is not None and not is_short:
        torch._foreach_mul_(gradients, (max_norm / (norm + TINY)).clamp(max=1.0))
    return norm


def split_by_weight_decay(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters that weight decay suits, and the others.

    The others are biases, embeddings, the gains of normalisations and what modules name in
    `undecayed`. Decay would pull them away from their neutral values without regularising anything.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            special = isinstance(owner, (*NORMALISATIONS, nn.Embedding)) or name.endswith("bias")
            special = special or name in getattr(owner, "undecayed", ())
            (spared if special else decayed).append(parameter)
    return decayed, spared


@torch.no_grad()
def pull_to_mean_(stacks: list[nn.Parameter], share: float) -> None:
    """Move the rows of each stack a share of the way to their mean, in place.

    `theta_i <- theta_i - share * (theta_i - mean)`, the decoupled form of a penalty on distances:
    the gradient of `strength * sum over i != j of |theta_i - theta_j|^2`, over all ordered pairs of
    T rows, is `4 T strength (theta_i - mean)` for row i. One step along it at a learning rate takes
    the share `4 T strength learning_rate`.

    Args:
        stacks: Parameters [T, ...].
        share: In [0, 2). 1 makes the rows equal, more overshoots, 2 and above diverges.

    References:
        Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization",
        https://arxiv.org/abs/1711.05101, for the step after the optimiser's own.
    """
    for stack in stacks:
        stack.lerp_(stack.mean(0, keepdim=True), share)
