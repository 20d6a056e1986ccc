"""`lit-mtdqn --help`: all commands, a line each."""

from __future__ import annotations

from lit_mtdqn.cli.configs import COMMAND as CONFIGS
from lit_mtdqn.cli.export import COMMAND as EXPORT
from lit_mtdqn.cli.play import COMMAND as PLAY
from lit_mtdqn.cli.report import COMMAND as REPORT
from lit_mtdqn.cli.sequence import COMMAND as SEQUENCE

HELP = ("-h", "--help")
VERSION = "--version"
LINES = {
    "fit": ("--config FILE", "Learn, in a folder with checkpoints and a report."),
    "validate": ("--config FILE", "Evaluate a network, that of --ckpt_path."),
    "test": ("--config FILE", "Test it on episodes that nothing else uses."),
    SEQUENCE: ("FILE", "Run fits, each from what earlier ones learned."),
    REPORT: ("RUN...", "Write one page about runs."),
    PLAY: ("RUN", "Play and film greedy episodes."),
    EXPORT: ("RUN", "Write a policy for other programs, as .pt2 and ONNX."),
    CONFIGS: ("[copy NAME]", "List or copy the configurations of the package."),
}


def overview() -> str:
    """Return what the command line can do."""
    shown = {f"{name} {arguments}": told for name, (arguments, told) in LINES.items()}
    width = max(map(len, shown))
    lines = [f"  {command:{width}}  {told}" for command, told in shown.items()]
    return "\n".join(
        [
            f"usage: lit-mtdqn {{{','.join(LINES)}}} ...",
            "",
            "Value-based deep reinforcement learning on many tasks at once.",
            "",
            *lines,
            "",
            "`lit-mtdqn <command> --help` explains each; `--version` tells the version.",
        ]
    )
