"""Source as HTML: a few lines around a place, in colours, the guilty span marked.

Coloured by Python's own tokenizer; a file that is no Python is shown plain, and a line too long to be read as
`fxgrad.source.excerpt` cuts it. Indentation that all shown lines share is left out.
"""

from __future__ import annotations

import keyword
import os
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from html import escape
from itertools import groupby

from fxgrad.records import Site
from fxgrad.records.plain_text import printable
from fxgrad.source.excerpt import excerpt, span_on
from fxgrad.source.parsing import Source, from_text, load, tokens

_AROUND = 3  # lines before and after
_LONGEST = 8  # of a longer span its first lines are shown
_WIDTH = 300  # characters of a line
_KINDS = {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"}
_KINDS |= {kind: "s" for name, kind in vars(tokenize).items() if name.startswith(("FSTRING_", "TSTRING_"))}

Spans = tuple[tuple[int, int, str], ...]  # of one line: from, to, class


def source(site: Site) -> str:
    """The lines around the site; "" without source."""
    plain = "\n".join(excerpt(site))
    if not plain:
        return ""
    page = load(site.file)
    last = site.end_line if site.column and site.end_line > site.line else site.line
    last = min(last, site.line + _LONGEST - 1)
    shown = range(max(1, site.line - _AROUND), min(len(page.lines), last + _AROUND) + 1)
    texts = {number: page.lines[number - 1].rstrip() for number in shown}
    while not texts[max(texts)]:
        del texts[max(texts)]
    while not texts[min(texts)]:
        del texts[min(texts)]
    if any(len(text) > _WIDTH for text in texts.values()):
        return f"<pre>{escape(plain)}</pre>"
    indent = len(os.path.commonprefix([_indent(text) for text in texts.values() if text]))
    gutter = len(str(max(texts)))
    colours = _colours(page)
    lines = []
    for number, text in texts.items():
        marked = span_on(site, number, text) if site.line <= number <= last else (0, 0)
        hit = " hit" if site.line <= number <= last else ""
        code = "".join(_pieces(text, indent, colours.get(number, ()), marked))
        lines.append(f'<span class="l{hit}"><span class=no>{number:>{gutter}} </span>{code}</span>')
    return f"<pre class=source>{chr(10).join(lines)}</pre>"


def coloured(text: str) -> str:
    """A text of Python by itself, all of it."""
    page = from_text("", text)
    colours = _colours(page)
    lines = ("".join(_pieces(line, 0, colours.get(n, ()), (0, 0))) for n, line in enumerate(page.lines, 1))
    return f"<pre class=source>{chr(10).join(lines)}</pre>"


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip(" \t"))]


def _pieces(text: str, start: int, colours: Spans, marked: tuple[int, int]) -> Iterator[str]:
    """The line in pieces of one class each."""
    kinds = [""] * len(text)
    for begin, end, kind in colours:
        kinds[begin:end] = [kind] * len(kinds[begin:end])
    cells = [(kinds[i], marked[0] <= i < marked[1]) for i in range(len(text))]
    for is_marked, part in groupby(range(start, len(text)), key=lambda i: cells[i][1]):
        inner = ""
        for kind, letters in groupby(part, key=lambda i: cells[i][0]):
            piece = escape(printable("".join(text[i] for i in letters)))
            inner += f"<span class={kind}>{piece}</span>" if kind else piece
        yield f"<mark>{inner}</mark>" if is_marked else inner


@lru_cache(maxsize=64)
def _colours(page: Source) -> dict[int, Spans]:
    """By line."""
    found: dict[int, list[tuple[int, int, str]]] = {}
    before = ""
    for token in tokens(page) if page.tree is not None else ():
        kind = _KINDS.get(token.type, "")
        if token.type == tokenize.NAME:
            kind = "d" if before in ("def", "class") else "k" if keyword.iskeyword(token.string) else ""
            before = token.string
        for line in range(token.start[0], token.end[0] + 1) if kind else ():
            begin = token.start[1] if line == token.start[0] else 0
            end = token.end[1] if line == token.end[0] else 10**9
            found.setdefault(line, []).append((begin, end, kind))
    return {line: tuple(spans) for line, spans in found.items()}
