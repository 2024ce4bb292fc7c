"""What a forward reads of Python's side: attributes of its modules and of the objects they hold, the training
flag, globals and variables of closures, torch's modes.

A graph holds what was read. `Read`: the first read of a value, as it was then. What the forward itself
changes, or makes, is state that it keeps for its next call: `changed`. Attributes are noted as they are read.
Globals and variables of closures are those that the functions name which ran, and the functions that these
name. Not seen: values in containers of more than `MOST_ITEMS`, in objects that no module's attribute leads
to, in slots.
"""

from __future__ import annotations

import dis
import enum
import functools
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, SimpleNamespace
from typing import Any, Protocol

import torch
from torch import nn

from fxgrad.source.objects import module_of
from fxgrad.source.sites import Spot, is_user_code
from fxgrad.torch_api.module_internals import is_scripted
from fxgrad.world.snapshots import snapshot
from fxgrad.world.undo import MISSING, attributes

_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size))
_CONTAINERS = frozenset((list, tuple, dict, set, deque))
MOST_ITEMS = 64  # of a container that is compared at every call
DEEPEST = 3  # objects of objects
_TORCHS = frozenset(dir(nn.Module())) - {"training"}
_HEAP_TYPE = 1 << 9  # of a class made by a `class` statement: Py_TPFLAGS_HEAPTYPE
# Functions of torch that say in which mode a call runs: read at the call again.
_MODES = (
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "is_autocast_enabled",
    "get_default_dtype",
    "is_autocast_cpu_enabled",
)


class Holder(Protocol):
    """Where a value stands: a dictionary, a class's attributes, a cell."""

    def get(self, name: str, default: object, /) -> object: ...


class Cell:
    """A variable of a closure, as something that holds it. `place`: what all that hold the same have in
    common."""

    def __init__(self, cell: CellType) -> None:
        self.cell = cell

    def get(self, name: str, default: object, /) -> object:
        try:
            return self.cell.cell_contents
        except ValueError:
            return default

    def put(self, name: str, value: object) -> None:
        self.cell.cell_contents = value

    @property
    def place(self) -> object:
        return self.cell


class Globals:
    """The globals of a function, as something that holds values: from the dictionary itself the world walk
    would go through the whole module."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function

    def get(self, name: str, default: object, /) -> object:
        return self.function.__globals__.get(name, default)

    def put(self, name: str, value: object) -> None:
        self.function.__globals__[name] = value

    @property
    def place(self) -> object:
        return self.function.__globals__


@dataclass(slots=True, eq=False)
class Read:
    """A value that the forward read. `owner`: the module or object that it was read off, None for a global or
    a closure's variable; `path`: of a module, its name, None where it is registered nowhere; `holder`: where
    it stands; `where`: what the program calls that.
    """

    owner: object
    path: str | None
    holder: Holder
    where: str
    name: str
    value: Any
    spots: tuple[Spot, ...]
    changed: bool = False  # by the forward itself


class Reader(Protocol):
    """The recorder."""

    active: bool
    quiet: int
    thread: int
    paths: dict[int, str]
    reads: dict[tuple[int, str], Read]
    owners: dict[int, str]

    @property
    def phase(self) -> str: ...

    def spots(self) -> tuple[Spot, ...]: ...

    def assume(
        self, target: object, args: tuple[object, ...], taken: object, *, weak: bool = False, what: str = ""
    ) -> None: ...


# ------------------------------------------------------------------------------------------------- attributes


def interceptions(recorder: Reader, modules: Iterable[nn.Module]) -> Iterator[tuple[object, str, object]]:
    """(holder, attribute, replacement), for these modules and what they hold."""
    classes: set[type] = set()
    for module in modules:
        if not is_scripted(module):
            classes.add(type(module))
        where = ".".join(filter(None, ["self", recorder.paths.get(id(module))]))
        recorder.owners.setdefault(id(module), where)
        for name, value in (attributes(module) or {}).items():
            if _is_object(value):
                _enter(recorder, f"{where}.{name}", value, classes, 0)
    originals: list[tuple[type, Any]] = [(cls, cls.__getattribute__) for cls in classes]
    for cls, original in originals:
        yield cls, "__getattribute__", _reading(recorder, original)
    for name in _MODES:
        yield torch, name, _mode(recorder, name, getattr(torch, name))


def _enter(recorder: Reader, where: str, item: object, classes: set[type], depth: int) -> None:
    """An object of the program's, and those that its attributes lead to."""
    if id(item) in recorder.owners or depth > DEEPEST:
        return
    recorder.owners[id(item)] = where
    classes.add(type(item))
    for name, value in (attributes(item) or {}).items():
        if _is_object(value):
            _enter(recorder, f"{where}.{name}", value, classes, depth + 1)


