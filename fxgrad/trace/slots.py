"""Which value a tensor object stands for, without keeping it alive.

An id names a tensor only while the tensor lives, so every entry goes when its tensor does. A storage keeps
its number as long as it lives, whoever holds it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch

from fxgrad.torch_api.internals import memory_key, version_of

PURGE = 10_000  # storages remembered before those that are gone are dropped


class Slot(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to one tensor, and what is known of it: its value, storage, version and autograd
    edge."""

    __slots__ = ("after", "begun", "cleared", "edge", "key", "leaf", "place", "storage", "value", "version")

    key: int
    place: int
    storage: int
    value: int
    version: int
    edge: Any
    leaf: int  # the number of its leaf edge: one for its whole life
    after: str  # the best its gradient was after a backward ("" before the first that reached it)
    begun: str  # the best its gradient was as a step of its optimizer began ("" before the first)
    cleared: bool  # whether one that a backward had left was gone as a step began

    # weakref.ref compares by referent, and a tensor's == is elementwise: slots are told apart by identity.
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


class Memory:
    """One storage that was seen: its number, the living slots over it, the value last seen there, and whether
    it lives."""

    __slots__ = ("number", "reference", "slots", "value")

    def __init__(self, number: int, tensor: torch.Tensor) -> None:
        self.number = number
        self.slots: set[Slot] = set()
        self.value = -1
        # The Python object of a storage lives as long as the storage, whoever else holds it.
        # (`StorageWeakRef` would keep its bytes.)
        try:
            self.reference: weakref.ref[torch.UntypedStorage] | None = weakref.ref(tensor.untyped_storage())
        except (NotImplementedError, RuntimeError):
            self.reference = None

    def is_gone(self) -> bool:
        """Whether nothing can name this memory any more."""
        return not self.slots and (self.reference is None or self.reference() is None)


Read = tuple[torch.Tensor, Slot, int]  # a tensor that a call is given, its slot and its value then

# a tensor without a slot, the value that it stands for, and its version then
Light = tuple[weakref.ref[torch.Tensor], int, int]


class Tensors:
    """The living tensors that the program has used. `light`: by id those that stand for the value of another,
    until somebody asks for their slot."""

    def __init__(self) -> None:
        self.light: dict[int, Light] = {}
        self._slots: dict[int, Slot] = {}
        self._memories: dict[int, Memory] = {}
        self._count = 0
        self._leaves = 0
        self._purge_at = self._purge_light_at = PURGE

    def get(self, tensor: torch.Tensor) -> Slot | None:
        """The slot of a tensor, None for a new one."""
        slot = self._slots.get(id(tensor))
        return self._entered(tensor) if slot is None and id(tensor) in self.light else slot

    def _entered(self, tensor: torch.Tensor) -> Slot | None:
        """A slot for a tensor that has stood for a value, which may have been written meanwhile."""
        reference, value, version = self.light.pop(id(tensor))
        if reference() is not tensor:
            return None
        latest = value if version_of(tensor) == version else self.last_value(tensor)
        slot = self.add(tensor)
        slot.value = max(value, latest)
        if latest <= value:
            slot.version = version
        return slot

    def stand(self, tensor: torch.Tensor, value: int) -> None:
        """Let a tensor without a slot stand for a value that has no edge."""
        self.light[id(tensor)] = weakref.ref(tensor), value, version_of(tensor)
        if len(self.light) > self._purge_light_at:
            self.light = {key: light for key, light in self.light.items() if light[0]() is not None}
            self._purge_light_at = max(PURGE, 2 * len(self.light))

    def is_light(self, item: object) -> bool:
        """Whether it is a tensor that stands for another."""
        light = self.light.get(id(item))
        return light is not None and light[0]() is item

    def enter(self) -> None:
        """Give all of these their slots: a tensor that nobody has seen made may lie over the memory of one."""
        for reference, _, _ in list(self.light.values()):
            tensor = reference()
            if tensor is not None:
                self.get(tensor)
        self.light.clear()

    def add(self, tensor: torch.Tensor) -> Slot:
        """A slot for a tensor that has none. Its value and edge are the caller's to set."""
        slot = Slot(tensor, self._gone)
        slot.key = id(tensor)
        slot.value = -1
        slot.edge = None
        slot.after = slot.begun = ""
        slot.cleared = False
        slot.leaf = self._leaves = self._leaves + 1
        slot.version = version_of(tensor)
        self._slots[slot.key] = slot
        self._place(slot, tensor)
        return slot

    def _place(self, slot: Slot, tensor: torch.Tensor) -> None:
        slot.place = memory_key(tensor)
        memory = self._memories.get(slot.place)
        if memory is None or memory.is_gone():
            self._count += 1
            memory = self._memories[slot.place] = Memory(self._count, tensor)
            if len(self._memories) > self._purge_at:
                self._memories = {key: m for key, m in self._memories.items() if not m.is_gone()}
                self._purge_at = max(PURGE, 2 * len(self._memories))
                self._memories[slot.place] = memory
        slot.storage = memory.number
        memory.slots.add(slot)

    def refresh(self, slot: Slot, tensor: torch.Tensor) -> None:
        """Look again at version and storage: `t.data = new` and `set_` give a tensor other memory."""
        slot.version = version_of(tensor)
        if memory_key(tensor) != slot.place:
            self._leave(slot)
            self._place(slot, tensor)

    def sharing(self, tensor: torch.Tensor) -> list[Slot]:
        """The living slots over the tensor's storage."""
        memory = self._memories.get(memory_key(tensor))
        return list(memory.slots) if memory is not None else []

    def last_value(self, tensor: torch.Tensor) -> int:
        """The value last seen over the tensor's storage, also of a tensor that is gone; -1 if there was
        none."""
        memory = self._memories.get(memory_key(tensor))
        if memory is None or memory.is_gone():
            return -1
        return max((slot.value for slot in memory.slots), default=memory.value)

    def number_of(self, tensor: torch.Tensor) -> int | None:
        """The number of the tensor's storage; None if it was never seen."""
        memory = self._memories.get(memory_key(tensor))
        return memory.number if memory is not None and not memory.is_gone() else None

    def living(self) -> Iterator[Slot]:
        """Every slot there is now."""
        return iter(list(self._slots.values()))

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self._memories.clear()
        self.light.clear()

    def _gone(self, slot: Slot) -> None:
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
        self._leave(slot)

    def _leave(self, slot: Slot) -> None:
        memory = self._memories.get(slot.place)
        if memory is not None and slot in memory.slots:
            memory.slots.discard(slot)
            memory.value = max(memory.value, slot.value)
