"""One sentence for what a user got wrong, instead of a parser's whole train of thought."""

from __future__ import annotations

import errno
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any, NoReturn

import torch
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

from lit_mtdqn.types import TaskInfo

COMPLAINT = re.compile(r"`[^`\n]+`[^\n]* must [^\n]+? Got [^\n]+")
KEY = re.compile(r'Parser key "([^"]+)"')
REASON = re.compile(
    r"(Expected a [^\n]+|Option '[^\n]+|Key '[^\n]+|[Uu]nrecognized [^\n]+"
    r"|No module named '[^']+'|module '[^']+' has no attribute '[^']+'|File does not exist: [^\n]+)"
)
GIVEN = re.compile(r"(?:Given value|Got value): ([^\n]+)")
MISSING = re.compile(r"the following arguments are required: ([^\n]+)")
UNKNOWN = re.compile(r"Subcommand '\w+' does not accept option '([^']+)'")
NEITHER = re.compile(r"Expected a path but (\S+) either not accessible or invalid")
DUPLICATE = re.compile(r"found duplicate key (\S+)\s+in [^,]+, line (\d+)")
PLACE = re.compile(r'in "<[^>]+>", ')
NOISE = "<class 'NoneType'>"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
# What a user's arguments raise; other kinds are of what happens to a run.
OF_ARGUMENTS = (ValueError, TypeError, MemoryError, MisconfigurationException)
# Characters of a value that a sentence repeats: of one alone, of one among several.
LONGEST, SHORT = 200, 50


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
        return _flat(str(error))
    if _is_out_of_memory(error):
        names = "`data.num_envs`, `data.batch_size`, `data.phase_vector_steps` and `model.network`"
        return f"{names} must leave room in memory. Got {_flat(str(error))}."
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        must = "be a folder that can be written to, with room for what a run leaves"
        return f"`run_dir` must {must}. Got {error.filename or 'a file of it'}: {error.strerror}."
    return ours


def exit_code_for(error: Exception) -> int:
    """Return the exit code of a command that ends with an error: 2 where an argument is wrong."""
    return 2 if isinstance(error, OF_ARGUMENTS) or _is_out_of_memory(error) else 1


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch has a class of its own for devices only.
    is_told = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return is_told or isinstance(error, MemoryError | torch.OutOfMemoryError)


def leave(code: int, sentence: str | None = None) -> NoReturn:
    """Exit, by `sys.exit`, whose code W&B takes for the run's, without a word of what led to it.

    Args:
        code: The exit code.
        sentence: What the user is told; callers in Python have it as the exception's text.
    """
    line = None if sentence is None else f"error: {sentence}"
    if line is not None:
        sys.stderr.write(f"{line}\n")
    try:
        sys.exit(code)
    except SystemExit as stop:
        if line is not None:
            stop.args = (line,)
        raise stop from None


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
    keys = ".".join(_path(message))
    unknown = UNKNOWN.search(message)
    if unknown is not None:
        return f"`{unknown[1]}` must be the name of an option. Got an unknown one."
    missing = MISSING.search(message)
    if missing is not None:
        names = ".".join(filter(None, (keys, missing[1].removeprefix("fit."))))
        return f"`{names}` must be given. Got nothing."
    if not keys:
        return _flat(message)
    reasons = [line for line in REASON.findall(message) if NOISE not in line]
    if not reasons:
        given = GIVEN.search(message)
        got = message.rpartition('":')[2] if given is None else given[1]
        return f"`{keys}` must fit its type. Got {_flat(got.partition('. Got value')[0])}."
    reason = re.split(r"\.? Got value: Namespace", reasons[-1])[0].rstrip(".")
    reason = NEITHER.sub(r"Neither a class nor a file is called \1", reason)
    return f"`{keys}` must fit its type. {_flat(reason)}."


def _path(message: str) -> list[str]:
    """Return the keys that lead to the first thing that is wrong.

    Where a value may be of several types, the parser says of each, one below the other, why not.
    """
    keys: list[str] = []
    depth = -1
    for line in message.splitlines():
        found = KEY.findall(line)
        indentation = len(line) - len(line.lstrip())
        if found and indentation <= depth:
            break
        if found:
            keys += found
            depth = indentation
    return keys


