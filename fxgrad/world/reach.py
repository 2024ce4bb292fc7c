"""Leaves the user's world as it was: shallow copies of every mutable Python object within reach, put back
after the run.

A forward stores tensors on modules, appends to lists, fills dictionaries, draws random numbers.
`preserve(roots)` walks from the model, the loss and the inputs over modules, containers, plain objects,
closures and bound methods, notes what each holds (`fxgrad.world.undo`), and restores it on the way out, with
the global switches (`fxgrad.world.switches`), also after an error or Ctrl-C. Tensors are never copied here:
the run works on stand-ins. What functions and classes reach by name is told by `fxgrad.world.scopes`, what
they memoise by `fxgrad.world.memoised`. Not handled: generators and iterators other than `itertools.count`
and those of built-in containers (a `DataLoader`'s among them), files and what a logging handler wrote, NumPy
arrays over 64 MiB, `queue.SimpleQueue`, `cache_info()` counters, the state of C extensions, patches of other
packages' classes and modules, what the program imports, and finalizers (`__del__`) of what the program made.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import sys
import threading
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MemberDescriptorType
from typing import Any, TypeVar

import torch

from fxgrad.records.errors import InputError
from fxgrad.source.objects import module_of
from fxgrad.torch_api.internals import C_MODULE
from fxgrad.torch_api.module_internals import global_hooks
from fxgrad.torch_api.tensors import TENSOR_CLASSES
from fxgrad.torch_api.tree import ATOMS
from fxgrad.world.interrupts import CtrlC, held
from fxgrad.world.memoised import Memoised, of_libraries, undo_entries
from fxgrad.world.queues import undo_queue
from fxgrad.world.scopes import Scopes, is_own
from fxgrad.world.switches import kept_switches
from fxgrad.world.undo import (
    WEAK,
    Act,
    Note,
    attributes,
    elements,
    items,
    made_by_user,
    members,
    refill,
    slots,
    twin,
    undo_slots,
    undoer,
)

T = TypeVar("T")

# objects, some 10 s and 1 GB; a model of 20,000 layers has 150,000, a data set kept on a model may have any
# number
LIMIT = 2_000_000

_EXACT_ATOMS = frozenset(ATOMS)
_FUNCTIONS = (functools.partial, types.MethodType, types.FunctionType, Memoised)
_EXACT_CONTAINERS = frozenset((list, deque, set, tuple, frozenset, torch.Size))
_OPAQUE_PACKAGES = frozenset(
    ("builtins", "threading", "logging", "_thread", "weakref", "re", "io", "_io", "multiprocessing", "queue")
)
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_NOT_WALKED: set[type] = set()


def not_walked(cls: type[T]) -> type[T]:
    """A class decorator: a walk does not go through such objects. Only for what no run changes and through
    which none reaches anything of the user's; a record that holds a model or tensors is none of these."""
    _NOT_WALKED.add(cls)
    return cls


