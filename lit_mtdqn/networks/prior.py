"""A policy that all tasks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.distillation import match_loss
from lit_mtdqn.functional.policies import log_policy, soft_value, softmax_policy
from lit_mtdqn.networks.sharing import TorsoFactory
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.types import Prediction, TaskInfos, as_task_infos, require


class Prior(nn.Module):
    """A policy distilled from those of all tasks while they learn, to which each is drawn.

    With the prior p, temperature T and the values Q_i of task i:

    - task i acts by the policy pi_i, proportional to `p^alpha exp(Q_i / T)`: greedily, or exactly
      so under `Boltzmann(temperature=T)` and values that no scale has changed;
    - with `TD(bootstrap="distral")` its targets follow the value of that policy,
      `V_i = T log sum over a of p(a)^alpha exp(Q_i(a) / T)`, of a target network whose prior is
      slow, too;
    - p learns to lower KL(pi_i, p), balanced with task i, and nothing else changes p.

    p sees the observation and not the task, by a torso of its own. At an `alpha` of 0 the tasks
    know nothing of p: it is an online student of teachers that still learn, such as the independent
    networks of `Columns`. Gradients that are clipped have one norm with its own. It may act and
    teach by itself. The paper's 1 / beta is T. There p learns from what its policies do now,
    weighted by the discount; here from replayed states and all actions, without such weights.

    Actions must mean the same in all tasks, as they do in the driving tasks, in variants of one
    environment and in MinAtar's full set, but not in CartPole and Acrobot; of that only their
    number is checked.

    Args:
        tasks: The tasks; given by the network.
        torso: Makes the prior's torso; given by the network.
        alpha: How much of the pull on the tasks' policies is to the prior, in [0, 1]; the rest is
            to uniformly random actions. The paper's c_KL / (c_KL + c_Ent).
        temperature: Strength of the pull, above 0, in the unit that the network learns in: that of
            rewards, or of the learner's `scale`. Larger stays closer to the prior. The paper's
            c_KL + c_Ent.

    Attributes:
        predicts_values: False: what it says are logits.

    Raises:
        ValueError: If a value is out of range, or tasks have unlike numbers of actions.

    References:
        Teh et al. 2017, "Distral: Robust Multitask Reinforcement Learning", equations 2 to 5,
        https://arxiv.org/abs/1707.04175; Rusu et al. 2015, "Policy Distillation", section 5, on
        online distillation, https://arxiv.org/abs/1511.06295.
    """

    predicts_values = False

    def __init__(
        self,
        tasks: TaskInfos,
        torso: TorsoFactory,
        alpha: float = 0.5,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        require(0.0 <= alpha <= 1.0, "prior.alpha", "lie in [0, 1]", alpha)
        require(temperature > 0.0, "prior.temperature", "be above 0", temperature)
        infos = as_task_infos(tasks)
        actions = {info.name: info.num_actions for info in infos}
        must = "have the same actions for a prior that they share"
        require(len(set(actions.values())) == 1, "tasks", must, actions)
        self.alpha, self.temperature = alpha, temperature
        self.torso = torso(infos)
        # One row for all tasks; near 0 the prior starts near uniform.
        names, counts = ["prior"] * len(infos), list(actions.values())
        self.logits = TaskLinear(names, self.torso.num_features, counts, init_scale=0.01)

    def forward(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return the prior's logits [S, B, A] for observations [S, B, *O] of tasks [S]."""
        logits: Tensor = self.logits(self.torso(observation)[-1], task)
        return logits

    @torch.no_grad()
    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return its logits [S, N, A], by which it acts as a policy of its own."""
        logits: Tensor = self(observation, task)
        return logits

    def preferences(self, q_values: Tensor, logits: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return `Q + alpha T log p`, by whose softmax at the temperature T tasks act.

        Args:
            q_values: [S, B, A].
            logits: The prior's, [S, B, A].
            mask: True where an action is allowed, broadcastable to them; None allows all. Others
                have preferences that mean nothing.

        Returns:
            Float32 [S, B, A].
        """
        pull = self.alpha * self.temperature
        return q_values.float() + pull * log_policy(logits, mask)

    def bootstrap(
        self, q_values: Tensor, logits: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the policy of each row and what its value has beyond its mean action value.

        Args:
            q_values: [S, B, A].
            logits: The prior's, [S, B, A].
            mask: True where an action is allowed, broadcastable to them; None allows all.

        Returns:
            Probabilities [S, B, A], and `V - sum of pi Q`, [S, B]: what T times the entropy adds
            and the distance to the prior takes.
        """
        preferences = self.preferences(q_values, logits, mask)
        policy = softmax_policy(preferences, self.temperature, mask)
        value = soft_value(preferences, self.temperature, mask)
        return policy, value - (policy * q_values.float()).sum(-1)

    def distance(
        self, q_values: Tensor, prediction: Prediction, mask: Tensor | None = None
    ) -> Tensor:
        """Return KL(pi_i, p) of each row, [S, B]; its gradient is that of p alone."""
        assert prediction.prior is not None
        with torch.no_grad():
            preferences = self.preferences(q_values, prediction.prior, mask)
        return match_loss("policy_kl", prediction.prior, preferences, self.temperature, mask)
