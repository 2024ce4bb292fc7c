"""The observer: a `TorchFunctionMode` that looks on while the user's own program runs on its own tensors.

Every torch call arrives here, runs unchanged, and leaves a note in the ledger. No tensor is replaced, kept
alive or restored: `fxgrad.trace.recorder` runs a model on stand-ins to get a graph, this one watches a whole
training script for the facts alone. An error of the observer's own ends the watching and never the program.

Note [What is not noted]: calls inside a torch call, inside an `autograd.Function`, a reentrant checkpoint or
a functorch transform (each is one note), during backward, in other threads and processes, and an optimizer's
own arithmetic (one note a step).
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from types import (
    BuiltinFunctionType,
    CodeType,
    MethodDescriptorType,
    MethodWrapperType,
    TracebackType,
    WrapperDescriptorType,
)
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from fxgrad.passes.analyses.shapes import RELATIVE, TOLD_APART
from fxgrad.records import Saved
from fxgrad.records.facts import UNSEEN, Delivered
from fxgrad.source.assigned import statement_at
from fxgrad.source.sites import Spot, is_asked_by_user, site_of
from fxgrad.torch_api.calls import (
    DECISIONS,
    ESCAPES,
    MARKS,
    QUERIES,
    SIZES,
    Args,
    Function,
    Kwargs,
    target_name,
)
from fxgrad.torch_api.internals import DisableTorchFunction, set_grad_enabled, transforms_active
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace import backwards
from fxgrad.trace.coverage import MOST_WATCHED, Coverage
from fxgrad.trace.edges import Key
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Backward, Decided, Kind, Note, Request, Taken, Zeroed
from fxgrad.trace.repeats import Given, Repeats
from fxgrad.trace.rounds import Rounds, Turn
from fxgrad.trace.slots import Read, Slot
from fxgrad.trace.switched_off import SwitchedOff

Gradient = tuple[torch.Tensor, torch.Tensor | None]
Handler = Callable[[Function, str, Args, Kwargs], object]
Noting = Callable[[Function, str, Args, Kwargs, list[Read], object], Note | None]

RECENT = 32  # numbers that left torch lately: what data from Python may be made of
DECISION_LIMIT = 200
HOOK_LIMIT = 200
REQUEST_LIMIT = 500  # calls that got None for a gradient

_PASSED = (
    QUERIES
    | SIZES
    | MARKS
    | frozenset(
        [
            "__deepcopy__",
            "__reversed__",
            "__setstate__",
            "_make_subclass",
            "get_rng_state",
            "is_grad_enabled",
            "manual_seed",
            "pin_memory",
            "record_stream",
            "register_post_accumulate_grad_hook",
            "retain_grad",
            "seed",
            "set_default_dtype",
            "set_rng_state",
            "share_memory_",
        ]
    )
)
# `torch.save` asks for the storage
_SHOWING = frozenset(("__format__", "__reduce_ex__", "__repr__", "__str__", "untyped_storage"))
_GETTERS = frozenset(("data", "T", "mT", "H", "mH", "real", "imag"))
_ZEROING = frozenset(("zero_", "_foreach_zero_"))
# functions in which no code of the user's runs
_COMPILED = frozenset((BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, MethodWrapperType))
_FROM_PYTHON = frozenset(("tensor", "as_tensor", "asarray", "scalar_tensor", "new_tensor", "full"))


class Observer(TorchFunctionMode):
    """Notes what the program does from now on. `before_backward` and `on_backward` are called around every
    backward, the latter with the leaves it reached and their gradients; `on_repeat` in its place after one
    that is not noted, with those that had none before."""

    def __init__(
        self,
        boundary: CodeType | None,
        before_backward: Callable[[], None],
        on_backward: Callable[[Backward, list[Gradient]], None],
        on_repeat: Callable[[list[Gradient]], None],
    ) -> None:
        super().__init__()
        self.ledger = Ledger(boundary)
        self.repeats = Repeats(self.ledger)
        self.coverage = Coverage(MOST_WATCHED)
        self.active = True
        self.quiet = 0  # depth of what is not looked into
        self.stepping = False  # an optimizer computes
        self.trouble: Exception | None = None
        self.decisions: list[Decided] = []
        self.backwards: list[Backward] = []
        self.shown: set[int] = set()  # values that were printed, saved or compared
        self.handed: set[int] = set()  # values of one number that a module was called with
        self.requests: list[Request] = []  # calls that asked for gradients and got None, or raised
        self.taken: list[Taken] = []
        # the last calls of an optimizer's `zero_grad`
        self.zeroed: list[Zeroed] = []
        # where hooks were put on tensors, and what their functions are called
        self.hooks: dict[tuple[Spot, ...], str] = {}
        # (note, value): a custom Function gave no gradient for a value it had read
        self.dropped: set[tuple[int, int]] = set()
        self.cleared: tuple[Spot, ...] = ()  # where gradients were dropped or zeroed after the last backward
        self.emptied: tuple[Spot, ...] = ()  # where they last were at all
        self.exchanged: tuple[Spot, ...] = ()  # where a gradient was given to a leaf by hand after it
        # what the regions that run now have read without being given it
        self.hidden: list[dict[int, None]] = []
        self.closely = False  # note what every autograd node is given
        # a graph is differentiated besides or kept after its backward: autograd.grad, retain_graph,
        # create_graph
        self.again = False
        self.gradients_only = False  # calls are not noted any more: what backwards leave is
        self.delivered: dict[Key, Delivered] = {}
        self.saved: list[Saved] = []  # tensors saved for a backward that were then overwritten unseen
        # by backward that runs now: leaves that backwards inside it reach
        self.nested: list[list[torch.Tensor]] = []
        self.started: object = (
            None  # what the outermost of them was called with: `Tensor.backward` calls another
        )
        self.on_raise: Callable[[BaseException], None] = lambda error: None
        self.before_backward = before_backward
        self.on_backward = on_backward
        self.on_repeat = on_repeat
        # by the number of a leaf, when and where the program froze it
        self.frozen: dict[int, tuple[int, tuple[Spot, ...]]] = {}
        self._switched_off = SwitchedOff(self.ledger)
        self._numbers: dict[int, tuple[float, int]] = {}
        self._arrays: dict[int, tuple[weakref.ref[object], int]] = {}
        self._escapes: deque[tuple[int, tuple[Spot, ...]]] = deque(maxlen=RECENT)
        # by function: what notes its calls, its name, and whether these are compared with other rounds'
        self._handlers: dict[object, tuple[Handler | None, str, bool]] = {}
        self.rounds = Rounds(self.ledger, self.repeats, self.coverage, self._numbers, self._value_of_array)

    def spots_of_birth(self) -> tuple[Spot, ...]:
        """The user's frames where a subclass is made; () where nobody looks."""
        looking = self.active and not self.quiet and not self.gradients_only
        return self.ledger.spots() if looking else ()

    def guarded(self) -> _Guarded:
        """Noting: nothing of it is seen by torch's function modes, and an error of it stops the watch, not
        the program."""
        return _Guarded(self)

    # ------------------------------------------------------------------ calls

    def __torch_function__(
        self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        kwargs = kwargs or {}
        if not self.active:
            return func(*args, **kwargs)
        if self.quiet:
            if self.hidden:
                self._note_hidden(args, kwargs)
            return func(*args, **kwargs)
        try:
            handler, name, followed = self._handlers[func]
        except (KeyError, TypeError):
            handler, name, followed = self._classify(func)
        if (
            handler is None
            or transforms_active()
            or (self.gradients_only and handler not in (self._decision, self._set_flag))
        ):
            return func(*args, **kwargs)
        if followed and not (self.stepping and not torch.is_grad_enabled()):
            return self._follow(handler, func, name, args, kwargs)
        return handler(func, name, args, kwargs)

    def _follow(self, handler: Handler, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        """Run a call and note it, unless it belongs to a round that repeats others."""
        rounds = self.rounds
        try:
            given = (*args, *kwargs, *kwargs.values()) if kwargs else args
            turn = rounds.next(func, sys._getframe(2), given)
        except Exception as error:
            self.fail(error)
            turn = None
        if turn is None:
            return handler(func, name, args, kwargs)
        if not rounds.comparing:
            out = handler(func, name, args, kwargs)
            if self.active:
                with self.guarded():
                    rounds.noted(turn, out)
                    self._flagged(turn, handler, args)
            return out
        self.quiet += 1
        try:
            out = func(*args, **kwargs)
        finally:
            self.quiet -= 1
        try:
            if not rounds.repeated(turn, out):
                self._note_late(turn, handler, func, name, args, kwargs, out)
            elif name in _ZEROING:
                self.cleared = self.emptied
            elif handler == self._escape and turn.noted is not None and turn.noted.values:
                self._escaped(out, turn.noted.values[0], None)
            self._flagged(turn, handler, args)
        except Exception as error:
            self.fail(error)
        return out

    def _note_late(
        self,
        turn: Turn,
        handler: Handler,
        func: Function,
        name: str,
        args: Args,
        kwargs: Kwargs,
        out: object,
    ) -> None:
        """A call that was only compared has run, and did not do what it had done before."""
        note = self._note_get if handler == self._get else self._note_operation
        note(func, name, args, kwargs, self.before(args, kwargs), out)
        self.rounds.noted(turn, out)

    def _flagged(self, turn: Turn, handler: Handler, args: Args) -> None:
        """A call has run, which may have made a leaf of what it was given, or frozen it."""
        if handler == self._set_flag and isinstance(args[0], torch.Tensor):
            self.rounds.flagged(turn, args[0])
            slot = self.ledger.tensors.by_id.get(id(args[0]))
            if slot is not None:
                self._note_frozen(args[0], slot)

    def turn(self, func: object, args: Args, kwargs: Kwargs) -> Turn | None:
        """The turn of a call that is about to run, see `fxgrad.trace.rounds`."""
        try:
            return self.rounds.next(func, sys._getframe(2), (*args, *kwargs, *kwargs.values()))
        except Exception as error:
            self.fail(error)
        return None

    def _classify(self, func: Function) -> tuple[Handler | None, str, bool]:
        name: str = getattr(func, "__name__", "") or str(func)
        handler = self._handler(func, name)
        followed = handler in (self._operation, self._get, self._set_flag, self._escape)
        try:
            self._handlers[func] = (handler, name, followed)
        except TypeError:  # an unhashable callable is classified every time, and is like no other
            self.rounds.lose()
            return handler, name, False
        return handler, name, followed

    def _handler(self, func: Function, name: str) -> Handler | None:
        """What notes the calls of a function; None where nothing does."""
        if name in ("__get__", "__set__"):
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            setters: dict[str, Handler] = {
                "data": self._set_data,
                "grad": self._set_grad,
                "requires_grad": self._set_flag,
            }
            getters: dict[str, Handler] = {"grad": self._get_grad}
            found = getters.get(attribute, self._get if attribute in _GETTERS else None)
            return setters.get(attribute) if name == "__set__" else found
        named: tuple[tuple[Container[str], Handler | None], ...] = (
            (("register_hook",), self._hook),
            (_SHOWING, self._show),
            (_PASSED, None),
            (DECISIONS, self._decision),
            (("requires_grad_",), self._set_flag),
            (ESCAPES, self._escape),
        )
        for names, handler in named:
            if name in names:
                return handler
        if func is torch.autograd.grad:
            return self._grad
        return self._switch if func is set_grad_enabled else self._operation

    def _operation(
        self, func: Function, name: str, args: Args, kwargs: Kwargs, then: Noting | None = None
    ) -> object:
        """Run a call; `then` notes it, unless it repeats others."""
        if self.stepping and not torch.is_grad_enabled():
            return func(*args, **kwargs)
        resting = self.coverage.rest()
        looked_into = resting and type(func) not in _COMPILED
        self.quiet += 1
        try:
            kind = self.kind(func, name, args, kwargs)
            repeat: tuple[Kind, Given] | None = None
            reads: list[Read] | None = None
            if kind is not None and kind.left <= 0:
                repeat, kind = (kind, self.repeats.given), None
                self.repeats.given = []
            else:
                reads = self.before(args, kwargs)
            if looked_into:
                self.coverage.resume()
            out = func(*args, **kwargs)
            if looked_into:
                self.coverage.rest()
            if repeat is not None and self.active:
                reads = self.unlike(*repeat, out)
            if reads is not None:
                note = (then or self._note_operation)(func, name, args, kwargs, reads, out)
                if kind is not None and self.active:
                    self.repeats.noted(kind, note, out)
        finally:
            self.quiet -= 1
            if resting:
                self.coverage.resume()
        return out

    def unlike(self, kind: Kind, given: Given, out: object) -> list[Read] | None:
        """What a call of that kind was given, as it was before, where it must be noted after all."""
        try:
            return self.repeats.stand(kind, given, out)
        except Exception as error:
            self.fail(error)
        return None

    def kind(self, func: object, name: str, args: Args, kwargs: Kwargs) -> Kind | None:
        """The kind of a call that is about to run, see `fxgrad.trace.repeats`."""
        if name in _ZEROING:
            return None
        origins, ledger = 0, self.ledger
        try:
            if self._numbers or self._arrays:
                for value in self._known_numbers(args):
                    origins |= ledger.origins[value]
            if name in _FROM_PYTHON:
                for value, _ in self._escapes:
                    origins |= ledger.origins[value]
            return self.repeats.find(func, args, kwargs, origins)
        except Exception as error:
            self.fail(error)
        return None

    def fail(self, error: Exception) -> None:
        """The watch has failed, and ends."""
        self.trouble = error
        self.active = False

    def _note_operation(
        self, func: Function, name: str, args: Args, kwargs: Kwargs, reads: list[Read], out: object
    ) -> Note | None:
        if name in _ZEROING and self.backwards:
            self.cleared = self.emptied = self.ledger.spots()
        note = self.after(
            "op", target_name(func, name), reads, out, self._known_numbers(args), kwargs.get("out")
        )
        if note is not None:
            note.constants = tuple(a for a in args if isinstance(a, int | float) and not isinstance(a, bool))
            if name in TOLD_APART:
                note.operands = _operands(args, kwargs, reads)
            if name in RELATIVE:
                note.settings = _settings(args, kwargs)
            if name in _FROM_PYTHON and not note.reads:
                self.from_python(note)
            elif self._escapes and note.constants:
                with self.guarded():
                    self.ledger.may_hold(note, self._behind_numbers(note, args))
        return note

    def _behind_numbers(self, note: Note, args: Args) -> list[int]:
        """Of the numbers that left torch lately those that a number given to the call may be computed from
        (`math.exp(scale) * x`): they were read in the same statement, where that number is no literal."""
        code = note.spots[0][0] if note.spots else None
        near = [(value, spot) for value, spots in self._escapes for spot in spots if spot[0] is code]
        if code is None or not near:
            return []
        if all(id(n) in self._numbers or abs(n) in code.co_consts for n in _floats(args)):
            return []
        own = statement_at(site_of(note.spots[0]))
        return [value for value, spot in near if own is not None and statement_at(site_of(spot)) is own]

    def before(self, *items: object) -> list[Read]:
        """What a call is about to read. A lazy parameter is nothing before it is given its shape: that is no
        write of one."""
        found: list[Read] = []
        with self.guarded():
            found = [self.ledger.read(tensor) for tensor in tensors_in(items) if not is_lazy(tensor)]
        return found

    def after(
        self,
        kind: str,
        target: str,
        reads: list[Read],
        out: object,
        numbers: tuple[int, ...] = (),
        room: object = None,
    ) -> Note | None:
        """The note of a call that has run, `room` its `out=`; None if it neither made nor wrote anything."""
        if not self.active:
            return None
        with self.guarded():
            note = self.ledger.note(kind, target)
            note.reads = [*(value for _, _, value in reads), *numbers]
            if self.ledger.result(note, out, reads, [] if room is None else list(tensors_in(room))):
                return note
        return None

    def from_python(self, note: Note) -> None:
        """Data came in from Python: the numbers that left torch lately may be in it."""
        self.ledger.may_hold(note, (value for value, _ in self._escapes))

    def forget_numbers(self) -> None:
        """A step has ended: what left torch in it is not what the next one is made of."""
        self._numbers.clear()
        self._arrays.clear()
        self._escapes.clear()
        self.ledger.kinds.clear()
        self.rounds.reset()

    def value_of_number(self, number: object) -> int | None:
        """The value of a float that was read off a tensor; None for any other object."""
        known = self._numbers.get(id(number))
        return known[1] if known is not None and known[0] is number else None

    def is_known(self, array: object) -> bool:
        """Whether it is an array of NumPy's that was read off a tensor."""
        return bool(self._arrays) and bool(self._known_numbers((array,)))

    def last_number(self) -> int | None:
        """The value of the number that left torch last."""
        return self._escapes[-1][0] if self._escapes else None

    def _known_numbers(self, args: Args) -> tuple[int, ...]:
        found = [known[1] for number in _floats(args) if (known := self._numbers.get(id(number))) is not None]
        for array in (a for a in args if self._arrays and _is_array(a)):
            value = self._value_of_array(array)
            if value is not None:
                found.append(value)
        return tuple(found)

    def _value_of_array(self, array: object) -> int | None:
        """The value of an array of NumPy's that was read off a tensor, or views one that was."""
        while self._arrays and array is not None:
            known = self._arrays.get(id(array))
            if known is not None and known[0]() is array:
                return known[1]
            array = getattr(array, "base", None)
        return None

    def _note_hidden(self, *items: object) -> None:
        with self.guarded():
            for tensor in tensors_in(items):
                # Only what is from outside the region: known before, or a parameter.
                if self.ledger.tensors.get(tensor) is not None or isinstance(tensor, torch.nn.Parameter):
                    _, _, value = self.ledger.read(tensor)
                    for region in self.hidden:
                        region.setdefault(value)

    def leaves_in(self, values: Iterable[int]) -> frozenset[int]:
        """The leaves among these values, by their edges."""
        keys = map(self.ledger.keys.__getitem__, values)
        return frozenset(key[0] for key in keys if key is not None and key[0] < 0)

    # ------------------------------------------------------------------ properties, branches, numbers

    def _get(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        return self._operation(func, name, args, kwargs, self._note_get)

    def _note_get(
        self, func: Any, name: str, args: Args, kwargs: Kwargs, reads: list[Read], out: object
    ) -> Note | None:
        attribute = f"Tensor.{func.__self__.__name__}"
        return self.after("op", attribute, reads, out) if isinstance(out, torch.Tensor) else None

    def _get_grad(self, func: Any, name: str, args: Any, kwargs: Kwargs) -> object:
        """A look at `.grad`: where it is None and the user's own line looks, that is kept; the program may go
        on with it."""
        out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor) and self.ledger.just_read and self.active:
            with self.guarded():  # met here: no constructor makes it of the numbers that left torch last
                numbers, self.ledger.just_read = self.ledger.just_read, []
                self.ledger.read(out)
                self.ledger.just_read = numbers
        if (
            out is None
            and not self.stepping
            and len(self.requests) < REQUEST_LIMIT
            and is_asked_by_user(sys._getframe(1))
        ):
            with self.guarded():
                _, slot, _ = self.ledger.read(args[0])
                self.requests.append(Request(self.ledger.count, self.ledger.spots(), (slot,), (0,)))
        return out

    def _set_data(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        self.rounds.lose()
        reads = self.before(args)
        out = func(*args, **kwargs)
        if reads and self.active:
            with self.guarded():
                note = self.ledger.note("op", "Tensor.__set__")
                note.reads = [value for _, _, value in reads]
                tensor, slot, _ = reads[0]
                self.ledger.tensors.refresh(slot, tensor)
                self.ledger.made(note, tensor, slot)
                note.writes = [slot.storage]
                self.ledger.connect(note)
        return out

    def _set_grad(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        if len(args) > 1 and self.backwards:
            if args[1] is not None:
                self.exchanged = self.ledger.spots()
            elif self.rounds.comparing and self.emptied:
                self.cleared = self.emptied
            else:
                self.cleared = self.emptied = self.ledger.spots()
        return func(*args, **kwargs)

    def _set_flag(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        """`t.requires_grad = False`, `t.requires_grad_()`: which line froze a leaf, and is the last to have
        done so."""
        noted = name == "requires_grad_" and not self.gradients_only
        out = self._operation(func, name, args, kwargs) if noted else func(*args, **kwargs)
        if self.active and args and isinstance(args[0], torch.Tensor):
            with self.guarded():
                tensor, slot, value = self.ledger.read(args[0])
                made = self.ledger.notes[-1:]
                if made and made[0].target == UNSEEN and value in made[0].makes:
                    made[0].target = "Tensor.requires_grad_"  # by assignment: this is what makes it another
                self._note_frozen(tensor, slot)
        return out

    def _note_frozen(self, tensor: torch.Tensor, slot: Slot) -> None:
        if tensor.requires_grad:
            self.frozen.pop(slot.leaf, None)
        elif tensor.is_leaf and slot.leaf not in self.frozen:
            self.frozen[slot.leaf] = self.ledger.count, self.ledger.spots()

    def _hook(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        """A hook is put on a tensor: which function, and where. Where zeros are to be explained, also whether
        it makes some."""
        if self.closely and self.active and args and isinstance(args[0], torch.Tensor):
            with backwards.looked_at_around(self, args[0]):
                out = func(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        hook = args[1] if len(args) > 1 else kwargs.get("hook")
        if len(self.hooks) < HOOK_LIMIT:
            with self.guarded():
                self.hooks.setdefault(self.ledger.spots(), getattr(hook, "__name__", ""))
        return out

    def _switch(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        """Gradients are switched off: which line did so, where none around a step does."""
        if args and not args[0] and torch.is_grad_enabled():
            with self.guarded():
                self._switched_off.note()
        return func(*args, **kwargs)

    def _decision(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        out = func(*args, **kwargs)
        if (
            (self.ledger.stack or self.gradients_only)
            and isinstance(out, bool)
            and len(self.decisions) < DECISION_LIMIT
        ):
            self.decisions.append(Decided(self.ledger.spots(), self.ledger.count, out))
        if self.active and not self.gradients_only:
            self._note_shown(args)
        return out

    def _show(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        out = func(*args, **kwargs)
        self._note_shown(args)
        return out

    def _note_shown(self, args: Args) -> None:
        """The program looks at these, and computes nothing from them."""
        with self.guarded():
            for tensor in tensors_in(args):
                slot = self.ledger.tensors.get(tensor)
                if slot is not None:
                    self.shown.add(slot.value)

    def _escape(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        if self.stepping and not torch.is_grad_enabled():
            return func(*args, **kwargs)
        kind = self.kind(func, name, args, kwargs)
        if kind is not None and kind.left <= 0:
            out = func(*args, **kwargs)
            with self.guarded():
                self._escaped(out, kind.values[0], kind.code)
            return out
        reads = self.before(args)
        out = func(*args, **kwargs)
        if not reads or not self.active:
            return out
        with self.guarded():
            note = self.ledger.note("escape", f"Tensor.{name}")
            note.reads = [value for _, _, value in reads]
            value = self.ledger.number(note)
            self.ledger.connect(note)
            self._escaped(out, value, note.spots[0][0] if note.spots else None, note.spots)
            if kind is not None:
                self.repeats.noted(kind, note, None)
        return out

    def _escaped(self, out: object, value: int, code: CodeType | None, spots: tuple[Spot, ...] = ()) -> None:
        """A number, or several, left torch in that code. Without the frames where such a call was noted
        before: what was made of it was, too."""
        self.ledger.just_read.append((code, value))
        self._escapes.append((value, spots))
        for number in _floats(out):
            self._numbers[id(number)] = (number, value)  # kept alive: the id is only good as long
        if _is_array(out):
            self._arrays[id(out)] = weakref.ref(out), value

    def _grad(self, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
        return backwards.grad(self, func, args, kwargs)


class _Guarded:
    """`Observer.guarded`, entered three times for every call that is noted."""

    __slots__ = ("_aside", "_observer")

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._aside = DisableTorchFunction()

    def __enter__(self) -> None:
        self._aside.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._aside.__exit__(kind, error, traceback)
        if not isinstance(error, Exception):
            return False
        self._observer.fail(error)
        return True


def _operands(args: Args, kwargs: Kwargs, reads: list[Read]) -> tuple[tuple[int | str, int], ...]:
    """By position or keyword, the values of a call's tensor arguments."""
    values = {id(tensor): value for tensor, _, value in reads}
    named: list[tuple[int | str, object]] = [*enumerate(args), *kwargs.items()]
    return tuple((place, values[id(item)]) for place, item in named if id(item) in values)


def _settings(args: Args, kwargs: Kwargs) -> tuple[tuple[int | str, object], ...]:
    """By position or keyword, its numbers and tuples of numbers."""
    named: list[tuple[int | str, object]] = [*enumerate(args), *kwargs.items()]
    found = ((place, tuple(item) if isinstance(item, list) else item) for place, item in named)
    return tuple((place, item) for place, item in found if isinstance(item, bool | int | float | tuple))


def _is_array(item: object) -> bool:
    return type(item).__module__ == "numpy"


def _floats(item: object) -> Iterator[float]:
    if type(item) is float:
        yield item
    elif isinstance(item, tuple | list):
        for inner in item:
            yield from _floats(inner)
