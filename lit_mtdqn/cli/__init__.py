"""The command line: the only place where all packages meet."""

from lit_mtdqn.cli.main import main

__all__ = ["main"]
