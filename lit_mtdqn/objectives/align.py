"""Learning for a domain without rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.alignment import (
    coral,
    domain_loss,
    mmd_squared,
    reverse_gradient,
    similarity_weights,
)
from lit_mtdqn.functional.distillation import match_loss
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.base import Objective, layer_sizes
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import (
    Prediction,
    Schedule,
    TaskInfo,
    TaskInfos,
    Transition,
    as_task_infos,
    bounds_of,
    require,
    value_at,
)

AlignKind = Literal["mmd", "coral", "dann", "dam"]


class Align(Objective):
    """Adapts a network to a task whose rewards it never sees, from observations alone.

    The target task acts and does not learn (`TaskSpec.learns`); the sources learn from rewards.
    `mmd`, `coral` and `dann` make the features of the target look like those of the sources, so
    that a source's head serves both: give the target that head (`TaskSpec.head`). Where the best
    actions of alike features differ between the domains, that does harm. `dam` does not draw
    features together: it gives the target a head of its own, which learns, and lets the layers
    below it learn, the values of the sources' heads at the target's observations, those of near
    sources more.

    - `mmd`: `weight` times the squared maximum mean discrepancy (`mmd_squared`).
    - `coral`: `weight` times the distance of covariances (`coral`). Of wide layers it is small:
      weights of 1 to 100 are usual.
    - `dann`: a classifier learns to tell the domains apart, at full weight; the gradient that it
      sends back into the features is multiplied by `-weight`.
    - `dam`: `weight` times the sum over sources s of `gamma_s |Q_target - Q_s|^2`, means over the
      target's observations and the actions that both have, with `gamma_s` of `similarity_weights`
      from the discrepancy of each source's features to the target's. Q_s is the target network's or
      a teacher's. All are in the unit of the first source, which the target has from it: a bounded
      support cuts off what other sources say beyond it.

    Every source row of a minibatch counts alike, all sources together as one domain but under
    `dam`. Terms are of single minibatches, and on several ranks of each rank's own rows. Under
    prioritised replay the sources' rows are those of large errors. `mmd` and `dam` compare every
    two rows: their time grows with the square of the batch. `dam` knows which actions a task has,
    not which of them a state forbids.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        target: The task without rewards; None takes the only one that does not learn.
        sources: Tasks that learn; None takes all of them.
        kind: One of these.
        weight: Over updates, at least 0. Larger draws the domains closer and leaves the network
            less free for its values. `dann` wants to begin at 0, as `Sigmoid` does.
        layer: Which of the network's layers is compared, the first being 0; -1 is the head's input.
        hidden: Width of the hidden layer of `dann`'s classifier.
        sharpness: Of `dam`, at least 0. Larger trusts the nearest source alone; 0 trusts all alike.
        teachers: Of `dam`: checkpoint or folder of a run by source, asked instead of the sources'
            heads. They are loaded when a fit starts and are no part of checkpoints.
        teacher_tasks: A teacher's name for a source, by the learner's, where a teacher of several
            tasks has another.

    Raises:
        ValueError: If a value is out of range or a task is not what it should be, or when a fit
            starts if a teacher does not fit.

    References:
        Long et al. 2015, "Learning Transferable Features with Deep Adaptation Networks",
        https://arxiv.org/abs/1502.02791; Sun and Saenko 2016, "Deep CORAL",
        https://arxiv.org/abs/1607.01719; Ganin et al. 2016, "Domain-Adversarial Training of Neural
        Networks", https://arxiv.org/abs/1505.07818; Duan et al. 2009, "Domain Adaptation from
        Multiple Sources via Auxiliary Classifiers".
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        target: str | None = None,
        sources: Sequence[str] | None = None,
        kind: AlignKind = "mmd",
        weight: float | Schedule = 0.1,
        layer: int = -1,
        hidden: int = 64,
        sharpness: float = 10.0,
        teachers: Mapping[str, str] | None = None,
        teacher_tasks: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        infos = as_task_infos(tasks)
        kinds = get_args(AlignKind)
        require(kind in kinds, "Align.kind", f"be one of {', '.join(kinds)}", kind)
        is_weight = bounds_of(weight)[0] >= 0.0
        require(is_weight, "Align.weight", "be at least 0", weight)
        require(hidden >= 1, "Align.hidden", "be at least 1", hidden)
        require(sharpness >= 0.0, "Align.sharpness", "be at least 0", sharpness)
        sizes = layer_sizes(network, infos)
        must = f"be one of the network's {len(sizes)} layers"
        require(-len(sizes) <= layer < len(sizes), "Align.layer", must, layer)
        target = _target_of(infos, target)
        self.observes = [target]
        self.target, self.sources = _numbers(infos, target, sources)
        self.kind, self.weight, self.layer, self.sharpness = kind, weight, layer, sharpness
        if kind == "dam":
            learned = {network.head_names[source] for source in self.sources}
            must = "have a head of its own for dam, which learns the sources' values"
            head = network.head_names[self.target]
            require(head not in learned, f"tasks.{target}.head", must, head)
        known = {infos[source].name for source in self.sources}
        must = f"name sources among {sorted(known)}, for dam alone"
        given = set(teachers or {})
        require(given <= (known if kind == "dam" else set()), "Align.teachers", must, sorted(given))
        self._given = dict(teachers or {}), dict(teacher_tasks or {})
        place = layer % len(sizes)
        is_last = place == len(sizes) - 1
        self._name = f"{kind if is_last or kind == 'dam' else f'{kind}_{place}'}/{target}"
        self.classifier = _classifier(sizes[layer], hidden) if kind == "dann" else None
        self._learner: list[Any] = []
        self._teachers: Any = None

    def bind(self, learner: Any) -> None:
        """Load the teachers, if there are any, and give the target a unit for `dam`."""
        self._learner = [learner]
        if self.kind == "dam" and learner.scale is not None:
            learner.scale.lend(self.target, self.sources[0])
        teachers, names = self._given
        self._teachers = learner.load_teachers(teachers, names) if teachers else None
        if self._teachers is not None:
            self._teachers.require_values("`Align.kind` dam")

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return the weighted term, []; 0 where a task sampler has left out all sources."""
        (name,) = self.observes
        if name not in batch.observed:
            return {}
        observation = batch.observed[name].unsqueeze(0)
        task = batch.task.new_tensor([self.target])
        prediction = td.predict(observation, task)
        target = self._features(prediction)[0]
        sources = self._present(batch, td)
        # Ranks draw their tasks apart: one without sources still needs a gradient of every part.
        is_idle = not sources
        if is_idle:
            sources = {self.sources[0]: target}
        weight = value_at(self.weight, self._learner[0].source.clock.updates)
        if self.kind == "dam":
            term = weight * self._value_distance(
                prediction, observation, target.detach(), sources, target_network
            )
        else:
            term = self._feature_distance(torch.cat(list(sources.values())), target, weight)
        return {self._name: 0.0 * term if is_idle else term}

    def _feature_distance(self, source: Tensor, target: Tensor, weight: float) -> Tensor:
        """Return the weighted distance of features [N, F] and [B, F], []."""
        if self.classifier is not None:
            logits = (
                self.classifier(reverse_gradient(rows, weight)).squeeze(-1)
                for rows in (source, target)
            )
            return domain_loss(*logits)
        distance = coral if self.kind == "coral" else mmd_squared
        return weight * distance(source, target)

    def _value_distance(
        self,
        prediction: Prediction,
        observation: Tensor,
        features: Tensor,
        sources: Mapping[int, Tensor],
        network: QNetwork,
    ) -> Tensor:
        """Return how far the target's values are from those of weighted sources, [].

        Args:
            prediction: Of the target's own head.
            observation: Of the target, [1, B, *O].
            features: Of the target, without gradient, [B, F].
            sources: Features of each source in the minibatch, by its number.
            network: The frozen network.
        """
        task = torch.tensor(list(sources), device=observation.device)
        mmd = torch.stack([mmd_squared(rows.detach(), features) for rows in sources.values()])
        seen = observation.expand(len(task), *observation.shape[1:])
        with torch.no_grad():
            theirs = self._values(seen, task, network)
        mask = network.action_mask[task] & network.action_mask[self.target]
        ours = network.q_values(prediction).expand_as(theirs)
        distance = match_loss("mse", ours, theirs, 1.0, mask.unsqueeze(1)).mean(1)
        return (similarity_weights(mmd, self.sharpness) * distance).sum()

    def _values(self, observation: Tensor, task: Tensor, network: QNetwork) -> Tensor:
        """Return values [S, B, A] of sources, or of their teachers, in the target's unit."""
        (learner,) = self._learner
        # Sources have units of their own: they meet in that of rewards.
        values = learner.raw_values(network.q_values(network(observation, task)), task)
        if self._teachers is not None:
            taught = self._teachers.action_values(observation, task)
            knows = self._teachers.knows(task).to(task.device)
            values = torch.where(knows.view(-1, 1, 1), taught, values)
        found: Tensor = learner.values_in_unit(values, torch.full_like(task, self.target))
        return found

    def _features(self, prediction: Prediction) -> Tensor:
        return prediction.layers[self.layer]

    def _present(self, batch: Transition, td: TDLoss) -> dict[int, Tensor]:
        """Return the features [N, F] of each source in a minibatch, by its number."""
        features, task = self._features(td.prediction), batch.task.tolist()
        return {
            source: features[
                [group for group, number in enumerate(task) if number == source]
            ].flatten(0, 1)
            for source in self.sources
            if source in task
        }


def _classifier(in_features: int, hidden: int) -> nn.Sequential:
    """Return what tells two domains apart by features [..., F], a logit [..., 1]."""
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def _target_of(infos: Sequence[TaskInfo], target: str | None) -> str:
    """Return the name of the target, which may be the only task that could be meant."""
    unlearned = [info.name for info in infos if not info.learns]
    if target is None:
        must = f"name one of the tasks that do not learn, {unlearned}"
        require(len(unlearned) == 1, "Align.target", must, target)
        return unlearned[0]
    must = f"be a task with `learns: false`, one of {unlearned}"
    require(target in unlearned, "Align.target", must, target)
    return target


def _numbers(
    infos: Sequence[TaskInfo], target: str, sources: Sequence[str] | None
) -> tuple[int, list[int]]:
    """Return the numbers of the target and of the sources."""
    names = [info.name for info in infos]
    learning = [info.name for info in infos if info.learns]
    chosen = learning if sources is None else list(sources)
    must = f"name tasks that learn, of {learning}"
    require(bool(chosen) and set(chosen) <= set(learning), "Align.sources", must, sources)
    return names.index(target), [place for place, name in enumerate(names) if name in chosen]
