"""The slow copy of the online network."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import Callback

from lit_mtdqn.functional.parameters import update_target_
from lit_mtdqn.types import Clock, HasTargetNetwork, require


class TargetNetworkSync(Callback):
    """Moves the target network to the online network, every so many updates.

    Present by default. In YAML:

        trainer:
          callbacks:
          - class_path: lit_mtdqn.callbacks.TargetNetworkSync
            init_args: {every_n_updates: 200}

    Args:
        every_n_updates: Updates between two moves. Larger is more stable and carries values back
            more slowly.
        polyak_tau: Share of the way that each move goes, in (0, 1]. 1 copies; 0.005 with
            `every_n_updates: 1` is the usual soft update.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(self, every_n_updates: int = 200, polyak_tau: float = 1.0) -> None:
        name = "TargetNetworkSync"
        require(every_n_updates >= 1, f"{name}.every_n_updates", "be at least 1", every_n_updates)
        require(0.0 < polyak_tau <= 1.0, f"{name}.polyak_tau", "lie in (0, 1]", polyak_tau)
        self.every_n_updates = every_n_updates
        self.polyak_tau = polyak_tau

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that there is something to move."""
        if not isinstance(pl_module, HasTargetNetwork):
            raise TypeError(
                "`model` must have `network` and `target_network` for TargetNetworkSync. "
                f"Got {type(pl_module).__name__}."
            )
        name, must = type(pl_module).__name__, "have a target network of its own"
        is_own = pl_module.target_network is not pl_module.network
        require(is_own, "model", f"{must} for TargetNetworkSync", name)

    def on_update_end(
        self, trainer: lightning.Trainer, learner: HasTargetNetwork, clock: Clock
    ) -> None:
        """Move when the count of updates is a multiple."""
        if clock.updates % self.every_n_updates == 0:
            update_target_(learner.target_network, learner.network, self.polyak_tau)
