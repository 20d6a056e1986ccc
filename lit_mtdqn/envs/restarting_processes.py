"""Processes of environments that are replaced when they hang or die."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.async_vector_env import _async_worker
from gymnasium.vector.utils import CloudpickleWrapper, concatenate, iterate

from lit_mtdqn.envs.processes import (
    ProcessVectorEnv,
    process_maker,
    process_start_method,
    starting_time,
)
from lit_mtdqn.envs.restarting import FAULT, SEED_STEP, waiting_time

Row = tuple[Any, float, bool, bool, dict[str, Any]]


class RestartingVectorEnv(ProcessVectorEnv):
    """Copies in processes, of which one that hangs or dies is replaced while the others go on.

    Its step is no transition, and its episode is truncated, as `RestartingEnv` says of errors that
    leave the process alive. All must answer their first `reset`.

    Args:
        task: Name used in complaints.
        make: Makes one copy.
        num_envs: Number of processes.
        timeout: Seconds that a step may take; a start has 60 if that is more. None waits for ever.
    """

    def __init__(
        self,
        task: str,
        make: Callable[[], gymnasium.Env[Any, Any]],
        num_envs: int,
        timeout: float | None,
    ) -> None:
        self._copy = process_maker(make)
        # What a process that died wrote last may be half an observation.
        super().__init__(task, make, num_envs, timeout, shared_memory=False)
        self._is_new = [False] * num_envs
        self._in_a_row = [0] * num_envs
        self._built = [1] * num_envs
        self._seed = 0
        self._last: list[tuple[Any, dict[str, Any]]] = []

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every copy; arguments are those of every Gymnasium `reset`."""
        self._seed = kwargs.get("seed") or 0
        observations, infos = super().reset(**kwargs)
        rows = iterate(self.observation_space, observations)
        self._last = [(row, _own(infos, index)) for index, row in enumerate(rows)]
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every copy; those that just ended, or were replaced, start anew."""
        for index, action in enumerate(iterate(self.action_space, actions)):
            self._send(index, action)
        sent = time.monotonic()
        with self._all_or_none():
            rows = [self._receive(index, sent) for index in range(self.num_envs)]
        self._last = [(row[0], row[4]) for row in rows]
        infos: dict[str, Any] = {}
        for index, row in enumerate(rows):
            infos = self._add_info(infos, row[4], index)
        space, seen = self.single_observation_space, [row[0] for row in rows]
        self.observations = concatenate(space, seen, self.observations)
        columns = list(zip(*rows, strict=True))
        ended = (np.array(column, bool) for column in columns[2:4])
        return self.observations, np.array(columns[1], np.float64), *ended, infos

    def _send(self, index: int, action: Any) -> None:
        command: tuple[str, Any] = ("step", action)
        if self._is_new[index]:
            seed = self._seed + index + SEED_STEP * self._built[index]
            command = ("reset", {"seed": seed})
        try:
            self.parent_pipes[index].send(command)
        except OSError:
            return  # nobody is left at its other end, as `_receive` will find

    def _receive(self, index: int, sent: float) -> Row:
        pipe = self.parent_pipes[index]
        limit = starting_time(self._timeout) if self._is_new[index] else self._timeout
        try:
            left = None if limit is None else max(sent + limit - time.monotonic(), 0.0)
            if not pipe.poll(left):
                raise TimeoutError(f"no answer within {limit} s (`step_timeout`)")
            answer, success = pipe.recv()
        except (EOFError, OSError) as error:
            return self._cut(index, error)
        if not success:
            _, _, failure, trace = self.error_queue.get()
            raise RuntimeError(f"{failure}\n{trace}")
        self._in_a_row[index] = 0
        if not self._is_new[index]:
            row: Row = answer
            return row
        self._is_new[index] = False
        return answer[0], 0.0, False, False, answer[1]

    def _cut(self, index: int, error: Exception) -> Row:
        """Replace a process, and return a step that was not made."""
        process = self.processes[index]
        process.kill()
        process.join()
        is_dead = not isinstance(error, TimeoutError)
        fault = f"its process ended with exit code {process.exitcode}" if is_dead else str(error)
        self._in_a_row[index] += 1
        time.sleep(waiting_time(self._in_a_row[index]))
        self._start(index)
        observation, info = self._last[index]
        return observation, 0.0, False, True, {**info, FAULT: (1, fault)}

    def _start(self, index: int) -> None:
        self.parent_pipes[index].close()
        context = multiprocessing.get_context(process_start_method())
        worker: Any = _async_worker
        parent, child = context.Pipe()
        arguments = (CloudpickleWrapper(self._copy), child, parent, None, self.error_queue)
        process = context.Process(  # type: ignore[attr-defined]
            target=partial(worker, index, *arguments, self.autoreset_mode, None),
            daemon=True,
        )
        process.start()
        child.close()
        self.parent_pipes[index], self.processes[index] = parent, process
        self._is_new[index] = True
        self._built[index] += 1


def _own(infos: dict[str, Any], index: int) -> dict[str, Any]:
    """Return what a copy has said in `info`."""
    return {
        key: infos[key][index] for key in infos if f"_{key}" in infos and infos[f"_{key}"][index]
    }
