"""An in-place statement as the assignment that makes a new tensor: `h = h * (a + b)` for `h *= a + b`.

Made from its text alone. Not handled: parts of a tensor, and methods that no operator stands for; these
give "".
"""

from __future__ import annotations

import ast

_METHODS: dict[str, type[ast.operator]] = {
    "add_": ast.Add,
    "sub_": ast.Sub,
    "mul_": ast.Mult,
    "div_": ast.Div,
}


def augmented(text: str) -> str:
    """Of `h *= a`, a name or an attribute."""
    match _statement(text):
        case ast.AugAssign(target=target, op=operator, value=value):
            return _assignment(target, operator, value)
    return ""


def past_autograd(text: str) -> str:
    """Of `h.data *= a`, `h.data.mul_(a)` and `h.detach().mul_(a)`: of the tensor itself."""
    match _statement(text):
        case ast.AugAssign(target=ast.Attribute(whole, "data"), op=operator, value=value):
            return _assignment(whole, operator, value)
        case ast.Expr(ast.Call(ast.Attribute(target, method), [value], [])) if method in _METHODS:
            match target:
                case ast.Attribute(whole, "data") | ast.Call(ast.Attribute(whole, "detach"), [], []):
                    return _assignment(whole, _METHODS[method](), value)
    return ""


def _statement(text: str) -> ast.stmt | None:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return None
    return body[0] if len(body) == 1 else None


def _assignment(target: ast.expr, operator: ast.operator, value: ast.expr) -> str:
    if not isinstance(target, ast.Name | ast.Attribute) or isinstance(value, ast.Starred):
        return ""
    # the parentheses that are needed are written
    return f"{ast.unparse(target)} = {ast.unparse(ast.BinOp(target, operator, value))}"