def _flat(text: str, longest: int = LONGEST) -> str:
    """Return a text in one line that is not too long."""
    line = " ".join(PLACE.sub("in ", text).split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


class RunParser(LightningArgumentParser):
    """A parser that complains in one sentence, does not recite its usage and guesses no options."""

    _reading: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation that argparse completes may be a slip of the pen.
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse a command line; whatever is wrong with it ends in one sentence."""
        try:
            parsed = super().parse_args(*args, **kwargs)
        except ArgumentError:
            raise
        except Exception as error:  # A value of the wrong kind may raise anything.
            self.error(str(error), error)
        for name, number in _unusable(parsed):
            self.error(f"`{name}` must be a number of at most 64 bits. Got {_flat(number)}.")
        return parsed

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a configuration file."""
        self._reading = str(path)
        try:
            return super().parse_path(path, *args, **kwargs)
        except ArgumentError:
            raise
        except Exception as error:  # What is no YAML may raise anything.
            self.error(str(error), error)
        finally:
            self._reading = None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the complaint and exit with code 2, unless a caller wants to try something else."""
        if not self.exit_on_error:
            super().error(message, ex)
        sentence = one_sentence(message)
        if self._reading is not None and not sentence.startswith("`"):
            must = "be a file of keys and values in YAML"
            sentence = f"`config` must {must}. Got {self._reading}: {sentence.rstrip('.')}."
        leave(2, f"{sentence} See `lit-mtdqn fit --help`.")


@contextmanager
def building() -> Iterator[None]:
    """Name what could not be built, where that is of no error's own making.

    Raises:
        ValueError: If something cannot be built of its arguments; the message names them.
    """
    try:
        yield
    except Exception as error:
        if complaint_of(error) is not None:
            raise
        raise ValueError(_unbuildable(error)) from error


def _unusable(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Return all numbers, by name, that are NaN, which compares with no bound, or endless."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        for key, entry in value.items():
            shown = name if key == "init_args" else f"{name}.{key}"
            yield from _unusable(entry, shown.lstrip("."))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _unusable(entry, name)
    elif (isinstance(value, float) and math.isnan(value)) or (
        isinstance(value, int) and value.bit_length() >= 64
    ):
        yield name, str(value)


def _unbuildable(error: BaseException) -> str:
    """Return a complaint about the innermost class of this package that could not be built.

    It names arguments of that class and of the one that it is for. Where it was none of them, about
    the keys whose values the parser was turning into something.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    keys: list[str] = []
    built: dict[str, str] = {}
    for frame, _ in walk_tb(error.__traceback__):
        code, known = frame.f_code, frame.f_locals
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("jsonargparse.") and "component" in known:
            place = str(getattr(known["component"], "dest", ""))
            keys += [key for key in place.split(".") if key not in ("", "init_args")]
        if module.startswith("lit_mtdqn.") and code.co_name == "__init__" and "self" in known:
            taken = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
            own = [key for key in taken if key in known and not _is_of_learner(known[key])]
            shown = ", ".join(f"`{key}`={_flat(repr(known[key]), SHORT)}" for key in own)
            built[type(known["self"]).__name__] = f" of {shown}" if shown else ""
    reason = one_sentence(str(error)) or "nothing"
    (name, given), *holders = list(reversed(built.items())) or [(".".join(keys) or "config", "")]
    place = "".join(f", for `{holder}`{own}" for holder, own in holders[:1])
    must = f"be buildable{given}{place}"
    return f"`{name}` must {must}. Got {type(error).__name__}: {_flat(reason)}."


def _is_of_learner(value: Any) -> bool:
    """Return whether an argument is one that no configuration gives: the network, the tasks."""
    is_tasks = isinstance(value, list | tuple) and any(isinstance(v, TaskInfo) for v in value)
    return is_tasks or isinstance(value, torch.nn.Module)
