"""What documents show to type, block by block."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "configs").glob("*/README.md")),
]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
FENCE = re.compile(r"^ *```(.*)$", re.MULTILINE)
LAUNCHED = re.compile(r"(srun |torchrun .*-m )?(lit-mtdqn|lit_mtdqn)( .*)")
# In a sentence, without a placeholder.
INLINE = re.compile(r"`(lit-mtdqn [a-z]+ [^`<]+)`")


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks in a language."""
    return [code for kind, code in BLOCK.findall(text) if kind == language]


def languages(text: str) -> list[str]:
    """Return what fences say where blocks begin."""
    return FENCE.findall(text)[::2]


def commands(text: str) -> list[str]:
    """Return the commands of shell blocks, in order, without what launches them and comments."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    launched = [found for found in map(LAUNCHED.fullmatch, lines) if found]
    return [f"lit-mtdqn{found[3]}".partition(" #")[0].rstrip() for found in launched]


def inline_commands(text: str) -> list[str]:
    """Return the commands that sentences have."""
    return [" ".join(found.split()) for found in INLINE.findall(BLOCK.sub("", text))]
