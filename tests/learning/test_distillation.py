"""Students of teachers that know the optimal values of finite processes."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers.chain import ChainEnv
from helpers.runs import quiet_trainer
from helpers.tabular import optimal_q
from torch import Tensor

from lit_mtdqn import Adam, PolicyDistillation, RolloutDataModule, TaskSpec
from lit_mtdqn.networks import MLPTorso, QNetwork
from lit_mtdqn.objectives import Match

CHAINS: dict[str, dict[str, Any]] = {
    "long": {"states": 6, "actions": 2},
    "short": {"states": 3, "actions": 3},
}
GAMMA = 0.8


class Optimal:
    """Knows the exact values of all chains; states are one-hot, padded to the longest chain."""

    def __init__(self) -> None:
        tables = [optimal_q(ChainEnv(**chain).mdp(GAMMA)) for chain in CHAINS.values()]
        self.values = torch.full((2, 6, 3), -9.0)
        for place, table in enumerate(tables):
            states, actions = table.shape
            self.values[place, :states, :actions] = torch.from_numpy(table).float()

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        return torch.einsum("gns,gsa->gna", observation, self.values[task])


def _distilled(kind: Any, updates: int = 600) -> PolicyDistillation:
    torch.manual_seed(0)
    tasks = {
        name: TaskSpec(env="helpers.chain:ChainEnv", kwargs=chain, gamma=GAMMA)
        for name, chain in CHAINS.items()
    }
    data = RolloutDataModule(
        tasks,
        num_envs=8,
        phase_vector_steps=16,
        replay_ratio=1 / 32,
        batch_size=64,
        warmup_env_steps=500,
        total_env_steps=None,
        total_updates=updates,
        seed=0,
    )
    model = PolicyDistillation(
        data.task_infos,
        network=partial(QNetwork, torso=partial(MLPTorso, hidden=(16,))),
        match=partial(Match, kind=kind, temperature=0.5),
        optimizer=partial(Adam, lr=1e-2),
    )
    model.use_teachers(dict.fromkeys(tasks, Optimal()))
    quiet_trainer(limit_val_batches=0).fit(model, data)
    return model


@pytest.mark.parametrize("kind", ["policy_kl", "value_kl", "nll", "mse", "softened_mse"])
def test_students_act_optimally_and_those_of_squared_errors_know_the_values(kind: Any) -> None:
    model = _distilled(kind)
    for place, chain in enumerate(CHAINS.values()):
        process = ChainEnv(**chain)
        optimal = optimal_q(process.mdp(GAMMA))
        observation = torch.eye(6)[None, : process.states]
        values = model.action_values(observation, torch.tensor([place]))[0, :, : process.actions]
        learned = values.double().numpy()
        chosen = learned.argmax(-1)
        best = optimal.max(-1)
        np.testing.assert_allclose(optimal[np.arange(process.states), chosen], best, atol=1e-9)
        if kind == "mse":
            np.testing.assert_allclose(learned, optimal, rtol=0.0, atol=0.05)
        if kind == "value_kl":
            # Known up to a number per state.
            gaps = learned - learned.mean(-1, keepdims=True)
            exact = optimal - optimal.mean(-1, keepdims=True)
            np.testing.assert_allclose(gaps, exact, rtol=0.0, atol=0.1)
