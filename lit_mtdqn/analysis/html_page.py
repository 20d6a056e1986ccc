"""A page of HTML that needs no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

PIXELS_PER_INCH = 150
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .25rem 1.1rem .25rem 0; text-align: left; vertical-align: top }
th { color: #6b7280; font-weight: 500; border-bottom: 1px solid #e5e7eb }
img { max-width: 100% } figure { margin: 1rem 0 } figcaption { color: #6b7280 }
pre { background: #f3f4f6; padding: .8rem; overflow-x: auto }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page.

    Args:
        title: Its headline, plain text.
        parts: Its elements.
    """
    headline, body = html.escape(title), "\n".join(filter(None, parts))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{headline}</title><style>{STYLE}</style></head>\n"
        f"<body>\n<h1>{headline}</h1>\n{body}\n</body></html>\n"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of plain texts."""

    def row(cells: Iterable[object], kind: str) -> str:
        return "".join(f"<{kind}>{html.escape(str(cell))}</{kind}>" for cell in cells)

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f"<table>\n<tr>{row(header, 'th')}</tr>\n{body}\n</table>"


def png(drawn: Figure) -> bytes:
    """Return a figure as the content of a PNG."""
    content = io.BytesIO()
    drawn.savefig(content, format="png", dpi=PIXELS_PER_INCH)
    return content.getvalue()


def details(summary: str, text: str) -> str:
    """Return a plain text as it is, below a line that opens it."""
    return (
        f"<details><summary>{html.escape(summary)}</summary>"
        f"<pre>{html.escape(text)}</pre></details>"
    )


def image(content: bytes, caption: str) -> str:
    """Return a PNG with the words below it."""
    text, data = html.escape(caption), base64.b64encode(content).decode()
    picture = f'<img alt="{text}" src="data:image/png;base64,{data}">'
    return f"<figure>{picture}<figcaption>{text}.</figcaption></figure>"
