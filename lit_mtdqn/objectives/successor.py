"""Learning what policies gather, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from lit_mtdqn.networks import QNetwork, SuccessorHead
from lit_mtdqn.objectives.base import Objective
from lit_mtdqn.objectives.td import TD, Predict, TDLoss
from lit_mtdqn.types import TaskInfos, TaskSpec, Transition, require


class SuccessorTD(TD):
    """Learns successor features: what acting greedily will gather of each cumulant.

    For `SuccessorHead` and tasks with `TaskSpec.cumulants_key`. The target is
    `phi + discount * psi(s', a')`; a' is the action that the head's values prefer, those of all
    policies if it improves on them. Rewards do not matter to it.

    Args:
        bootstrap: Which network prefers a': `double` the online one, `max` the target network,
            which gives the psi in both.
        experience: Whose transitions the psi of a policy is learned from: its `own` task's, or
            those of `all`, as in the paper of 2018, for which this loss is computed once for each
            policy. Policies are asked wherever any task leads, and say little of where they were
            never taught. In the suite gathering (5 seeds) `all` had 1.00 against 0.83 where two
            things are wanted and 0.50 against 0.74 where one is to be avoided.

    Raises:
        ValueError: If a value is unknown or the head is of another kind; when a fit starts, if a
            task that learns has no cumulants, or neither given weights nor a `RewardRegression` to
            learn them, or if policies learn from all and tasks have unlike discounts or returns
            over several steps; at the first update, if transitions hold more or fewer cumulants
            than the head predicts.

    References:
        Barreto et al. 2017, "Successor Features for Transfer in Reinforcement Learning", equation 4
        and algorithm 1, https://arxiv.org/abs/1606.05312; Barreto et al. 2018, "Transfer in Deep
        Reinforcement Learning Using Successor Features and Generalised Policy Improvement",
        section 4, https://arxiv.org/abs/1901.10964.
    """

    def __init__(
        self,
        bootstrap: Literal["double", "max"] = "double",
        experience: Literal["own", "all"] = "own",
    ) -> None:
        require(bootstrap in ("double", "max"), "bootstrap", "be double or max", bootstrap)
        require(experience in ("own", "all"), "experience", "be own or all", experience)
        super().__init__(bootstrap)
        self.experience = experience

    def require_network(self, network: QNetwork) -> None:
        """Refuse any other head, and a prior.

        Raises:
            ValueError: If it has one.
        """
        must, head = "be SuccessorHead for SuccessorTD", network.head
        require(isinstance(head, SuccessorHead), "head", must, type(head).__name__)
        must = "be null for SuccessorTD"
        require(network.prior is None, "network.prior", must, type(network.prior).__name__)

    def bind(self, learner: Any) -> None:
        """Refuse tasks whose values would stay at 0 for want of cumulants or of weights."""
        specs = learner.source.tasks
        names = [info.name for info in learner.tasks if info.learns]
        bare = [name for name in names if name in specs and specs[name].cumulants_key is None]
        require(
            not bare, "tasks.cumulants_key", f"be set for {bare}, which SuccessorTD teaches", None
        )
        self._require_one_return({name: specs[name] for name in names if name in specs})
        if any(isinstance(part, RewardRegression) for part in getattr(learner, "objectives", ())):
            return
        given = learner.network.head.weights.is_given.tolist()
        pairs = zip(learner.tasks, given, strict=True)
        unknown = [info.name for info, is_given in pairs if info.learns and not is_given]
        must = "name all tasks that learn, unless the objective RewardRegression learns the others'"
        require(not unknown, "head.weights", must, f"none of {unknown}")

    def _require_one_return(self, specs: Mapping[str, TaskSpec]) -> None:
        # What a policy gathers is discounted as in its own task, and after one step is its own.
        if self.experience == "own" or len(specs) < 2:
            return
        steps = {name: spec.n_step for name, spec in specs.items()}
        must = "be 1 where SuccessorTD(experience='all') learns from other tasks' transitions"
        require(set(steps.values()) == {1}, "tasks.n_step", must, steps)
        discounts = {name: spec.gamma for name, spec in specs.items()}
        must = "be one number where SuccessorTD(experience='all') learns several tasks"
        require(len(set(discounts.values())) == 1, "tasks.gamma", must, discounts)

    def __call__(
        self,
        batch: Transition,
        predict: Predict,
        target_network: QNetwork,
        target: Tensor | None = None,
    ) -> TDLoss:
        """Return what `TD` does, with the mean loss over the policies that learn from the rows."""
        own = super().__call__(batch, predict, target_network, target)
        if self.experience == "own":
            return own
        assert isinstance(target_network.head, SuccessorHead)
        total = own.loss
        # One by one, as an update may have parameters for each group.
        others = target_network.head.other_policies[batch.task].unbind(-1)
        for policies in others:
            taught = super().__call__(batch._replace(task=policies), predict, target_network)
            total = total + taught.loss
        return own._replace(loss=total / (1 + len(others)))

    def target(self, batch: Transition, predict: Predict, target_network: QNetwork) -> Tensor:
        """Return the target [S, B, D], float32, without gradient."""
        cumulants = batch.extra.get("cumulants")
        must = "be set for tasks that learn by SuccessorTD"
        require(cumulants is not None, "tasks.cumulants_key", must, None)
        assert cumulants is not None
        head = target_network.head
        assert isinstance(head, SuccessorHead)
        found = cumulants.shape[-1]
        must = f"be the number that the tasks have, {found}"
        require(head.num_cumulants == found, "head.cumulants", must, head.num_cumulants)
        return super().target(batch._replace(reward=cumulants), predict, target_network)


class RewardRegression(Objective):
    """Learns what a unit of each cumulant is worth: weights w by which `r = phi . w`.

    Adds `weight * (r - phi . w)^2 / 2` for each task whose weights `SuccessorHead` was not given.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        weight: Factor on the loss, above 0. Larger hastens w against clipping; the steps of Adam do
            not depend on it.

    Raises:
        ValueError: If the head is of another kind or `weight` not above 0.

    References:
        Barreto et al. 2017, "Successor Features for Transfer in Reinforcement Learning", section
        3.1, https://arxiv.org/abs/1606.05312.
    """

    def __init__(self, tasks: TaskInfos, network: QNetwork, weight: float = 1.0) -> None:
        super().__init__()
        head = network.head
        must = "be SuccessorHead for RewardRegression"
        require(isinstance(head, SuccessorHead), "head", must, type(head).__name__)
        require(weight > 0.0, "RewardRegression.weight", "be above 0", weight)
        self.weight = weight
        # In a list, lest its parameters be taken for this module's.
        self._heads = [head]

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return the weighted loss, [S, B]; 0 for tasks whose weights are given."""
        (head,) = self._heads
        assert isinstance(head, SuccessorHead)
        worth = head.weights(batch.task).unsqueeze(1)
        error = batch.reward - (batch.extra["cumulants"] * worth).sum(-1)
        learned = self.weight * ~head.weights.is_given[batch.task].unsqueeze(-1)
        return {"reward_regression": 0.5 * learned * error.square() * batch.weight}