class Reach:
    """What the walk found: `tensors` by id, `modules`, who holds what, and the acts that put everything back,
    after one run or after several.

    `ctrl_c`: when an interrupt may come; while it is open, nothing of the user's may be out of its place.
    `beside`: an earlier walk of the same world, which is not gone over again: what it found counts as found,
    and is put back with the rest.
    """

    def __init__(self, beside: Reach | None = None) -> None:
        self.tensors: dict[int, torch.Tensor] = {}
        self.modules: list[torch.nn.Module] = []
        # tensor id -> (the object that holds it, attribute or key)
        self.where: dict[int, tuple[object, str]] = {}
        # any object's id -> the same, so that a path can be climbed
        self.parents: dict[int, tuple[object, str]] = {}
        self._acts: list[Act] = []
        # give a run something in place of the user's; the act takes it back
        self._loans: list[Callable[[], Act | None]] = []
        self._lent: list[Act] = []
        # the bulk of all objects: no act each
        self._dicts: list[tuple[dict[Any, object], list[tuple[object, object]]]] = []
        self._seen: dict[int, object] = {}
        self._kinds: dict[type, tuple[Note | None, bool, list[tuple[str, MemberDescriptorType]]]] = {}
        self._scopes = Scopes()
        self.ctrl_c = CtrlC()
        self._beside = beside
        if beside is not None:
            self.tensors.update(beside.tensors)
            self.modules += beside.modules
            self.where.update(beside.where)
            self.parents.update(beside.parents)
            self._seen.update(beside._seen)
            self._kinds = beside._kinds

    def walk(self, *roots: object) -> None:
        """Note everything within reach of `roots`, breadth first. Raises `InputError` past `LIMIT` objects:
        no part is left out."""
        self._walk(deque((root, None, "") for root in roots))

    def note_imported(self, modules: Iterable[types.ModuleType], holder: object) -> None:
        """Note what is within reach of modules that `holder`'s code was the first to load; they stay loaded,
        as they are now."""
        self._walk(
            deque(
                (value, holder, name) for module in modules for name, value in self._scopes.imported(module)
            )
        )

    def _walk(self, queue: deque[tuple[object, object, str]]) -> None:
        while queue:
            item, holder, key = queue.popleft()
            if id(item) in self._seen or isinstance(item, ATOMS):
                continue
            if len(self._seen) >= LIMIT:
                raise _too_many(holder, key, self.parents)
            self._seen[id(item)] = item
            self.parents[id(item)] = (holder, key)
            if isinstance(item, torch.Tensor):
                self.tensors[id(item)] = item
                self.where[id(item)] = (holder, key)
                if item.requires_grad and item.is_leaf:
                    queue.extend(
                        (getattr(item, hooks), holder, key)
                        for hooks in _TENSOR_HOOKS
                        if getattr(item, hooks) is not None
                    )
                if type(item) not in TENSOR_CLASSES or item.__dict__:
                    queue.extend(self._attributes(item))
                else:
                    self._dicts.append((item.__dict__, []))
                continue
            if isinstance(item, torch.nn.Module):
                self.modules.append(item)
            queue.extend(self._children(item, holder, key))

    def _children(self, item: Any, holder: object, key: str) -> Iterator[tuple[object, object, str]]:
        if isinstance(item, dict):
            yield from self._dict(item, holder, key)
            return
        note, opaque, _ = self._kind(type(item))
        if note is not None:
            self._note(note, item)
        if isinstance(item, list | deque | set | tuple | frozenset):
            yield from ((v, holder, f"{key}[{i}]") for i, v in enumerate(elements(item)) if not _is_plain(v))
            if type(item) not in _EXACT_CONTAINERS:
                yield from self._attributes(item)
        elif isinstance(item, _FUNCTIONS):
            yield from self._function(item, holder, key)
        elif not opaque:
            yield from self._attributes(item)
        else:
            yield from self._opaque(item, holder, key)

    def _note(self, note: Note, item: Any) -> None:
        if note is undo_queue:
            self._loans.append(functools.partial(undo_queue, item))
            return
        act = note(item)
        if act is not None:
            self._acts.append(act)

    def _function(self, item: Any, holder: object, key: str) -> Iterator[tuple[object, object, str]]:
        """What a function closes over, and what it is bound to."""
        if isinstance(item, functools.partial):
            yield from ((v, holder, key) for v in (item.func, item.args, item.keywords))
        elif isinstance(item, types.MethodType):
            yield from ((v, holder, key) for v in (item.__self__, item.__func__))
        elif isinstance(item, types.FunctionType):
            yield from ((v, item if name else holder, name or key) for name, v in self._scopes.around(item))
        else:
            yield from ((function, holder, key) for function in self._scopes.memoised(item))

    def _opaque(self, item: object, holder: object, key: str) -> Iterator[tuple[object, object, str]]:
        """What a few objects hold that keep it elsewhere than in attributes."""
        if isinstance(item, contextvars.ContextVar):
            yield _value_of(item), holder, key
        elif isinstance(item, threading.local):
            yield threading.local.__getattribute__(item, "__dict__"), holder, key  # this thread's
        elif isinstance(item, memoryview):
            yield item.obj, holder, key
        elif isinstance(item, WEAK) and hasattr(item, "values"):
            yield from ((value, holder, key) for value in item.values())
        else:
            scope = holder.__globals__ if isinstance(holder, types.FunctionType) else attributes(holder)
            if scope is not None and scope.get(key) is item:
                self._loans.append(functools.partial(_lend_twin, item, scope, key))

    def _kind(self, cls: type) -> tuple[Note | None, bool, list[tuple[str, MemberDescriptorType]]]:
        """How objects of a class are noted, whether their attributes stay out of it, and their slots."""
        known = self._kinds.get(cls)
        if known is None:
            note, module = undoer(cls), module_of(cls)
            library = (
                module.partition(".")[0] in _OPAQUE_PACKAGES
                and not is_own(module)
                and not (made_by_user(cls) and module == "builtins")
            )
            opaque = (
                library
                or note is not None
                or module.startswith(C_MODULE)
                or issubclass(cls, (contextvars.ContextVar, threading.local))
            )
            opaque = opaque or module == "itertools" or cls in _NOT_WALKED
            known = self._kinds[cls] = (note, opaque, members(cls))
        return known

    def _dict(
        self, item: dict[object, object], holder: object, key: str
    ) -> Iterator[tuple[object, object, str]]:
        held = items(item)
        self._dicts.append((item, held))
        owner = holder if holder is not None else item
        # A dictionary that the user keeps under a name is part of the way; a module's own registries are not.
        named = key and key not in ("_parameters", "_buffers", "_modules")
        for name, value in held:
            if type(value) not in _EXACT_ATOMS:
                yield value, owner, f"{key}[{name!r}]" if named else str(name)
        if type(item) not in (dict, OrderedDict):
            yield from self._attributes(item)

    def _attributes(self, item: Any) -> Iterator[tuple[object, object, str]]:
        found = attributes(item)
        if found is not None:
            held = items(found)
            self._dicts.append((found, held))
            for name, value in held:
                # Most of a module's attributes are empty registries of hooks: they need no visit of their
                # own.
                if type(value) is OrderedDict and not value:
                    self._dicts.append((value, []))
                elif type(value) not in _EXACT_ATOMS:
                    yield value, item, name
        declared = self._kind(type(item))[2]
        if declared:
            filled = slots(item, declared)
            self._acts.append(undo_slots(item, filled))
            yield from ((value, item, name) for (name, _), (_, value) in zip(declared, filled, strict=True))
        yield from ((value, item, name) for name, value in self._scopes.of_class(type(item)))

    def found(self, item: Any) -> bool:
        """Whether the walk came by this object: it is from before the run."""
        return id(item) in self._seen

    def globals(self) -> list[dict[str, object]]:
        """The globals of the functions that the walk came by."""
        before = self._beside.globals() if self._beside is not None else []
        return [*before, *self._scopes.globals()]

    def functions(self) -> list[types.FunctionType]:
        """The functions within reach."""
        return [item for item in self._seen.values() if type(item) is types.FunctionType]

    def begin(self) -> None:
        """A run begins: it is lent what it may use up, and whoever puts into a queue of the user's is asked
        who does so."""
        if self._beside is not None:
            self._beside.begin()
        self._lent = [act for lend in self._loans if (act := lend()) is not None]

    def note_memoised(self) -> None:
        """Note what the memoised functions of libraries keep, wherever they are called from."""
        self._acts.append(
            undo_entries(
                (function, entries, is_own(getattr(function, "__module__", None)))
                for function, entries in of_libraries()
                if id(function) not in self._seen
            )
        )

    def restore(self) -> None:
        """Put every noted object back, whatever happens to one. Containers are changed in place, so that the
        user's references stay good.

        Raises:
            Exception: the first that one of them raised, after the others are back.
        """
        failed: list[Exception] = []
        if self._beside is not None:
            try:
                self._beside.restore()
            except Exception as error:
                failed.append(error)
        for item, before in self._dicts:
            refill(item, before)
        lent, self._lent = self._lent, []
        for act in (*lent, *self._acts, *self._scopes.restore()):
            try:
                act()
            except Exception as error:  # one object of the user's that cannot be put back
                failed.append(error)
        if failed:
            raise failed[0]


