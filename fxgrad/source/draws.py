"""Whether a random draw alone decided a condition, an index or a choice: from the text of its function.

An expression is drawn where what decides it comes of calls that draw (of `random`, of NumPy's and torch's
generators), of numbers that they gave, and of what is fixed. A call of a draw that did not run decided
nothing, nor does an operand that comes before the one at which `and` and `or` ended. What is computed from
data as well is no draw.

Not handled: draws in other files, draws handed in as arguments, and generators kept under names of a module.
"""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Callable, Iterator

from fxgrad.source.names import dotted
from fxgrad.source.parsing import Function, Source, enclosing_function, functions, nodes

_MODULES = ("random.", "numpy.random.")
_NO_DRAWS = frozenset(("seed", "default_rng", "Random", "RandomState", "Generator", "SeedSequence"))
_TORCH = frozenset(("rand", "randn", "randint", "randperm", "bernoulli", "normal", "multinomial", "poisson"))
_IN_PLACE = frozenset(("uniform_", "normal_", "random_", "bernoulli_", "exponential_"))
# what is done to a number, or to several, on the way to a condition
_NUMBERS = (
    "item tolist numpy cpu to int float bool long any all argmax argmin min max sum floor ceil round abs"
)
_SEVERAL = "squeeze list set tuple sorted len range enumerate zip isin"
_CONVERSIONS = frozenset([*_NUMBERS.split(), *_SEVERAL.split()])

# From what decides nothing to what decides: a constant, an argument, a draw, data.
_FIXED, _GIVEN, _DRAWN, _DATA = range(4)


def is_drawn(
    source: Source, expression: ast.expr, ran: Callable[[ast.AST], int | None], holder: object = None
) -> bool:
    """Whether random numbers alone decide `expression`. `ran`: how often a part of it ran, None where that is
    not known; `holder`: the module whose method it stands in."""
    return _Reading(source, ran, holder).kind(expression) == _DRAWN


def draws(source: Source, call: ast.Call, holder: object = None) -> bool:
    """Whether this call draws."""
    name = dotted(source, call.func)
    first, last = name.partition(".")[0], name.rpartition(".")[2]
    if name.startswith(_MODULES):
        return last not in _NO_DRAWS
    if first == "torch":
        return last in _TORCH
    if not isinstance(call.func, ast.Attribute):
        return False
    return call.func.attr in _IN_PLACE or _is_generator(call.func.value, holder)


def _is_generator(receiver: ast.expr, holder: object) -> bool:
    """Whether it is an attribute of the module's that holds a generator of Python's or NumPy's."""
    if not (isinstance(receiver, ast.Attribute) and isinstance(receiver.value, ast.Name)):
        return False
    kept = getattr(holder, "__dict__", {}).get(receiver.attr) if receiver.value.id == "self" else None
    numpy = sys.modules.get("numpy.random")
    kinds = (random.Random, *((numpy.Generator, numpy.RandomState) if numpy is not None else ()))
    return isinstance(kept, kinds)


