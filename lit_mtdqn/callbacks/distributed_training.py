"""Several ranks and mixed precision."""

from __future__ import annotations

import platform
from typing import Any, Protocol, runtime_checkable

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_mtdqn.rollout.seeding import training_seed
from lit_mtdqn.types import require

NUMBERS = {
    "bf16-mixed": "networks compute in bfloat16",
    "16-mixed": "networks compute in float16, and an update whose gradients overflow is none",
}


@runtime_checkable
class SharedData(Protocol):
    """Data of which each rank has a share."""

    num_envs: int
    batch_size: int
    replay_capacity: int
    replay_ratio: float
    keeps_replays: bool


class DistributedTraining(Callback):
    """Checks what `strategy`, `devices` and `precision` of the Trainer ask for, and says it once.

    The numbers of a configuration are those of the whole run: of R ranks each plays 1/R of the
    environments with seeds of its own, keeps 1/R of the replay and gives 1/R of the rows of each
    update, whose gradients are means over ranks. More ranks at the same numbers are therefore the
    same learning: neither the learning rate nor the replay ratio follows R. Who raises `batch_size`
    along with R learns from each transition as much more often, unless `replay_ratio` is lowered by
    as much, and may want a larger learning rate: by the root of the factor for Adam, by the factor
    for SGD. Under mixed precision targets, losses, priorities, gradients and weights are float32.
    Each rank draws the noise of its networks by itself. Present by default. In YAML:

        trainer:
          strategy: ddp
          devices: 2
          precision: bf16-mixed
          callbacks+:
          - class_path: lit_mtdqn.callbacks.DistributedTraining

    Raises:
        ValueError: At the start, if the strategy splits networks, or a GPU has no bfloat16.

    References:
        Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.1 (the factor),
        https://arxiv.org/abs/1706.02677; Malladi et al. 2022, "On the SDEs and Scaling Rules for
        Adaptive Gradient Algorithms" (its root), https://arxiv.org/abs/2205.10287.
    """

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Refuse what could not work or would be slow, and say what each rank does."""
        strategy = trainer.strategy
        whole = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
        must = "be auto or ddp, because each rank acts with the whole network"
        require(whole, "trainer.strategy", must, type(strategy).__name__)
        must = "be 16-mixed or 32-true on a GPU without bfloat16"
        fits = trainer.precision != "bf16-mixed" or _has_bfloat16(strategy.root_device)
        require(fits, "trainer.precision", must, trainer.precision)
        if stage == "fit":
            if trainer.precision == "bf16-mixed" and _emulates_bfloat16(strategy.root_device):
                rank_zero_warn(
                    "This processor has no arithmetic in bfloat16 and emulates it: bf16-mixed "
                    "takes longer here than 32-true."
                )
            for sentence in (_of_ranks(trainer), _of_precision(trainer)):
                if sentence:
                    rank_zero_info(sentence)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Let ranks draw noise apart; all began with the seed of the run."""
        if trainer.global_rank > 0:
            torch.manual_seed(training_seed(torch.initial_seed(), "noise", trainer.global_rank))


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16, and does not emulate it; CPUs may."""
    if device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _emulates_bfloat16(device: torch.device) -> bool:
    """Return whether a device is an x86 processor without bfloat16; others are not asked."""
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    # PyTorch has no public name for it.
    return not torch.cpu._is_avx512_bf16_supported()


def _of_ranks(trainer: lightning.Trainer) -> str:
    """Return what each of several ranks does."""
    ranks, data = trainer.world_size, _data(trainer)
    if ranks == 1 or not isinstance(data, SharedData):
        return ""
    envs, rows, kept = (
        f"{count // ranks} of {count}"
        for count in (data.num_envs, data.batch_size, data.replay_capacity)
    )
    keeps = f"keeps {kept} transitions" if data.keeps_replays else "keeps none"
    reuse = data.replay_ratio * data.batch_size
    return (
        f"Each of {ranks} ranks plays {envs} environments per task, {keeps} and gives {rows} rows "
        f"per task of each update. A transition is learned from {reuse:.3g} times. Learning rate, "
        "replay ratio, warm-up, budget, epsilon and metrics are of all ranks together."
    )


def _of_precision(trainer: lightning.Trainer) -> str:
    """Return what mixed precision changes."""
    numbers = NUMBERS.get(str(trainer.precision))
    if numbers is None:
        return ""
    rest = "targets, losses, priorities, gradients and weights are float32"
    return f"With {trainer.precision} {numbers}; {rest}."


def _data(trainer: lightning.Trainer) -> Any:
    return trainer.datamodule  # type: ignore[attr-defined]
