"""Python values as they are now, to compare with later: a snapshot holds no object of the program's that can
change.

Numbers, strings and the like stand for themselves, containers and objects for what they hold, arrays for
their elements; what has none of that (functions, modules, open files) stands for itself, by identity. Not
handled: what lies more than `DEEPEST` objects down.
"""

from __future__ import annotations

import contextlib
import enum
import math
import types
from dataclasses import dataclass
from typing import Any

import torch

from fxgrad.world.undo import attributes, elements, items, members

DEEPEST = 6
_PLAIN = (
    str,
    bytes,
    bool,
    int,
    complex,
    types.NoneType,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    enum.Enum,
    types.EllipsisType,
)


_COMPARED_BY_IDENTITY = (torch.Tensor, torch.nn.Module, type, types.ModuleType)


@dataclass(frozen=True, slots=True)
class _Itself:
    """An object that is only compared by identity; kept, so that its id stays its own."""

    item: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.item is self.item

    def __hash__(self) -> int:
        return id(self.item)


def snapshot(value: object, depth: int = 0) -> object:
    """What to compare a value by."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, float):
        return type(value), "nan" if math.isnan(value) else value
    if depth > DEEPEST or isinstance(value, _COMPARED_BY_IDENTITY) or _is_function(value):
        return _Itself(value)
    if isinstance(value, dict):
        return type(value), tuple((snapshot(k, depth + 1), snapshot(v, depth + 1)) for k, v in items(value))
    if isinstance(value, list | tuple):
        return type(value), tuple(snapshot(item, depth + 1) for item in elements(value))
    if isinstance(value, set | frozenset):
        return type(value), frozenset(snapshot(item, depth + 1) for item in elements(value))
    if isinstance(value, range | slice):
        return type(value), (value.start, value.stop, value.step)
    return _of_object(value, depth)


def _is_function(value: Any) -> bool:
    """Whether it is called, and is more than an object of a class of Python's with a `__call__`."""
    return callable(value) and not isinstance(type(value).__call__, types.FunctionType)


class _Empty:
    pass


_EMPTY = _Empty.__basicsize__  # of an object that holds nothing but attributes


def _of_object(value: Any, depth: int) -> object:
    if type(value).__module__ == "numpy" and hasattr(value, "tobytes"):
        return type(value), str(value.dtype), getattr(value, "shape", ()), value.tobytes()
    found = dict(attributes(value) or {})
    for name, member in members(type(value)):
        # a slot may hold nothing where the class answers its name in another way
        with contextlib.suppress(AttributeError):
            found[name] = member.__get__(value)
    if not found and (attributes(value) is None or type(value).__basicsize__ > _EMPTY):
        return _Itself(value)  # what it holds is C's
    return type(value), tuple(
        (name, snapshot(item, depth + 1))
        for name, item in sorted(found.items(), key=lambda pair: str(pair[0]))
    )