def _lend_twin(item: object, scope: dict[str, object], key: str) -> Act | None:
    """Have a run advance a copy of an iterator, under the name that leads to it."""
    copied = twin(item)
    if copied is None:
        return None
    scope[key] = copied
    return functools.partial(scope.__setitem__, key, item)


def _value_of(variable: contextvars.ContextVar[object]) -> object:
    try:
        return variable.get()
    except LookupError:
        return None


def _is_plain(value: object) -> bool:
    """Whether a value cannot change and holds nothing that can: a row of a table kept on a model, among
    others."""
    return type(value) in _EXACT_ATOMS or (
        type(value) is tuple and all(type(v) in _EXACT_ATOMS for v in value)
    )


def _too_many(holder: object, key: str, parents: dict[int, tuple[object, str]]) -> InputError:
    names = []
    while holder is not None:
        names.append(key.partition("[")[0])
        holder, key = parents[id(holder)]
    path = ".".join(name for name in reversed(names) if name)
    return InputError(
        f"more than {LIMIT:,} Python objects are within reach of the model, many of them through `{path}`: "
        "they could not all be put back as they were after the run",
        hint="keep a data set outside of the model, the loss and the globals that their functions name",
    )


@contextlib.contextmanager
def preserve(*roots: object) -> Iterator[Reach]:
    """Everything within reach of `roots`, and torch's and Python's global state, are as before when the block
    ends, however it ends."""
    with _kept(_walked(roots)) as reach:
        yield reach


