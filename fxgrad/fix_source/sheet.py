"""One source file ready to be edited: its text exactly as stored, its syntax tree with positions, and the
spans of its nodes.

A `Sheet` is made from a file's bytes (or from text that an earlier edit made) and never changes. The tree is
that of Python's own `ast`, used to look, never to print: an edit replaces a span of the text, so nothing
outside that span is reformatted. What a tree leaves out, brackets around an expression and comments, is read
from the text. Positions are those of `Site`: lines and columns from 1, columns in characters. Not handled:
notebooks and files that do not parse.
"""

from __future__ import annotations

import ast
import codecs
import io
import linecache
import re
import symtable
import tokenize
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

from fxgrad.records import Edit, Site
from fxgrad.records.cells import cell_name
from fxgrad.records.errors import FixError
from fxgrad.source.parsing import Function, ancestors, column_of, from_text, tokens

Placed = ast.stmt | ast.expr | ast.keyword  # the nodes that edits are made at; all have a span
Found = TypeVar("Found", bound=ast.stmt | ast.expr | ast.keyword)
Span = tuple[int, int]  # offsets into the text, the second exclusive
_BLANKS = " \t\f\r\n\\"  # what may stand between two tokens, backslashes at line ends included


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it lies on disk. `encoding` is Python's name of it, `mark` whether it begins with a byte
    order mark."""

    file: str
    raw: bytes
    text: str
    encoding: str
    mark: bool

    def encoded(self, text: str) -> bytes:
        """Another text as this file would hold it.

        Raises:
            FixError: the file's encoding lacks a character.
        """
        try:
            return (codecs.BOM_UTF8 if self.mark else b"") + text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise FixError(
                f"{self.file} is stored as {self.encoding}, which lacks {text[error.start]!r}"
            ) from error


def read(file: str) -> Stored:
    """The file with its line ends untouched; a notebook's cell as IPython runs it.

    Raises:
        FixError: it cannot be read or decoded.
    """
    if cell_name(file):
        text = "".join(linecache.getlines(file))
        return Stored(file, text.encode(), text, "utf-8", False)
    try:
        with open(file, "rb") as stream:
            raw = stream.read()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        mark = raw.startswith(codecs.BOM_UTF8)
        encoding = "utf-8" if encoding == "utf-8-sig" else encoding
        return Stored(file, raw, raw[len(codecs.BOM_UTF8) if mark else 0 :].decode(encoding), encoding, mark)
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise FixError(f"cannot read {file}: {error}") from error


@lru_cache(maxsize=64)
def sheet(file: str, text: str) -> Sheet:
    """The sheet of a text that stands, or would stand, in `file`."""
    return Sheet(file, text)


class Sheet:
    """A text with its tree.

    Raises:
        FixError: the text does not parse.
    """

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._scopes = _scopes(file, text)
        self.parsed = from_text(file, text)

    @cached_property
    def starts(self) -> list[int]:
        """The offset of each line's first character."""
        # The tokenizer's three line ends; str.splitlines would also cut at form feeds.
        return [0, *(found.end() for found in re.finditer(r"\r\n|\n|\r", self.text))]

    @cached_property
    def newline(self) -> str:
        """The line end that the file uses first."""
        for line_end in ("\r\n", "\n", "\r"):
            if line_end in self.text:
                return line_end
        return "\n"

    @cached_property
    def indent(self) -> str:
        """What the file's first indented line is indented by."""
        return next((token.string for token in self._tokens if token.type == tokenize.INDENT), " " * 4)

    @cached_property
    def lines_in_strings(self) -> frozenset[int]:
        """Lines whose first character belongs to a string that began on a line before."""
        found: set[int] = set()
        opened: list[int] = []
        for token in self._tokens:
            name = tokenize.tok_name[token.type]
            # from Python 3.12 and 3.14 on: before, an f-string is one token
            if name in ("FSTRING_START", "TSTRING_START"):
                opened.append(token.start[0])
            elif name in ("FSTRING_END", "TSTRING_END"):
                found.update(range(opened.pop() + 1, token.end[0] + 1))
            elif token.type == tokenize.STRING:
                found.update(range(token.start[0] + 1, token.end[0] + 1))
        return frozenset(found)

    @cached_property
    def _tokens(self) -> tuple[tokenize.TokenInfo, ...]:
        return tuple(tokens(self.parsed))

    @cached_property
    def _comments(self) -> dict[int, int]:
        """Where each comment begins, by the offset where it ends."""
        found = {}
        for token in self._tokens:
            if token.type == tokenize.COMMENT:
                start = self.offset(token.start[0], token.start[1] + 1)
                found[start + len(token.string)] = start
        return found

    @cached_property
    def nodes(self) -> tuple[Placed, ...]:
        """Statements, expressions and arguments by name, in the order in which the text ends them: inner
        before outer."""
        preorder = [node for node in self.parsed.parents if isinstance(node, Placed)]
        spans = {node: self.span(node) for node in preorder}
        return tuple(sorted(reversed(preorder), key=lambda node: (spans[node][1], -spans[node][0])))

    @cached_property
    def _by_span(self) -> dict[Span, list[Placed]]:
        found: dict[Span, list[Placed]] = {}
        for node in self.nodes:
            found.setdefault(self.span(node), []).append(node)
        return found

    def scope(self, function: Function) -> symtable.SymbolTable | None:
        """The names of a function, as the compiler sees them."""
        pending = [self._scopes]
        for table in pending:
            pending.extend(table.get_children())
            if (table.get_type(), table.get_name(), table.get_lineno()) == (
                "function",
                function.name,
                function.lineno,
            ):
                return table
        return None

    def of_kind(self, *kinds: type[Found]) -> Iterator[Found]:
        """The nodes of some kinds, inner before outer."""
        return (node for node in self.nodes if isinstance(node, kinds))

    def offset(self, line: int, column: int) -> int:
        """The offset of a 1-based line and column."""
        return self.starts[min(line, len(self.starts)) - 1] + column - 1

    def span(self, node: Placed | ast.pattern) -> Span:
        """Where a node stands, without the parentheses around it; those of a tuple and of a generator are
        their own."""
        end_line, end = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        first = self.offset(node.lineno, column_of(self.parsed, node.lineno, node.col_offset))
        return first, self.offset(end_line, column_of(self.parsed, end_line, end))

    def span_of_site(self, site: Site) -> Span | None:
        """The span of a site; None where the interpreter gave no columns."""
        if not site.column or not site.end_column or max(site.line, site.end_line) > len(self.starts):
            return None
        return self.offset(site.line, site.column), self.offset(site.end_line, site.end_column)

    def outer_span(self, node: Placed) -> Span:
        """The span with the parentheses around the node that are not a call's own. Not for the bases of a
        class."""
        start, end = self.span(node)
        call = self.parent(node)
        closed = self.span(call)[1] if isinstance(call, ast.Call) else 0
        while True:
            before, after = self._code_before(start), self.code_after(end)
            if (
                self.text[before : before + 1] != "("
                or self.text[after : after + 1] != ")"
                or after + 1 == closed
            ):
                return start, end
            start, end = before, after + 1

    def is_parenthesized(self, node: ast.expr) -> bool:
        """Whether parentheses keep the expression together, its own or those around it."""
        start, end = self.span(node)
        if isinstance(node, ast.Tuple) and self.text[start] == "(":
            return not node.elts or start < self.outer_span(node.elts[0])[0]
        return isinstance(node, ast.GeneratorExp) or self.outer_span(node) != (start, end)

    def _code_before(self, offset: int) -> int:
        """The offset of the last character before `offset` that is no blank, line end or comment; -1 where
        there is none."""
        while offset > 0:
            if offset in self._comments:
                offset = self._comments[offset]
            elif self.text[offset - 1] in _BLANKS:
                offset -= 1
            else:
                break
        return offset - 1

    def code_after(self, offset: int) -> int:
        """The offset of the first character from `offset`, the end of a node, on that is no blank, line end
        or comment."""
        while offset < len(self.text):
            if self.text[offset] == "#":
                offset = self.next_line(offset)
            elif self.text[offset] in _BLANKS:
                offset += 1
            else:
                break
        return offset

    def source(self, node: Placed | ast.pattern) -> str:
        """The node's text, without the parentheses around it."""
        start, end = self.span(node)
        return self.text[start:end]

    def outer_source(self, node: Placed) -> str:
        """The node's text with the parentheses around it."""
        start, end = self.outer_span(node)
        return self.text[start:end]

    def nodes_at(self, site: Site | None) -> list[Placed]:
        """The nodes whose span is the site's, innermost first."""
        span = self.span_of_site(site) if site is not None else None
        return self._by_span.get(span, []) if span is not None else []

    def node_at(self, site: Site | None, *kinds: type[Found]) -> Found | None:
        """The innermost node of one of the kinds with exactly the site's span."""
        return next((node for node in self.nodes_at(site) if isinstance(node, kinds)), None)

    def nodes_around(self, site: Site | None) -> Iterator[Placed]:
        """The nodes with the site's span, or on its line, then those inside of it, then those around its
        beginning."""
        if site is None:
            return
        start = self.offset(site.line, 1)
        span = self.span_of_site(site) or (start, self.next_line(start))
        exact = self.nodes_at(site)
        yield from exact
        yield from (
            node
            for node in self.nodes
            if node not in exact and span[0] <= self.span(node)[0] and self.span(node)[1] <= span[1]
        )
        if exact:
            yield from (node for node in ancestors(self.parsed, exact[0]) if isinstance(node, Placed))

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node around this one; None around the module."""
        return self.parsed.parents.get(node)

    def outwards(self, node: ast.AST) -> Iterator[ast.AST]:
        """The node and its parents, innermost first."""
        yield node
        yield from ancestors(self.parsed, node)

    def line_start(self, offset: int) -> int:
        """The offset where the line of `offset` begins."""
        return self.starts[self._line(offset) - 1]

    def next_line(self, offset: int) -> int:
        """The offset of the line after the one that `offset` is in."""
        line = self._line(offset)
        return self.starts[line] if line < len(self.starts) else len(self.text)

    def edit(self, start: int, end: int, new: str) -> Edit:
        """The edit that replaces a span."""
        line = self._line(start)
        end_line = self._line(end)
        site = Site(
            self.file, line, start - self.starts[line - 1] + 1, end_line, end - self.starts[end_line - 1] + 1
        )
        return Edit(site, self.text[start:end], new)

    def _line(self, offset: int) -> int:
        return bisect_right(self.starts, offset)


def _scopes(file: str, text: str) -> symtable.SymbolTable:
    try:
        # an invalid escape warns again on every parse, and raises under -W error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return symtable.symtable(text, file, "exec")
    except SyntaxError as error:
        raise FixError(f"{file} does not parse: {error.msg}", site=Site(file, error.lineno or 1)) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise FixError(f"{file} does not parse: {error}") from error


def apply(text: str, file: str, edits: tuple[Edit, ...]) -> str:
    """The text with the edits of this file made, all given in positions of `text`.

    Raises:
        FixError: an edit's old text is not there, or two edits overlap.
    """
    page = sheet(file, text)
    spans = []
    for edit in edits:
        if edit.site.file != file:
            continue
        span = page.span_of_site(edit.site)
        if span is None or text[span[0] : span[1]] != edit.old:
            raise FixError(
                "the text at this place is not what it was", site=edit.site, hint="analyse the file again"
            )
        spans.append((span, edit.new))
    made, end = [], 0
    for number, ((start, stop), new) in enumerate(sorted(spans, key=lambda item: item[0])):
        if start < end or (number and start == stop == end and not new):
            raise FixError(f"two edits of {file} overlap", hint="apply them one after the other")
        made += [text[end:start], new]
        end = stop
    return "".join([*made, text[end:]])
