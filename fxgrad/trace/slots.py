"""Which value a tensor object stands for, without keeping it alive: the one table of both drivers.

An id names a tensor only while the tensor lives, so every entry goes when its tensor does. A storage keeps
its number as long as it lives, whoever holds it. So what a program lets go is freed under a driver as it is
without one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Literal

import torch
import torch.fx

from fxgrad.records.facts import Delivered
from fxgrad.torch_api.internals import memory_key, version_of

PURGE = 10_000  # storages remembered before those that are gone are dropped


class Slot(weakref.ref):  # type: ignore[type-arg]
    """A weak reference to one tensor, and what is known of it: its value, storage and version, and for a
    watch its autograd edge and gradient."""

    __slots__ = (
        "after",
        "begun",
        "cleared",
        "edge",
        "key",
        "leaf",
        "memory",
        "node",
        "storage",
        "value",
        "version",
        "within",
    )

    key: int
    memory: Memory
    storage: int
    value: int
    version: int
    node: torch.fx.Node  # of a recorded run alone
    edge: tuple[int, int] | None
    leaf: int  # the number of its leaf edge: one for its whole life
    after: Delivered  # the best its gradient was after a backward ("" before the first that reached it)
    begun: Delivered  # the best its gradient was as a step of its optimizer began ("" before the first)
    cleared: bool  # whether one that a backward had left was gone as a step began
    # what hooks of the program's did with one inside a backward, at the end of which it was gone
    within: Literal["", "used", "taken"]

    # weakref.ref compares by referent, and a tensor's == is elementwise: slots are told apart by identity.
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor itself, where somebody has it in hand."""
        found = self()
        assert found is not None, "nobody has this tensor any more"
        made: torch.Tensor = found
        return made


class Memory:
    """One storage that was seen: its number, the living slots over it in the order in which they came, the
    value last seen there, and whether it lives."""

    __slots__ = ("number", "place", "reference", "slots", "value")

    def __init__(self, number: int, place: int, tensor: torch.Tensor) -> None:
        self.number = number
        self.place = place
        self.slots: dict[Slot, None] = {}
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
    """The living tensors that the program has used. `by_id`: their slots, by the id of the tensor."""

    def __init__(self) -> None:
        self.by_id: dict[int, Slot] = {}
        self._memories: dict[int, Memory] = {}
        self._count = 0
        self._purge_at = PURGE

    def get(self, tensor: torch.Tensor) -> Slot | None:
        """The slot of a tensor, None for a new one."""
        return self.by_id.get(id(tensor))

    def add(self, tensor: torch.Tensor) -> Slot:
        """A slot for a tensor that has none. What it stands for is the caller's to set."""
        slot = Slot(tensor, self._gone)
        slot.key = key = id(tensor)
        slot.value = -1
        slot.version = version_of(tensor)
        self.by_id[key] = slot
        self._place(slot, self._memory(tensor))
        return slot

    def _place(self, slot: Slot, memory: Memory) -> None:
        slot.memory = memory
        slot.storage = memory.number
        memory.slots[slot] = None

    def _memory(self, tensor: torch.Tensor) -> Memory:
        place = memory_key(tensor)
        memory = self._memories.get(place)
        if memory is None or memory.is_gone():
            self._count += 1
            memory = self._memories[place] = Memory(self._count, place, tensor)
            if len(self._memories) > self._purge_at:
                self._memories = {key: m for key, m in self._memories.items() if not m.is_gone()}
                self._purge_at = max(PURGE, 2 * len(self._memories))
                self._memories[place] = memory
        return memory

    def refresh(self, slot: Slot, tensor: torch.Tensor) -> None:
        """Look again at version and storage: `t.data = new` and `set_` give a tensor other memory."""
        slot.version = version_of(tensor)
        if memory_key(tensor) != slot.memory.place:
            self._leave(slot)
            self._place(slot, self._memory(tensor))

    def as_one(self, tensor: torch.Tensor, slot: Slot) -> None:
        """Let the tensor's storage count as that of another's slot."""
        memory = self._memory(tensor)
        memory.number = slot.memory.number
        for other in memory.slots:
            other.storage = memory.number

    def sharing(self, tensor: torch.Tensor) -> list[Slot]:
        """The living slots over the tensor's storage, the latest last."""
        memory = self._memories.get(memory_key(tensor))
        return list(memory.slots) if memory is not None else []

    def by_memory(self) -> Iterator[list[Slot]]:
        """The living slots of each storage."""
        return (list(memory.slots) for memory in list(self._memories.values()) if memory.slots)

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

    def numbered(self, tensor: torch.Tensor) -> int:
        """The same, given now if it was never seen."""
        return self._memory(tensor).number

    def living(self) -> Iterator[Slot]:
        """Every slot there is now."""
        return iter(list(self.by_id.values()))

    def clear(self) -> None:
        """Forget everything."""
        self.by_id.clear()
        self._memories.clear()

    def _gone(self, slot: Slot) -> None:
        if self.by_id.get(slot.key) is slot:
            del self.by_id[slot.key]
        self._leave(slot)

    def _leave(self, slot: Slot) -> None:
        memory = slot.memory
        memory.slots.pop(slot, None)
        if slot.value > memory.value:
            memory.value = slot.value


class WatchedTensors(Tensors):
    """Those of a watch. `light`: by id those that stand for the value of another, until somebody asks for
    their slot."""

    def __init__(self) -> None:
        super().__init__()
        self.light: dict[int, Light] = {}
        self._leaves = 0
        self._purge_light_at = PURGE

    def get(self, tensor: torch.Tensor) -> Slot | None:
        """The slot of a tensor, None for a new one."""
        slot = self.by_id.get(id(tensor))
        return self._entered(tensor) if slot is None and id(tensor) in self.light else slot

    def add(self, tensor: torch.Tensor) -> Slot:
        """A slot for a tensor that has none. Its value and edge are the caller's to set."""
        slot = super().add(tensor)
        slot.edge = None
        slot.after = slot.begun = ""
        slot.cleared = False
        slot.within = ""
        slot.leaf = self._leaves = self._leaves + 1
        return slot

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.light.clear()

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
        """Give all of these their slots: a tensor that nobody has seen made may lie over the memory of
        one."""
        for reference, _, _ in list(self.light.values()):
            tensor = reference()
            if tensor is not None:
                self.get(tensor)
        self.light.clear()
