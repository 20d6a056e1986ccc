"""Copies of an environment in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

SERVER = "forkserver"


def make_processes(
    make: Callable[[], gymnasium.Env[Any, Any]], num_envs: int
) -> VectorEnv[Any, Any, Any]:
    """Return copies that are stepped side by side and reset themselves on the next step.

    What a step returns lies in memory that the next one overwrites.

    Args:
        make: Makes one copy; it is called here once, so that it fails here, and in every process.
        num_envs: Number of processes.
    """
    context = None
    if SERVER in multiprocessing.get_all_start_methods():
        # A fork of this process would inherit the locks of PyTorch's threads, a fresh process would
        # import PyTorch for seconds. The server imports it once and has no threads.
        context = SERVER
        multiprocessing.set_forkserver_preload([__package__])
    processes: VectorEnv[Any, Any, Any] = AsyncVectorEnv(
        [make] * num_envs,
        copy=False,
        context=context,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    return processes
