"""Python numbers that remember the graph node they came from, so that sizes stay symbolic and scalars keep
their provenance.

`SymbolicInt` and `SymbolicFloat` are ordinary ints and floats to any code that reads them; arithmetic with
them makes new ones. A number read off a tensor's *data* (`.item()`) has `data=True`: comparing it is a
decision on data. `math.ceil`, `floor`, `trunc` and `round` keep the origin.

What a program learns of a number otherwise is told to its owner (`assume`): the outcome of a comparison of
sizes, and a plain number where C code consumes it (`int`, `float`, `math.sqrt`, a hash, a text, the length of
a list). Not seen: an index into a list, and NumPy, for C code takes the value of an int without asking. It
must ask an `OpenInt` or an `OpenFloat`, which are none to it (and pass for torch's own symbolic numbers where
torch checks its arguments): a run with these shows whether another has such consumers.
"""

from __future__ import annotations

import builtins
import math
import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.fx

Asked = tuple[object, tuple[object, ...]]  # a function and its arguments


class Owner(Protocol):
    """The recorder that a symbol belongs to."""

    active: bool
    open_numbers: bool  # whether C code must ask for the value of its numbers

    def symbol_node(self, target: object, args: tuple[object, ...]) -> torch.fx.Node: ...

    def decide(self, outcome: bool, asked: Asked) -> bool: ...

    def assume(
        self, target: object, args: tuple[object, ...], taken: object, *, weak: bool = False
    ) -> None: ...

    def asked(self) -> None: ...


class _Nobody:
    """The owner of symbols whose run is gone: they are plain numbers."""

    active = False
    open_numbers = False

    def symbol_node(self, target: object, args: tuple[object, ...]) -> torch.fx.Node:
        raise AssertionError("the run of this number is over")

    def decide(self, outcome: bool, asked: Asked) -> bool:
        raise AssertionError("the run of this number is over")

    def assume(self, target: object, args: tuple[object, ...], taken: object, *, weak: bool = False) -> None:
        raise AssertionError("the run of this number is over")

    def asked(self) -> None:
        raise AssertionError("the run of this number is over")


_NOBODY = _Nobody()


class Origin:
    """Where a symbol comes from: made into a node at its first use, so that sizes nobody needs leave no trace
    in the graph.

    Does not keep its run alive: a symbol may end up anywhere, in a cache of some library for one.
    """

    __slots__ = ("_owner", "args", "data", "rank", "resolved", "target")

    def __init__(
        self,
        owner: Owner,
        target: Callable[..., object] | str | None,
        args: tuple[object, ...],
        *,
        data: bool,
        rank: int | None = None,
    ) -> None:
        self._owner = weakref.ref(owner)
        self.target = target
        self.args = args
        self.data = data
        self.rank = rank  # of the tensor whose shape it was taken from
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
            if isinstance(arg, SYMBOLS):
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


def _held(arg: object) -> object:
    return arg.origin.resolved if isinstance(arg, SYMBOLS) else arg


class SymbolicInt(int):
    """An int with an `origin`."""

    origin: Origin

    def __hash__(self) -> int:
        return hash(consumed(self, weak=True))

    def __reduce__(self) -> tuple[object, ...]:  # a copy or a pickle is a plain number: nodes do not travel
        return int, (int(self),)

    def __deepcopy__(self, memo: object) -> int:
        return int(self)


class SymbolicFloat(float):
    """A float with an `origin`."""

    origin: Origin

    def __hash__(self) -> int:
        return hash(consumed(self, weak=True))

    def __reduce__(self) -> tuple[object, ...]:
        return float, (float(self),)

    def __deepcopy__(self, memo: object) -> float:
        return float(self)


class OpenInt(torch.SymInt):
    """A number that passes for an int in Python and for a symbolic one with torch, and is none to other C
    code."""

    __class__ = property(lambda self: int)  # what `isinstance` goes by

    def __init__(self, value: int, origin: Origin) -> None:
        self.value, self.origin = value, origin

    def __hash__(self) -> int:
        return hash(consumed(self, weak=True))

    def __index__(self) -> int:
        number: int = _asked_for(self)
        return number

    def __reduce__(self) -> tuple[object, ...]:
        return int, (self.value,)

    def __deepcopy__(self, memo: object) -> int:
        return self.value


