"""What a forward reads of Python's side: attributes of its modules that are no tensors, the training flag among them, and torch's modes.

A graph holds what was read. `Read`: the first read of an attribute, with the value as it was then. What the forward itself changes, or
makes, is state that it keeps for its next call: `changed`. Not seen: attributes of other objects than modules, globals, variables of
closures.
"""

from __future__ import annotations

import copy
import functools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from fxgrad.source.sites import Spot, is_user_code
from fxgrad.world.undo import MISSING, attributes

_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size))
_CONTAINERS = frozenset((list, tuple, dict, set, deque))
MOST_ITEMS = 64  # of a container that is compared at every call
_TORCHS = frozenset(vars(nn.Module())) - {"training"}
# Functions of torch that say in which mode a call runs: read at the call again.
_MODES = ("is_grad_enabled", "is_inference_mode_enabled", "is_autocast_enabled", "get_default_dtype", "is_autocast_cpu_enabled")


@dataclass(slots=True, eq=False)
class Read:
    """An attribute that the forward read: of which module (`path`: None where it is registered nowhere), its value then, and where."""

    module: nn.Module
    path: str | None
    name: str
    value: Any
    spots: tuple[Spot, ...]
    changed: bool = False  # by the forward itself


class Reader(Protocol):
    """The recorder."""

    active: bool
    quiet: int
    phase: Any
    thread: int
    paths: dict[int, str]
    reads: dict[tuple[int, str], Read]

    def spots(self) -> tuple[Spot, ...]: ...

    def assume(self, target: Any, args: tuple[Any, ...], taken: Any, *, weak: bool = False, what: str = "") -> None: ...


def interceptions(recorder: Reader, classes: set[type[nn.Module]]) -> Iterator[tuple[Any, str, Any]]:
    """(holder, attribute, replacement), for modules of these classes."""
    for cls, original in [(cls, cls.__getattribute__) for cls in classes if not issubclass(cls, torch.jit.ScriptModule)]:
        yield cls, "__getattribute__", _reading(recorder, original)
    for name in _MODES:
        yield torch, name, _mode(recorder, name, getattr(torch, name))


def _reading(recorder: Reader, original: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    def __getattribute__(module: Any, name: str) -> Any:
        if recorder.quiet or not recorder.active or name in _TORCHS or name.startswith("__"):
            return original(module, name)
        try:
            value = original(module, name)
        except AttributeError:
            _note(recorder, module, name, MISSING)
            raise
        if type(value) in _PLAIN or type(value) in _CONTAINERS:
            _note(recorder, module, name, value)
        return value

    return __getattribute__


def _note(recorder: Reader, module: nn.Module, name: str, value: Any) -> None:
    key = id(module), name
    if key in recorder.reads or recorder.phase != "forward" or threading.get_ident() != recorder.thread:
        return
    held = attributes(module) or {}
    if value is not MISSING and (held.get(name, MISSING) is not value or not _is_simple(value)):
        return  # a property, a class's attribute, or more than is compared at every call
    if value is MISSING and any(name in held[kind] for kind in ("_parameters", "_buffers", "_modules")):
        return
    kept = value if value is MISSING or type(value) in _PLAIN else copy.deepcopy(value)
    recorder.reads[key] = Read(module, recorder.paths.get(id(module)), name, kept, recorder.spots())


def _is_simple(value: Any, depth: int = 0) -> bool:
    """Whether it is made of plain values alone, and few of them."""
    if type(value) in _PLAIN:
        return True
    if type(value) not in _CONTAINERS or len(value) > MOST_ITEMS or depth > 2:
        return False
    inner = [*value, *value.values()] if isinstance(value, dict) else list(value)
    return all(_is_simple(item, depth + 1) for item in inner)


def note_changes(reads: dict[tuple[int, str], Read]) -> None:
    """At the forward's end: which attributes have another value than was read."""
    for read in reads.values():
        now = (attributes(read.module) or {}).get(read.name, MISSING)
        if read.value is MISSING or type(read.value) in _PLAIN:
            same = now is read.value or (type(now) is type(read.value) and (now == read.value or now != now))
        else:
            same = type(now) is type(read.value) and _is_simple(now) and now == read.value
        read.changed = not same


def _mode(recorder: Reader, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def asked(*args: Any, **kwargs: Any) -> Any:
        value = original(*args, **kwargs)
        if recorder.active and not recorder.quiet and not kwargs and threading.get_ident() == recorder.thread:
            caller = sys._getframe(1).f_code.co_filename
            if is_user_code(caller) and (name != "is_grad_enabled" or value):  # off it is by the program's own doing
                recorder.assume(f"torch.{name}({', '.join(map(repr, args))})", (), value)
        return value

    return asked
