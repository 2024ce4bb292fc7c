"""Where an array that shares a tensor's memory is written: the statement after the one that handed the memory
out.

From the source text alone: NumPy's writes are no steps. Found are, in the function that calls `.numpy()`,
writes of the name it was bound to: `a[...] = `, `a += `, `a.sort()` and its kind, `np.clip(..., out=a)`,
`np.copyto(a, ...)`. Not handled: arrays handed to other functions or kept on objects; then there is no site
and the handing out must stand for the write.
"""

from __future__ import annotations

import ast

from fxgrad.records import Site
from fxgrad.source.parsing import (
    Source,
    ancestors,
    column_of,
    enclosing_function,
    load,
    nodes,
    position,
    site_of,
)

_METHODS = frozenset(["sort", "fill", "put", "partition", "itemset", "resize", "setfield"])
_FUNCTIONS = frozenset(["copyto", "put", "place", "putmask", "fill_diagonal", "put_along_axis", "shuffle"])


def write_site(handed_out: Site | None) -> Site | None:
    """The first such statement after `handed_out`."""
    if handed_out is None or not handed_out.column:
        return None
    source = load(handed_out.file)
    name, statement = _bound_to(source, handed_out)
    if statement is None:
        return None
    scope = enclosing_function(source, statement)
    for node in sorted((n for n in source.parents if isinstance(n, ast.stmt | ast.Call)), key=position):
        later = position(node) > position(statement) and enclosing_function(source, node) is scope
        if later and _writes(node, name):
            return site_of(source, node)
    return None


def _bound_to(source: Source, site: Site) -> tuple[str, ast.stmt | None]:
    """The name that the expression at the site is bound to, and the statement that binds it."""
    for node in nodes(source, ast.Call):
        if (node.lineno, column_of(source, node.lineno, node.col_offset)) != (
            site.line,
            site.column,
        ) or node.end_lineno != site.end_line:
            continue
        for parent in ancestors(source, node):
            if (
                isinstance(parent, ast.Assign)
                and len(parent.targets) == 1
                and isinstance(parent.targets[0], ast.Name)
            ):
                return parent.targets[0].id, parent
            if isinstance(parent, ast.stmt):
                break
    return "", None


def _writes(node: ast.stmt | ast.Call, name: str) -> bool:
    if isinstance(node, ast.Assign):
        return any(isinstance(t, ast.Subscript) and _is(t, name) for t in node.targets)
    if isinstance(node, ast.AugAssign):
        return _is(node.target, name)
    if not isinstance(node, ast.Call):
        return False
    if any(k.arg == "out" and _is(k.value, name) for k in node.keywords):
        return True
    if not isinstance(node.func, ast.Attribute):
        return False
    if node.func.attr in _METHODS and _is(node.func.value, name):
        return True
    return node.func.attr in _FUNCTIONS and bool(node.args) and _is(node.args[0], name)


def _is(node: ast.expr, name: str) -> bool:
    """The name itself or a part of it: `a`, `a[0]`, `a[0].T`."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id == name
