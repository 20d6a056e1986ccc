from importlib.metadata import version

import pytest

from lit_mtdqn.cli.main import COMMANDS, RunCLI, main
from lit_mtdqn.cli.overview import HELP, LINES, VERSION
from lit_mtdqn.cli.sequence import COMMAND as SEQUENCE


@pytest.mark.parametrize("option", HELP)
def test_help_names_every_command_in_a_line(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main([option])
    usage, *lines = capsys.readouterr().out.splitlines()
    known = {*RunCLI.subcommands(), SEQUENCE, *COMMANDS}
    assert set(LINES) == known
    assert usage == f"usage: lit-mtdqn {{{','.join(LINES)}}} ..."
    told = [line.split()[0] for line in lines if line.startswith("  ")]
    assert told == list(LINES)
    assert max(map(len, lines)) <= 80


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    main([VERSION])
    assert capsys.readouterr().out == f"lit-mtdqn {version('lit_mtdqn')}\n"


def test_a_command_that_there_is_none_of_is_answered_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["learn", "--config=a.yaml"])
    assert stop.value.code == 2
    must = f"error: `command` must be one of {', '.join(LINES)}. Got 'learn'."
    assert capsys.readouterr().err.strip() == must
