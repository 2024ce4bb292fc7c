"""The source line of a Site with the guilty span underlined, and the short form of its file's name.

Made from a Site and the file as it is now (through `fxgrad.source`). Carets stand under what they mark on a
terminal: tabs are expanded, East Asian wide characters count two columns, combining marks none; other control
characters are shown as `?`. A long line is shown around its span. Not handled: emoji sequences that a
terminal draws as one glyph, and bidirectional text.
"""

from __future__ import annotations

import os
import re
import unicodedata

from fxgrad.records import Site
from fxgrad.records.cells import cell_name
from fxgrad.source import line_text

TAB = 4
WIDTH = 110  # terminal columns of source shown
_INSTALLED = re.compile(r"[/\\]((?:site|dist)-packages[/\\].*)", re.DOTALL)
_LINES = 4  # a longer span is shown by its first lines


def short_path(file: str) -> str:
    """The file relative to the current directory where that is shorter; `Cell [2]` for a notebook's cell,
    names such as `<stdin>` as they are."""
    if cell := cell_name(file):
        return cell
    if file.startswith("<"):
        return file
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):  # another drive, or the current directory is gone
        return file
    return relative if len(relative) < len(file) else file


def brief_path(file: str) -> str:
    """`short_path`, of an installed package from `site-packages` on: where that lies is the machine's own
    affair."""
    short = short_path(file)
    installed = _INSTALLED.search(short)
    return installed.group(1) if installed else short


def place(site: Site) -> str:
    """`model.py:13:9`, the path brief."""
    column = f":{site.column}" if site.column else ""
    return f"{brief_path(site.file)}:{site.line}{column}"


def excerpt(site: Site, width: int = WIDTH) -> tuple[str, ...]:
    """The lines of the span with their numbers, each underlined; without carets where the columns are
    unknown; () without source. `width`: columns of the source, at most `WIDTH`."""
    last = site.end_line if site.column and site.end_line > site.line else site.line
    shown = range(site.line, min(last, site.line + _LINES - 1) + 1)
    texts = [line_text(site.file, number).rstrip() for number in shown]
    if not any(text.strip() for text in texts):
        return ()
    gutter = len(str(shown[-1]))
    lines = []
    for number, text in zip(shown, texts, strict=True):
        line, carets = _drawn(text, *span_on(site, number, text), min(width, WIDTH))
        lines.append(f"{number:>{gutter}} | {line}")
        if carets:
            lines.append(f"{'':>{gutter}} | {carets}")
    if last > shown[-1]:
        lines.append(f"{'':>{gutter}} | ... to line {last}")
    return tuple(lines)


def span_on(site: Site, number: int, text: str) -> tuple[int, int]:
    """Where the span begins and ends on this line, in characters from 0; the same number twice where nothing
    is underlined."""
    if not site.column:
        return 0, 0
    indent = len(text) - len(text.lstrip())
    start = site.column - 1 if number == site.line else indent
    end = site.end_column - 1 if number == site.end_line else len(text)
    if site.end_line < site.line or not site.end_column:  # only the start is known
        end = start + 1
    return min(start, len(text)), min(max(end, start), len(text))


def _drawn(text: str, start: int, end: int, width: int) -> tuple[str, str]:
    """The line as a terminal shows it, and its carets (without trailing blanks)."""
    cells = _cells(text)
    if sum(size for _, size in cells) > width:
        return _cut(cells, start, end, width)
    before = sum(size for _, size in cells[:start])
    marked = sum(size for _, size in cells[start:end])
    return "".join(shown for shown, _ in cells), " " * before + "^" * marked if marked else ""


def _cut(cells: list[tuple[str, int]], start: int, end: int, width: int) -> tuple[str, str]:
    """A long line from a little before its span on, `...` for what is left out on either side."""
    begin = max(0, start - width // 4) if sum(size for _, size in cells[:end]) > width else 0
    line, carets, used = ("... ", "    ", 4) if begin else ("", "", 0)
    for position in range(begin, len(cells)):
        shown, size = cells[position]
        if used + size > width:
            line += " ..."
            break
        line, used = line + shown, used + size
        carets += ("^" if start <= position < end else " ") * size
    return line, carets.rstrip()


def _cells(text: str) -> list[tuple[str, int]]:
    """For each character what is shown for it and how many columns that takes."""
    cells, column = [], 0
    for character in text:
        if character == "\t":
            size = TAB - column % TAB
            cells.append((" " * size, size))
        else:
            size = _width(character)
            cells.append((character if character.isprintable() else "?", size))
        column += size
    return cells


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
