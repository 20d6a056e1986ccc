"""Copies of an environment in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import gymnasium
from gymnasium.core import RenderFrame
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

Env = gymnasium.Env[Any, Any]

SERVER = "forkserver"
PATIENCE = 5.0  # s that the processes have to end in when they are asked to
# s that a process has at least to import, build and reset its copy. Simulators take tens of seconds
# for what comes before their first step, on a busy machine the more.
STARTING = 60.0


class ProcessVectorEnv(AsyncVectorEnv):
    """Copies that are stepped side by side and reset themselves on the next step.

    Rows are those of a `SyncVectorEnv`, copy i of a reset has seed + i there and here. What a step
    returns lies in memory that the next one overwrites. Processes ignore Ctrl-C, which is for the
    one that trains, and end with it, with `close`, and all of them when one fails.

    Args:
        task: Name used in complaints.
        make: Makes one copy; it is called here once, so that it fails here, and in every process.
        num_envs: Number of processes.
        timeout: Seconds that a step may take; building or resetting all has 60 if that is more.
            None waits for ever.
        shared_memory: Whether observations lie in memory that processes share; else they are sent.

    Raises:
        RuntimeError: If a copy raises an error, hangs or ends its process; the message names the
            task.
    """

    def __init__(
        self,
        task: str,
        make: Callable[[], Env],
        num_envs: int,
        timeout: float | None = None,
        *,
        shared_memory: bool = True,
    ) -> None:
        self._task = task
        self._timeout = timeout
        with self._all_or_none(starting_time(timeout)):
            super().__init__(
                [process_maker(make)] * num_envs,
                shared_memory=shared_memory,
                copy=False,
                context=process_start_method(),
                autoreset_mode=AutoresetMode.NEXT_STEP,
            )

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every copy; arguments are those of every Gymnasium `reset`."""
        limit = starting_time(self._timeout)
        with self._all_or_none(limit):
            self.reset_async(**kwargs)
            result: tuple[Any, dict[str, Any]] = self.reset_wait(limit)
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every copy; those that just ended start anew and ignore their action."""
        with self._all_or_none(self._timeout):
            self.step_async(actions)
            result: tuple[Any, Any, Any, Any, dict[str, Any]] = self.step_wait(self._timeout)
        return result

    def render(self) -> tuple[RenderFrame, ...] | None:
        """Return one frame per copy."""
        with self._all_or_none():
            frames: tuple[RenderFrame, ...] | None = super().render()
        return frames

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Ask the processes to end and kill those that do not.

        Args:
            timeout: Seconds that they have to end in; None gives them 5.
            terminate: Whether to kill them at once.
        """
        for pipe in self.parent_pipes:
            if pipe is not None:
                with suppress(OSError):  # nobody is left at its other end
                    pipe.send(("close", None))
        patience = PATIENCE if timeout is None else timeout
        deadline = time.monotonic() + (0.0 if terminate else patience)
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.0))
            process.kill()
            process.join()
        for pipe in self.parent_pipes:
            if pipe is not None:
                pipe.close()

    def _check_spaces(self) -> None:
        """Wait until all copies are built, but not for ever, and compare their spaces."""
        if self._timeout is not None:
            for pipe in self.parent_pipes:
                # Whatever they are asked first, they answer when they have built their copies.
                pipe.send(("_call", ("render_mode", (), {})))
            if not self._poll_pipe_envs(starting_time(self._timeout)):
                raise multiprocessing.TimeoutError
            self._raise_if_errors([pipe.recv()[1] for pipe in self.parent_pipes])
        super()._check_spaces()  # type: ignore[no-untyped-call]

    @contextmanager
    def _all_or_none(self, limit: float | None = None) -> Iterator[None]:
        """End all processes if one fails, and tell whose they were.

        Args:
            limit: Seconds that they have; None is for ever.
        """
        try:
            yield
        except gymnasium.error.ClosedEnvironmentError:
            raise
        except Exception as error:
            if not hasattr(self, "processes"):
                raise  # the copy that is made here failed
            # One that hangs would not close, either.
            is_late = isinstance(error, multiprocessing.TimeoutError)
            self.close(terminate=is_late)
            reason = f"no answer within {limit} s (`step_timeout`)" if is_late else str(error)
            if isinstance(error, EOFError | OSError):
                codes = [process.exitcode for process in self.processes if process.exitcode]
                reason = f"exit codes {codes}"
            raise RuntimeError(
                f"`tasks.{self._task}.env` must play without errors in processes of its own. "
                f"Got {reason}."
            ) from error


class _PlainErrors(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Turns errors into text, because not every error can be sent to another process."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        with _in_plain_text():
            return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        with _in_plain_text():
            return self.env.step(action)

    def render(self) -> Any:
        with _in_plain_text():
            return self.env.render()


@contextmanager
def _in_plain_text() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        raise RuntimeError(f"{type(error).__name__}: {text}") from error


def starting_time(timeout: float | None) -> float | None:
    """Return how many seconds a copy has for its start, of which each step may take so many."""
    return None if timeout is None else max(timeout, STARTING)


def process_maker(make: Callable[[], Env]) -> Callable[[], Env]:
    """Return what makes a copy in a process of its own, whose owner is this one."""
    return partial(_make_copy, make, os.getpid())


def _make_copy(make: Callable[[], Env], owner: int) -> Env:
    if os.getpid() != owner:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _PlainErrors(make())


def process_start_method() -> str | None:
    """Return how processes are started; None for what Python takes."""
    if SERVER not in multiprocessing.get_all_start_methods():
        return None
    # A fork of this process would inherit the locks of PyTorch's threads, a fresh process would
    # import PyTorch for seconds. The server imports it once and has no threads.
    multiprocessing.set_forkserver_preload([__package__])
    return SERVER
