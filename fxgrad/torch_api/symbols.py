"""Python numbers that remember the graph node they came from, so that sizes stay symbolic and scalars keep their provenance.

`SymbolicInt` and `SymbolicFloat` are ordinary ints and floats to any code that reads them; arithmetic with them makes new ones. A number
read off a tensor's *data* (`.item()`) has `data=True`: comparing it is a decision on data. What C code consumes (`range`, `len`,
`math.sqrt`, `int`) becomes a plain number: the trace has then frozen it. `math.ceil`, `floor`, `trunc` and `round` keep the origin.
"""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch.fx


class Owner(Protocol):
    """The recorder that a symbol belongs to."""

    active: bool

    def symbol_node(self, target: Any, args: tuple[Any, ...]) -> torch.fx.Node: ...

    def decide(self, outcome: bool, symbol: Any) -> bool: ...


class _Nobody:
    """The owner of symbols whose run is gone: they are plain numbers."""

    active = False

    def symbol_node(self, target: Any, args: tuple[Any, ...]) -> torch.fx.Node:
        raise AssertionError("the run of this number is over")

    def decide(self, outcome: bool, symbol: Any) -> bool:
        raise AssertionError("the run of this number is over")


_NOBODY = _Nobody()


class Origin:
    """Where a symbol comes from: made into a node at its first use, so that sizes nobody needs leave no trace in the graph.

    Does not keep its run alive: a symbol may end up anywhere, in a cache of some library for one.
    """

    __slots__ = ("_owner", "args", "data", "resolved", "target")

    def __init__(self, owner: Owner, target: Callable[..., Any] | str | None, args: tuple[Any, ...], *, data: bool) -> None:
        self._owner = weakref.ref(owner)
        self.target = target
        self.args = args
        self.data = data
        self.resolved: torch.fx.Node | None = None

    @property
    def owner(self) -> Owner:
        """The recorder of its run."""
        return self._owner() or _NOBODY

    def node(self) -> torch.fx.Node:
        """The number's node. Iterative: a loop that adds sizes up makes a chain as long as it runs."""
        stack = [self]
        while stack:
            origin = stack[-1]
            waiting = [inner for inner in origin.inputs() if inner.resolved is None]
            if origin.resolved is None and not waiting:
                origin.resolved = origin.owner.symbol_node(origin.target, tuple(map(_held, origin.args)))
            if origin.resolved is not None:
                stack.pop()
            stack.extend(waiting)
        assert self.resolved is not None
        return self.resolved

    def inputs(self) -> Iterator[Origin]:
        """The origins that this one was computed from."""
        for arg in self.args:
            if isinstance(arg, SymbolicInt | SymbolicFloat):
                yield arg.origin

    def walk(self) -> Iterator[Origin]:
        """This origin and all that it was computed from, each once."""
        seen: set[int] = set()
        stack = [self]
        while stack:
            origin = stack.pop()
            if id(origin) not in seen:
                seen.add(id(origin))
                yield origin
                stack.extend(origin.inputs())


def _held(arg: Any) -> Any:
    return arg.origin.resolved if isinstance(arg, SymbolicInt | SymbolicFloat) else arg


class SymbolicInt(int):
    """An int with an `origin`."""

    origin: Origin

    # Hash and equality stay int's own: the number is the number.
    __hash__ = int.__hash__

    def __reduce__(self) -> tuple[Any, ...]:  # a copy or a pickle is a plain number: nodes do not travel
        return int, (int(self),)

    def __deepcopy__(self, memo: Any) -> int:
        return int(self)


class SymbolicFloat(float):
    """A float with an `origin`."""

    origin: Origin

    __hash__ = float.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)

    def __deepcopy__(self, memo: Any) -> float:
        return float(self)


def make(value: Any, origin: Origin) -> Any:
    """`value` as a symbol, if it is an int or a float (a bool is never one)."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        integer = SymbolicInt(value)
        integer.origin = origin
        return integer
    if isinstance(value, float):
        real = SymbolicFloat(value)
        real.origin = origin
        return real
    return value


def plain(value: Any) -> Any:
    """The number without its origin."""
    if isinstance(value, SymbolicInt):
        return int.__int__(value)
    if isinstance(value, SymbolicFloat):
        return float.__float__(value)
    return value


def _result(value: Any, op: Callable[..., Any], *args: Any) -> Any:
    """The outcome of `op(*args)` as a symbol; a plain number once the run is over."""
    origins = [arg.origin for arg in args if isinstance(arg, SymbolicInt | SymbolicFloat)]
    if not origins[0].owner.active:
        return value
    return make(value, Origin(origins[0].owner, op, args, data=any(origin.data for origin in origins)))


def _binary(op: Callable[[Any, Any], Any], *, reverse: bool) -> Callable[..., Any]:
    def method(self: Any, other: Any, *modulus: Any) -> Any:
        if isinstance(other, bool) or not isinstance(other, int | float):
            return NotImplemented
        left, right = (other, self) if reverse else (self, other)
        if modulus:  # only `pow` has three arguments
            return pow(plain(left), plain(right), plain(modulus[0]))
        return _result(op(plain(left), plain(right)), op, left, right)

    return method


def _unary(op: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def method(self: Any) -> Any:
        return _result(op(plain(self)), op, self)

    return method


def _round(self: Any, digits: Any = None) -> Any:
    return _result(round(plain(self), plain(digits)), round, self, *(() if digits is None else (digits,)))


def _divmod(self: Any, other: Any) -> Any:
    return self // other, self % other


def _comparison(op: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        outcome = op(plain(self), plain(other))
        for symbol in (self, other):
            if isinstance(symbol, SymbolicInt | SymbolicFloat) and symbol.origin.data and symbol.origin.owner.active:
                return bool(symbol.origin.owner.decide(outcome, symbol))
        return outcome

    return method


def _array_ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """NumPy gives a plain number the array's type, but not a number of a class of its own."""
    return getattr(ufunc, method)(*(plain(value) for value in inputs), **kwargs)


def _truth(self: Any) -> bool:
    outcome = plain(self) != 0
    if not self.origin.data or not self.origin.owner.active:
        return bool(outcome)
    return bool(self.origin.owner.decide(bool(outcome), self))


_BINARY = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "truediv": operator.truediv,
    "pow": operator.pow,
}
_BITS = {"and": operator.and_, "or": operator.or_, "xor": operator.xor, "lshift": operator.lshift, "rshift": operator.rshift}
_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": operator.neg,
    "abs": operator.abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
}
_COMPARE = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne}


def _define(kind: type, binary: dict[str, Callable[..., Any]]) -> None:
    for name, op in binary.items():
        setattr(kind, f"__{name}__", _binary(op, reverse=False))
        setattr(kind, f"__r{name}__", _binary(op, reverse=True))
    for name, single in _UNARY.items():
        setattr(kind, f"__{name}__", _unary(single))
    for name, compare in _COMPARE.items():
        setattr(kind, f"__{name}__", _comparison(compare))
    methods: dict[str, Callable[..., Any]] = {"round": _round, "divmod": _divmod, "bool": _truth, "array_ufunc": _array_ufunc}
    for name, method in methods.items():
        setattr(kind, f"__{name}__", method)


_define(SymbolicInt, {**_BINARY, **_BITS})
_define(SymbolicFloat, _BINARY)
