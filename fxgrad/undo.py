"""Shallow copies of mutable Python objects, and how each is put back in place: the user's references stay good.

`undo(item)` gives the act that puts one object back, None where there is nothing to put back. Handled: dictionaries and `__dict__`s, lists,
deques, sets, slots, classes, module globals, NumPy arrays, random generators of torch, NumPy and Python. What they hold is not copied, and
iterators, files and objects of C extensions are left alone.
"""

from __future__ import annotations

import dis
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

import torch

LARGEST_ARRAY = 64 * 2**20  # bytes; a data set in NumPy is not copied for a step

Act = Callable[[], None]
_MISSING = object()
_OWN_NAMES = frozenset(("__dict__", "__weakref__", "__doc__", "__slots__", "__module__", "_abc_impl", "__abstractmethods__"))


def undo(item: Any) -> Act | None:
    """The act that gives a container, an array or a random generator back what it holds now."""
    if isinstance(item, dict):
        held = items(item)
        return lambda: refill(item, held)
    if isinstance(item, list):
        values = item.copy()
        return lambda: _refill(item, values, lambda: item.__setitem__(slice(None), values))
    if isinstance(item, deque):
        return _undo_collection(item, item.copy(), item.extend)
    if isinstance(item, set):
        return _undo_collection(item, item.copy(), item.update)
    if isinstance(item, torch.Generator):
        state = item.get_state()
        return lambda: _set_state(item, state)
    if isinstance(item, random.Random):
        numbers = item.getstate()
        return lambda: item.setstate(numbers)
    return _undo_numpy(item) if type(item).__module__.startswith("numpy") else None


def items(item: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """What a dictionary holds, in its order, past methods of the user's."""
    return list(OrderedDict.items(item) if isinstance(item, OrderedDict) else dict.items(item))


def refill(item: dict[Any, Any], held: list[tuple[Any, Any]]) -> None:
    """Give a dictionary back what it held."""
    if not item and not held:
        return
    now = items(item)
    if len(now) != len(held) or any(a is not c or b is not d for (a, b), (c, d) in zip(now, held, strict=True)):
        # An OrderedDict keeps a list of its own beside the dictionary: the base class must not change it behind its back.
        kind: Any = OrderedDict if isinstance(item, OrderedDict) else dict
        kind.clear(item)
        kind.update(item, held)


def _undo_collection(item: Any, held: Any, fill: Callable[[Any], None]) -> Act:
    def put() -> None:
        item.clear()
        fill(held)

    return lambda: _refill(item, held, put)


def _refill(item: Iterable[Any], held: Iterable[Any], put: Act) -> None:
    """Compared by identity: tensors have no truth value to compare by."""
    if [id(x) for x in item] != [id(x) for x in held]:
        put()


def _set_state(generator: torch.Generator, state: torch.Tensor) -> None:
    generator.set_state(state)


def _undo_numpy(item: Any) -> Act | None:
    numpy = sys.modules["numpy"]
    if isinstance(item, numpy.ndarray) and item.nbytes <= LARGEST_ARRAY and item.flags.writeable and not item.dtype.hasobject:
        held = item.copy()
        return lambda: numpy.copyto(item, held)
    if isinstance(item, numpy.random.Generator):
        state = item.bit_generator.state
        return lambda: setattr(item.bit_generator, "state", state)
    if isinstance(item, numpy.random.RandomState):
        numbers = item.get_state()
        return lambda: item.set_state(numbers)
    return None


def slots(item: Any) -> dict[str, Any]:
    """The filled slots of an object that has some."""
    found = {}
    for cls in type(item).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, types.MemberDescriptorType) and hasattr(item, name):
                found[name] = getattr(item, name)
    return found


def undo_slots(item: Any, held: dict[str, Any]) -> Act:
    """The act that fills the slots of an object again."""
    names = [name for cls in type(item).__mro__ for name, m in vars(cls).items() if isinstance(m, types.MemberDescriptorType)]

    def act() -> None:
        for name in names:
            _rebind(getattr(item, name, _MISSING), held.get(name, _MISSING), name, _Setter(item))

    return act


def undo_class(cls: type) -> Act:
    """The act that gives a class its attributes back."""
    held = {name: value for name, value in vars(cls).items() if name not in _OWN_NAMES}

    def act() -> None:
        for name in {*held, *vars(cls)} - _OWN_NAMES:
            _rebind(vars(cls).get(name, _MISSING), held.get(name, _MISSING), name, _Setter(cls))

    return act


def undo_globals(function: types.FunctionType) -> Act | None:
    """The act that gives the module the globals back that this function assigns; None if it assigns none."""
    names = _assigned_globals(function.__code__)
    if not names:
        return None
    scope = function.__globals__
    held = {name: scope.get(name, _MISSING) for name in names}

    def act() -> None:
        for name, value in held.items():
            if value is _MISSING:
                scope.pop(name, None)
            else:
                scope[name] = value

    return act


class _Setter:
    """Sets and deletes attributes, past a `__setattr__` of the user's."""

    def __init__(self, item: Any) -> None:
        self.item = item
        self.kind: Any = type if isinstance(item, type) else object

    def set(self, name: str, value: Any) -> None:
        self.kind.__setattr__(self.item, name, value)

    def delete(self, name: str) -> None:
        self.kind.__delattr__(self.item, name)


def _rebind(now: Any, before: Any, name: str, setter: _Setter) -> None:
    if now is before:
        return
    if before is _MISSING:
        setter.delete(name)
    else:
        setter.set(name, before)


_assigned: dict[int, tuple[tuple[str, ...], types.CodeType]] = {}


def _assigned_globals(code: types.CodeType) -> tuple[str, ...]:
    known = _assigned.get(id(code))
    if known is None:
        names = [i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_GLOBAL", "DELETE_GLOBAL")]
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                names += _assigned_globals(constant)
        known = _assigned[id(code)] = (tuple(dict.fromkeys(names)), code)
    return known[0]
