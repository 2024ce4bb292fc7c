"""Which models a script without an optimizer means to train: of several those that a backward reaches, and of
the others those of which it shows that it does.

It does so where it
 1. asks for a gradient of theirs (`.grad` is looked at, `autograd.grad` is called) and there is none;
 2. computes one number from them, with gradients on, that nobody reads: a loss is made for a backward. One
    that a module is called with is none, nor one whose line makes others that are read, nor an element that
    was picked;
 3. computes anything else from them that nobody reads, and a backward comes after;
 4. computes from them what gets to a loss, and updates nothing by hand: there is a cut on the way.
A model whose results only become numbers, or are shown, is evaluated. Where nothing trains all are meant.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from fxgrad.torch_api import registry
from fxgrad.trace.events import Events
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.observer import Observer
from fxgrad.trace.slots import Slot


def meant(observer: Observer, events: Events) -> list[nn.Module]:
    """The outermost modules that are meant to train."""
    found: list[nn.Module] = []
    trains = False
    asked = {slot.leaf for request in observer.requests for slot in request.slots}
    uses = _Uses(observer)
    for key, module in events.outermost.items():
        slots = _slots(observer.ledger, module)
        if any(slot.after for slot in slots):
            trains = True
            found.append(module)
        elif key in events.with_grad:
            before = events.with_grad[key] < len(observer.backwards)
            if any(slot.leaf in asked for slot in slots) or uses.show(slots, before=before):
                found.append(module)
    return found if trains else list(events.outermost.values())


def _slots(ledger: Ledger, module: nn.Module) -> list[Slot]:
    slots = (ledger.tensors.get(parameter) for parameter in registry.parameters(module))
    return [slot for slot in slots if slot is not None]


_PICKS = frozenset(["__getitem__", "select", "unbind"])  # what gives elements of a tensor


class _Uses:
    """What became of the values of a program, by what is noted of it."""

    def __init__(self, observer: Observer) -> None:
        self._ledger = observer.ledger
        self._shown = observer.shown
        self._handed = observer.handed
        self._after: dict[int, list[int]] = {}
        self._read: set[int] = set()
        # by value the instruction that made it; and those that made one that was read
        self._places: dict[int, tuple[int, int]] = {}
        self._read_places: set[tuple[int, int]] = set()
        self._picked: set[int] = set()
        self._by_hand = False  # leaves are written after a backward
        self._first = observer.backwards[0].note if observer.backwards else 0

    def show(self, slots: Collection[Slot], *, before: bool) -> bool:
        """Whether what was computed from these parameters was meant for a loss. `before`: a backward came
        after."""
        if not self._read:
            self._look()
        values = self._ledger.values
        edges = {-slot.leaf for slot in slots}
        found = {v.id for v in values if v is not None and v.grad is not None and v.grad in edges}
        own = set(found)
        pending = list(found)
        while pending:
            for value in self._after.get(pending.pop(), ()):
                if value not in found:
                    found.add(value)
                    pending.append(value)
        if not self._ledger.losses.isdisjoint(found):
            return not self._by_hand
        return any(self._is_left(number, before=before) for number in found - own)

    def _is_left(self, number: int, *, before: bool) -> bool:
        """Whether nobody read a value that has a gradient to give."""
        value = self._ledger.values[number]
        if value is None or not value.requires_grad or number in self._read or number in self._shown:
            return False
        if before:
            return True
        in_part = (
            number in self._handed or number in self._picked or self._places.get(number) in self._read_places
        )
        return not in_part and all(size == 1 for size in value.shape)

    def _look(self) -> None:
        ledger = self._ledger
        for note in ledger.notes:
            self._read.update(note.reads)
            if note.spots:
                code, instruction = note.spots[0]
                self._places.update(dict.fromkeys(note.makes, (id(code), instruction)))
            if note.target.rpartition(".")[2] in _PICKS:
                self._picked.update(note.makes)
            for flow in note.flows:
                if not flow.weak:
                    self._after.setdefault(flow.source, []).append(flow.target)
            if note.writes and note.number > self._first:
                self._by_hand = self._by_hand or any(map(self._is_leaf, note.reads))
        self._read_places = {place for number, place in self._places.items() if number in self._read}

    def _is_leaf(self, number: int) -> bool:
        key = self._ledger.keys[number]
        return key is not None and key[0] < 0
