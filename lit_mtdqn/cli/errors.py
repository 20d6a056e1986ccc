"""One sentence for what a user got wrong, instead of a parser's whole train of thought."""

from __future__ import annotations

import errno
import re
import sys
from typing import Any, NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

COMPLAINT = re.compile(r"`[^`\n]+`[^\n]* must [^\n]+? Got [^\n]+")
KEY = re.compile(r'Parser key "([^"]+)"')
REASON = re.compile(
    r"(Expected a [^\n]+|Option '[^\n]+|Key '[^\n]+|[Uu]nrecognized [^\n]+"
    r"|No module named '[^']+'|module '[^']+' has no attribute '[^']+'|File does not exist: [^\n]+)"
)
NEITHER = re.compile(r"Expected a path but (\S+) either not accessible or invalid")
DUPLICATE = re.compile(r"found duplicate key (\S+)\s+in [^,]+, line (\d+)")
NOISE = "<class 'NoneType'>"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def complaint(message: str) -> str | None:
    """Return the part of an error message that is a complaint about an argument, or None.

    Args:
        message: What was raised, however deeply it is wrapped.
    """
    found = COMPLAINT.search(message)
    return None if found is None else found.group(0)


def complaint_of(error: Exception) -> str | None:
    """Return what an error says of the user's arguments, or None if it is of another kind."""
    ours = complaint(str(error))
    if ours is None and isinstance(error, MisconfigurationException):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        must = "be a folder that can be written to, with room for what a run leaves"
        return f"`run_dir` must {must}. Got {error.filename or 'a file of it'}: {error.strerror}."
    return ours


def one_sentence(message: str) -> str:
    """Return the part of an error message that says what to change.

    Args:
        message: What a constructor or the parser said, however deeply it is wrapped.
    """
    ours = complaint(message)
    if ours is not None:
        return ours
    twice = DUPLICATE.search(message)
    if twice is not None:
        return f"`config` must name each key once. Got {twice[1]!r} again in line {twice[2]}."
    reasons = [line for line in REASON.findall(message) if NOISE not in line]
    keys = KEY.findall(message)
    if not keys or not reasons:
        return message
    reason = re.split(r"\.? Got value: Namespace", reasons[-1])[0].rstrip(".")
    reason = NEITHER.sub(r"Neither a class nor a file is called \1", reason)
    return f"`{'.'.join(keys)}` must fit its type. {reason}."


class RunParser(LightningArgumentParser):
    """A parser that complains in one sentence, does not recite its usage and guesses no options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation that argparse completes may be a slip of the pen.
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the complaint and exit with code 2, unless a caller wants to try something else."""
        if not self.exit_on_error:
            super().error(message, ex)
        sys.stderr.write(f"error: {one_sentence(message)}\n")
        sys.stderr.write("See `lit-mtdqn fit --help` and `lit-mtdqn fit --model.help DQN`.\n")
        raise SystemExit(2)
