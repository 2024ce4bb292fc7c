"""The ledger: values, autograd's edges and notes of a running program, in the order in which things happen.

Every tensor the program names gets a value; an in-place write makes a new value of every living tensor over
that storage. The flows of a call are asked of autograd as soon as it has run (definition 2 of
`fxgrad.trace.edges`), so that no graph needs to be kept. A tensor that no noted call made is *adopted* at its
first use: autograd says what lies behind it. Not handled: writes that bump no version counter and go through
no noted call (NumPy, C++ extensions).
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from types import CodeType

import torch
from torch import nn
from torch.autograd.graph import Node

from fxgrad.records import Flow, Value
from fxgrad.records.facts import UNSEEN, WRAPPER
from fxgrad.source.sites import Spot, user_spots
from fxgrad.torch_api.autograd_graph import grad_fn_of
from fxgrad.torch_api.internals import version_of
from fxgrad.torch_api.tensors import TENSOR_CLASSES, inner_tensors, shape_of
from fxgrad.torch_api.tree import tensors_in
from fxgrad.trace.edges import Key, WatchedEdges, number_of
from fxgrad.trace.notes import UNKNOWN, Kind, Note
from fxgrad.trace.sampling import is_sampling
from fxgrad.trace.slots import Slot, WatchedTensors
from fxgrad.trace.subclasses import Births

LIMIT = 300_000  # notes; one step of a 70-billion-parameter model makes ten thousand

ORIGINS = 4096  # that are told apart


class Ledger:
    """Notes so far. `boundary`: the code whose frame ends a stack; None for the whole stack. `stack`: the
    modules that run now."""

    def __init__(self, boundary: CodeType | None) -> None:
        self.boundary = boundary
        self.births = Births()
        self.tensors = WatchedTensors()
        self.edges = WatchedEdges(self._leaf_key)
        self.values: list[Value | None] = []
        self.keys: list[Key | None] = []
        self.origins: list[int] = []  # by value, see `fxgrad.trace.repeats`
        self.tracked = 0  # differentiated values so far
        self.kinds: dict[object, Kind] = {}  # of calls since the last backward or step
        # the numbers that left torch since the last other call, each with the code that read it
        self.just_read: list[tuple[CodeType | None, int]] = []
        self._bits: dict[object, int] = {}
        self.notes: list[Note] = []
        self.count = 0
        self.full = False
        self.stack: list[nn.Module] = []
        self.losses: set[int] = set()  # values that a backward started from: what they come from is kept
        # by storage, the notes that wrote it past the version counter of another tensor over it
        self.hidden: dict[int, list[int]] = {}
        self._parts: dict[int, weakref.ref[torch.Tensor]] = {}  # by leaf edge
        self._prune_at = LIMIT // 4
        # the value that a tensor stands for which no noted call made, see `fxgrad.trace.rounds`
        self.stands_for: Callable[[torch.Tensor], int] = lambda tensor: -1

    # ------------------------------------------------------------------ values

    def read(self, tensor: torch.Tensor) -> tuple[torch.Tensor, Slot, int]:
        """A tensor the program names, its slot and its value now."""
        slot = self.tensors.get(tensor)
        if slot is None:
            slot = self._adopt(tensor)
        elif version_of(tensor) != slot.version or (slot.edge is None) is tensor.requires_grad:
            self._renew(tensor, slot)
        return tensor, slot, slot.value

    def _adopt(self, tensor: torch.Tensor) -> Slot:
        self.tensors.enter()
        alias = self.tensors.last_value(tensor)
        numbers: list[int] = []
        slot = self.tensors.add(tensor)
        if self._repeated(tensor, slot):
            return slot
        if tensor.requires_grad and grad_fn_of(tensor) is not None:
            note = self.note("op", UNSEEN)
        elif alias >= 0 and self.values[alias] is not None:
            note = self._new_leaf(tensor, "alias", [alias])
        elif parts := self._wrapped(tensor):
            note = self._new_leaf(tensor, WRAPPER, parts)
        elif numbers := self._just_read(tensor):
            note = self.note("entry", "constructor")
        else:
            note = self.note("attribute", "tensor")
            note.spots, note.module = (), None
        self.made(note, tensor, slot)
        self.connect(note)
        if note.kind == "entry":
            note.flows = []
            self.may_hold(note, numbers)
        # nothing known lies behind it: it is older than the watch
        if note.target == UNSEEN and not note.flows:
            note.kind, note.spots = "attribute", ()
        return slot

    def _new_leaf(self, tensor: torch.Tensor, target: str, reads: list[int]) -> Note:
        note = self.note("leaf", target)
        note.reads = reads
        note.spots = self.births.of(tensor) or note.spots
        return note

    def _wrapped(self, tensor: torch.Tensor) -> list[int]:
        """The values that a subclass was put around."""
        parts = () if type(tensor) in TENSOR_CLASSES else inner_tensors(tensor).values()
        slots = map(self.tensors.get, parts)
        return [slot.value for slot in slots if slot is not None and self.values[slot.value] is not None]

    def _repeated(self, tensor: torch.Tensor, slot: Slot) -> bool:
        """Whether a call made it that was not noted, as it had been often enough: it stands for what the last
        noted one made."""
        value = self.stands_for(tensor)
        if value < 0:
            return False
        key, function = self._edge(tensor, slot)
        if (key is None) is not (self.keys[value] is None) or (key is not None and function is None):
            return False
        slot.value, slot.edge = value, key
        if key is not None:
            self.stand_in(value, key)
        return True

    def stand_in(self, value: int, key: Key) -> None:
        """The gradient of what stands for this value arrives there."""
        self.keys[value] = key
        here = self.edges.values.setdefault(key, [])
        if value not in here:
            here.append(value)

    def same(self, whole: torch.Tensor, part: torch.Tensor) -> None:
        """`whole` was put together from `part` and others' parts: they have one leaf edge, for as long as
        both live."""
        slot = self.tensors.get(part) or self._adopt(part)
        self._parts[slot.leaf] = weakref.ref(part)
        other = self.tensors.get(whole)
        if other is None or other.leaf != slot.leaf:
            other = other or self.tensors.add(whole)
            other.leaf = slot.leaf
            note = self.note("attribute", "tensor")
            note.spots, note.module = (), None
            self.tensors.as_one(whole, slot)
            self.made(note, whole, other)
            self.connect(note)

    def split(self, original: torch.Tensor, part: torch.Tensor) -> None:
        """`part` takes the place of `original`, which was split into it and others': what was done to that
        was done to it, and no gradient reaches the original any more."""
        slot = self.tensors.get(original)
        if slot is None:
            return
        other = self.tensors.get(part) or self.tensors.add(part)
        other.leaf, slot.leaf = slot.leaf, other.leaf
        note = self.note("entry", "constructor")
        note.module = None
        self.tensors.as_one(part, slot)
        self.made(note, part, other)
        self.connect(note)

    def part_of(self, slot: Slot) -> torch.Tensor | None:
        """The part that a whole tensor was put together from: a gradient is left on that."""
        part = self._parts.get(slot.leaf)
        return part() if part is not None else None

    def settle(self, tensors: Iterable[torch.Tensor]) -> None:
        """These were written, and are what they were for all that a gradient depends on."""
        for tensor in tensors:
            slot = self.tensors.get(tensor)
            if slot is not None:
                self.tensors.refresh(slot, tensor)

    def _just_read(self, tensor: torch.Tensor) -> list[int]:
        """The numbers that the old constructors (`torch.Tensor([t, u])`) have just read, if they made this
        tensor."""
        found: list[int] = []
        if not tensor.requires_grad and tensor.device.type == "cpu":
            code = self.spots()[:1]
            for where, value in reversed(self.just_read):
                if not code or where is not code[0][0]:
                    break
                found.append(value)
        return found

    def _renew(self, tensor: torch.Tensor, slot: Slot) -> None:
        """The tensor changed where nobody looked: an `autograd.Function` gave it a history, an optimizer
        wrote it."""
        note = self.note("op", UNSEEN)
        note.reads = [slot.value]
        if version_of(tensor) != slot.version:
            note.writes = [slot.storage]
        self.tensors.refresh(slot, tensor)
        self.made(note, tensor, slot)
        self.connect(note)

    def _leaf_key(self, tensor: torch.Tensor) -> Key:
        slot = self.tensors.get(tensor) or self._adopt(tensor)
        return -slot.leaf, 0

    def made(self, note: Note, tensor: torch.Tensor, slot: Slot | None = None) -> None:
        """`tensor` is now what `note` makes."""
        if slot is None:
            slot = self.tensors.get(tensor)
            if slot is None:
                slot = self.tensors.add(tensor)
            else:
                self.tensors.refresh(slot, tensor)
        key, function = self._edge(tensor, slot)
        number = len(self.values)
        self.values.append(
            Value(
                number,
                f"n{note.number}",
                shape_of(tensor),
                tensor.dtype,
                tensor.device.type,
                slot.storage,
                tensor.requires_grad,
                function is None,
                key[0] if key is not None else None,
                function.name() if function is not None else "",
            )
        )
        self.keys.append(key)
        self.origins.append(self._origins(note, tensor, slot, key))
        if key is not None:
            self.tracked += 1
            self.edges.values.setdefault(key, []).append(number)
        slot.value, slot.edge = number, key
        note.makes.append(number)
        note.functions.append(function)

    def number(self, note: Note) -> int:
        """A value for a Python number that `note` read off data."""
        value = len(self.values)
        self.values.append(
            Value(value, f"n{note.number}", (), torch.float64, "python", -1, False, True, None)
        )
        self.keys.append(None)
        self.origins.append(self._behind(note, cut=True))
        note.makes.append(value)
        note.functions.append(None)
        return value

    def may_hold(self, note: Note, numbers: Iterable[int]) -> None:
        """What a note has made of Python numbers may be made of these."""
        for make in note.makes:
            for number in numbers:
                note.flows.append(Flow(number, make, False, weak=True))
                self.origins[make] |= self.origins[number]

    def _origins(self, note: Note, tensor: torch.Tensor, slot: Slot, key: Key | None) -> int:
        leaf = key[0] < 0 if key is not None else type(tensor) is not torch.Tensor
        return self._bit(slot.leaf) if leaf else self._behind(note, cut=key is None)

    def _behind(self, note: Note, *, cut: bool) -> int:
        """The origins of what a note makes; `cut`: it is not differentiated."""
        for read in note.reads[note.counted :]:
            note.origins |= self.origins[read]
            note.cuts = note.cuts or self.keys[read] is not None
        note.counted = len(note.reads)
        if not cut or not note.cuts:
            return note.origins
        return note.origins | self._bit((note.target, *((id(code), place) for code, place in note.spots)))

    def _bit(self, key: object) -> int:
        if key not in self._bits and len(self._bits) >= ORIGINS:
            return UNKNOWN
        return 1 << self._bits.setdefault(key, len(self._bits))

    def _edge(self, tensor: torch.Tensor, slot: Slot) -> tuple[Key | None, Node | None]:
        if not tensor.requires_grad:
            return None, None
        function = grad_fn_of(tensor)
        return (
            ((-slot.leaf, 0), None)
            if function is None
            else ((number_of(function), tensor.output_nr), function)
        )

    # ------------------------------------------------------------------ notes

    def spots(self) -> tuple[Spot, ...]:
        """The user's frames at this moment."""
        return user_spots(sys._getframe(1), self.boundary)

    def note(self, kind: str, target: str) -> Note:
        """A note of what runs now; it counts once it is connected or kept."""
        module = self.stack[-1] if self.stack else None
        self.count += 1
        grad = torch.is_grad_enabled()
        return Note(
            self.count,
            kind,
            target,
            self.spots(),
            module,
            grad,
            torch.is_inference_mode_enabled(),
            not grad and is_sampling(sys._getframe(1)),
        )

    def result(
        self,
        note: Note,
        out: object,
        reads: Iterable[tuple[torch.Tensor, Slot, int]],
        room: Sequence[torch.Tensor] = (),
    ) -> bool:
        """Bind what a call returned and wrote; False if it did neither, and the note is nothing. `room`: what
        it was given as `out=`, which it writes even where it moves no version counter (`torch.kron`)."""
        given = {id(tensor) for tensor in room}
        changed = [
            (tensor, slot)
            for tensor, slot, _ in reads
            if id(tensor) in given or version_of(tensor) != slot.version
        ]
        for tensor in tensors_in(out):
            slot = self.tensors.get(tensor)
            if slot is None or slot.version != version_of(tensor) or self._edge(tensor, slot)[0] != slot.edge:
                self.made(note, tensor, slot)
        for tensor, slot in changed:
            self.written(note, tensor, slot)
        if not note.makes:
            return False
        self.connect(note)
        return True

    def written(self, note: Note, tensor: torch.Tensor, slot: Slot) -> None:
        """After an in-place write every living tensor over the storage is a new value."""
        if slot.storage not in note.writes:
            note.writes.append(slot.storage)
        for other in self.tensors.sharing(tensor):
            sibling = other()
            if sibling is None:
                continue
            if other.value in note.makes:
                other.version = version_of(sibling)
                continue
            if version_of(sibling) == other.version:
                self.hidden.setdefault(slot.storage, []).append(note.number)
            note.reads.append(other.value)
            self.tensors.refresh(other, sibling)
            self.made(note, sibling, other)

    def connect(self, note: Note) -> None:
        """Find the flows of a note and keep it."""
        note.reads = list(dict.fromkeys(note.reads))
        makes = list(zip(note.makes, note.functions, strict=True))
        note.flows.extend(self.edges.flows(note.number, self.keys, note.reads, makes))
        note.functions = []
        self.keep(note)

    def keep(self, note: Note) -> None:
        """Enter a note, unless there are too many already: gradients are still watched then."""
        if self.just_read and note.kind != "escape":
            self.just_read = []
        if self.full:
            return
        self.notes.append(note)
        if len(self.notes) >= self._prune_at:
            self.prune()

    # ------------------------------------------------------------------ bounds

    def prune(self) -> None:
        """Drop the notes that nothing alive was computed from: an evaluation, a data set being prepared, a
        buffer being filled."""
        self.tensors.enter()
        needed = {slot.value for slot in self.tensors.living()} | self.losses
        needed.update(value for kind in self.kinds.values() for value in kind.values)
        kept: list[Note] = []
        for note in reversed(self.notes):
            if note.makes and needed.isdisjoint(note.makes):
                continue
            kept.append(note)
            # A running mean is made of every batch there was: of what is only written into a buffer, the
            # batch is forgotten.
            tracked = not note.writes or any(self.keys[v] is not None for v in note.makes)
            needed.update(note.reads if tracked else note.reads[:1])
        self.notes = kept[::-1]
        self._forget({value for note in self.notes for value in (*note.makes, *note.reads)})
        self.full = len(self.notes) > LIMIT
        self._prune_at = max(LIMIT // 4, 2 * len(self.notes))

    def _forget(self, alive: set[int]) -> None:
        for number, value in enumerate(self.values):
            if value is None or number in alive:
                continue
            self.values[number] = None
            key = self.keys[number]
            if key is not None:
                carried = self.edges.values[key]
                carried.remove(number)
                if not carried:
                    del self.edges.values[key]