def _is_object(value: object) -> bool:
    """Whether its attributes are looked at: an object of a class written in Python, no torch's."""
    kind: Any = type(value)
    return bool(_is_of_python(kind))


@functools.lru_cache(4096)
def _is_of_python(kind: type) -> bool:
    if (
        not kind.__flags__ & _HEAP_TYPE
        or issubclass(kind, nn.Module | torch.Tensor | type | BaseException)
        or "__call__" in dir(kind)
    ):
        return False
    return module_of(kind).partition(".")[0] not in (
        "torch",
        "builtins",
        "numpy",
        "enum",
        "collections",
        "threading",
        "logging",
        "fxgrad",
    )


def _reading(recorder: Reader, original: Callable[[Any, str], object]) -> Callable[[object, str], object]:
    def __getattribute__(owner: object, name: str) -> object:
        if recorder.quiet or not recorder.active or name in _TORCHS or name.startswith("__"):
            return original(owner, name)
        try:
            value = original(owner, name)
        except AttributeError:
            _note(recorder, owner, name, MISSING)
            raise
        if _is_simple(value) or is_stream(value):
            _note(recorder, owner, name, value)
        elif type(value) is SimpleNamespace and not recorder.quiet:
            _note_namespace(recorder, f"{recorder.owners.get(id(owner), '')}.{name}", value)
        return value

    return __getattribute__


def _note_namespace(recorder: Reader, where: str, space: SimpleNamespace) -> None:
    """Nothing tells what is read of it: all that it holds."""
    if id(space) not in recorder.owners:
        recorder.owners[id(space)] = where
        for name, value in vars(space).items():
            if type(value) is SimpleNamespace:
                _note_namespace(recorder, f"{where}.{name}", value)
            elif _is_simple(value):
                _note(recorder, space, name, value)


def _note(recorder: Reader, owner: object, name: str, value: object) -> None:
    key = id(owner), name
    if key in recorder.reads or recorder.phase != "forward" or threading.get_ident() != recorder.thread:
        return
    held = attributes(owner)
    if held is None or id(owner) not in recorder.owners:
        return
    if value is MISSING and any(
        name in held.get(kind, ()) for kind in ("_parameters", "_buffers", "_modules")
    ):
        return
    holder = (
        held if value is MISSING or held.get(name, MISSING) is value else _of_class(type(owner), name, value)
    )
    if holder is not None:
        where, path = recorder.owners[id(owner)], recorder.paths.get(id(owner))
        recorder.reads[key] = Read(owner, path, holder, where, name, _kept(value), recorder.spots())


def _of_class(cls: type, name: str, value: object) -> Holder | None:
    """The attributes of the class that has this value, None where it is computed."""
    return next((vars(base) for base in cls.__mro__ if vars(base).get(name, MISSING) is value), None)


def _kept(value: Any) -> object:
    """A value that stays as it is now: containers are copied, what they hold is not."""
    if type(value) is dict:
        return {key: _kept(inner) for key, inner in value.items()}
    return type(value)(map(_kept, value)) if type(value) in (list, tuple, set, deque) else value


def is_stream(value: object) -> bool:
    """Whether each use of it goes on from the last: an iterator, a generator of random numbers."""
    return hasattr(type(value), "__next__") or is_generator(value)


def is_generator(value: object) -> bool:
    """Whether it is a random generator of the program's own."""
    numpy = sys.modules.get("numpy.random")
    kinds = (
        random.Random,
        torch.Generator,
        *((numpy.Generator, numpy.RandomState) if numpy is not None else ()),
    )
    return isinstance(value, kinds)


