"""What a constructor tells of an argument that it reads as a sequence: how long it is, and what its elements
are.

From the syntax tree: `len(dims)`, `dims[2]`, `a, b, c = dims`, `for width in widths`. Not handled: what a
function does that the argument is handed to.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fxgrad.source.parsing import last_name

_WALKED = {"len", "list", "tuple", "sum", "enumerate", "zip", "reversed", "sorted", "iter", "map"}


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence of at least `length` elements, `exact`: of no more; `inner`: what its elements are, where
    they are sequences."""

    length: int
    exact: bool
    inner: Sequence | None = None


Is = Callable[[ast.expr], bool]


def sequence_read(scope: ast.AST, name: str) -> Sequence | None:
    """What the scope tells of `name`; None where it does not read it as a sequence."""
    return _read(scope, lambda node: last_name(node) == name)


def _read(scope: ast.AST, is_it: Is) -> Sequence | None:
    lengths: list[int] = []
    exact = 0
    for node in ast.walk(scope):
        exact = exact or _exact(node, is_it)
        lengths += _at_least(node, is_it)
    if not exact and not lengths:
        return None
    elements = _read(scope, lambda node: _is_element(node, is_it))
    return Sequence(exact or max(lengths), bool(exact), elements)


def _is_element(node: ast.expr, is_it: Is) -> bool:
    """`dims[2]`; `dims[1:]` is no element but a sequence of the same kind."""
    return isinstance(node, ast.Subscript) and is_it(node.value) and not isinstance(node.slice, ast.Slice)


def _exact(node: ast.AST, is_it: Is) -> int:
    """The length that a comparison or an assignment to several names asks for; 0 where none does."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
        number = node.comparators[0]
        if isinstance(number, ast.Constant) and type(number.value) is int and [*_walked(node.left, is_it)]:
            return number.value
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and is_it(node.value):
        targets = node.targets[0].elts
        return 0 if any(isinstance(target, ast.Starred) for target in targets) else len(targets)
    return 0


def _at_least(node: ast.AST, is_it: Is) -> Iterator[int]:
    """The lengths below which the node would fail; 0 where it only says that it is a sequence."""
    if isinstance(node, ast.Subscript) and is_it(node.value):
        place = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not isinstance(place, str):  # a key
            yield place + 1 if type(place) is int else 0
    if isinstance(node, ast.For | ast.comprehension) and is_it(node.iter):
        yield 0
    yield from _walked(node, is_it)


def _walked(node: ast.AST, is_it: Is) -> Iterator[int]:
    if isinstance(node, ast.Call) and last_name(node.func) in _WALKED and any(map(is_it, node.args)):
        yield 0
