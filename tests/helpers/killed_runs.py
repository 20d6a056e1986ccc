"""Runs of the command line in processes that are killed: nothing of theirs runs on."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from lit_mtdqn.analysis.checkpoints import whole_checkpoint
from lit_mtdqn.cli import main
from lit_mtdqn.cli.recording import CheckpointFiles, RunCheckpoint

BEGIN, TRAINS = "begin", "trains"
LONGEST_SECONDS, SHORT_SECONDS = 120.0, 0.5
# Two tasks, replays by priority; a checkpoint after every 3 phases, which takes 0.1 s.
CONFIG: dict[str, Any] = {
    "model": {
        "class_path": "lit_mtdqn.MultiTaskDQN",
        "init_args": {
            "network": {
                "class_path": "lit_mtdqn.networks.QNetwork",
                "init_args": {
                    "torso": {
                        "class_path": "lit_mtdqn.networks.MLPTorso",
                        "init_args": {"hidden": [8]},
                    }
                },
            }
        },
    },
    "data": {
        "tasks": {
            "driving": {
                "env": "lit_mtdqn/Pedestrian-v0",
                "kwargs": {"observation_noise": 0.1},
                "n_step": 3,
                "time_limit": 23,
                "score_range": [-1.0, 2.0],
            },
            "cartpole": {"env": "CartPole-v1", "time_limit": 17, "score_range": [0.0, 17.0]},
        },
        "num_envs": 4,
        "replay_ratio": 0.1,
        "phase_vector_steps": 5,
        "batch_size": 10,
        "replay_capacity": 150,
        "warmup_env_steps": 30,
        "prioritisation": {"class_path": "lit_mtdqn.replay.Prioritisation"},
        "eval_episodes": 2,
        "eval_max_steps": 12,
        "test_episodes": 2,
        "evaluate_every_env_steps": 120,
    },
    "trainer": {
        "accelerator": "cpu",
        "log_every_n_steps": 2,
        "enable_progress_bar": False,
    },
}


class Ended(NamedTuple):
    """What is known of a process that has ended.

    Attributes:
        exit_code: Its exit code; the negative number of a signal that ended it.
        finished: Updates of the last checkpoint that was finished, by its file.
    """

    exit_code: int
    finished: dict[str, int]


def write_config(folder: Path, env_steps: int) -> Path:
    """Write the configuration of runs of so many env steps."""
    path = folder / "killed.yaml"
    data = {**CONFIG["data"], "total_env_steps": env_steps}
    path.write_text(yaml.safe_dump({**CONFIG, "data": data}))
    return path


def arguments(config: Path, run_dir: Path) -> list[str]:
    """Return the command line that starts a run, or goes on with what there is of it."""
    found = (run_dir / "checkpoints" / "last.ckpt").exists()
    return [
        *("fit", f"--config={config}", f"--run_dir={run_dir}"),
        "--ckpt_path=last" if found else "--overwrite=true",
    ]


def run_to_its_end(command: list[str]) -> Ended:
    """Run a command line in a process of its own."""
    process, words = _start(command)
    return _ended(process, [word for _, word in _words(words)])


def kill_once(command: list[str], after: int, share: float) -> Ended:
    """Run a command line in a process of its own, and kill it.

    Args:
        command: The arguments.
        after: Words that it says before: that it begins, that it trains, and then one with each
            checkpoint that is finished.
        share: How much of the time between two words is waited for, in [0, 1].
    """
    process, words = _start(command)
    said: list[tuple[float, Any]] = []
    for moment, word in _words(words):
        said.append((moment, word))
        if len(said) == after:
            # A busy machine is slower in everything.
            lately = said[-1][0] - said[-2][0] if after > 2 else SHORT_SECONDS
            time.sleep(share * lately)
            process.kill()
    return _ended(process, [word for _, word in said])


def _start(command: list[str]) -> tuple[Any, Connection]:
    # From a server that has imported everything and done nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    words, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(command, theirs))
    process.start()
    theirs.close()
    return process, words


def _words(words: Connection) -> Iterator[tuple[float, Any]]:
    """Yield what is said, and when, until the process is gone."""
    while True:
        assert words.poll(LONGEST_SECONDS), f"nothing was said for {LONGEST_SECONDS} s"
        try:
            word = words.recv()
        # A process may be killed in the middle of a word.
        except (EOFError, OSError):
            return
        yield time.monotonic(), word


def _ended(process: Any, said: list[Any]) -> Ended:
    process.join(LONGEST_SECONDS)
    finished: dict[Any, Any] = dict(word for word in said if isinstance(word, tuple))
    return Ended(process.exitcode, finished)


def updates_of(checkpoint: Path) -> int:
    """Return the updates of a checkpoint, which must be whole."""
    saved = torch.load(whole_checkpoint(checkpoint, "checkpoint"), weights_only=True)
    return _updates(saved)


def _updates(checkpoint: Any) -> int:
    updates: int = checkpoint["RolloutDataModule"]["clock"]["updates"]
    return updates


def _tell(command: list[str], listener: Connection) -> None:
    """Run a command line; tell when it trains, and of each checkpoint once it is finished."""
    save, start = CheckpointFiles.save_checkpoint, RunCheckpoint.on_train_start

    def told_save(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        save(self, checkpoint, path, storage_options)
        listener.send((Path(path).name, _updates(checkpoint)))

    def told_start(self: Any, *given: Any) -> None:
        start(self, *given)
        if self.filename == "last":
            listener.send(TRAINS)

    for owner, name, told in (
        (CheckpointFiles, "save_checkpoint", told_save),
        (RunCheckpoint, "on_train_start", told_start),
    ):
        setattr(owner, name, told)
    listener.send(BEGIN)
    main(command)
