"""Where gradients are switched off: global statements, `with` items and decorators.

Made from parsed files. The switches are `no_grad`, `inference_mode` and `set_grad_enabled`; one whose
argument is computed (`set_grad_enabled(flag)`) counts, since it may be False. Not handled: context managers
that the user wrote around these, `ExitStack.enter_context(...)`, and functions wrapped by a plain call
`torch.no_grad()(f)`.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fxgrad.records import Site
from fxgrad.source.names import argument, is_literal, last_word
from fxgrad.source.objects import origin
from fxgrad.source.parsing import (
    Function,
    Source,
    ancestors,
    enclosing_function,
    first_line,
    functions,
    load,
    nodes,
    site_of,
)

_SETTERS = frozenset({"set_grad_enabled", "_set_grad_enabled"})
_SWITCHES = _SETTERS | {"no_grad", "inference_mode"}
_PASSING = (ast.IfExp, ast.BoolOp, ast.Tuple)  # an expression statement may hold its call in one of these


def grad_off_sites(files: Sequence[str]) -> tuple[Site, ...]:
    """Statements that switch gradients off for all that follows: a bare `set_grad_enabled(False)`, an
    `__enter__()`.

    Those with a literal False, or no argument at all, come first: `set_grad_enabled(previous)` may as well
    restore. Installed packages come last.
    """
    found: list[tuple[tuple[bool, bool], Site]] = []
    for file in files:
        source = load(file)
        for call in nodes(source, ast.Call):
            switch = _global_switch(source, call)
            if switch is not None and _is_statement(source, call):
                computed = not isinstance(_mode(switch), ast.Constant | None)
                found.append(((origin(source.file) == "installed", computed), site_of(source, call)))
    return tuple(site for _, site in sorted(found, key=lambda item: item[0]))


def no_grad_site(site: Site) -> Site | None:
    """What switches gradients off for a line: the innermost `with` item around it, else its function's
    decorator."""
    source = load(site.file)
    regions, function, enabled = _around(source, site.line)
    if regions or function is None or enabled:
        return next(iter(regions), None)
    return _decorator(source, function)


def region_site(file: str, line: int) -> Site | None:
    """The innermost of `region_sites`."""
    return next(iter(region_sites(file, line)), None)


def region_sites(file: str, line: int) -> tuple[Site, ...]:
    """The `with` items around a line that switch gradients off for it, innermost first.

    Stops at the function's border, since a function defined inside `with no_grad()` runs elsewhere;
    `enable_grad` hides what is around it, except `inference_mode`, which it does not undo.
    """
    return _around(load(file), line)[0]


def decorator_site(code: types.CodeType) -> Site | None:
    """The innermost decorator that switches gradients off around the function with that code, its `@`
    included."""
    source = load(code.co_filename)
    for function in functions(source):
        if function.name == code.co_name and code.co_firstlineno in (first_line(function), function.lineno):
            return _decorator(source, function)
    return None


def _around(source: Source, line: int) -> tuple[tuple[Site, ...], Function | None, bool]:
    """The items of `region_sites`, the line's function, and whether a `with` inside it switches
    gradients on."""
    covering = [node for node in source.parents if _covers(node, line)]
    borders = [index for index, node in enumerate(covering) if isinstance(node, Function)]
    found: list[Site] = []
    enabled = False
    for node in reversed(covering[borders[-1] + 1 if borders else 0 :]):
        for item in reversed(node.items) if isinstance(node, ast.With | ast.AsyncWith) else ():
            switches = list(_switches(source, item.context_expr))
            if any(not enabled or last_word(source, switch.func) == "inference_mode" for switch in switches):
                found.append(site_of(source, item.context_expr, item.optional_vars))
            enabled = enabled or _enables(source, item.context_expr)
    function = covering[borders[-1]] if borders else None
    return tuple(found), function if isinstance(function, Function) else None, enabled


def _decorator(source: Source, function: Function) -> Site | None:
    """The innermost decorator that switches gradients off, from its `@`."""
    for decorator in reversed(function.decorator_list):
        if _switches_off(source, decorator):
            site = site_of(source, decorator)
            at_sign = source.lines[site.line - 1].rfind("@", 0, site.column - 1)
            return replace(site, column=at_sign + 1) if at_sign >= 0 else site
    return None


def _global_switch(source: Source, call: ast.Call) -> ast.Call | None:
    """The switch that a call throws at once: `set_grad_enabled(x)`, the `no_grad()` of
    `no_grad().__enter__()`."""
    if last_word(source, call.func) in _SETTERS:
        return call if _switches_off(source, call) else None
    if isinstance(call.func, ast.Attribute) and call.func.attr == "__enter__":
        return next(_switches(source, call.func.value), None)
    return None


def _is_statement(source: Source, call: ast.Call) -> bool:
    for parent in ancestors(source, call):
        if not isinstance(parent, _PASSING):
            return isinstance(parent, ast.Expr)
    return False


def _switches(source: Source, expression: ast.expr) -> Iterator[ast.Call]:
    """The switches in a context expression: itself, a branch of `a if c else b`, or what its name was
    assigned."""
    if not isinstance(expression, ast.Name):
        yield from _written_out(source, expression)
        return
    function = enclosing_function(source, expression)
    for assignment in nodes(source, ast.Assign):
        names = [target.id for target in assignment.targets if isinstance(target, ast.Name)]
        if expression.id in names and enclosing_function(source, assignment) in (function, None):
            yield from _written_out(source, assignment.value)


def _written_out(source: Source, expression: ast.expr) -> Iterator[ast.Call]:
    if isinstance(expression, ast.IfExp):
        yield from _written_out(source, expression.body)
        yield from _written_out(source, expression.orelse)
    elif isinstance(expression, ast.Call) and _switches_off(source, expression):
        yield expression


def _switches_off(source: Source, expression: ast.expr) -> bool:
    """Whether entering the expression, or being decorated by it, can turn gradients off."""
    function = expression.func if isinstance(expression, ast.Call) else expression
    word = last_word(source, function)
    if word not in _SWITCHES:
        return False
    mode = _mode(expression)
    if word in _SETTERS:
        return not is_literal(mode, True)
    return not (word == "inference_mode" and is_literal(mode, False))


def _mode(expression: ast.expr) -> ast.expr | None:
    return argument(expression, 0, "mode") if isinstance(expression, ast.Call) else None


def _enables(source: Source, expression: ast.expr) -> bool:
    if not isinstance(expression, ast.Call):
        return False
    word = last_word(source, expression.func)
    return word == "enable_grad" or (word == "set_grad_enabled" and is_literal(_mode(expression), True))


def _covers(node: ast.AST, line: int) -> bool:
    return isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