def _is_simple(value: Any, depth: int = 0) -> bool:
    """Whether it is compared at every call: a plain value, an object by identity, and few of them in
    containers."""
    if type(value) in _PLAIN or isinstance(value, enum.Enum | FunctionType | BuiltinFunctionType | type):
        return True
    if depth and isinstance(value, nn.Module | torch.Tensor):
        return True
    if type(value) not in _CONTAINERS or len(value) > MOST_ITEMS or depth > 2:
        return False
    inner = [*value, *value.values()] if isinstance(value, dict) else list(value)
    return all(_is_simple(item, depth + 1) for item in inner)


# ----------------------------------------------------------------------------------------------------- scopes


def named_before(functions: Iterable[FunctionType]) -> list[tuple[FunctionType, list[Read]]]:
    """The functions that may run, and the plain globals and variables around them as they are before."""
    found = []
    for function in functions:
        if not is_user_code(function.__code__.co_filename):
            continue
        reads = []
        for name in function.__code__.co_names:
            value = function.__globals__.get(name, MISSING)
            if value is not MISSING and _is_value(value):
                reads.append(Read(None, None, Globals(function), "", name, _kept(value), ()))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            value = Cell(cell).get(name, MISSING)
            if value is not MISSING and _is_value(value):
                reads.append(Read(None, None, Cell(cell), "", name, _kept(value), ()))
        found.append((function, reads))
    return found


def _is_value(value: object) -> bool:
    """Whether a name stands for a value, which may be another tomorrow, and no function, class or module."""
    return _is_simple(value) and not isinstance(value, FunctionType | BuiltinFunctionType | type)


def note_scopes(
    recorder: Reader, before: list[tuple[FunctionType, list[Read]]], ran: Iterable[CodeType]
) -> None:
    """Note what the functions named that `ran`, and the functions that these name."""
    by_code = {id(code): function for function, _ in before for code in _codes(function.__code__)}
    reads = {id(function): found for function, found in before}
    running = deque(dict.fromkeys(by_code[id(code)] for code in ran if id(code) in by_code))
    seen: set[int] = set()
    while running:
        function = running.popleft()
        if id(function) in seen:
            continue
        seen.add(id(function))
        names = {name for code in _codes(function.__code__) for name in _globals_of(code)}
        _note_named(recorder, function, names, reads.get(id(function), []))
        called = (function.__globals__.get(name) for name in names)
        running.extend(item for item in called if isinstance(item, FunctionType) and id(item) in reads)


def _note_named(recorder: Reader, function: FunctionType, names: set[str], reads: list[Read]) -> None:
    """Of what was read for a function, what its code names: its closure, and globals of these names."""
    for read in reads:
        if isinstance(read.holder, Cell) or read.name in names:
            assert isinstance(read.holder, Cell | Globals)
            read.spots = ((function.__code__, 0),)
            recorder.reads.setdefault((id(read.holder.place), read.name), read)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions written in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _globals_of(code: CodeType) -> set[str]:
    return {
        str(one.argval) for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


# ---------------------------------------------------------------------------------------------------- the end


def note_changes(reads: dict[tuple[int, str], Read]) -> None:
    """At the forward's end: which have another value than was read."""
    for read in reads.values():
        now = read.holder.get(read.name, MISSING)
        if isinstance(read.owner, nn.Module) and read.value is not MISSING:
            now = (attributes(read.owner) or {}).get(read.name, now)
        if read.value is MISSING or now is MISSING or is_stream(read.value):
            read.changed = now is not read.value or is_stream(read.value)
        else:
            read.changed = snapshot(now) != snapshot(read.value)


def _mode(recorder: Reader, name: str, original: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(original)
    def asked(*args: object, **kwargs: object) -> object:
        value = original(*args, **kwargs)
        if recorder.active and not recorder.quiet and not kwargs and threading.get_ident() == recorder.thread:
            caller = sys._getframe(1).f_code.co_filename
            # off it is by the program's own doing
            if is_user_code(caller) and (name != "is_grad_enabled" or value):
                recorder.assume(f"torch.{name}({', '.join(map(repr, args))})", (), value)
        return value

    return asked
