"""What is played and remembered on a device is learned from."""

from functools import partial

import pytest
from helpers.runs import quiet_trainer

from lit_mtdqn import DQN, Adam, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import EpsilonDecay, TargetNetworkSync


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_two_kinds_of_physics_are_learned_on_a_device(seed: int) -> None:
    env = "lit_mtdqn/ContextualCartPole-v0"
    tasks = {
        "nominal": TaskSpec(env=env, n_step=3),
        "long_pole": TaskSpec(env=env, n_step=3, kwargs={"context": {"length": 1.5}}),
    }
    data = RolloutDataModule(
        tasks,
        device_resident=True,
        replay_storage="device",
        replay_ratio=0.125,
        batch_size=64,
        total_env_steps=60_000,
        eval_episodes=20,
        seed=seed,
    )
    model = DQN(data.task_infos, optimizer=partial(Adam, lr=1e-3))
    trainer = quiet_trainer(
        TargetNetworkSync(every_n_updates=50),
        EpsilonDecay(start=1.0, end=0.05, decay_env_steps=5_000),
    )
    trainer.fit(model, data)
    returns = [float(trainer.callback_metrics[f"val/episode_return/{name}"]) for name in tasks]
    # At random 21 and 43.
    assert min(returns) >= 150