class OpenFloat(torch.SymFloat):
    """The same for a float."""

    __class__ = property(lambda self: float)

    def __init__(self, value: float, origin: Origin) -> None:
        self.value, self.origin = value, origin

    def __hash__(self) -> int:
        return hash(consumed(self, weak=True))

    def __reduce__(self) -> tuple[object, ...]:
        return float, (self.value,)

    def __deepcopy__(self, memo: object) -> float:
        return self.value


SYMBOLS = (SymbolicInt, SymbolicFloat, OpenInt, OpenFloat)
OPEN = (OpenInt, OpenFloat)
Symbol = SymbolicInt | SymbolicFloat | OpenInt | OpenFloat


def make(value: object, origin: Origin) -> Any:
    """`value` as a symbol, if it is an int or a float (a bool is never one)."""
    if isinstance(value, bool):
        return value
    if origin.owner.open_numbers and isinstance(value, int | float):
        return OpenInt(value, origin) if isinstance(value, int) else OpenFloat(value, origin)
    if isinstance(value, int):
        integer = SymbolicInt(value)
        integer.origin = origin
        return integer
    if isinstance(value, float):
        real = SymbolicFloat(value)
        real.origin = origin
        return real
    return value


def plain(value: object) -> Any:
    """The number without its origin."""
    if isinstance(value, SymbolicInt):
        return int.__int__(value)
    if isinstance(value, SymbolicFloat):
        return float.__float__(value)
    if isinstance(value, OPEN):
        return value.value
    return value


def consumed(value: Any, *, weak: bool = False) -> Any:
    """The number without its origin, for whoever goes on with it where nothing follows: its owner is told.
    `weak`: it may not matter."""
    number = plain(value)
    if number is not value and value.origin.owner.active:
        value.origin.owner.assume(None, (value,), number, weak=weak)
    return number


def _asked_for(value: Any) -> Any:
    """`consumed`, by whom takes an int or a float without asking."""
    if value.origin.owner.active:
        value.origin.owner.asked()
    return consumed(value)


def _result(value: object, op: Callable[..., object], *args: object) -> object:
    """The outcome of `op(*args)` as a symbol; a plain number once the run is over."""
    origins = [arg.origin for arg in args if isinstance(arg, SYMBOLS)]
    if not origins[0].owner.active:
        return value
    return make(value, Origin(origins[0].owner, op, args, data=any(origin.data for origin in origins)))


def _binary(op: Callable[[object, object], object], *, reverse: bool) -> Callable[..., object]:
    def method(self: Any, other: object, *modulus: object) -> Any:
        if isinstance(other, bool) or not isinstance(other, int | float):
            if isinstance(other, list | tuple | str | bytes) and op is operator.mul:  # the sequence, so often
                consumed(self)
            return NotImplemented
        left, right = (other, self) if reverse else (self, other)
        if modulus:  # only `pow` has three arguments
            return pow(plain(left), plain(right), plain(modulus[0]))
        return _result(op(plain(left), plain(right)), op, left, right)

    return method


def _unary(op: Callable[[object], object]) -> Callable[[object], object]:
    def method(self: object) -> Any:
        return _result(op(plain(self)), op, self)

    return method


def _round(self: Any, digits: object = None) -> object:
    return _result(round(plain(self), plain(digits)), round, self, *(() if digits is None else (digits,)))


def _divmod(self: Any, other: object) -> object:
    return self // other, self % other


def _comparison(op: Callable[[Any, Any], bool]) -> Callable[[object, Any], object]:
    def method(self: object, other: object) -> object:
        if not isinstance(other, int | float):
            return NotImplemented
        outcome = op(plain(self), plain(other))
        for symbol in (self, other):
            if isinstance(symbol, SYMBOLS) and symbol.origin.data and symbol.origin.owner.active:
                return bool(symbol.origin.owner.decide(outcome, (op, (self, other))))
        owner = next(symbol.origin.owner for symbol in (self, other) if isinstance(symbol, SYMBOLS))
        if owner.active:
            owner.assume(op, (self, other), outcome)
        return outcome

    return method


