"""What earlier runs have left, without a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lit_mtdqn.algorithms import ValueLearner

STEP = 7


def save_run(
    folder: Path, model: ValueLearner, importance: Mapping[str, Tensor] | None = None
) -> str:
    """Write a learner's checkpoint, and Fisher information if there is any, as a run's folder."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    saved = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save({**saved, "global_step": STEP}, checkpoints / "last.ckpt")
    if importance is not None:
        written = {"global_step": STEP, "importance": dict(importance)}
        torch.save(written, checkpoints / "fisher.pt")
    return str(folder)


def random_importance(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Return numbers above 0 for all that a network saves."""
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.rand(t.shape, generator=generator) for n, t in network.state_dict().items()}
