"""A work done by the hand-written loop."""

from __future__ import annotations

from pathlib import Path

from hand_written import HandWrittenLoop, Settings
from measuring import Array, Goal, Stopwatch
from works import Work


class Program:
    """The whole training.

    Args:
        work: What is to be done.
        seed: Of everything.
        folder: For what building a configuration leaves.
    """

    def __init__(self, work: Work, seed: int, folder: Path) -> None:
        self._total = work.total_env_steps
        if work.env_is_minatar:
            from lit_mtdqn.envs.suites import minatar

            minatar.register_envs()
        settings = _own(work) if work.config is None else _configured(work.config, folder)
        self._loop = HandWrittenLoop(settings, seed)

    def train(self, goal: Goal, stopwatch: Stopwatch) -> None:
        """Train to the goal or the end."""
        while self.counts()[0] < self._total:
            self._loop.phase()
            if goal.look(self.counts()[0], self.act):
                return

    def counts(self) -> tuple[int, int]:
        """Return env steps and updates."""
        return int(self._loop.env_steps.sum()), self._loop.updates

    def act(self, observation: Array, task: int) -> Array:
        """Return greedy actions."""
        return self._loop.act(observation, task)


def _own(work: Work) -> Settings:
    return Settings(
        envs=work.envs,
        num_envs=work.num_envs,
        phase_vector_steps=work.cycle_vector_steps,
        updates=work.cycle_updates,
        batch_size=work.batch_size,
        gamma=work.gamma,
        n_step=work.n_step,
        hidden=work.hidden,
        lr=work.lr,
        eps=1e-8,
        max_grad_norm=work.max_grad_norm,
        sync_every=work.target_updates,
        epsilon=work.epsilon,
        capacity=work.replay_capacity,
        warmup=work.warmup_env_steps,
        double=work.double,
        huber=work.loss == "huber",
        planes=work.torso == "minatar",
    )


def _configured(config: str, folder: Path) -> Settings:
    # They import all of `lit_mtdqn`, which the other works should not.
    from built_run import build
    from loop_overhead import settings_of

    return settings_of(build([f"--config={config}", f"--run_dir={folder / 'run'}"]))