def _array_ufunc(self: object, ufunc: object, method: str, *inputs: object, **kwargs: object) -> object:
    """NumPy gives a plain number the array's type, but not a number of a class of its own."""
    return getattr(ufunc, method)(*(consumed(value) for value in inputs), **kwargs)


def _truth(self: Any) -> bool:
    outcome = bool(plain(self) != 0)
    owner = self.origin.owner
    if not owner.active:
        return outcome
    if self.origin.data:
        return bool(owner.decide(outcome, (operator.ne, (self, 0))))
    owner.assume(operator.ne, (self, 0), outcome)
    return outcome


def _consuming(kind: Callable[[object], object], *, weak: bool) -> Callable[..., object]:
    def method(self: object, *rest: object) -> object:
        return kind(consumed(self, weak=weak), *rest)

    return method


_BINARY = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "truediv": operator.truediv,
    "pow": operator.pow,
}
_BITS = {
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
}
_UNARY: dict[str, Callable[[Any], object]] = {
    "neg": operator.neg,
    "abs": operator.abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
}
_COMPARE = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}


def _define(kind: type, binary: dict[str, Callable[..., object]]) -> None:
    for name, op in binary.items():
        setattr(kind, f"__{name}__", _binary(op, reverse=False))
        setattr(kind, f"__r{name}__", _binary(op, reverse=True))
    for name, single in _UNARY.items():
        setattr(kind, f"__{name}__", _unary(single))
    for name, compare in _COMPARE.items():
        setattr(kind, f"__{name}__", _comparison(compare))
    methods: dict[str, Callable[..., object]] = {
        "round": _round,
        "divmod": _divmod,
        "bool": _truth,
        "array_ufunc": _array_ufunc,
    }
    consuming: dict[str, Callable[..., object]] = {
        "int": int,
        "float": float,
        "complex": complex,
        "repr": repr,
        "str": str,
        "format": format,
    }
    methods.update(
        {name: _consuming(how, weak=name in ("repr", "str", "format")) for name, how in consuming.items()}
    )
    for name, method in methods.items():
        setattr(kind, f"__{name}__", method)


_define(SymbolicInt, {**_BINARY, **_BITS})
_define(SymbolicFloat, _BINARY)
_define(OpenInt, {**_BINARY, **_BITS})
_define(OpenFloat, _BINARY)
OpenFloat.__float__ = _asked_for  # type: ignore[method-assign]  # or `float()` itself: it cannot be told


# ---------------------------------------------------------------------------------- functions of C on numbers

LEN = len  # the builtin one, also while it is replaced
_range, _len, _index = range, len, operator.index


class _RangeType(type):
    """`isinstance(x, range)` and `type(x) == range` stay what they are."""

    def __instancecheck__(cls, item: object) -> bool:
        return isinstance(item, _range)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is _range

    def __hash__(cls) -> int:
        return hash(_range)


class Range(metaclass=_RangeType):
    """`range`, which says how often it went round."""

    def __new__(cls, *args: Any) -> Any:
        return _range(*(consumed(arg) for arg in args))


def length(item: Any) -> int:
    """`len`, which of a tensor is its first size, and of a shape, or a part of one, goes by its rank."""
    if isinstance(item, torch.Tensor):
        try:
            return item.size(0)
        except IndexError:
            return _len(item)
    number = _len(item)
    if type(item) is torch.Size and number:
        origin = getattr(item[0], "origin", None)
        if origin is not None and origin.rank is not None and origin.owner.active:
            origin.owner.assume("ndim", origin.args[:1], origin.rank)
    return number


def index(number: Any) -> int:
    """`operator.index`: how `nn.ModuleList` takes a layer."""
    return _index(consumed(number))


# Replaced while a program is recorded: (module, attribute, replacement).
CONSUMING: tuple[tuple[object, str, object], ...] = (
    (builtins, "range", Range),
    (builtins, "len", length),
    (operator, "index", index),
)
