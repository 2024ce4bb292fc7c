"""How findings speak of steps and tensors: the user's own expression, the shape, the line.

Made from facts and the source text behind a Site. Where the text is long, generated or gone, the operation's name stands for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from fxgrad.records import NodeFact, Site
from fxgrad.source import line_text

LONGEST = 60  # characters of source quoted in a sentence
NAMED = 3  # names listed before "and n more"


def expression(node: NodeFact) -> str:
    """The step as the user wrote it (`out += identity`); the operation's name where that is not one short line."""
    text = text_of(node.site)
    if not text:
        name = node.target.rpartition(".")[2]
        return f"{name} in {node.module}" if node.site is None and node.module else name
    return f"{text} = ..." if node.target.endswith(("__setitem__", "__set__")) else text


def text_of(site: Site | None) -> str:
    """The source between a site's columns, if it is one short line of a file; else ""."""
    if site is None or site.end_line != site.line:
        return ""
    text = source_of(site)
    return text if len(text) <= LONGEST else ""


def source_of(site: Site | None) -> str:
    """The source between a site's columns, its lines joined by a space; "" where there is none."""
    if site is None or not site.column or site.end_line < site.line:
        return ""
    lines = [line_text(site.file, number) for number in range(site.line, site.end_line + 1)]
    lines[-1] = lines[-1][: site.end_column - 1]
    lines[0] = lines[0][site.column - 1 :]
    return " ".join(line.strip() for line in lines).strip()


def shape(sizes: tuple[int, ...]) -> str:
    """`2x4x6`, or `scalar`."""
    return "x".join(map(str, sizes)) or "scalar"


def line_of(site: Site | None, seen_from: Site | None = None) -> str:
    """` (line 12)` in the same file, ` (blocks.py:12)` in another; "" where nothing is known."""
    if site is None:
        return ""
    if seen_from is not None and site.file == seen_from.file:
        return f" (line {site.line})"
    return f" ({os.path.basename(site.file)}:{site.line})"


def listed(names: Iterable[str], limit: int = NAMED) -> str:
    """ "`a`, `b` and `c`", or the first ones "and n more"."""
    quoted = [f"`{name}`" for name in dict.fromkeys(names)]
    if len(quoted) > limit + 1:
        return f"{', '.join(quoted[:limit])} and {len(quoted) - limit} more"
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else "".join(quoted)
