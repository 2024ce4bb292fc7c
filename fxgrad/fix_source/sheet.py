"""One source file ready to be edited: its text exactly as stored, its syntax tree with positions, and the spans of its nodes.

A `Sheet` is made from a file's bytes (or from text that an earlier edit made) and never changes. The tree is LibCST's, used to look, never
to print: an edit replaces a span of the text, so nothing outside that span is reformatted. Positions are those of `Site`: lines and columns
from 1, columns in characters. Not handled: notebooks and files that do not parse.
"""

from __future__ import annotations

import codecs
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from fxgrad.records import Edit, Site
from fxgrad.records.errors import FixError

if TYPE_CHECKING:
    import libcst as cst

    Found = TypeVar("Found", bound=cst.CSTNode)

Span = tuple[int, int]  # offsets into the text, the second exclusive


def libcst() -> Any:
    """The LibCST package, which only mending needs.

    Raises:
        FixError: it is not installed.
    """
    try:
        import libcst
    except ImportError as error:
        raise FixError("mending source needs LibCST, which is not installed", hint="pip install 'fxgrad[fix]'") from error
    return libcst


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it lies on disk. `encoding` is Python's name of it, `mark` whether it begins with a byte order mark."""

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
            raise FixError(f"{self.file} is stored as {self.encoding}, which lacks {text[error.start]!r}") from error


def read(file: str) -> Stored:
    """The file with its line ends untouched.

    Raises:
        FixError: it cannot be read or decoded.
    """
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
        FixError: LibCST is not installed, or the text does not parse.
    """

    def __init__(self, file: str, text: str) -> None:
        cst = libcst()
        from libcst import metadata

        self.file = file
        self.text = text
        try:
            wrapper = metadata.MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        except cst.ParserSyntaxError as error:
            raise FixError(f"{file} does not parse: {error.message}", site=Site(file, error.raw_line)) from error
        self.module = wrapper.module
        self.ranges = wrapper.resolve(metadata.PositionProvider)
        self.parents = wrapper.resolve(metadata.ParentNodeProvider)

    @cached_property
    def starts(self) -> list[int]:
        """The offset of each line's first character."""
        starts, offset = [0], 0
        # The tokenizer's three line ends; str.splitlines would also cut at form feeds.
        text = self.text
        while offset < len(text):
            if text[offset] == "\r" and text[offset + 1 : offset + 2] == "\n":
                offset += 1
            if text[offset] in "\r\n":
                starts.append(offset + 1)
            offset += 1
        return starts

    @cached_property
    def newline(self) -> str:
        """The line end that the file uses first."""
        for line_end in ("\r\n", "\n", "\r"):
            if line_end in self.text:
                return line_end
        return "\n"

    @cached_property
    def _by_span(self) -> dict[Span, list[cst.CSTNode]]:
        found: dict[Span, list[cst.CSTNode]] = {}
        for node in self.ranges:
            found.setdefault(self.span(node), []).append(node)
        return found

    def offset(self, line: int, column: int) -> int:
        """The offset of a 1-based line and column."""
        return self.starts[min(line, len(self.starts)) - 1] + column - 1

    def span(self, node: cst.CSTNode) -> Span:
        """Where a node stands, without the parentheses around it."""
        place = self.ranges[node]
        return self.offset(place.start.line, place.start.column + 1), self.offset(place.end.line, place.end.column + 1)

    def span_of_site(self, site: Site) -> Span | None:
        """The span of a site; None where the interpreter gave no columns."""
        if not site.column or not site.end_column or max(site.line, site.end_line) > len(self.starts):
            return None
        return self.offset(site.line, site.column), self.offset(site.end_line, site.end_column)

    def outer_span(self, node: cst.CSTNode) -> Span:
        """The span with the node's own parentheses."""
        start, end = self.span(node)
        opening: Any = getattr(node, "lpar", ())
        closing: Any = getattr(node, "rpar", ())
        if isinstance(opening, list | tuple) and opening:  # a single node where it is a statement's, not the expression's own
            start, end = self.span(opening[0])[0], self.span(closing[-1])[1]
        return start, end

    def source(self, node: cst.CSTNode) -> str:
        """The node's text, without the parentheses around it."""
        start, end = self.span(node)
        return self.text[start:end]

    def nodes_at(self, site: Site) -> list[cst.CSTNode]:
        """The nodes whose span is the site's, outermost first."""
        span = self.span_of_site(site)
        return self._by_span.get(span, []) if span is not None else []

    def node_at(self, site: Site, *kinds: type[Found]) -> Found | None:
        """The outermost node of one of the kinds with exactly the site's span."""
        for node in self.nodes_at(site):
            if isinstance(node, kinds):
                return node
        return None

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The node's parents, innermost first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def nearest(self, node: cst.CSTNode, *kinds: type[Found]) -> Found | None:
        """The innermost of the node and its parents that is of one of the kinds."""
        for item in (node, *self.ancestors(node)):
            if isinstance(item, kinds):
                return item
        return None

    def line_start(self, offset: int) -> int:
        """The offset where the line of `offset` begins."""
        return max(self.text.rfind("\n", 0, offset), self.text.rfind("\r", 0, offset)) + 1

    def edit(self, start: int, end: int, new: str) -> Edit:
        """The edit that replaces a span."""
        line = self._line(start)
        end_line = self._line(end)
        site = Site(self.file, line, start - self.starts[line - 1] + 1, end_line, end - self.starts[end_line - 1] + 1)
        return Edit(site, self.text[start:end], new)

    def _line(self, offset: int) -> int:
        from bisect import bisect_right

        return bisect_right(self.starts, offset)


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
            raise FixError("the text at this place is not what it was", site=edit.site, hint="analyse the file again")
        spans.append((span, edit.new))
    made, end = [], 0
    for number, ((start, stop), new) in enumerate(sorted(spans, key=lambda item: item[0])):
        if start < end or (number and start == stop == end and not new):
            raise FixError(f"two edits of {file} overlap", hint="apply them one after the other")
        made += [text[end:start], new]
        end = stop
    return "".join([*made, text[end:]])
