"""Weights of another run to start from."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from copy import deepcopy
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from weakref import WeakSet

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

import lit_mtdqn.scaling
from lit_mtdqn.analysis.checkpoint_form import SCALE_STATE
from lit_mtdqn.analysis.checkpoints import (
    find_checkpoint,
    head_entry,
    head_kind,
    online_weights,
    read_checkpoint,
)
from lit_mtdqn.functional.parameters import update_target_
from lit_mtdqn.networks import Head, QNetwork
from lit_mtdqn.networks.parts import names_of_parts
from lit_mtdqn.networks.transfer import Move, describe, moved_heads, plan_moves, received
from lit_mtdqn.objectives.match import says_values
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import HasTargetNetwork, TaskInfo, as_task_infos, require

Which = Literal["last", "best"]
SOURCE = "WeightTransfer.source"


class WeightTransfer(Callback):
    """Starts a run from the weights of another one, and says what it has moved.

    Weights find their places by name, those of single tasks by the task's name. It happens once to
    each learner, before training; a resumed run, of `ckpt_path`, keeps what its checkpoint holds.
    Everything is checked before anything is moved. The target network becomes a copy of the online
    one; the optimiser starts with empty moments; epsilon, clock and replay are the new run's own. A
    head keeps its raw values: a scale of the same kind moves with it, the unit of another is folded
    into its weights. Heads of another kind stay behind, of another support or number of atoms,
    quantiles or cumulants, too, and so do those of values where the model is a student of policies,
    or the other way round. In YAML, for a multi-task trunk that starts from the best of several
    specialists:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.WeightTransfer
            init_args:
              source: [runs/lane_keeping, runs/pedestrian, runs/traffic_light]
              parts: [trunk]

    and for a column of progressive networks, where `source` is a task of this run:

          - class_path: lit_mtdqn.callbacks.WeightTransfer
            init_args:
              source: runs/lane_keeping
              parts: [source]
              names: {sharing.columns.source: torso}
              tasks: {source: lane_keeping}

    Several instances act in their order, after all of them have been checked: if one is refused
    none moves anything. The table of each leaves out what stays as it is here and comes by another.

    Args:
        source: Checkpoint, or folder of a run; of several folders the one with the best mean score
            in evaluation, by `score_range` or success where their tasks are unlike.
        parts: What to move: `all`, `trunk` (all but the heads), `heads`, the name of a task for all
            that it has to itself, or beginnings of the names that the table shows, such as `torso`
            or `head.values.cartpole`.
        tasks: The source's name for a task or head, by the model's. Tasks of one name need none.
        names: The source's beginning of names, by the model's, such as
            `{sharing.columns.new: torso}`; a head that is moved so brings its own unit with it.
        layers: Move only the first so many layers of torsos; None moves all.
        exact: Whether it is an error if something in `parts` does not fit as a whole, or is not in
            the source at all, as heads of tasks that it has not learned. Otherwise the rows and
            columns that both have are moved, whole channels of a dense layer behind convolutions;
            one that sees images of another size, kernels of another size, heads of another kind and
            what the source lacks stay as they are.
        keep: Share of what is moved in the new weights, the rest is what they were before, in
            (0, 1]. Below 1 gives up knowledge for the ability to learn (shrink and perturb).
        checkpoint: Which network of a run's folder: the `last` or the `best`.

    Raises:
        ValueError: If a value is out of range; at the start, before anything is moved, if the
            source is missing or of another package, a part, task or name is unknown on either side,
            nothing fits, something in `parts` is missing or does not fit as a whole and `exact` is
            set, or heads could not keep their raw values under the model's scale.
        TypeError: If the model is no learner of this package.

    References:
        Taylor and Stone 2009, "Transfer Learning for Reinforcement Learning Domains"; Ash and Adams
        2020, "On Warm-Starting Neural Network Training", https://arxiv.org/abs/1910.08475.
    """

    def __init__(
        self,
        # A list in YAML would be taken for a string if that came first.
        source: list[str] | str | Path,
        parts: Sequence[str] = ("all",),
        tasks: Mapping[str, str] | None = None,
        names: Mapping[str, str] | None = None,
        layers: int | None = None,
        exact: bool = False,
        keep: float = 1.0,
        checkpoint: Which = "last",
    ) -> None:
        require(0.0 < keep <= 1.0, "WeightTransfer.keep", "lie in (0, 1]", keep)
        is_list = len(parts) >= 1 and not isinstance(parts, str)
        require(is_list, "WeightTransfer.parts", "be a list of at least one part", parts)
        sources = [str(source)] if isinstance(source, str | Path) else list(source)
        require(len(sources) >= 1, SOURCE, "name a checkpoint or a run", sources)
        known = get_args(Which)
        is_known = checkpoint in known
        require(is_known, "WeightTransfer.checkpoint", f"be one of {known}", checkpoint)
        self.sources, self.parts, self.layers = sources, list(parts), layers
        self.tasks, self.names = dict(tasks or {}), dict(names or {})
        self.exact, self.keep, self.checkpoint = exact, keep, checkpoint

    @cached_property
    def _receivers(self) -> WeakSet[lightning.LightningModule]:
        """Which learners have received."""
        return WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the receivers, who do not go along to other processes."""
        return {name: value for name, value in vars(self).items() if name != "_receivers"}

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that there is a network to be moved to."""
        if stage == "fit" and not isinstance(pl_module, HasTargetNetwork):
            raise TypeError(
                f"`model` must have a `network` for WeightTransfer. Got {type(pl_module).__name__}."
            )

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Move the weights, unless the run is resumed or goes on."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        transfers = [one for one in callbacks if isinstance(one, WeightTransfer)]
        waiting = [one for one in transfers if pl_module not in one._receivers]
        # Not in `setup`, where a Trainer does not know yet whether it resumes.
        if trainer.ckpt_path is None:
            self._move(waiting, pl_module)
        for one in waiting:
            one._receivers.add(pl_module)

    @staticmethod
    def _move(waiting: Sequence[WeightTransfer], learner: Any) -> None:
        """Carry out what transfers have planned, once all are known to fit."""
        scale = None if learner.scale is None else deepcopy(learner.scale).cpu()
        plans = [one._plan(learner, scale) for one in waiting]
        coming = {move.name for plan in plans for move in plan.moves if move.comes}
        for plan in plans:
            _carry_out(plan, learner, coming)

    def _plan(self, learner: Any, scale: Scale | None) -> _Plan:
        """Return what to move, and check that it can be; the learner stays as it is.

        Args:
            learner: The learner.
            scale: A copy of its scale, which receives what the learner's is going to.
        """
        path = find_checkpoint(self.sources, self.checkpoint, SOURCE)
        saved = read_checkpoint(path, SOURCE)
        found = online_weights(saved["state_dict"])
        wanted = names_of_parts(learner.network, self.parts, self.layers, "WeightTransfer")
        why = _why_unlike(learner.network.head, learner.hparams, saved["hyper_parameters"])
        unlike = {name: why for name in wanted if why and name.startswith("head.")}
        first = "" if self.layers is None else f"the first {self.layers} `layers` of "
        moves = plan_moves(
            learner.network,
            found,
            wanted,
            self.tasks,
            self.names,
            exact=self.exact,
            unlike=unlike,
            left_out=f"not in {first}`parts`",
            name=f"{SOURCE}: {path}",
        )
        change_unit = self._change_of_unit(learner, scale, saved, moves)
        return _Plan(path, found, moves, self.keep, change_unit)

    def _change_of_unit(
        self, learner: Any, own: Scale | None, saved: Mapping[str, Any], moves: Sequence[Move]
    ) -> Callable[[], None] | None:
        """Return what will let moved heads say in raw rewards what they said in the source.

        Args:
            learner: The learner.
            own: A copy of its scale, which receives what the learner's is going to.
            saved: The source.
            moves: What comes.

        Raises:
            ValueError: If nothing would.
        """
        givers = moved_heads(learner.network, moves)
        infos = as_task_infos(saved["hyper_parameters"]["tasks"])
        theirs = _scale_of(saved, infos, own)
        if not givers or (own is None and theirs is None):
            return None
        for head, several in givers.items():
            must = f"give all of the model's head {head} from one head of the source"
            require(len(several) == 1, "WeightTransfer.names", must, sorted(several))
        heads = learner.network.head_names
        sources = {
            place: self._source_task(info.name, next(iter(givers[head])), infos)
            for place, (info, head) in enumerate(zip(learner.tasks, heads, strict=True))
            if head in givers
        }
        places = torch.tensor(list(sources.values()))
        given = torch.zeros(len(places), 2) + torch.tensor([0.0, 1.0], dtype=torch.float64)
        raw = given if theirs is None else theirs.restored(given, places)
        kind = "no scale" if theirs is None else type(theirs).__name__
        if own is not None and type(own) is type(theirs):
            assert theirs is not None
            statistics = theirs.get_extra_state()
            moving = {
                learner.tasks[to].name: statistics[infos[at].name] for to, at in sources.items()
            }
            own.set_extra_state(moving)
            same = torch.allclose(own.restored(given, torch.tensor(list(sources))), raw)
            must = f"have the unit of the source's {kind}, whose heads it would else misread"
            require(same, "model.scale", must, type(own).__name__)
            return partial(learner.scale.set_extra_state, moving)
        must = f"be that of the source, {kind}, or one under which heads keep their values"
        require(own is None or own.keeps_values, "model.scale", must, type(own).__name__)
        head = learner.network.head
        must = f"be {kind} as the source's, whose unit {type(head).__name__} keeps"
        first = [
            next(p for p, at in enumerate(sources) if heads[at] == heads[to]) for to in sources
        ]
        rows = list(sources)
        # An earlier transfer may have given the model's scale a unit.
        said = raw if own is None else own.in_unit(raw, torch.tensor(rows))
        can_fold = head.can_rescale and torch.equal(said, said[first])
        require(can_fold, "model.scale", must, own and type(own).__name__)
        factor, shift = torch.ones(len(learner.tasks)), torch.zeros(len(learner.tasks))
        factor[rows] = (said[:, 1] - said[:, 0]).float()
        shift[rows] = said[:, 0].float()
        return partial(head.rescale_, factor.to(learner.device), shift.to(learner.device))

    def _source_task(self, task: str, head: str, infos: Sequence[TaskInfo]) -> int:
        """Return the source's number of the task in whose unit one of its heads speaks.

        Args:
            task: The model's task that has received the head.
            head: The source's name of it.
            infos: The source's tasks.
        """
        # Where all tasks have one head it has the name of none.
        having = [at for at, info in enumerate(infos) if info.head == head] or range(len(infos))
        # The unit of a held-out task is that of the one whose head it has.
        learning = [at for at in having if infos[at].learns] or having
        asked = self.tasks.get(task, task)
        return next((at for at in learning if infos[at].name == asked), learning[0])


class _Plan(NamedTuple):
    """What a transfer does to a learner.

    Attributes:
        path: The checkpoint.
        found: What it holds.
        moves: What becomes of that, and of the learner's weights.
        keep: Share of what comes.
        change_unit: Keeps the raw values of the heads that come.
    """

    path: Path
    found: Mapping[str, Tensor]
    moves: Sequence[Move]
    keep: float
    change_unit: Callable[[], None] | None


def _carry_out(plan: _Plan, learner: Any, coming: Container[str]) -> None:
    """Move what is planned, and print it.

    Args:
        plan: What to do.
        learner: The learner.
        coming: Names of all that comes, by other transfers, too: none of it is fresh.
    """
    network: QNetwork = learner.network
    network.load_state_dict(received(network, plan.found, plan.moves, plan.keep))
    if plan.change_unit is not None:
        plan.change_unit()
    update_target_(learner.target_network, network)
    told = [move for move in plan.moves if move.outcome != "fresh" or move.name not in coming]
    rest = 1.0 - plan.keep
    mixed = f", {plan.keep:g} of them and {rest:g} of what was here before" if rest else ""
    rank_zero_info(f"Weights of {plan.path}{mixed}:\n{describe(told)}")


def _why_unlike(head: Head, own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return why a source's heads mean something else, nothing if they do not.

    Args:
        head: The model's.
        own: Hyperparameters of the model.
        other: Hyperparameters of the source.
    """
    pairs = {"": (head_kind(own), head_kind(other)), "outputs are ": (_say(own), _say(other))}
    arguments = (head_entry(given).get("init_args") or {} for given in (own, other))
    mine, theirs = map(head.meaning, arguments)
    pairs |= {f"{name} ": (mine[name], theirs[name]) for name in mine}
    told = (f"{name}{a}, in the source {b}" for name, (a, b) in pairs.items() if a != b)
    return next(told, "")


