"""How far a student's action values are from a teacher's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_mtdqn.functional.masking import mask_actions
from lit_mtdqn.functional.policies import log_policy
from lit_mtdqn.functional.td import action_gap

MatchKind = Literal["policy_kl", "value_kl", "nll", "mse", "softened_mse"]


def match_loss(
    kind: MatchKind,
    student: Tensor,
    teacher: Tensor,
    temperature: Tensor | float,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the distance of each row's values; none is negative, and all but `nll` reach 0.

    With values t of the teacher, s of the student and temperature T:

    - `policy_kl`: KL(softmax(t / T), softmax(s)). The student's outputs become the logits of a
      policy, no values (Rusu et al. 2015, equation 3).
    - `value_kl`: KL(softmax(t / T), softmax(s / T)). The student's values keep the teacher's unit,
      up to a number per state (Agarwal et al. 2022, equation 2).
    - `nll`: minus the logarithm of softmax(s) at the teacher's best action (Rusu et al. 2015,
      equation 1).
    - `mse`: the mean of `(t - s)^2` over allowed actions (Rusu et al. 2015, equation 2).
    - `softened_mse`: the sum of squares of softmax(t / T) - softmax(s / T). Its gradient vanishes
      where both are sure of unlike actions.

    Args:
        kind: One of these.
        student: [..., A].
        teacher: [..., A]; receives no gradient.
        temperature: Above 0, a number or broadcastable to `student`. Lower takes the teacher's best
            action more for granted; higher also teaches how other actions compare.
        mask: True where an action is allowed, broadcastable to `student`; None allows all.

    Returns:
        Float32 [...], at least 0.

    References:
        Rusu et al. 2015, "Policy Distillation", https://arxiv.org/abs/1511.06295; Agarwal et al.
        2022, "Reincarnating Reinforcement Learning", https://arxiv.org/abs/2206.01626.
    """
    student, teacher = student.float(), teacher.detach().float()
    match kind:
        case "policy_kl":
            return _divergence(teacher / temperature, student, mask)
        case "value_kl":
            return _divergence(teacher / temperature, student / temperature, mask)
        case "nll":
            best = mask_actions(teacher, mask).argmax(-1, keepdim=True)
            log_policy = mask_actions(student, mask).log_softmax(-1)
            return -log_policy.gather(-1, best).squeeze(-1)
        case "mse":
            return _mean_square(teacher - student, mask)
        case "softened_mse":
            policies = [
                (mask_actions(v, mask) / temperature).softmax(-1) for v in (teacher, student)
            ]
            return (policies[0] - policies[1]).square().sum(-1)


def relative_temperature(teacher: Tensor, factor: float, mask: Tensor | None = None) -> Tensor:
    """Return a temperature per row group: a multiple of the median action gap of its rows.

    One factor then serves tasks whose values differ by orders of magnitude: at 1 the second best
    action of half the rows is at least e times less likely than the best. Few rows have gaps many
    times as large, and would blur all others in a mean. What is added to all values of a row
    changes nothing. The gap counts as at least a thousandth of the largest difference between
    actions, and a millionth of the largest value: a teacher to whom most actions are alike would
    sharpen nothing but its rounding.

    Args:
        teacher: [S, B, A].
        factor: Above 0.
        mask: True where an action is allowed, broadcastable to `teacher`. Rows with a single
            allowed action have no gap and are not counted.

    Returns:
        [S, 1, 1], above 0.
    """
    values = teacher.float()
    allowed = torch.ones_like(values, dtype=torch.bool) if mask is None else mask.expand_as(values)
    has_gap = allowed.sum(-1) > 1
    gaps = action_gap(values, mask).masked_fill(~has_gap, torch.nan)
    median = gaps.nanquantile(0.5, -1).nan_to_num()
    highest = mask_actions(values, mask).amax(-1)
    lowest = -mask_actions(-values, mask).amax(-1)
    largest = torch.maximum(highest.abs(), lowest.abs()).amax(-1)
    rounding = (1e-6 * largest).clamp(min=1e-9)
    least = torch.maximum(1e-3 * (highest - lowest).amax(-1), rounding)
    return (factor * torch.maximum(median, least)).view(-1, 1, 1)


def action_variance(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return how far each row group's actions lie apart: their variance, the mean over rows.

    The unit of squared distances to these values: 1 is the `mse` of a student that says of each
    state what its actions have in common. Its root counts as at least a thousandth of the largest
    value: to a teacher to whom all actions are alike no distance is small.

    Args:
        values: [S, B, A].
        mask: True where an action is allowed, broadcastable to `values`.

    Returns:
        Float32 [S, 1], above 0.
    """
    values = values.float()
    allowed = torch.ones_like(values, dtype=torch.bool) if mask is None else mask.expand_as(values)
    kept = values.masked_fill(~allowed, 0.0)
    mean = kept.sum(-1, keepdim=True) / allowed.sum(-1, keepdim=True)
    variance = _mean_square(values - mean, allowed).mean(-1)
    least = (1e-3 * kept.abs().amax((-2, -1))).clamp(min=1e-6).square()
    return torch.maximum(variance, least).unsqueeze(-1)


def agreement(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the share of rows in which both have the same best action.

    Args:
        student: [..., B, A].
        teacher: [..., B, A].
        mask: True where an action is allowed, broadcastable to both.

    Returns:
        [...].

    References:
        Stanton et al. 2021, "Does Knowledge Distillation Really Work?", section 2 (average top-1
        agreement), https://arxiv.org/abs/2106.05945.
    """
    best = [mask_actions(values, mask).argmax(-1) for values in (student, teacher)]
    return (best[0] == best[1]).float().mean(-1)


def _divergence(teacher: Tensor, student: Tensor, mask: Tensor | None) -> Tensor:
    """Return KL(softmax(teacher), softmax(student)) over allowed actions."""
    policy = mask_actions(teacher, mask).softmax(-1)
    log_ratio = log_policy(teacher, mask) - log_policy(student, mask)
    return (policy * log_ratio).sum(-1)


def _mean_square(difference: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return difference.square().mean(-1)
    kept = mask.expand_as(difference)
    return difference.masked_fill(~kept, 0.0).square().sum(-1) / kept.sum(-1)
