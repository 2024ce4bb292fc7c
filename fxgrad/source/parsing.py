"""Source files as text and syntax trees, and the spans of tree nodes as Sites.

Made from a file name as the interpreter knows it (`code.co_filename`): the file on disk or, where there is
none, what `linecache` holds (notebook cells). Nothing here raises: an unreadable file has no lines, one that
does not parse has lines and no tree. Not handled: a file edited after it was imported, where the lines on
disk are no longer the lines that run.
"""

from __future__ import annotations

import ast
import io
import linecache
import os
import stat
import tokenize
import warnings
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TypeVar, cast

from fxgrad.records import Site

Function = ast.FunctionDef | ast.AsyncFunctionDef
Located = ast.stmt | ast.expr | ast.excepthandler | ast.pattern
Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True, eq=False)
class Source:
    """One version of one file. It is parsed as its tree is first asked for: of most files that a program runs
    through only a line is.

    `lines[0]` is line 1, without its newline; of a file that cannot be read there are none.
    """

    file: str
    lines: tuple[str, ...]

    @cached_property
    def tree(self) -> ast.Module | None:
        """The syntax tree; None where the file cannot be read or does not parse."""
        return _tree("\n".join(self.lines)) if self.lines else None

    @cached_property
    def parents(self) -> Mapping[ast.AST, ast.AST]:
        """By every node of the tree but the root, in preorder, the one around it."""
        return MappingProxyType({} if self.tree is None else dict(_edges(self.tree)))


def absolute(file: str) -> str:
    """The name under which Sites have a file; notebook cells (`<ipython-input-1>`) keep theirs."""
    return file if not file or file.startswith("<") else os.path.abspath(file)


def load(file: str) -> Source:
    """The file as it is now, under its absolute name; parsed again only when its modification time or size
    changed."""
    file = absolute(file)
    try:
        status = os.stat(file)
    except OSError:
        text = "".join(linecache.getlines(file))
        return _from_text(file, text) if text else _unreadable(file)
    except ValueError:  # a null byte in the name, which linecache would raise on too
        return _unreadable(file)
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a terminal would block
        return _unreadable(file)
    return _from_disk(file, status.st_mtime_ns, status.st_size)


def parsed(file: str) -> ast.Module | None:
    """The syntax tree of the file; None where it cannot be read or does not parse."""
    return load(file).tree


def line_text(file: str, line: int) -> str:
    """Line `line` (from 1) without its newline; "" where there is none."""
    lines = load(file).lines
    return lines[line - 1] if 1 <= line <= len(lines) else ""


@lru_cache(maxsize=512)
def _from_disk(file: str, modified: int, size: int) -> Source:
    try:
        with open(file, "rb") as stream:
            raw = stream.read()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (OSError, SyntaxError, ValueError, LookupError):
        return _unreadable(file)
    return from_text(file, text)


@lru_cache(maxsize=512)
def _unreadable(file: str) -> Source:
    return Source(file, ())


def from_text(file: str, text: str) -> Source:
    """The source that stands, or would stand, in `file`."""
    # Only these three end a line for the tokenizer; str.splitlines() also cuts at form feeds and U+2028.
    return Source(file, tuple(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")))


_from_text = lru_cache(maxsize=512)(from_text)


def _tree(text: str) -> ast.Module | None:
    try:
        # an invalid escape warns again on every parse, and raises under -W error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _edges(root: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(child, parent) pairs in preorder; `ast.Load()` and its kind, which all nodes share, are left out."""
    pending = [(child, root) for child in ast.iter_child_nodes(root)][::-1]
    while pending:
        node, parent = pending.pop()
        if isinstance(node, ast.expr_context | ast.operator | ast.cmpop | ast.boolop | ast.unaryop):
            continue
        yield node, parent
        pending.extend([(child, node) for child in ast.iter_child_nodes(node)][::-1])


def tokens(source: Source) -> Iterator[tokenize.TokenInfo]:
    """The tokens in the order of the text, with columns in characters; those before the error where it does
    not tokenize."""
    lines = iter([line + "\n" for line in source.lines])
    try:
        yield from tokenize.generate_tokens(lambda: next(lines, ""))
    except (tokenize.TokenError, SyntaxError):
        return


def nodes(source: Source, kind: type[Node]) -> list[Node]:
    """Every node of that kind in the order of the text."""
    return cast("list[Node]", list(_nodes(source, cast(Hashable, kind))))


@lru_cache(maxsize=2048)
def _nodes(source: Source, kind: Hashable) -> tuple[ast.AST, ...]:
    return tuple(
        sorted((node for node in source.parents if isinstance(node, cast("type", kind))), key=position)
    )


def functions(source: Source) -> list[Function]:
    """Every `def` and `async def` in the order of the text."""
    return sorted((node for node in source.parents if isinstance(node, Function)), key=position)


def position(node: ast.AST) -> tuple[int, int]:
    """Sorting key: line and byte column; (0, 0) for the few kinds that have none."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def ancestors(source: Source, node: ast.AST) -> Iterator[ast.AST]:
    """The node's parents, innermost first, the module last."""
    while node in source.parents:
        node = source.parents[node]
        yield node


def enclosing_function(source: Source, node: ast.AST) -> Function | None:
    """The innermost `def` around the node."""
    return next((parent for parent in ancestors(source, node) if isinstance(parent, Function)), None)


def enclosing_method(source: Source, node: ast.AST) -> tuple[ast.ClassDef, Function | None] | None:
    """The innermost class around the node, and its method that holds the node (None: the class body does)."""
    member: Function | None = None
    for parent in ancestors(source, node):
        if isinstance(parent, ast.ClassDef):
            return parent, member
        if isinstance(parent, Function):
            member = parent
    return None


def first_line(function: Function) -> int:
    """What `co_firstlineno` says of it: the line of its first decorator, else of its `def`."""
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def last_name(node: ast.expr) -> str:
    """`Linear` of `nn.Linear` and of `Linear`; "" of what is no name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def site_of(source: Source, node: Located, last: Located | None = None) -> Site:
    """The span from the start of `node` to the end of `last` (of `node` where None)."""
    last = last or node
    end_line = last.end_lineno or last.lineno
    return Site(
        source.file,
        node.lineno,
        column_of(source, node.lineno, node.col_offset),
        end_line,
        column_of(source, end_line, last.end_col_offset or last.col_offset),
        qualified_name(source, source.parents.get(node, node)),
    )


def column_of(source: Source, line: int, offset: int) -> int:
    """The 1-based character column of a byte offset: `ast` counts the bytes of the line's UTF-8 text."""
    text = source.lines[line - 1] if line <= len(source.lines) else ""
    if text.isascii():
        return offset + 1
    return len(text.encode()[:offset].decode(errors="replace")) + 1


def qualified_name(source: Source, node: ast.AST) -> str:
    """What `co_qualname` says of a scope, of the code around any other node; decorators count as inside."""
    names: list[str] = []
    for scope in (node, *ancestors(source, node)):
        if not isinstance(scope, ast.ClassDef | ast.Lambda | Function):
            continue
        if names and not isinstance(scope, ast.ClassDef):
            names.append("<locals>")
        names.append("<lambda>" if isinstance(scope, ast.Lambda) else scope.name)
    return ".".join(reversed(names)) or "<module>"