def _say(hyperparameters: Mapping[str, Any]) -> str:
    return "values" if says_values(hyperparameters) else "logits of a policy"


def _scale_of(
    saved: Mapping[str, Any], infos: Sequence[TaskInfo], own: Scale | None
) -> Scale | None:
    """Return the scale of a checkpoint, with its statistics.

    Args:
        saved: The checkpoint.
        infos: Its tasks.
        own: The model's scale, of a class that a checkpoint may name as well.
    """
    entry = saved["hyper_parameters"].get("scale")
    if entry is None:
        return None
    name = entry["class_path"]
    kind: object = getattr(lit_mtdqn.scaling, name.rpartition(".")[2], None)
    if own is not None and name == f"{type(own).__module__}.{type(own).__qualname__}":
        kind = type(own)
    must = "have a scale of this package, that of the model, or none"
    is_known = isinstance(kind, type) and issubclass(kind, Scale)
    require(is_known, "WeightTransfer.source", must, name)
    assert isinstance(kind, type)
    try:
        scale: Scale = kind(list(infos), **(entry.get("init_args") or {}))
        scale.set_extra_state(saved["state_dict"][SCALE_STATE])
    except (RuntimeError, TypeError) as error:
        must = "have the statistics and arguments of its scale"
        raise ValueError(f"`WeightTransfer.source` must {must}. Got {name}: {error}.") from error
    return scale