def _walked(roots: Iterable[object]) -> Reach:
    reach = Reach()
    reach.walk(*global_hooks(), *roots)
    reach.note_memoised()
    return reach


@contextlib.contextmanager
def _kept(reach: Reach) -> Iterator[Reach]:
    with held() as reach.ctrl_c, kept_switches():
        try:
            reach.begin()
            reach.ctrl_c.open = True
            yield reach
        finally:
            reach.ctrl_c.open = False
            reach.restore()


class World:
    """The world around one program: walked at each run, or, while it is `open`, at the first of them and put
    back after each.

    A run that imported something may have brought more within reach: after it the world is walked anew. While
    other threads live, which may change things between two runs, it is walked at each.
    """

    def __init__(self) -> None:
        self._open = False
        self._known: Reach | None = None
        self._imported = 0  # modules, when it was walked

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """In the block this thread changes nothing of the user's but by runs. What was noted is let go at its
        end."""
        if self._open:
            yield
            return
        self._open = True
        try:
            yield
        finally:
            self._open, self._known = False, None

    @contextlib.contextmanager
    def preserved(self, roots: Sequence[object], more: Sequence[object] = ()) -> Iterator[Reach]:
        """`preserve`, where what is known of the world is not gone over again. `more`: what may be another
        thing at the next run (ours, a graph that was made of the program), and is walked at each.
        """
        if not self._open or threading.active_count() > 1:
            with preserve(*roots, *more) as reach:
                yield reach
            return
        if self._known is None or self._imported != len(sys.modules):
            self._known, self._imported = _walked(roots), len(sys.modules)
        reach = Reach(beside=self._known)
        reach.walk(*global_hooks(), *roots, *more)
        with _kept(reach):
            yield reach
