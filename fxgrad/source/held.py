"""The list or dict of a function that a value is put into, and what is taken out of it again.

`losses["box"] = ...`, `outs.append(...)`, `terms = [f(o) for o in outs]`, also by way of one variable
(`aux = head(x)`, then `outs.append(aux)`). From the text alone. Not handled: attributes, containers that are
handed to another function, loops over a whole container.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from fxgrad.records import Site
from fxgrad.source.handed_on import expression_at, reads_of_result
from fxgrad.source.parsing import Function, Source, enclosing_function, load, nodes

Key = str | int | None


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What goes into one variable, and what is taken out of it again.

    `own` is put into the variable `name` ("" if it is returned at once), under `own_key` where that is a
    constant, and so are all `puts`; `picks` take something out. `size`: of a list written out. Without `puts`
    a call returned it so.
    """

    source: Source
    function: Function
    name: str
    own: ast.expr
    own_key: Key
    size: int
    puts: tuple[ast.expr, ...]
    picks: tuple[ast.Subscript, ...]

    def key(self, pick: ast.Subscript) -> Key:
        """The constant by which it is taken, counted from the start; None where it is none."""
        match pick.slice:
            case ast.Constant(value=str(key) | int(key)):
                return key
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(back))) if self.size:
                return self.size - back
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Put:
    name: str
    item: ast.expr
    key: Key
    size: int = 0


def held_in(site: Site, returned: Key = None) -> Held | None:
    """Where the value of the expression at `site` is put; None where it is not put into one such variable.

    `returned`: the key under which the expression has it, in a dict or list of its own.
    """
    source = load(site.file)
    expression = expression_at(source, site)
    function = enclosing_function(source, expression) if expression is not None else None
    if expression is None or function is None:
        return None
    own_statements = (s for s in nodes(source, ast.stmt) if enclosing_function(source, s) is function)
    puts = [put for statement in own_statements for put in _puts(statement)]
    found = reads_of_result(site)
    reads: tuple[ast.expr, ...] = found[2] if found is not None else ()
    own = next((put for put in puts if put.item is expression or (put.item,) == reads), None)
    if own is None:
        return _handed_back(source, function, expression, returned, reads)
    mine = tuple(put.item for put in puts if put.name == own.name)
    picks = _picks(source, function, own.name)
    return Held(source, function, own.name, own.item, own.key, own.size, mine, picks)


def _handed_back(
    source: Source, function: Function, expression: ast.expr, key: Key, reads: tuple[ast.expr, ...]
) -> Held | None:
    """Of an expression that gives a dict or list, held by what reads its result."""
    if key is None or not reads:
        return None
    name = ast.unparse(reads[0])
    picks = _picks(source, function, name)
    if len(picks) != len(reads):
        return None  # it is handed on as well
    return Held(source, function, name, expression, key, 0, (), picks)


def _picks(source: Source, function: Function, name: str) -> tuple[ast.Subscript, ...]:
    """Where something is taken out of the variable."""
    return tuple(
        node
        for node in nodes(source, ast.Subscript)
        if isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
        and enclosing_function(source, node) is function
    )


def _puts(statement: ast.stmt) -> Iterator[_Put]:
    """What one statement puts into a list or dict that a variable holds."""
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ):
            yield from _displayed(name, value)
        case ast.Return(value=value):
            yield from _displayed("", value)
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=key)], value=item):
            yield _Put(name, item, _constant(key))
        case ast.Expr(
            value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[item])
        ):
            yield _Put(name, item, None)


def _displayed(name: str, value: ast.expr | None) -> Iterator[_Put]:
    match value:
        case ast.List(elts=items) | ast.Tuple(elts=items):
            for index, item in enumerate(items):
                yield _Put(name, item, index, len(items))
        case ast.Dict(keys=keys, values=items):
            for key, item in zip(keys, items, strict=True):
                yield _Put(name, item, _constant(key))
        case ast.ListComp(elt=item) | ast.DictComp(value=item):
            yield _Put(name, item, None)


def _constant(key: ast.expr | None) -> Key:
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str | int) else None
