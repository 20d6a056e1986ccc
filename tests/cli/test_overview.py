import pytest

from lit_mtdqn.cli.main import COMMANDS, RunCLI, main
from lit_mtdqn.cli.overview import HELP, LINES
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
