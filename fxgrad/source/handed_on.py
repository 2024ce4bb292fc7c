"""Where a value goes out of scope: the function that had it and neither returned it nor used it any further.

From the stack of the last step that used the value, and the text of the functions on it. A function hands a
value on if its text puts the expression, or a name that holds it, in a returned value as it is: alone, in a
tuple, list or dict, in a constructor. What a call or an operator makes of it is another value, and a later
step would have used it. Not handled: values kept in objects (`self.x = ...`) and read elsewhere, generators;
where the text cannot be read the innermost function counts.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

from fxgrad.records import Site
from fxgrad.source.parsing import (
    Function,
    Source,
    ancestors,
    column_of,
    last_name,
    load,
    nodes,
    position,
    site_of,
)

_COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
_PLAIN_CONTAINERS = frozenset({"dict", "tuple", "list", "OrderedDict", "namedtuple"})
_ASSIGNING = ast.Assign | ast.AnnAssign | ast.AugAssign
_ADDING = frozenset({"append", "extend", "insert", "update", "add", "setdefault"})


def dropped_in(stack: tuple[Site, ...], start: int = 0) -> int:
    """The index of the frame that lost the value (`stack` innermost first); `len(stack)` if every one handed
    it on."""
    for index in range(start, len(stack)):
        if not hands_on(stack[index]):
            return index
    return len(stack)


def hands_on(site: Site) -> bool:
    """Whether the function around the expression at `site` returns its value."""
    if site.function.rpartition(".")[2] in _COMPREHENSIONS:
        return True
    return _hands_on(load(site.file), site)


@functools.lru_cache(maxsize=4096)
def _hands_on(source: Source, site: Site) -> bool:
    expression = expression_at(source, site)
    if expression is None:
        return False
    scope = _scope(source, expression)
    if isinstance(scope, ast.Lambda):
        return any(part is expression for part in _as_is(scope.body))
    if not isinstance(scope, Function):
        return False
    returned = [part for value in _returned(source, scope) for part in _as_is(value)]
    if any(part is expression for part in returned):
        return True
    held = _holders(source, expression)
    if _overwriting(source, scope, expression, held) is not None:
        return False
    names = {part.id for part in returned if isinstance(part, ast.Name)}
    return bool(held) and held <= names | _moved(source, scope, names, held)


def _returned(source: Source, scope: Function) -> Iterator[ast.expr]:
    for statement in nodes(source, ast.Return):
        if statement.value is not None and _scope(source, statement) is scope:
            yield statement.value


def thrown_away(site: Site) -> Site | None:
    """The statement that loses the value of the expression at `site`: itself if it is bare (`a + b`), else
    one that rebinds its name."""
    source = load(site.file)
    expression = expression_at(source, site)
    if expression is None:
        return None
    if isinstance(source.parents.get(expression), ast.Expr):
        return site
    scope = _scope(source, expression)
    if not isinstance(scope, Function):
        return None
    found = _overwriting(source, scope, expression, _holders(source, expression))
    return site_of(source, found) if found is not None else None


def return_around(site: Site) -> Site | None:
    """The last `return` statement of the function around `site`."""
    source = load(site.file)
    expression = expression_at(source, site)
    scope = _scope(source, expression) if expression is not None else None
    found = [
        n
        for n in nodes(source, ast.Return)
        if isinstance(scope, Function) and _scope(source, n) is scope and n.lineno >= site.line
    ]
    if not found:
        return None
    return site_of(source, found[-1])


def reads_of_result(site: Site) -> tuple[Source, Function, tuple[ast.Name, ...]] | None:
    """Where the function around the expression at `site` reads the one variable that holds its value."""
    source = load(site.file)
    expression = expression_at(source, site)
    scope = _scope(source, expression) if expression is not None else None
    if expression is None or not isinstance(scope, Function):
        return None
    held = _holders(source, expression)
    if len(held) != 1 or not all(held):
        return None
    names = [node for node in nodes(source, ast.Name) if node.id in held and _scope(source, node) is scope]
    if sum(isinstance(node.ctx, ast.Store) for node in names) != 1:
        return None  # it is another value at times
    return source, scope, tuple(node for node in names if isinstance(node.ctx, ast.Load))


def expression_at(source: Source, site: Site) -> ast.expr | None:
    """The syntax node with exactly the span of `site`."""
    for node in source.parents:
        if not isinstance(node, ast.expr) or node.lineno != site.line or node.end_lineno != site.end_line:
            continue
        start = column_of(source, node.lineno, node.col_offset)
        end = column_of(source, site.end_line, node.end_col_offset or 0)
        if (start, end) == (site.column, site.end_column):
            return node
    return None


def _scope(source: Source, node: ast.AST) -> ast.AST | None:
    return next(
        (parent for parent in ancestors(source, node) if isinstance(parent, Function | ast.Lambda)), None
    )


def _as_is(value: ast.expr) -> Iterator[ast.expr]:
    """The expressions whose values stand unchanged in the value of another: itself, the items of a container
    it builds."""
    yield value
    match value:
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            for part in parts:
                yield from _as_is(part)
        case ast.Dict(values=parts):
            for part in parts:
                yield from _as_is(part)
        case ast.Starred(value=part) | ast.NamedExpr(value=part):
            yield from _as_is(part)
        case ast.IfExp(body=first, orelse=second):
            yield from _as_is(first)
            yield from _as_is(second)
        case (
            ast.ListComp(elt=part)
            | ast.SetComp(elt=part)
            | ast.GeneratorExp(elt=part)
            | ast.DictComp(value=part)
        ):
            yield from _as_is(part)
        case ast.Call(func=function, args=args, keywords=keywords) if _constructs(function):
            for part in (*args, *(keyword.value for keyword in keywords)):
                yield from _as_is(part)


def _constructs(function: ast.expr) -> bool:
    name = last_name(function)
    return name in _PLAIN_CONTAINERS or (name[:1].isupper() and not name.isupper())


def _holders(source: Source, expression: ast.expr) -> set[str]:
    """The local names that the value is assigned to or put into; of an unpacked result every target, for any
    may be the one."""
    child: ast.AST = expression
    for parent in ancestors(source, expression):
        if isinstance(parent, ast.stmt):
            value = parent.value if isinstance(parent, _ASSIGNING) else None
            if (
                isinstance(parent, _ASSIGNING)
                and value is not None
                and any(part is expression for part in _as_is(value))
            ):
                return _targets(parent)
            return set()
        if isinstance(parent, ast.NamedExpr) and parent.value is child:
            return {parent.target.id}
        if isinstance(parent, ast.Call) and child in parent.args and _container(parent) is not None:
            return {_container(parent) or ""}
        child = parent
    return set()


def _overwriting(source: Source, scope: Function, expression: ast.expr, held: set[str]) -> ast.stmt | None:
    """A statement after the expression, or around the same loop, that binds a name of `held` to something
    else."""
    own = next(parent for parent in ancestors(source, expression) if isinstance(parent, ast.stmt))
    for statement in nodes(source, ast.Assign):
        if _scope(source, statement) is not scope or not _targets(statement) & held & _names(
            statement.targets
        ):
            continue
        if _targets(statement) & {
            node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)
        }:
            continue
        if _runs_after(source, own, statement):
            return statement
    return None


def _names(targets: list[ast.expr]) -> set[str]:
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _runs_after(source: Source, first: ast.stmt, then: ast.stmt) -> bool:
    """Whether `then` can run after `first`: it stands below and not in the other branch of an `if`, or a loop
    leads back to it."""
    around = [parent for parent in ancestors(source, first)]
    inside = [first, *around]
    path = [then, *ancestors(source, then)]
    common = next(node for node in path if node in inside)
    if any(
        isinstance(node, ast.For | ast.While)
        for node in (common, *ancestors(source, common))
        if node in around
    ):
        return not isinstance(common, ast.If)
    if position(then) <= position(first):
        return False
    if isinstance(common, ast.If):
        child = path[path.index(common) - 1]
        return (child in common.body) == (inside[inside.index(common) - 1] in common.body)
    return True


def _container(call: ast.Call) -> str | None:
    """`outs` of `outs.append(x)`."""
    match call.func:
        case ast.Attribute(value=ast.Name(id=name), attr=method) if method in _ADDING:
            return name
    return None


def _targets(statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> set[str]:
    found: set[str] = set()
    pending: list[ast.expr] = (
        list(statement.targets) if isinstance(statement, ast.Assign) else [statement.target]
    )
    while pending:
        target = pending.pop()
        match target:
            case ast.Name(id=name):
                found.add(name)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                pending.extend(parts)
            case ast.Starred(value=inner):
                pending.append(inner)
            case ast.Subscript(value=ast.Name(id=name)):
                found.add(name)
            case _:
                found.add("")  # an attribute of some object: not a local name, never returned
    return found


def _moved(source: Source, scope: Function, returned: set[str], held: set[str]) -> set[str]:
    """Of the names in `held`, those whose value another statement puts under a name that is returned."""
    moved: set[str] = set()
    grown = True
    while grown:
        grown = False
        for statement in sorted(nodes(source, ast.stmt), key=position):
            if _scope(source, statement) is not scope:
                continue
            for name in _carried(statement, returned | moved) & held - moved:
                moved.add(name)
                grown = True
            for name in _carried(statement, returned | moved) - returned - moved:
                returned = returned | {name}
                grown = True
    return moved


def _carried(statement: ast.stmt, into: set[str]) -> set[str]:
    """The names whose values one statement puts, as they are, under a name of `into`."""
    match statement:
        case ast.Assign(value=value) | ast.AugAssign(value=value) | ast.AnnAssign(value=ast.expr() as value):
            if not _targets(statement) & into:
                return set()
            parts = list(_as_is(value))
        case ast.Expr(value=ast.Call(args=args) as call) if _container(call) in into:
            parts = [part for argument in args for part in _as_is(argument)]
        case _:
            return set()
    return {part.id for part in parts if isinstance(part, ast.Name)}
