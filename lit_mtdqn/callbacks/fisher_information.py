"""How much each parameter of a finished run matters for what it has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_mtdqn.analysis.checkpoints import CHECKPOINTS, FISHER, damage_of, load_plain
from lit_mtdqn.analysis.whole_files import whole_file
from lit_mtdqn.callbacks.inspection import Inspectable
from lit_mtdqn.functional.archives import archive_of
from lit_mtdqn.functional.distillation import relative_temperature
from lit_mtdqn.functional.fisher import FisherKind, fisher_sum, fisher_terms, normalised_importance
from lit_mtdqn.functional.gradients import GroupParameters
from lit_mtdqn.networks import QNetwork, predict_by_group
from lit_mtdqn.networks.flat import flat_parameters, saved_from_flat
from lit_mtdqn.objectives import Anchor
from lit_mtdqn.types import Transition, require

NAME = "FisherInformation"
# Numbers that the gradients of single rows fill at a time: 16 MiB. With eight times as many a
# processor waits for its memory and takes almost three times as long.
NUMBERS = 2**22


class FisherInformation(Callback):
    """Writes `fisher.pt` beside the checkpoints when training ends, for a later run's `Anchor`.

    It holds the diagonal of the Fisher information of the last network: the mean over states of the
    tasks' replays, of all rows kept alike, of squared gradients of single rows. Tasks that learn
    count alike. An interrupted run writes nothing; one that has ended without its file, as when it
    is killed while it measures, writes it when it is resumed with its replays. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.FisherInformation
            init_args: {decay: 0.95}

    Args:
        kind: What is not to change. `policy`: the distribution softmax(Q / temperature) over
            actions, which has no unit and leaves what all actions of a state have in common free.
            `values`: the action values, in the networks' own unit, that of `scale`; what an earlier
            head says then stays as it is, too; not for students of policies. With a `Prior` both
            are of the preferences by which tasks act.
        rows: States per task, over all ranks. Larger is less noisy and takes longer: a gradient per
            row and action.
        temperature: Of `policy`, above 0. Lower counts fewer states, those where actions are nearly
            equal. Students of policies have 1, whatever it is: their outputs are logits.
        relative: Whether the temperature is a multiple of each task's median action gap, so that
            one value serves tasks of any scale.
        normalise: Whether each task's information is divided by its mean over the parameters that
            tasks share, or over all where they share none: otherwise a task with larger gradients
            counts for more, and a strength that suits one network suits no other.
        decay: Share of what the run's own anchors held that is kept, in [0, 1]: online EWC, where
            the last run alone is the next one's source. At 0 an anchor needs all earlier runs;
            smaller forgets earlier runs sooner. Anchors of equal importance are not counted.

    Raises:
        ValueError: If a value is unknown or out of range, or `kind` is not for the learner.

    References:
        Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks",
        https://arxiv.org/abs/1612.00796; Schwarz et al. 2018, "Progress & Compress",
        `F*_i = decay F*_(i-1) + F_i` with each F_i normalised, https://arxiv.org/abs/1805.06370.
    """

    def __init__(
        self,
        kind: FisherKind = "policy",
        rows: int = 1024,
        temperature: float = 0.5,
        relative: bool = True,
        normalise: bool = True,
        decay: float = 0.0,
    ) -> None:
        name, known = NAME, get_args(FisherKind)
        require(kind in known, f"{name}.kind", f"be one of {', '.join(known)}", kind)
        require(rows >= 1, f"{name}.rows", "be at least 1", rows)
        require(temperature > 0.0, f"{name}.temperature", "be above 0", temperature)
        require(0.0 <= decay <= 1.0, f"{name}.decay", "lie in [0, 1]", decay)
        self.kind, self.rows, self.normalise, self.decay = kind, rows, normalise, decay
        self.temperature, self.relative = temperature, relative
        self._has_trained = False

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that there is a network whose parameters may matter."""
        learner: Any = pl_module
        is_one = isinstance(learner, Inspectable)
        require(is_one, "model", "be a ValueLearner", type(learner).__name__)
        must = "be policy for a student of policies, whose outputs are no values"
        has_such = self.kind == "policy" or learner.predicts_values
        require(has_such, "FisherInformation.kind", must, self.kind)
        self._has_trained = False

    def on_train_batch_end(self, *_: Any) -> None:
        """From here on there is something to measure."""
        self._has_trained = True

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Measure and write."""
        # `log_dir` waits for the other ranks.
        path = Path(trainer.log_dir or trainer.default_root_dir) / CHECKPOINTS / FISHER
        if not self._has_trained and not _may_be_made_up_for(trainer, path):
            return
        rows = max(self.rows // trainer.world_size, 1)
        batch: Transition = trainer.datamodule.look(rows)  # type: ignore[attr-defined]
        information = self.measure(pl_module, batch.to(pl_module.device))
        if trainer.is_global_zero:
            assert isinstance(pl_module, Inspectable), "setup has checked it"
            named = saved_from_flat(pl_module.network, information.cpu())
            _write(path, named, trainer.global_step)
            rank_zero_info(f"Fisher information of {len(batch.task)} task(s) in {path}.")

    def measure(self, learner: Any, batch: Transition) -> Tensor:
        """Return the information on each parameter, in the order of `flat_parameters`, [P].

        Args:
            learner: The learner, in a run; gradients are averaged over its ranks.
            batch: Leading shape [S, B].
        """
        network: QNetwork = learner.network
        values = network.action_values(batch.observation, batch.task)
        mask = network.allowed_actions(batch.task, batch.extra.get("action_mask"))
        allowed = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        sharpens = learner.predicts_values
        temperature = torch.full_like(values[:, :1, :1], self.temperature if sharpens else 1.0)
        if self.relative and sharpens:
            temperature = relative_temperature(values, self.temperature, mask)
        total = self.decay * self._held(learner, network)
        groups = zip(batch.observation, batch.task, temperature, allowed, strict=True)
        counted = _counted(network)
        for observation, *given in groups:
            own = learner.mean_over_ranks(self._of_task(network, observation, *given))
            total = total + (normalised_importance(own, counted) if self.normalise else own)
        return total

    def _of_task(
        self,
        network: QNetwork,
        observation: Tensor,
        task: Tensor,
        temperature: Tensor,
        allowed: Tensor,
    ) -> Tensor:
        """Return the mean over rows [B, *O] of one task, [P]."""
        parameters = dict(network.named_parameters())
        at_once = max(NUMBERS // sum(p.numel() for p in parameters.values()), 1)
        total = torch.zeros((), device=observation.device)
        masks = allowed.expand(len(observation), -1)
        pieces = torch.split(observation, at_once), torch.split(masks, at_once)
        for rows, mask in zip(*pieces, strict=True):
            # Each row is a group of its own, with parameters of its own.
            copies = GroupParameters.of(parameters, len(rows))
            tasks = task.expand(len(rows))
            prediction = predict_by_group(network, copies, rows.unsqueeze(1), tasks)
            values = network.preferences(prediction).squeeze(1)
            terms, weights = fisher_terms(self.kind, values, temperature, mask)
            total = total + fisher_sum(terms, weights, list(copies.values()))
        return total / len(observation)

    def _held(self, learner: lightning.LightningModule, network: QNetwork) -> Tensor:
        """Return what the run's anchors hold by Fisher information, [P]."""
        total = torch.zeros_like(flat_parameters(network))
        for part in learner.modules():
            if isinstance(part, Anchor) and part.importance == "fisher":
                total += part.held
        return total


def _may_be_made_up_for(trainer: lightning.Trainer, path: Path) -> bool:
    """Return whether a run that was over lacks its file and has replays to measure it by."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    has_rows = data.keeps_replays and all(len(s.replay) > 0 for s in data.slots if s.learns)
    is_whole = path.is_file() and damage_of(path) is None
    lacks_it = not is_whole or load_plain(path, NAME).get("global_step") != trainer.global_step
    decide = trainer.strategy.reduce_boolean_decision
    return decide(has_rows and lacks_it, all=True)


def _counted(network: QNetwork) -> Tensor:
    """Return which numbers are of parameters that tasks share, or all if none are, [P]."""
    shared = set(network.shared_parameters())
    pieces = [
        torch.full_like(parameter, not shared or parameter in shared, dtype=torch.bool).flatten()
        for parameter in network.parameters()
    ]
    return torch.cat(pieces)


def _write(path: Path, importance: dict[str, Tensor], global_step: int) -> None:
    """Write what belongs to the network after so many optimiser steps, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of views all that they are views of would be saved.
    copies = {name: tensor.clone() for name, tensor in importance.items()}
    with whole_file(path) as fresh:
        fresh.write_bytes(archive_of({"global_step": global_step, "importance": copies}))
