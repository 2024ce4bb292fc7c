"""What an expression's value is called where it stands, and the loops around places.

Made from one parsed file and the Site of an expression. Not handled: names bound by `:=`, by `for` and by
`with`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from fxgrad.records import Site
from fxgrad.source.parsing import Source, ancestors, column_of, load, nodes, site_of

_Loop = ast.For | ast.AsyncFor | ast.While


def assigned_names(site: Site) -> tuple[str, ...]:
    """The targets of the statement around the site, in order: `out`, `h` and `c` of `out, (h, c) = f(x)`; ()
    where it assigns nothing.

    Of `a, b = f(x), g(x)` only the target of the item in which the site lies.
    """
    return _assigned(site, whole=False)


def names_of_value(site: Site) -> tuple[str, ...]:
    """The same where the expression at the site is all that is assigned, and not a part of it."""
    return _assigned(site, whole=True)


def is_display(site: Site) -> bool:
    """Whether what the statement around the site assigns to one name is a tuple or a list that is written
    out."""
    statement = statement_at(site)
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Tuple | ast.List)
        and not any(isinstance(target, ast.Tuple | ast.List) for target in statement.targets)
    )


def is_returned(site: Site) -> bool:
    """Whether the expression at the site is what its function returns."""
    statement = statement_at(site)
    return (
        isinstance(statement, ast.Return)
        and statement.value is not None
        and _is_at(load(site.file), statement.value, site)
    )


def names_read(site: Site) -> frozenset[str]:
    """The names, dotted and subscripted ones too, that the statement around the site reads."""
    statement = statement_at(site)
    read = (ast.Name, ast.Attribute, ast.Subscript)
    found = (node for node in ast.walk(statement) if isinstance(node, read)) if statement is not None else ()
    names = {ast.unparse(node) for node in found if isinstance(node.ctx, ast.Load)}
    return frozenset(
        names | {ast.unparse(statement.target)} if isinstance(statement, ast.AugAssign) else names
    )


def _assigned(site: Site, *, whole: bool) -> tuple[str, ...]:
    statement = statement_at(site)
    source = load(site.file)
    if isinstance(statement, ast.AugAssign):
        return (ast.unparse(statement.target),)
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
        return ()
    value: ast.expr = statement.value
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    items = _items(value)
    parts = _items(target)
    if items and len(items) == len(parts):
        pairs = zip(parts, items, strict=True)
        target, value = next(
            ((part, item) for part, item in pairs if _holds(source, item, site)), (target, value)
        )
    if whole and not _is_at(source, value, site):
        return ()
    return tuple(_names(target))


def _is_at(source: Source, expression: ast.expr, site: Site) -> bool:
    """Whether the expression spans just the site."""
    span = site_of(source, expression)
    return (span.line, span.column, span.end_line, span.end_column) == (
        site.line,
        site.column,
        site.end_line,
        site.end_column,
    )


def statement_at(site: Site) -> ast.stmt | None:
    """The simple statement around the site."""
    source = load(site.file)
    around = [
        node
        for node in source.parents
        if isinstance(node, ast.stmt) and node.lineno <= site.line <= (node.end_lineno or node.lineno)
    ]
    around = [node for node in around if not hasattr(node, "body") and _holds(source, node, site)]
    return around[-1] if around else None


def raises_always(site: Site) -> bool:
    """Whether the site is a `raise` to which its function comes whatever it is given."""
    statement = statement_at(site)
    return isinstance(statement, ast.Raise) and isinstance(
        load(site.file).parents.get(statement), ast.FunctionDef
    )


def call_at(site: Site) -> ast.Call | None:
    """The call whose expression is the site itself."""
    source = load(site.file)
    for node in nodes(source, ast.Call):
        if node.lineno == site.line and column_of(source, node.lineno, node.col_offset) == site.column:
            span = site_of(source, node)
            if (span.end_line, span.end_column) == (site.end_line, site.end_column):
                return node
    return None


def block_around(site: Site, word: str) -> Site | None:
    """The item of a `with` around the site, in the same function, that calls a function of that name."""
    source = load(site.file)
    for block in nodes(source, ast.With):
        if not block.lineno <= site.line <= (block.end_lineno or block.lineno):
            continue
        for item in block.items:
            called = item.context_expr.func if isinstance(item.context_expr, ast.Call) else None
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name == word and _holds(source, block, site):
                return site_of(source, item.context_expr)
    return None


def loop_between(inner: Site, outside: Site | None) -> Site | None:
    """The line of the innermost loop of the same function around `inner` that is not around `outside`; None
    if there is none."""
    source = load(inner.file)
    statement = statement_at(inner)
    if statement is None:
        return None
    spared = _loops(source, statement_at(outside)) if outside is not None else ()
    loop = next((loop for loop in _loops(source, statement) if loop not in spared), None)
    return Site(source.file, loop.lineno) if loop is not None else None


def _loops(source: Source, statement: ast.stmt | None) -> tuple[_Loop, ...]:
    """The loops around a statement within its function, innermost first."""
    found: list[_Loop] = []
    for parent in ancestors(source, statement) if statement is not None else ():
        if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            break
        if isinstance(parent, _Loop):
            found.append(parent)
    return tuple(found)


def _items(expression: ast.expr) -> list[ast.expr]:
    if not isinstance(expression, ast.Tuple | ast.List) or any(
        isinstance(item, ast.Starred) for item in expression.elts
    ):
        return []
    return expression.elts


def _names(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _names(part)
    else:
        yield ast.unparse(target.value if isinstance(target, ast.Starred) else target)


def _holds(source: Source, node: ast.stmt | ast.expr, site: Site) -> bool:
    """Whether the node's span has the site's beginning in it."""
    start = (node.lineno, column_of(source, node.lineno, node.col_offset))
    end_line = node.end_lineno or node.lineno
    end = (end_line, column_of(source, end_line, node.end_col_offset or 0))
    return start <= (site.line, site.column or start[1]) < end


def call_on(site: Site, names: Iterable[str]) -> ast.Call | None:
    """In the statement around the site, the outermost call that is given one of these names."""
    statement = statement_at(site)
    wanted = set(names)
    for node in ast.walk(statement) if statement is not None else ():
        if isinstance(node, ast.Call) and any(ast.unparse(argument) in wanted for argument in node.args):
            return node
    return None


def with_detached(call: ast.Call, names: Iterable[str]) -> str:
    """The call with `.detach()` behind each of its arguments that has one of these names."""
    wanted = set(names)
    arguments = [
        f"{text}.detach()" if (text := ast.unparse(argument)) in wanted else text for argument in call.args
    ]
    arguments += [ast.unparse(keyword) for keyword in call.keywords]
    return f"{ast.unparse(call.func)}({', '.join(arguments)})"


def receiver(site: Site) -> str:
    """What the method at the site is called on, where that is a name: `t` of `t.mean(0)`; else ""."""
    call = call_at(site)
    match call.func if call is not None else None:
        case ast.Attribute(value=ast.Name(id=name)) if name not in ("torch", "F", "nn"):
            return name
    return ""


def next_backward(site: Site) -> Site | None:
    """The first `.backward(...)` below the site in the same function."""
    source = load(site.file)
    calls = [
        n
        for n in nodes(source, ast.Call)
        if isinstance(n.func, ast.Attribute) and n.func.attr == "backward" and n.lineno > site.line
    ]
    found = (site_of(source, call) for call in calls)
    return next((call for call in found if call.function == site.function), None)


def differentiated(site: Site) -> str:
    """What a call at the site goes backward from: `loss` of `loss.backward()`, `scaler.backward(loss)`,
    `grad(loss, x)`; "" if unknown."""
    call = call_at(site)
    if call is None:
        return ""
    if call.args:
        return ast.unparse(call.args[0])
    return ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def added_to(site: Site, name: str) -> str:
    """The other term, where the statement around the site adds to `name`: `loss` of `total = total + loss`;
    "" where it does not."""
    match statement_at(site):
        case ast.AugAssign(target=target, op=ast.Add(), value=value) if ast.unparse(target) == name:
            return ast.unparse(value)
        case ast.Assign(targets=[target], value=ast.BinOp(left=left, op=ast.Add(), right=right)) if (
            ast.unparse(target) == name
        ):
            return ast.unparse(right if ast.unparse(left) == name else left)
    return ""
