"""Which models a script without an optimizer means to train: of several those that a backward reaches, and of
the others those of which it shows that it does.

It does so where it
 1. asks for a gradient of theirs (`.grad` is looked at, `autograd.grad` is called) and there is none;
 2. gathers what they compute, with gradients on, in one number that nobody reads: a loss is made for a
    backward;
 3. computes anything else from them that nobody reads, and a backward comes after;
 4. computes from them what gets to a loss, and updates nothing by hand: there is a cut on the way.
Of (2) and (3) three are no sign: what a module is called with, a part that was only picked, and what was made
beside something else: by the instruction that makes what is used, or in the model before what it returns was
last read. Used is what becomes a number, or is shown or saved, and all that it was computed from.
A model whose results only become numbers, or are shown or saved, is evaluated. Where nothing trains all are
meant.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection

from torch import nn

from fxgrad.torch_api import registry
from fxgrad.trace.events import Events
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Note
from fxgrad.trace.observer import Observer
from fxgrad.trace.slots import Slot


def meant(observer: Observer, events: Events) -> list[nn.Module]:
    """The outermost modules that are meant to train."""
    found: list[nn.Module] = []
    trains = False
    asked = {slot.leaf for request in observer.requests for slot in request.slots}
    uses = _Uses(observer, events)
    for key, module in events.outermost.items():
        slots = _slots(observer.ledger, module)
        if any(slot.after for slot in slots):
            trains = True
            found.append(module)
        elif key in events.with_grad:
            before = events.with_grad[key] < len(observer.backwards)
            if any(slot.leaf in asked for slot in slots) or uses.show(module, slots, before=before):
                found.append(module)
    return found if trains else list(events.outermost.values())


def _slots(ledger: Ledger, module: nn.Module) -> list[Slot]:
    slots = (ledger.tensors.get(parameter) for parameter in registry.parameters(module))
    return [slot for slot in slots if slot is not None]


class _Uses:
    """What became of the values of a program, by what is noted of it."""

    def __init__(self, observer: Observer, events: Events) -> None:
        self._ledger = observer.ledger
        self._shown = observer.shown
        self._handed = observer.handed
        self._calls = events.calls
        self._after: dict[int, list[int]] = {}
        self._last_read: dict[int, int] = {}  # by value the last note that reads it
        self._made: dict[int, Note] = {}  # by value
        self._used: set[int] = set()
        self._by_hand = False  # leaves are written after a backward
        self._first = observer.backwards[0].note if observer.backwards else 0

    def show(self, model: nn.Module, slots: Collection[Slot], *, before: bool) -> bool:
        """Whether what was computed from these parameters of the model was meant for a loss. `before`: a
        backward came after."""
        if not self._made:
            self._look()
        values = self._ledger.values
        edges = {-slot.leaf for slot in slots}
        own = {v.id for v in values if v is not None and v.grad is not None and v.grad in edges}
        found, gathered = self._computed(own)
        if not self._ledger.losses.isdisjoint(found):
            return not self._by_hand
        left = {number for number in found - own if self._is_left(number)}
        if before:
            left -= {number for number in left - gathered if self._is_picked(number)}
        else:
            left = set(filter(self._is_one, left & gathered))
        return bool(left) and not self._beside(found, model).issuperset(left)

    def _computed(self, own: Collection[int]) -> tuple[set[int], set[int]]:
        """What was computed from these values, and of that what gathers many elements."""
        found, gathered = set(own), set()
        pending = sorted(own)
        while pending:
            source = heapq.heappop(pending)  # in the order in which they were made
            for value in self._after.get(source, ()):
                if self._gathers(source, value, source in gathered):
                    gathered.add(value)
                if value not in found:
                    found.add(value)
                    heapq.heappush(pending, value)
        return found, gathered

    def _gathers(self, source: int, target: int, gathered: bool) -> bool:
        """Whether many elements became fewer, and not by a view of some; or were before, and are not more."""
        old, new = self._ledger.values[source], self._ledger.values[target]
        if old is None or new is None:
            return gathered
        many, few = math.prod(old.shape), math.prod(new.shape)
        if old.storage == new.storage:
            return gathered
        return few < many or (gathered and few == many)

    def _is_left(self, number: int) -> bool:
        """Whether a value has a gradient to give, and nothing was computed from it, nor was it looked at."""
        value = self._ledger.values[number]
        if value is None or not value.requires_grad or number in self._last_read:
            return False
        return number not in self._shown and number not in self._handed

    def _is_one(self, number: int) -> bool:
        value = self._ledger.values[number]
        return value is not None and all(size == 1 for size in value.shape)

    def _is_picked(self, number: int) -> bool:
        """Whether a value is a view of some elements of what it was made from."""
        values = self._ledger.values
        value, note = values[number], self._made.get(number)
        if value is None or note is None:
            return False
        sources = [source for read in note.reads if (source := values[read]) is not None]
        return any(
            source.storage == value.storage and math.prod(source.shape) > math.prod(value.shape)
            for source in sources
        )

    def _beside(self, found: Collection[int], model: nn.Module) -> set[int]:
        """Those made beside something else of the same model: by the instruction that makes what is used; in
        the model, before what its calls return was last read."""
        returned = {value for call in self._calls if call.module is model for value in call.values}
        last = max((self._last_read.get(value, -1) for value in returned), default=-1)
        if not self._shown.isdisjoint(returned):
            last = self._ledger.count
        modules = set(map(id, registry.modules(model)))
        notes = {number: self._made[number] for number in found if number in self._made}
        places = {_place(note) for number, note in notes.items() if number in self._used}
        places.discard(None)
        return {
            number
            for number, note in notes.items()
            if _place(note) in places
            or self._adds_used(note)
            or (id(note.module) in modules and note.number < last)
        }

    def _adds_used(self, note: Note) -> bool:
        """Whether the same instruction once more adds what is used to what it made before: the time of a
        simulation, whose steps are as long as its error says."""
        place = _place(note)
        before = (self._made[read] for read in note.reads if read in self._made)
        again = place is not None and any(_place(one) == place for one in before)
        return again and not self._used.isdisjoint(note.reads)

    def _look(self) -> None:
        for note in self._ledger.notes:
            self._last_read.update(dict.fromkeys(note.reads, note.number))
            self._made.update(dict.fromkeys(note.makes, note))
            for flow in note.flows:
                if not flow.weak:
                    self._after.setdefault(flow.source, []).append(flow.target)
            if note.writes and note.number > self._first:
                self._by_hand = self._by_hand or any(map(self._is_leaf, note.reads))
        self._used.update(self._shown)
        for note in reversed(self._ledger.notes):
            if note.kind == "escape" or not note.makes or not self._used.isdisjoint(note.makes):
                self._used.update(note.reads)

    def _is_leaf(self, number: int) -> bool:
        key = self._ledger.keys[number]
        return key is not None and key[0] < 0


def _place(note: Note) -> tuple[int, int] | None:
    """The instruction of the program that made the call."""
    return (id(note.spots[0][0]), note.spots[0][1]) if note.spots else None
