"""The statements that a Python number is read by, where the text shows it: the other side of
`fxgrad.source.numbers_onward`, which says where one cannot have come to. What the text does not show is not
among them: attributes, what a function of the user's is handed, variables that are bound twice.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from fxgrad.records import Site
from fxgrad.source.assigned import statement_at
from fxgrad.source.handed_on import expression_at
from fxgrad.source.numbers_onward import scope_of
from fxgrad.source.parsing import Source, ancestors, load, nodes, position

_SERIES = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def statements_reading(left: tuple[Site, ...]) -> frozenset[ast.stmt]:
    """The simple statements below that read what the expression at `left` gave, or what was computed from it:
    by variables that are bound once; that run as it decides; or in a function that it is returned to.

    What is computed of it in its own statement was seen; in that of a call which returned it other things
    ran.
    """
    found: set[ast.stmt] = set()
    own: set[ast.stmt] = set()
    seen: ast.AST | None = None
    for site in left:
        source = load(site.file)
        node = expression_at(source, site)
        scope = scope_of(source, node) if node is not None else None
        if node is None:
            break
        if scope is seen:
            continue  # a comprehension has a frame of its own, and is no scope of its own here
        seen = scope
        read, own_statement = _read_in(source, node), statement_at(site)
        own.update(() if own_statement is None else (own_statement,))
        found |= read
        if not any(isinstance(statement, ast.Return) for statement in read):
            break
    return frozenset(found - own)


def _read_in(source: Source, node: ast.expr) -> set[ast.stmt]:
    """The same in the scope of the expression alone, its own statement included."""
    found: set[ast.stmt] = set()
    pending: list[ast.expr] = [node]
    while pending:
        around = list(ancestors(source, pending.pop()))
        statement = next((one for one in around if isinstance(one, ast.stmt | ast.Lambda)), None)
        if not isinstance(statement, ast.stmt) or statement in found:
            continue
        if isinstance(statement, ast.For | ast.If):
            inside = (one for one in ast.walk(statement) if isinstance(one, ast.stmt))
            found.update(one for one in inside if not hasattr(one, "body"))
        elif not hasattr(statement, "body"):
            found.add(statement)
            in_series = any(isinstance(one, _SERIES) for one in around[: around.index(statement)])
            pending += _reads_of_targets(source, statement, whole=in_series)
    return found


def _reads_of_targets(source: Source, statement: ast.stmt, *, whole: bool) -> Iterator[ast.Name]:
    """Where the variables that a statement binds, and no other does, are read below it. `whole`: not where
    only an item is, which may be another's."""
    scope = scope_of(source, statement)
    names = [one for one in nodes(source, ast.Name) if scope_of(source, one) is scope]
    stored = Counter(one.id for one in names if isinstance(one.ctx, ast.Store))
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    once = {one.id: one for one in targets if isinstance(one, ast.Name) and stored[one.id] == 1}
    for name in names:
        target = once.get(name.id)
        if whole and isinstance(source.parents.get(name), ast.Subscript):
            continue
        if target is not None and isinstance(name.ctx, ast.Load) and position(name) > position(target):
            yield name
