"""What expressions are called: dotted names without their aliases, attribute paths, names built from strings.

Made from one parsed file. Aliases are gathered over the whole file, whichever scope binds them; names that
`from x import *` brings in stay as they are written.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from fxgrad.source.parsing import Source, nodes

REGISTRIES = frozenset({"_parameters", "_modules", "_buffers", "__dict__"})
_PERCENT = re.compile(r"%(\(\w*\))?[-#0 +]*(\*|\d+)?(\.(\*|\d+))?[a-zA-Z]")
_BRACES = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Path:
    """An attribute path: `model.layers[0].weight` has root `model` and words `layers 0 weight`.

    A word known only at run time is a pattern (see `name_pattern`), an unknown root "".
    """

    root: str
    words: tuple[str, ...] = ()


@lru_cache(maxsize=512)
def aliases(source: Source) -> Mapping[str, str]:
    """What each imported name stands for, and each name assigned from one: after `O = optim.SGD`, `O` is an
    `SGD`."""
    found: dict[str, str] = {}
    for statement in nodes(source, ast.stmt):
        if isinstance(statement, ast.Import):
            for name in statement.names:
                top = name.name.split(".")[0]  # `import a.b` binds `a`, `import a.b as c` binds `c`
                found[name.asname or top] = name.name if name.asname else top
        elif isinstance(statement, ast.ImportFrom):
            module = "." * statement.level + (statement.module or "")
            found.update((a.asname or a.name, f"{module}.{a.name}") for a in statement.names)
    for statement in nodes(source, ast.Assign):
        target, value = statement.targets[0], plain_dotted(statement.value)
        root, _, rest = value.partition(".")
        if isinstance(target, ast.Name) and target.id not in found and root in found:
            found[target.id] = f"{found[root]}.{rest}" if rest else found[root]
    return found


def plain_dotted(expression: ast.expr) -> str:
    """`torch.optim.Adam` as it is written; "" for anything but names joined by dots."""
    parts: list[str] = []
    while isinstance(expression, ast.Attribute):
        parts.append(expression.attr)
        expression = expression.value
    if not isinstance(expression, ast.Name):
        return ""
    return ".".join([expression.id, *reversed(parts)])


def dotted(source: Source, expression: ast.expr) -> str:
    """The same, its first name's alias resolved: after `from torch import optim`, `optim.SGD` is
    `torch.optim.SGD`."""
    written = plain_dotted(expression)
    root, dot, rest = written.partition(".")
    return aliases(source).get(root, root) + dot + rest


def last_word(source: Source, expression: ast.expr) -> str:
    """The last name of a function expression: `to` of `f(x)[0].to`, `no_grad` of its alias `ng`; "" if
    none."""
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return dotted(source, expression).rpartition(".")[2]


def argument(call: ast.Call, index: int, keyword: str) -> ast.expr | None:
    """The argument passed at that position or under that keyword."""
    if index < len(call.args):
        return call.args[index]
    return next((item.value for item in call.keywords if item.arg == keyword), None)


def is_literal(expression: ast.expr | None, value: object) -> bool:
    """Whether the expression is that very constant: `True` is, `1` and `flag` are not."""
    return isinstance(expression, ast.Constant) and expression.value is value


def path_of(expression: ast.expr) -> Path:
    """The attribute path to an object.

    A method call stands for its receiver, `getattr(x, "a")` and `x._modules["a"]` for `x.a`.
    """
    match expression:
        case ast.Name(id=name):
            return Path(name)
        case ast.Attribute(value=base, attr=word):
            path = path_of(base)
            return path if word in REGISTRIES else Path(path.root, (*path.words, word))
        case ast.Subscript(value=base, slice=key):
            path = path_of(base)
            return Path(path.root, (*path.words, name_pattern(key)))
        case ast.Call(func=ast.Name(id="getattr"), args=[base, key, *_]):
            path = path_of(base)
            return Path(path.root, (*path.words, name_pattern(key)))
        case ast.Call(func=ast.Name(id="vars"), args=[base]):
            return path_of(base)
        case ast.Call(func=ast.Name(id="super")):
            return Path("self")
        case ast.Call(func=ast.Attribute(value=base)):
            return path_of(base)
    return Path("")


def name_pattern(expression: ast.expr) -> str:
    """A string expression with `*` for each part known only at run time: `f"fc{i}"` is `fc*`, `name` is
    `*`."""
    match expression:
        case ast.Constant(value=str() | int() as value):
            return str(value)
        case ast.JoinedStr(values=parts):
            return "".join(name_pattern(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return name_pattern(left) + name_pattern(right)
        case ast.BinOp(left=ast.Constant(value=str() as template), op=ast.Mod()):
            return _PERCENT.sub("*", template)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as template), attr="format")):
            return _BRACES.sub("*", template)
    return "*"


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern of `name_pattern` can be that name."""
    return pattern == name or re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None


def is_unknown(pattern: str) -> bool:
    """Whether a pattern says nothing at all about the name."""
    return not pattern.strip("*")
