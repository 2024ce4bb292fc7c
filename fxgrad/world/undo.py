"""Shallow copies of mutable Python objects, and how each is put back in place: the user's references stay
good.

`undoer(cls)` gives the function that notes an object of a class and returns the act that puts it back; None
where there is nothing to put back. Handled: lists, deques, sets, weak containers, byte and number arrays,
texts in memory, loggers, queues, slots, classes, NumPy arrays, random generators of torch, NumPy and Python.
What they hold is not copied. All is read and written past methods of the user's. Not handled: generators and
most iterators (see `twin`), files, objects of C extensions.
"""

from __future__ import annotations

import array
import ast
import contextlib
import copy
import functools
import io
import itertools
import logging
import operator
import queue
import random
import re
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from types import MemberDescriptorType
from typing import Any

import torch

from fxgrad.source.objects import module_of
from fxgrad.world.queues import undo_queue

LARGEST_ARRAY = 64 * 2**20  # bytes; a data set in NumPy is not copied for a step

Act = Callable[[], None]
Note = Callable[[Any], Act | None]
MISSING = object()
WEAK = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet)
_OWN_NAMES = frozenset(
    ("__dict__", "__weakref__", "__doc__", "__slots__", "__module__", "_abc_impl", "__abstractmethods__")
)
_HEAP_TYPE = 1 << 9  # of a class made by a `class` statement: Py_TPFLAGS_HEAPTYPE


def undoer(cls: type) -> Note | None:
    """What notes the objects of a class."""
    for kind, note in _NOTES:
        if issubclass(cls, kind):
            return note
    return _undo_numpy if module_of(cls).partition(".")[0] == "numpy" else None


def items(item: dict[Any, object]) -> list[tuple[Any, Any]]:
    """What a dictionary holds, in its order, past methods of the user's."""
    return list(OrderedDict.items(item) if isinstance(item, OrderedDict) else dict.items(item))


def elements(item: object) -> Iterator[object]:
    """What a list, tuple, deque or set holds, past methods of the user's."""
    kind: Any = next(kind for kind in (list, tuple, deque, set, frozenset) if isinstance(item, kind))
    found: Iterator[Any] = kind.__iter__(item)
    return found


def refill(item: dict[object, object], held: list[tuple[object, object]]) -> None:
    """Give a dictionary back what it held."""
    if not item and not held:
        return
    # An OrderedDict keeps a list of its own beside the dictionary: the base class must not change it behind
    # its back.
    kind: Any = OrderedDict if isinstance(item, OrderedDict) else dict
    now = kind.items(item)  # as it stands, not copied: there are thousands, and nearly all are as they were
    if len(now) != len(held) or not all(
        map(operator.is_, chain.from_iterable(now), chain.from_iterable(held))
    ):
        kind.clear(item)
        kind.update(item, held)


