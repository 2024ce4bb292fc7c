"""Statements at a place: the one around a position, and the `return`s of a function.

Made from one parsed file. A compound statement (`if`, `for`, `with`, `def`) stands for its header, since its
body are other statements.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from fxgrad.records import Site
from fxgrad.source.objects import code_of, origin
from fxgrad.source.parsing import (
    Function,
    Source,
    ancestors,
    column_of,
    enclosing_function,
    first_line,
    functions,
    load,
    nodes,
    position,
    site_of,
)

_Statement = ast.stmt | ast.ExceptHandler


def statement_site(file: str, line: int, column: int = 0) -> Site | None:
    """The innermost statement around the position; without a column, the first that stands on the line."""
    source = load(file)
    around = [
        node
        for node in source.parents
        if isinstance(node, _Statement) and _covers(source, node, line, column)
    ]
    if not around:
        return None
    # Preorder puts the innermost last; without a column `a = 1; b = 2` leaves two on equal footing.
    innermost = (node for node in around if not any(node in ancestors(source, other) for other in around))
    site = header(source, around[-1] if column else next(innermost))
    if column and not site.line <= line <= site.end_line:  # between the statements of a body
        return statement_site(file, line)
    return site


def return_sites(file: str, function_first_line: int) -> tuple[Site, ...]:
    """The `return`s of the function that starts on that line (its `co_firstlineno`); a lambda's body is its
    return."""
    source = load(file)
    for function in functions(source):
        if function_first_line in (first_line(function), function.lineno):
            returns = nodes(source, ast.Return)
            return tuple(
                site_of(source, node) for node in returns if enclosing_function(source, node) is function
            )
    lambdas = [node for node in nodes(source, ast.Lambda) if node.lineno == function_first_line]
    return tuple(site_of(source, node.body) for node in lambdas)


def clearing_site(file: str, function_first_line: int) -> Site | None:
    """In the function that starts on that line, the last statement that sets a `.grad` or changes it in
    place; None if it has none."""
    source = load(file)
    found: list[ast.stmt] = []
    for node in nodes(source, ast.Attribute):
        function = enclosing_function(source, node)
        if node.attr != "grad" or function is None:
            continue
        if function_first_line in (first_line(function), function.lineno) and _is_changed(source, node):
            found.append(next(p for p in ancestors(source, node) if isinstance(p, ast.stmt)))
    return site_of(source, found[-1]) if found else None


def _is_changed(source: Source, node: ast.Attribute) -> bool:
    parent = source.parents.get(node)
    match parent:
        case ast.Attribute(attr=name):
            return name.endswith("_") and not name.endswith("__")
        case ast.Subscript(ctx=ast.Store()):
            return True
    return not isinstance(node.ctx, ast.Load)


def backward_return_site(function_class: type) -> Site | None:
    """The `return` to blame for a missing gradient: the first with a literal None in it, else the last."""
    returns = tuple(_backward_returns(function_class))
    with_none = [site for site, node in returns if _has_none(node)]
    return next(iter(with_none or [site for site, _ in returns[-1:]]), None)


def backward_return_sites(function_class: type) -> tuple[Site, ...]:
    """The `return`s in the `backward` (or `vjp`) of an `autograd.Function`, or of the class of its backward
    node."""
    return tuple(site for site, _ in _backward_returns(function_class))


def _backward_returns(function_class: type) -> Iterator[tuple[Site, ast.Return]]:
    for source, function in _backwards(function_class):
        for node in nodes(source, ast.Return):
            if enclosing_function(source, node) is function:
                yield site_of(source, node), node


def _backwards(function_class: type) -> Iterator[tuple[Source, Function]]:
    """The `backward`, or else the `vjp`, of the class, or of the one that it is the backward node of."""
    function_class = getattr(function_class, "_forward_cls", function_class)
    for method in ("backward", "vjp"):
        code = code_of(getattr(function_class, method, None))
        if code is None or origin(code.co_filename) == "none":
            continue
        source = load(code.co_filename)
        for function in functions(source):
            if function.name == code.co_name and first_line(function) == code.co_firstlineno:
                yield source, function
        return


def read_in_backward(function_class: type) -> frozenset[str]:
    """The attributes of `ctx` whose elements the `backward` (or `vjp`) of an `autograd.Function` reads, or of
    the class of its backward node; what only asks for a shape or a type (`ctx.x.shape`) reads none."""
    found: set[str] = set()
    for source, function in _backwards(function_class):
        context = next(iter((*function.args.posonlyargs, *function.args.args)), None)
        for node in nodes(source, ast.Attribute):
            if (
                context is not None
                and isinstance(node.value, ast.Name)
                and node.value.id == context.arg
                and any(around is function for around in ancestors(source, node))
                and not _asks_what_it_is(source, node)
            ):
                found.add(node.attr)
    return frozenset(found)


# Of a tensor: what says what it is, and nothing of its elements.
SAYS_WHAT_IT_IS = frozenset(
    "shape dtype device ndim layout size dim numel requires_grad is_leaf is_contiguous".split()
)


def _asks_what_it_is(source: Source, node: ast.Attribute) -> bool:
    parent = source.parents.get(node)
    return not isinstance(node.ctx, ast.Load) or (
        isinstance(parent, ast.Attribute) and parent.attr in SAYS_WHAT_IT_IS
    )


def _has_none(node: ast.Return) -> bool:
    values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    return any(value is None or (isinstance(value, ast.Constant) and value.value is None) for value in values)


def _covers(source: Source, node: _Statement, line: int, column: int) -> bool:
    start, end = _start(node), (node.end_lineno or node.lineno, node.end_col_offset or 0)
    if not column:
        return start[0] <= line <= end[0]
    first, last = ((at[0], column_of(source, *at)) for at in (start, end))
    return first <= (line, column) < last


def _start(node: _Statement) -> tuple[int, int]:
    """A decorated function or class begins at its first decorator."""
    decorators = node.decorator_list if isinstance(node, Function | ast.ClassDef) else []
    return min(position(part) for part in (node, *decorators))


def header(source: Source, node: _Statement) -> Site:
    """The span of a simple statement; of a compound one from its keyword to before its colon."""
    site = site_of(source, node)
    kinds = (ast.stmt, ast.excepthandler, ast.match_case)
    children = list(ast.iter_child_nodes(node))
    if not any(isinstance(child, kinds) for child in children):
        return site
    parts = [part for child in children if not isinstance(child, kinds) for part in ast.walk(child)]
    spanned = [
        part for part in parts if isinstance(part, ast.expr | ast.arg) and position(part) > position(node)
    ]
    ends = ((part.end_lineno or 0, part.end_col_offset or 0) for part in spanned)
    line, offset = max(ends, default=(node.lineno, node.col_offset))
    start = column_of(source, line, offset) - 1
    # After the last expression there are only brackets, commas and comments before the colon.
    while line <= len(source.lines):
        rest = source.lines[line - 1][start:].partition("#")[0]
        if ":" in rest:
            return replace(site, end_line=line, end_column=start + rest.index(":") + 1)
        line, start = line + 1, 0
    return site
