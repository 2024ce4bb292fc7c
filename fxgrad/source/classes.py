"""Class statements of live objects: the syntax tree of an object's class and of each of its bases.

Made from the class's file and qualified name. Not handled: classes made by `type(...)` or by a decorator that
returns another class.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from fxgrad.records import Site
from fxgrad.source.bindings import is_self
from fxgrad.source.objects import class_file, code_of, origin, user_classes
from fxgrad.source.parsing import (
    Function,
    Source,
    enclosing_method,
    first_line,
    functions,
    load,
    nodes,
    qualified_name,
)
from fxgrad.source.statements import header

ELSEWHERE = 1_000  # rank of code outside the object's own classes: after every base


@dataclass(frozen=True, slots=True)
class Lineage:
    """The class statements of an object's class and its bases, nearest first, torch's left out."""

    classes: tuple[tuple[Source, ast.ClassDef], ...]

    def sources(self, files: Sequence[str]) -> list[Source]:
        """The files of the classes, then the others."""
        found = [source for source, _ in self.classes] + [load(file) for file in files]
        return list(dict.fromkeys(found))

    def rank(self, source: Source, base: ast.expr, node: ast.AST) -> tuple[int, Function | None] | None:
        """How near the object `base` in the statement `node` is to the owner, and the method the statement
        stands in.

        The number of the class in method resolution order where `base` is `self` in one of its methods;
        ELSEWHERE where it is some other variable; None where it is the `self` of an unrelated class.
        """
        place = enclosing_method(source, node)
        if place is None or not is_self(base, place[1]):
            return ELSEWHERE, None
        cls, method = place
        return next(((index, method) for index, (_, mine) in enumerate(self.classes) if mine is cls), None)


def lineage(owner: object) -> Lineage:
    """The lineage of an object (of the class itself where a class is given)."""
    cls = owner if isinstance(owner, type) else type(owner)
    found: list[tuple[Source, ast.ClassDef]] = []
    for base in user_classes(cls):
        source = load(class_file(base))
        statement = class_statement(base, source)
        if statement is not None:
            found.append((source, statement))
    return Lineage(tuple(found))


def class_statement(cls: type, source: Source) -> ast.ClassDef | None:
    """The `class` statement; where several have its qualified name, the one around its methods, else the
    last."""
    named = [node for node in nodes(source, ast.ClassDef) if qualified_name(source, node) == cls.__qualname__]
    codes = [code_of(member) for member in vars(cls).values()]
    lines = [
        code.co_firstlineno for code in codes if code and code.co_qualname.startswith(f"{cls.__qualname__}.")
    ]
    around = [node for node in named if any(node.lineno <= line <= (node.end_lineno or 0) for line in lines)]
    return next(reversed(around or named), None)


def definition_site(*items: object) -> Site | None:
    """Where the user wrote what an object is, of the first that the user wrote: the `class` line of the
    nearest of its classes that is the user's own, the `def` of a function. None where all are others'."""
    for item in items:
        source, statement = _own_class(item) or _own_function(item) or (None, None)
        if source is not None and statement is not None:
            return header(source, statement)
    return None


def _own_class(item: object) -> tuple[Source, ast.stmt] | None:
    for base in user_classes(item if isinstance(item, type) else type(item)):
        source = load(file) if origin(file := class_file(base)) == "user" else None
        statement = class_statement(base, source) if source is not None else None
        if source is not None and statement is not None:
            return source, statement
    return None


def _own_function(item: object) -> tuple[Source, ast.stmt] | None:
    code = code_of(item)
    if code is None or origin(code.co_filename) != "user":
        return None
    source = load(code.co_filename)
    found = (node for node in functions(source) if first_line(node) == code.co_firstlineno)
    return next(((source, node) for node in found), None)
