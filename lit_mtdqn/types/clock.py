"""The one clock of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Clock:
    """Counts what a run has done; schedules, budgets, syncs and plots read nothing else.

    Attributes:
        env_steps: Env steps per task, over all ranks; reset rows and skipped frames do not count.
        updates: Updates, that is optimiser steps of the learner.
        phases: Phases, that is training steps of the Trainer.
        episodes: Finished training episodes per task, over all ranks; tasks without one may be
            absent.
    """

    env_steps: dict[str, int] = field(default_factory=dict)
    updates: int = 0
    phases: int = 0
    episodes: dict[str, int] = field(default_factory=dict)

    @property
    def total_env_steps(self) -> int:
        """Env steps summed over tasks."""
        return sum(self.env_steps.values())

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers that `load_state_dict` takes back."""
        return {
            "env_steps": dict(self.env_steps),
            "updates": self.updates,
            "phases": self.phases,
            "episodes": dict(self.episodes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; tasks that it does not name start at zero."""
        for task in self.env_steps:
            self.env_steps[task] = int(state["env_steps"].get(task, 0))
        self.updates = int(state["updates"])
        self.phases = int(state["phases"])
        episodes = state.get("episodes", {})
        self.episodes = {t: int(n) for t, n in episodes.items() if t in self.env_steps}