def attributes(item: object) -> dict[str, Any] | None:
    """The `__dict__` of an object, without asking a `__getattr__` of the user's."""
    try:
        found = object.__getattribute__(item, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


# ------------------------------------------------------------------------------------------------- containers


def undo_list(item: list[Any]) -> Act:
    """The act that gives a list back what it holds now."""
    held = list.copy(item)
    return lambda: _refill(list.__iter__(item), held, lambda: list.__setitem__(item, slice(None), held))


def _emptied_and_filled(kind: Any, fill: Callable[[Any, Any], None]) -> Callable[[object], Act]:
    """For a container that can only be put back by filling it again."""

    def note(item: object) -> Act:
        held = list(kind.__iter__(item))

        def put() -> None:
            kind.clear(item)
            fill(item, held)

        return lambda: _refill(kind.__iter__(item), held, put)

    return note


_undo_set = _emptied_and_filled(set, set.update)


def _refill(now: Iterable[object], held: Iterable[object], put: Act) -> None:
    if not _same(now, held):
        put()


def _undo_weak(item: Any) -> Act:
    """A weak dictionary or set: what it holds stays alive as long as the act."""
    alive = list(item) if isinstance(item, weakref.WeakSet) else list(item.items())
    if isinstance(item.data, set):
        return functools.partial(_call, _undo_set(item.data), alive)
    held = items(item.data)
    return functools.partial(_call, lambda: refill(item.data, held), alive)


def _call(act: Act, _alive: list[object]) -> None:
    act()


def _undo_buffer(item: Any) -> Act:
    held = item[:]

    def act() -> None:
        if item != held:
            item[:] = held

    return act


def _undo_text(item: Any) -> Act | None:
    if item.closed:
        return None
    held, place = item.getvalue(), item.tell()

    def act() -> None:
        if not item.closed and (item.getvalue() != held or item.tell() != place):
            item.seek(0)
            item.truncate()
            item.write(held)
            item.seek(place)

    return act


def undo_logger(item: logging.Logger) -> Act:
    """What a program sets on a logger; not what its handlers have written."""
    level, disabled, propagate = item.level, item.disabled, item.propagate
    handlers, filters = item.handlers, item.filters  # Python 3.14 replaces the first where one is taken off
    lists = [undo_list(handlers), undo_list(filters)]

    def act() -> None:
        if item.level != level:
            item.setLevel(level)
        item.disabled, item.propagate, item.handlers, item.filters = disabled, propagate, handlers, filters
        for put in lists:
            put()

    return act


def undo_handler(item: logging.Handler) -> Act:
    """What a program sets on a logger's handler; not what it has written, nor where to."""
    level, formatter, filters = item.level, item.formatter, undo_list(item.filters)

    def act() -> None:
        item.level, item.formatter = level, formatter
        filters()

    return act


def _same(now: Iterable[object], held: Iterable[object]) -> bool:
    """Compared by identity: tensors have no truth value to compare by."""
    return [id(x) for x in now] == [id(x) for x in held]


# ---------------------------------------------------------------------------------------------------- numbers


def _undo_generator(item: Any) -> Act:
    state = item.get_state()
    return lambda: item.set_state(state)


def _undo_random(item: random.Random) -> Act:
    numbers = item.getstate()
    return lambda: item.setstate(numbers)


def _undo_numpy(item: object) -> Act | None:
    numpy = sys.modules["numpy"]
    if isinstance(item, numpy.ndarray) and item.nbytes <= LARGEST_ARRAY and item.flags.writeable:
        held = item.copy()
        return lambda: numpy.copyto(item, held)
    # numpy loads it at its first use: until then nothing is of it
    generators = sys.modules.get("numpy.random")
    if generators is not None and isinstance(item, generators.Generator | generators.BitGenerator):
        bits = getattr(item, "bit_generator", item)
        state = bits.state
        return lambda: setattr(bits, "state", state)
    if generators is not None and isinstance(item, generators.RandomState):
        numbers = item.get_state()
        return lambda: item.set_state(numbers)
    return None


_NOTES: tuple[tuple[Any, Note], ...] = (
    (list, undo_list),
    (deque, _emptied_and_filled(deque, deque.extend)),
    (set, _undo_set),
    (WEAK, _undo_weak),
    ((bytearray, array.array), _undo_buffer),
    (torch.Generator, _undo_generator),
    (random.Random, _undo_random),
    ((io.StringIO, io.BytesIO), _undo_text),
    (logging.Logger, undo_logger),
    (logging.Handler, undo_handler),
    (queue.Queue, undo_queue),
)

_ITERATED: tuple[Iterable[object], ...] = ([], (), "", b"", range(0), {}, {}.values(), {}.items(), set())
_COPIED = tuple(type(iter(held)) for held in _ITERATED)
_COUNT = re.compile(r"count\((.+?)(?:, (.+))?\)")


def twin(item: object) -> object:
    """Another iterator over what is left, for a run to advance: counters and the iterators of containers.
    None: it has none."""
    if isinstance(item, itertools.count):
        told = _COUNT.fullmatch(repr(item))
        with contextlib.suppress(ValueError, SyntaxError):  # a count of other things than numbers
            return (
                itertools.count(*(ast.literal_eval(part) for part in told.groups() if part)) if told else None
            )
        return None
    return copy.copy(item) if isinstance(item, _COPIED) else None


# ------------------------------------------------------------------------------------------ slots and classes


def members(cls: type) -> list[tuple[str, MemberDescriptorType]]:
    """The slots that a class and its bases declare."""
    return [
        (name, member)
        for base in cls.__mro__
        if base.__flags__ & _HEAP_TYPE and "__slots__" in vars(base)
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
    ]


def slots(
    item: object, declared: list[tuple[str, MemberDescriptorType]]
) -> list[tuple[MemberDescriptorType, object]]:
    """Each declared slot and what an object has in it."""
    found = []
    for _, member in declared:
        try:
            found.append((member, member.__get__(item)))
        except AttributeError:
            found.append((member, MISSING))
    return found


def undo_slots(item: object, held: list[tuple[MemberDescriptorType, object]]) -> Act:
    """The act that fills the slots of an object again."""

    def act() -> None:
        for member, before in held:
            try:
                now = member.__get__(item)
            except AttributeError:
                now = MISSING
            if now is before:
                continue
            if before is MISSING:
                member.__delete__(item)
            else:
                member.__set__(item, before)

    return act


def undo_class(cls: type, wanted: Callable[[object], bool] | None = None) -> Act:
    """The act that gives a class its attributes back; with `wanted` only those that now have such a value."""
    held = {name: value for name, value in vars(cls).items() if name not in _OWN_NAMES}

    def act() -> None:
        for name in {*held, *vars(cls)} - _OWN_NAMES:
            now, before = vars(cls).get(name, MISSING), held.get(name, MISSING)
            if now is before or (wanted is not None and not wanted(now)):
                continue
            if before is MISSING:
                type.__delattr__(cls, name)
            else:
                type.__setattr__(cls, name, before)

    return act


def made_by_user(cls: type) -> bool:
    """Whether a class of module `builtins` is none of Python's: one made by `exec` in a namespace without a
    name."""
    return bool(cls.__flags__ & _HEAP_TYPE)
