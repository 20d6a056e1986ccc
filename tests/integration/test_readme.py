"""What the README and the guides show runs as it stands there."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lit_mtdqn.cli.main import COMMANDS as OTHERS
from lit_mtdqn.cli.main import main

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
PYTHON = [code for language, code in BLOCKS if language == "python"]
GUIDES = sorted((ROOT / "docs").glob("*.md"))


def commands(blocks: list[tuple[str, str]]) -> list[str]:
    """Return the commands of shell blocks, without what launches them."""
    found = []
    for language, code in blocks:
        for line in code.replace("\\\n", " ").splitlines():
            launched = re.fullmatch(r"(srun |torchrun .*-m )?(lit-mtdqn|lit_mtdqn)( .*)", line)
            if language == "bash" and launched:
                found.append(f"lit-mtdqn{launched[3]}")
    return found


COMMANDS = commands(
    [*BLOCKS, *(block for path in GUIDES for block in BLOCK.findall(path.read_text()))]
)
SMALL = {
    "total_env_steps": 2000,
    "warmup_env_steps": 100,
    "eval_episodes": 2,
    "test_episodes": 2,
    "eval_max_steps": 50,
}


def test_the_readme_shows_code_and_commands() -> None:
    assert PYTHON
    assert COMMANDS


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_a_python_block_runs(code: str, tmp_path: Path) -> None:
    """Budgets are cut; everything else is as printed."""
    small = re.sub(r"total_env_steps=[\d_]+", ", ".join(f"{k}={v}" for k, v in SMALL.items()), code)
    script = tmp_path / "block.py"
    script.write_text(small)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The parser accepts every option shown; `--print_config` keeps it from training.

    A run of the reader's own is taken to be one of a shipped configuration.
    """
    command = re.sub(r"(runs/mine/config|(?<= )mine)\.yaml", "configs/dqn/cartpole.yaml", command)
    arguments = shlex.split(command, comments=True)[1:]
    if arguments[0] in OTHERS:
        module = importlib.import_module(f"lit_mtdqn.cli.{arguments[0]}")
        assert module._parser().parse_args(arguments[1:])
        return
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--print_config"])
    assert stop.value.code in (None, 0), capsys.readouterr().err
