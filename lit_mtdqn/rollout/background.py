"""Env steps that a process of its own plays ahead."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import multiprocessing, nn

from lit_mtdqn.envs import process_start_method
from lit_mtdqn.functional.parameters import freeze_
from lit_mtdqn.process import configure_process
from lit_mtdqn.types import Array, StepRow

PATIENCE = 5.0  # s that the process has to end in when it is asked to
Epsilon = Callable[[], Array]
MakeSteps = Callable[[Any, Epsilon], Iterator[StepRow]]


class BackgroundSteps(Iterator[StepRow]):
    """Vector steps played by a process of its own, a block ahead of who takes them.

    When the first step of a block is taken, the next block begins, by a copy of the network as it
    is then: it acts with what was learned from the blocks before the one being taken. Nothing of it
    depends on how fast either process is, so that a run can be repeated. The process starts with
    the first step.

    Args:
        make: Makes the steps in that process, from the network that acts and what says epsilon.
            Like the network it is pickled.
        network: What acts. It is copied to the CPU whenever a block begins.
        epsilon: Returns the probabilities of random actions in a block, [S], when it begins.
        block: Vector steps of a block.
        seed: Of that process's own generator, from which noise of networks is drawn.

    Raises:
        RuntimeError: If that process fails, from `next`; it tells why.
    """

    def __init__(
        self, make: MakeSteps, network: nn.Module, epsilon: Epsilon, block: int, seed: int
    ) -> None:
        self._network, self._epsilon = network, epsilon
        self._copy = deepcopy(network).cpu().share_memory()
        freeze_(self._copy)
        self._rows: deque[StepRow] = deque()
        self._arguments = (make, self._copy, block, seed)
        self._process: Any = None

    def __next__(self) -> StepRow:
        """Return the next vector step; wait for it where it has not been played yet."""
        if not self._rows:
            if self._process is None:
                self._start()
                self._begin_block()
            self._rows.extend(self._received())
            self._begin_block()
        return self._rows.popleft()

    def close(self) -> None:
        """End the process; nothing more can be taken."""
        if self._process is not None:
            self._pipe.close()
            self._process.join(PATIENCE)
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        context: Any = multiprocessing.get_context(process_start_method())
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, *self._arguments)
        self._process = context.Process(target=_play, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def _begin_block(self) -> None:
        with torch.no_grad():
            for copied, own in zip(_tensors(self._copy), _tensors(self._network), strict=True):
                copied.copy_(own)
        self._pipe.send(self._epsilon())

    def _received(self) -> list[StepRow]:
        try:
            answer: list[StepRow] | str = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(PATIENCE)
            answer = f"exit code {self._process.exitcode}"
        if isinstance(answer, str):
            raise RuntimeError(
                f"`tasks` must play without errors in a process of their own. Got {answer}."
            )
        return answer


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    return chain(module.parameters(), module.buffers())


def _play(pipe: Connection, make: MakeSteps, network: nn.Module, block: int, seed: int) -> None:
    """Play a block whenever one is asked for, until the other end of the pipe is closed."""
    # Ctrl-C is for the process that trains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_process()
    torch.manual_seed(seed)
    epsilon: list[Any] = []
    steps: Iterator[StepRow] | None = None
    # Nobody may be left who would ask or take.
    with suppress(EOFError, OSError):
        while True:
            epsilon[:] = [pipe.recv()]
            answer: list[StepRow] | str
            try:
                steps = steps or make(network, lambda: epsilon[-1])
                answer = [next(steps) for _ in range(block)]
            except Exception as error:
                # As text, because not every error can be sent to another process.
                answer = f"{type(error).__name__}: {' '.join(str(error).split())}"
            pipe.send(answer)
