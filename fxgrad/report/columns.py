"""Cells folded so that a table fits a terminal.

A cell is broken behind a dot, a slash, a blank or an underscore, as names and paths are read; only what is
longer than its column is broken in the middle. Not handled: characters that take two columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PIECE = re.compile(r"[^./\\ _]*[./\\ _]?")
_GAP = 2  # blanks between two columns
_LEAST = 12  # no column gets narrower


def fitting(
    rows: Sequence[Sequence[str]], headers: Sequence[str], width: int, flexible: Sequence[int]
) -> list[list[str]]:
    """The rows with the cells of the flexible columns folded, each column to its fair part of what the others
    leave."""
    wide = [max(len(row[at]) for row in (headers, *rows)) for at in range(len(headers))]
    left = (
        width
        - sum(wide[at] + _GAP for at in range(len(wide)) if at not in flexible)
        - _GAP * (len(flexible) - 1)
    )
    room = dict.fromkeys(flexible, 0)
    for count, at in enumerate(
        sorted(flexible, key=lambda at: wide[at])
    ):  # what the narrow ones leave, the wide ones get
        room[at] = max(min(wide[at], left // (len(flexible) - count)), min(wide[at], _LEAST))
        left -= room[at]
    return [[folded(cell, room[at]) if at in room else cell for at, cell in enumerate(row)] for row in rows]


def folded(text: str, width: int) -> str:
    """The text in lines of at most `width`."""
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        while len(piece.rstrip()) > width:
            lines[-1], piece = piece[:width], piece[width:]
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
