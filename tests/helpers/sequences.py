"""Sequences of runs, small enough for a test."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.runs import SMALL

from lit_mtdqn.cli import main
from lit_mtdqn.cli.children import Children
from lit_mtdqn.cli.main import rehearse

COUNT = {"env": "helpers.counting_env:CountingVectorEnv", "score_range": [-20, 10]}
FAR = {"env": "helpers.counting_env:CountingEnv", "score_range": [-20, 10]}
CONFIG = {
    "model": {
        "class_path": "lit_mtdqn.DQN",
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
        # Seeds are those of the command.
        **{name: value for name, value in SMALL.items() if name != "seed"},
        "tasks": {"count": COUNT, "far": FAR},
        "eval_episodes": 2,
        "test_episodes": 2,
    },
    "trainer": {
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "log_every_n_steps": 1,
        "callbacks": [
            {"class_path": "lit_mtdqn.callbacks.RunReport", "init_args": {"gifs": False}}
        ],
    },
}


def write_sequence(folder: Path, stages: dict[str, Any], **given: Any) -> Path:
    """Write a sequence of tiny stages, and the configuration that they share."""
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    path = folder / "sequence.yaml"
    text = {"configs": [str(config)], "stages": stages, **given}
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


def run_stages_here(
    monkeypatch: pytest.MonkeyPatch, codes: dict[int, int] | None = None
) -> list[list[str]]:
    """Let stages run in this process, and return their commands as they come.

    They are not built beforehand, which takes as long as they do.

    Args:
        monkeypatch: Of the test.
        codes: Exit codes of stages that are not run at all, by their place among those started.
    """
    commands: list[list[str]] = []

    def run(_: Children, arguments: list[str]) -> int:
        commands.append(arguments)
        code = (codes or {}).get(len(commands) - 1)
        if code is None:
            main(arguments)
            return 0
        return code

    def parse(argv: list[str], *, builds: bool) -> dict[str, Any]:
        return rehearse(argv, builds=False)

    monkeypatch.setattr(Children, "run", run)
    # The package's own `main` is a function.
    monkeypatch.setattr(import_module("lit_mtdqn.cli.main"), "rehearse", parse)
    return commands
