"""An environment that has its own process told to end, in the middle of what is played."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import gymnasium
from lightning.pytorch.callbacks import Callback


class Telling(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Sends a signal in the first step after it has been armed, and counts the steps after that."""

    armed: ClassVar[int | None] = None
    steps_since: ClassVar[int] = 0

    def step(self, action: Any) -> Any:
        """Take an env step."""
        Telling.steps_since += 1
        if Telling.armed is not None:
            number, Telling.armed, Telling.steps_since = Telling.armed, None, 0
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        return self.env.step(action)


class Arming(Callback):
    """Arms the environments in one hook.

    Args:
        hook: Its name.
        number: The signal.
    """

    def __init__(self, hook: str, number: int) -> None:
        self._number = number
        setattr(self, hook, self._arm)

    def _arm(self, *_: Any) -> None:
        Telling.armed = self._number
