"""Heads that predict what policies gather, whatever it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lit_mtdqn.functional.successor import improved_values
from lit_mtdqn.functional.td import follow
from lit_mtdqn.networks.heads.base import LayeredHead
from lit_mtdqn.networks.rows import TaskVectors, owners
from lit_mtdqn.types import Prediction, TaskInfo, TaskInfos, as_task_infos, require


class SuccessorHead(LayeredHead):
    """What each task's policy will gather of each cumulant, discounted: successor features.

    Where rewards are weighted sums of cumulants, `r = phi . w`, and tasks differ in their weights
    alone, the value of any task's policy in any task is `psi . w`. By generalised policy
    improvement each task acts, and bootstraps, by the best that any learning task's policy makes of
    every action. So does a task that does not learn, from the first step on, if its weights are
    given. Learned with the objective `SuccessorTD`, from `TaskSpec.cumulants_key`; the loss is half
    the squared error of psi, summed over cumulants, the error by which a replay ranks transitions
    its length. All tasks share the torso and nothing else below the heads, and take `scale: null`.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        cumulants: Number of cumulants, D, at least 1.
        weights: Weights w by task, D numbers each, which no update and no weights of another run
            change. Those of tasks that are not named begin at 0 and are learned by the objective
            `RewardRegression`; tasks that do not learn have those that are given, or those of the
            task whose head they have.
        improve: Whether tasks act by the best of all policies; else each by its own.
        dueling: Whether psi is that of a state plus centred ones of actions.
        hidden: Width of a layer before the last one, shared by all heads, one per stream if
            dueling; 0 has none.
        init_scale: Factor on the usual initial weights of the last layers.

    Raises:
        ValueError: If tasks have unlike actions, or weights are missing or of another size.

    References:
        Barreto et al. 2017, "Successor Features for Transfer in Reinforcement Learning",
        algorithm 1, https://arxiv.org/abs/1606.05312; Barreto et al. 2018, "Transfer in Deep
        Reinforcement Learning Using Successor Features and Generalised Policy Improvement",
        https://arxiv.org/abs/1901.10964.
    """

    can_rescale = False
    spans_tasks = True
    meant_by = ("cumulants",)
    policies: Tensor
    other_policies: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        cumulants: int,
        weights: Mapping[str, Sequence[float]] | None = None,
        improve: bool = True,
        dueling: bool = False,
        hidden: int = 0,
        init_scale: float = 0.01,
    ) -> None:
        require(cumulants >= 1, "cumulants", "be at least 1", cumulants)
        infos, given = as_task_infos(tasks), dict(weights or {})
        counts = {info.name: info.num_actions for info in infos}
        require(len(set(counts.values())) == 1, "tasks", "have the same actions", counts)
        _check_weights(infos, given, cumulants)
        super().__init__(
            tasks,
            in_features,
            cumulants,
            dueling=dueling,
            hidden=hidden,
            init_scale=init_scale,
            noisy_sigma=None,
        )
        self.num_cumulants, self.improve = cumulants, improve
        heads = {info.head: place for place, info in enumerate(infos) if info.learns}
        untaught = [info.name for info in infos if info.head not in heads]
        must = "be true where a task has a head that no task learns"
        require(improve or not untaught, "improve", must, improve)
        policies = sorted(heads.values())
        self.register_buffer("policies", torch.tensor(policies), persistent=False)
        others = [[p for p in policies if infos[p].head != info.head] for info in infos]
        # A task whose head no other task learns would have one more.
        numbers = torch.tensor([row[: len(policies) - 1] for row in others], dtype=torch.long)
        self.register_buffer("other_policies", numbers, persistent=False)
        # A task without weights of its own has those of the one whose head it has.
        pairs = zip(infos, owners(infos), strict=True)
        names = [info.name if info.name in given else owner for info, owner in pairs]
        self.weights = RewardWeights(names, cumulants, given)

    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return values and the psi of the tasks' own policies side by side, [S, B, A, 1 + D]."""
        own = self.by_action(features, task)
        weights = self.weights(task).unsqueeze(1)
        values = improved_values(self._gathered(features, own), weights)
        return torch.cat([values.unsqueeze(-1), own], -1)

    def _gathered(self, features: Tensor, own: Tensor) -> Tensor:
        """Return the psi of all policies that a task acts by, [S, B, I, A, D]."""
        if not self.improve:
            return own.unsqueeze(2)
        groups, policies = features.shape[0], len(self.policies)
        every = features.repeat_interleave(policies, 0)
        gathered = self.by_action(every, self.policies.repeat(groups))
        return gathered.view(groups, policies, *gathered.shape[1:]).transpose(1, 2)

    def q_values(self, prediction: Prediction) -> Tensor:
        """Return the values [S, B, A]."""
        return prediction.output[..., 0]

    def target(
        self, reward: Tensor, discount: Tensor, next_prediction: Prediction, next_action: Tensor
    ) -> Tensor:
        """Return `phi + discount * psi` of the next action, [S, B, D].

        Args:
            reward: Cumulants phi in place of rewards, [S, B, D].
            discount: [S, B].
            next_prediction: Of the target network at the next observation.
            next_action: Integers [S, B], or a policy, probabilities [S, B, A].
        """
        gathered = follow(next_prediction.output[..., 1:].float(), next_action)
        return torch.addcmul(reward, discount.unsqueeze(-1), gathered)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return half the squared error, summed over cumulants, [S, B], and its length, [S, B]."""
        error = target - follow(prediction.output[..., 1:], action).float()
        square = error.square().sum(-1)
        return 0.5 * square, square.detach().sqrt()


class RewardWeights(TaskVectors):
    """What a unit of each cumulant is worth to each task: as given, or learned.

    Given ones are arguments and no state: no checkpoint holds them, and no gradient reaches them.

    Args:
        names: Under whose name each task finds its weights.
        size: Number of cumulants.
        given: Weights by name.

    Attributes:
        is_given: Which tasks have given ones, [T].
    """

    is_given: Tensor
    given: Tensor

    def __init__(
        self, names: Sequence[str], size: int, given: Mapping[str, Sequence[float]]
    ) -> None:
        super().__init__(names, size, std=0.0)
        self._learned = set(names) - set(given)
        numbers = torch.tensor(
            [[float(n) for n in given.get(name, [0.0] * size)] for name in names]
        )
        is_given = torch.tensor([name in given for name in names])
        self.register_buffer("given", numbers, persistent=False)
        self.register_buffer("is_given", is_given, persistent=False)
        self.requires_grad_(bool(self._learned))

    def forward(self, task: Tensor) -> Tensor:
        """Return the weights [S, D] of the tasks [S]."""
        is_given = self.is_given[task].unsqueeze(-1)
        return torch.where(is_given, self.given[task], super().forward(task))

    def saved_rows(self, name: str, stack: Tensor) -> dict[str, Tensor]:
        """Return views of the learned rows of a stack, by saved names."""
        rows = zip(self.row_names, super().saved_rows(name, stack).items(), strict=True)
        return dict(row for own, row in rows if own in self._learned)


def _check_weights(
    infos: Sequence[TaskInfo], given: Mapping[str, Sequence[float]], cumulants: int
) -> None:
    names = [info.name for info in infos]
    must = f"hold {cumulants} numbers for each of some tasks among {names}"
    fits = all(len(numbers) == cumulants for numbers in given.values())
    require(fits and set(given) <= set(names), "weights", must, dict(given))
    known = {info.head for info in infos if info.learns}
    missing = [i.name for i in infos if i.name not in given and i.head not in known]
    must = "name all tasks that neither learn nor have the head of one that does"
    require(not missing, "weights", must, f"none of {missing}")
