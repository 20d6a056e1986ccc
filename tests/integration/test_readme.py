"""What the README and the guides show runs as it stands there."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documents import PAGES, ROOT, blocks, commands, inline_commands, languages

from lit_mtdqn.cli import sequence
from lit_mtdqn.cli.main import COMMANDS as OTHERS
from lit_mtdqn.cli.main import main
from lit_mtdqn.cli.sequence_file import read_sequence

PYTHON = blocks((ROOT / "README.md").read_text(), "python")
COMMANDS = list(
    dict.fromkeys(
        command
        for text in (page.read_text() for page in PAGES)
        for command in (*commands(text), *inline_commands(text))
    )
)
LANGUAGES = {"bash", "python", "yaml", "text"}
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_block_says_which_language_it_is_in(page: Path) -> None:
    assert set(languages(page.read_text())) <= LANGUAGES


@pytest.fixture
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the reader's own modules where they are found."""
    own = blocks((ROOT / "docs" / "new_network.md").read_text(), "python")
    (tmp_path / "networks.py").write_text("\n".join(own[:2]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "networks", raising=False)


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


@pytest.mark.usefixtures("_own_modules")
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
    if arguments[0] == sequence.COMMAND:
        options, others = sequence._parser().parse_known_args(arguments[1:])
        assert read_sequence(options.FILE)
        assert others == []
        return
    with pytest.raises(SystemExit) as stop:
        main([*arguments, *([] if "help" in command else ["--print_config"])])
    assert stop.value.code in (None, 0), capsys.readouterr().err
