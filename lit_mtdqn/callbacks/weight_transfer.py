"""Weights of another run to start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

import lit_mtdqn.scaling
from lit_mtdqn.analysis.checkpoints import find_checkpoint, online_weights, read_checkpoint
from lit_mtdqn.functional.parameters import update_target_
from lit_mtdqn.networks.transfer import Move, describe, names_of_parts, plan_moves, received
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import Clock, Schedule, as_task_infos, require, value_at


class WeightTransfer(Callback):
    """Starts a run from the weights of another one, and says what it has moved.

    Weights find their places by name, those of single tasks by the task's name. It happens before
    training, once: a resumed run keeps what its checkpoint holds. The target network becomes a copy
    of the online one; the optimiser starts with empty moments; epsilon, clock and replay are the
    new run's own. A head keeps its raw values: a scale of the same kind moves with it, the unit of
    any other is folded into its weights. In YAML, for a multi-task trunk from a specialist:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.WeightTransfer
            init_args: {source: runs/specialist, parts: [trunk]}

    Several instances act one after another.

    Args:
        source: Checkpoint, or folder of a run; of several folders the one whose report has the best
            mean score.
        parts: What to move: `all`, `trunk` (all but the heads), `heads`, or beginnings of the names
            that the table shows, such as `torso` or `head.values.cartpole`.
        tasks: The source's name for a task or head, by the model's. Tasks of one name need none.
        names: The source's beginning of names, by the model's, such as
            `{sharing.columns.new: torso}`.
        layers: Move only the first so many layers of torsos; None moves all.
        exact: Whether a tensor of another shape is an error. Otherwise the rows and columns that
            both have are moved.
        keep: Share of what is moved in the new weights, the rest is what they were initialised to,
            in (0, 1]. Below 1 gives up knowledge for the ability to learn (shrink and perturb).
        rate: Factor on the learning rate of what is moved, over updates. 0 freezes it; a schedule
            from 0 to 1 thaws it, and until then its gradients count in the norm that is clipped.
            Where only some rows of a stack are moved, such as one of several heads, 0 and 1 alone.
        checkpoint: Which network of a run's folder: the `last` or the `best`.

    Raises:
        ValueError: If a value is out of range; at the start, before anything is moved, if the
            source is missing or of another package, a part is unknown, nothing fits, or a shape
            differs and `exact` is set.

    References:
        Taylor and Stone 2009, "Transfer Learning for Reinforcement Learning Domains"; Ash and Adams
        2020, "On Warm-Starting Neural Network Training", https://arxiv.org/abs/1910.08475.
    """

    def __init__(
        self,
        source: str | Sequence[str],
        parts: Sequence[str] = ("all",),
        tasks: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None,
        layers: int | None = None,
        exact: bool = False,
        keep: float = 1.0,
        rate: float | Schedule = 1.0,
        checkpoint: Literal["last", "best"] = "last",
    ) -> None:
        require(0.0 < keep <= 1.0, "WeightTransfer.keep", "lie in (0, 1]", keep)
        is_rate = isinstance(rate, Schedule) or rate >= 0.0
        require(is_rate, "WeightTransfer.rate", "be at least 0", rate)
        require(len(parts) >= 1, "WeightTransfer.parts", "name at least one part", list(parts))
        sources = [source] if isinstance(source, str) else list(source)
        require(len(sources) >= 1, "WeightTransfer.source", "name a checkpoint or a run", sources)
        self.sources, self.parts, self.layers = sources, list(parts), layers
        self.tasks, self.names = dict(tasks or {}), dict(names or {})
        self.exact, self.keep, self.rate, self.checkpoint = exact, keep, rate, checkpoint
        self._moved: list[str] = []
        self._frozen: list[tuple[Tensor, Tensor]] = []

    @property
    def state_key(self) -> str:
        """Return what tells the instances of one run apart in its checkpoints."""
        return self._generate_state_key(
            source=self.sources, parts=self.parts, tasks=self.tasks, names=self.names
        )

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Move the weights, unless the run is resumed, and give them their learning rate."""
        # Not in `setup`, where a Trainer does not know yet whether it resumes.
        if trainer.ckpt_path is None:
            self._transfer(pl_module)
        if self.rate != 1.0:
            self._take_rate(trainer, pl_module)

    def _transfer(self, learner: Any) -> None:
        name = "WeightTransfer.source"
        path = find_checkpoint(self.sources, self.checkpoint, name)
        saved = read_checkpoint(path, name)
        found = online_weights(saved["state_dict"])
        wanted = names_of_parts(learner.network, self.parts, self.layers)
        moves = plan_moves(learner.network, found, wanted, self.tasks, self.names, exact=self.exact)
        self._moved = [move.name for move in moves if move.outcome in ("moved", "adapted")]
        learner.network.load_state_dict(received(learner.network, found, moves, self.keep))
        self._move_scale(learner, saved, moves)
        update_target_(learner.target_network, learner.network)
        rank_zero_info(f"Weights of {path}:\n{describe(moves)}")

    def _move_scale(self, learner: Any, saved: Mapping[str, Any], moves: Sequence[Move]) -> None:
        """Let moved heads say in raw rewards what they said in the source."""
        theirs = _scale_of(saved)
        sources = self._source_tasks(learner, saved, moves)
        if theirs is None or not sources:
            return
        own: Scale | None = learner.scale
        if type(own) is type(theirs):
            given = theirs.get_extra_state()
            own.set_extra_state({task: given[source] for task, source in sources.items()})
            return
        head = learner.network.head
        must = f"be {type(theirs).__name__} as the source's, whose unit {type(head).__name__} keeps"
        require(head.can_rescale, "model.scale", must, own and type(own).__name__)
        places = torch.tensor([theirs.tasks.index(source) for source in sources.values()])
        zero_and_one = torch.tensor([[0.0, 1.0]]).expand(len(places), 2)
        raw = theirs.restored(zero_and_one, places)
        factor, shift = torch.ones(len(learner.tasks)), torch.zeros(len(learner.tasks))
        rows = [place for place, info in enumerate(learner.tasks) if info.name in sources]
        factor[rows], shift[rows] = raw[:, 1] - raw[:, 0], raw[:, 0]
        head.rescale_(factor, shift)

    def _source_tasks(
        self, learner: Any, saved: Mapping[str, Any], moves: Sequence[Move]
    ) -> dict[str, str]:
        """Return the source's task, by the model's, for all whose heads have come."""
        names = {info.name: info.name for info in _tasks_of(saved)}
        names |= {info.head: info.name for info in _tasks_of(saved) if info.head not in names}
        came = {m.name for m in moves if m.source and m.name.startswith("head.")}
        rows = {row for name in came for row in name.split(".")}
        heads = zip(learner.tasks, learner.network.head_names, strict=True)
        found = {}
        for info, head in heads:
            asked = (self.tasks.get(info.name, info.name), self.tasks.get(head, head))
            known = [names[name] for name in asked if name in names]
            if head in rows and known:
                found[info.name] = known[0]
        return found

    def _take_rate(self, trainer: lightning.Trainer, learner: Any) -> None:
        """Give what was moved a learning rate of its own."""
        whole, rows = _parameters_of(learner.network, self._moved)
        if rows:
            must = "be 0 or 1 where only some rows of a stack are moved"
            require(self.rate == 0.0, "WeightTransfer.rate", must, self.rate)
            self._frozen = [(row, row.detach().clone()) for row in rows]
        (optimizer,) = trainer.optimizers
        _split_off(optimizer, whole, self.state_key)
        if self.rate == 0.0 and trainer.world_size == 1:
            # Ranks have agreed already on what they reduce.
            for parameter in whole:
                parameter.requires_grad_(False)
        self._set_rate(optimizer, learner.source.clock.updates)

    def on_update_end(self, trainer: lightning.Trainer, learner: Any, clock: Clock) -> None:
        """Set the rate of the next update; put back rows that are frozen."""
        if isinstance(self.rate, Schedule):
            self._set_rate(trainer.optimizers[0], clock.updates)
        for row, value in self._frozen:
            row.data.copy_(value)

    def _set_rate(self, optimizer: torch.optim.Optimizer, updates: int) -> None:
        # Found anew each time: a resume replaces the groups.
        for group in optimizer.param_groups:
            if group.get("of") == self.state_key:
                group["initial_lr"] = group["whole_lr"] * value_at(self.rate, updates)
                group["lr"] = group["initial_lr"]

    def state_dict(self) -> dict[str, Any]:
        """Return what was moved, for a resumed run."""
        return {"moved": self._moved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with what was moved."""
        self._moved = state_dict["moved"]


def _tasks_of(saved: Mapping[str, Any]) -> Any:
    return as_task_infos(saved["hyper_parameters"]["tasks"])


def _scale_of(saved: Mapping[str, Any]) -> Scale | None:
    """Return the scale of a checkpoint, with its statistics."""
    entry = saved.get("hyper_parameters", {}).get("scale")
    if entry is None:
        return None
    kind = getattr(lit_mtdqn.scaling, entry["class_path"].rpartition(".")[2])
    scale: Scale = kind(_tasks_of(saved), **(entry.get("init_args") or {}))
    scale.set_extra_state(saved["state_dict"]["scale._extra_state"])
    return scale


def _parameters_of(
    network: nn.Module, names: Sequence[str]
) -> tuple[list[nn.Parameter], list[Tensor]]:
    """Return the parameters that saved names make up, and the rows of those that they do not."""
    saved = network.state_dict(keep_vars=True)
    numbers: dict[Tensor, int] = {}
    for name in saved:
        owner = _owner(saved[name])
        numbers[owner] = numbers.get(owner, 0) + saved[name].numel()
    for name in names:
        numbers[_owner(saved[name])] -= saved[name].numel()
    parts = {name: _owner(saved[name]) for name in names}
    whole = dict.fromkeys(owner for owner in parts.values() if numbers[owner] == 0)
    rows = [saved[name] for name, owner in parts.items() if numbers[owner] > 0]
    return [owner for owner in whole if isinstance(owner, nn.Parameter)], rows


def _owner(tensor: Tensor) -> Tensor:
    base = tensor._base
    return tensor if base is None else base


def _split_off(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], owner: str
) -> None:
    """Give parameters groups of their own in an optimiser, with the settings that they had."""
    chosen = set(parameters)
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if parameter in chosen]
        if not own:
            continue
        group["params"] = [parameter for parameter in group["params"] if parameter not in chosen]
        if not group["params"]:
            optimizer.param_groups.remove(group)
        rest = {name: value for name, value in group.items() if name != "params"}
        whole = {"whole_lr": group["initial_lr"], "of": owner}
        optimizer.add_param_group({**rest, **whole, "params": own})