class _Reading:
    """The kinds of the expressions of one file."""

    def __init__(self, source: Source, ran: Callable[[ast.AST], int | None], holder: object) -> None:
        self.source, self.ran, self.holder = source, ran, holder
        self._open: set[tuple[Function | None, str]] = set()

    def kind(self, node: ast.expr) -> int:
        match node:
            case ast.Constant():
                return _FIXED
            case ast.Call():
                return self._of_call(node)
            case ast.Name(id=name):
                return self._of_name(node, name)
            case ast.Attribute():
                return self._of_bound(node, ast.unparse(node), _FIXED)
            case ast.BoolOp(values=values):
                # The last that ran decided.
                return next((self.kind(value) for value in reversed(values) if self.ran(value) != 0), _FIXED)
        compared = _compared(node)
        if compared:
            return self._against(*compared)
        parts = _operands(node)
        return _DATA if parts is None else self._together(*parts)

    def _against(self, *parts: ast.expr) -> int:
        """An argument beside a draw is what that is held against: `random() < p`."""
        kinds = [self.kind(part) for part in parts]
        return max(kind if kind != _GIVEN or _DRAWN not in kinds else _FIXED for kind in kinds)

    def _together(self, *parts: ast.expr) -> int:
        """A draw added to an argument is data."""
        kinds = {self.kind(part) for part in parts}
        return _DATA if {_GIVEN, _DRAWN} <= kinds else max(kinds, default=_FIXED)

    def _of_call(self, call: ast.Call) -> int:
        if draws(self.source, call, self.holder):
            return _DRAWN if self.ran(call) != 0 else _FIXED
        arguments = [*call.args, *(item.value for item in call.keywords)]
        match call.func:
            case ast.Attribute(value=receiver, attr=name) if name in _CONVERSIONS:
                return self._together(receiver, *arguments)
            case ast.Name(id=name) if name in _CONVERSIONS:
                return self._together(*arguments)
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name):
                return self._returned(name)
        return _DATA

    def _returned(self, name: str) -> int:
        """Of a function of the same file."""
        own = [function for function in functions(self.source) if function.name == name]
        if len(own) != 1 or (own[0], "return") in self._open:
            return _DATA
        self._open.add((own[0], "return"))
        values = [
            node.value
            for node in nodes(self.source, ast.Return)
            if node.value is not None and enclosing_function(self.source, node) is own[0]
        ]
        kind = self._against(*values) if values else _DATA
        self._open.discard((own[0], "return"))
        return kind

    def _of_name(self, node: ast.Name, name: str) -> int:
        around = enclosing_function(self.source, node)
        arguments = [a.arg for a in ast.walk(around.args) if isinstance(a, ast.arg)] if around else []
        return self._of_bound(node, name, _GIVEN if name in arguments else _FIXED)

    def _of_bound(self, node: ast.expr, name: str, otherwise: int) -> int:
        """By all that its function binds it to; `otherwise`: where it binds it to nothing."""
        around = enclosing_function(self.source, node)
        if around is None or (around, name) in self._open:
            return otherwise
        self._open.add((around, name))
        kinds = [self.kind(value) for value in _bound(around, name)]
        self._open.discard((around, name))
        if otherwise == _GIVEN and kinds:  # what it was called with is part of it
            return _DATA
        return max(kinds, default=otherwise)


def _compared(node: ast.expr) -> list[ast.expr]:
    """What is held against each other; of a comprehension, all that decides what it holds."""
    match node:
        case ast.Compare(left=left, comparators=others):
            return [left, *others]
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
            return [node.elt, *(part for of in node.generators for part in (*of.ifs, of.iter))]
    return []


def _operands(node: ast.expr) -> list[ast.expr] | None:
    """What a value is put together of; None of any other expression."""
    match node:
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case ast.UnaryOp(operand=operand) | ast.Starred(value=operand) | ast.NamedExpr(value=operand):
            return [operand]
        case ast.Subscript(value=value, slice=index):
            return [value, index]
        case ast.Slice(lower=lower, upper=upper, step=step):
            return [end for end in (lower, upper, step) if end is not None]
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return items
    return None


def _bound(function: Function, name: str) -> Iterator[ast.expr]:
    """What a name stands for in a function: values assigned to it, what loops go over."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=targets, value=value) if any(_binds(t, name) for t in targets):
                yield value
            case ast.AnnAssign(target=target, value=ast.expr() as value) if _binds(target, name):
                yield value
            case ast.AugAssign(target=target, value=value) if _binds(target, name):
                yield value
            case ast.NamedExpr(target=target, value=value) if _binds(target, name):
                yield value
            case ast.For(target=target, iter=of) | ast.comprehension(target=target, iter=of) if _binds(
                target, name
            ):
                yield of


def _binds(target: ast.expr, name: str) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return any(_binds(item, name) for item in target.elts)
    return isinstance(target, ast.Name | ast.Attribute) and ast.unparse(target) == name
