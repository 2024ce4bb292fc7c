"""The arguments of a call: as torch gets them (stand-ins, plain numbers), as the graph holds them (nodes),
and which values they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from fxgrad.torch_api import symbols
from fxgrad.torch_api.calls import Args, Kwargs
from fxgrad.trace.driver import GraphDriver
from fxgrad.trace.entries import object_node
from fxgrad.trace.slots import Slot
from fxgrad.trace.targets import Closure, GeneratorState, call_object
from fxgrad.world.scopes import FUNCTIONS, held_tensors

_PLAIN = (
    int,
    float,
    bool,
    str,
    type(None),
    torch.dtype,
    torch.device,
    torch.memory_format,
    torch.layout,
    complex,
    type(Ellipsis),
)
EXACTLY_PLAIN = frozenset(_PLAIN)
# a tuple: these are asked of everything that a call is given, and `A | B` is made anew each time
SYMBOLIC = symbols.SYMBOLS
NUMBERS = (int, float)
SEQUENCES = (tuple, list)


Place = int | str  # of an argument: its position or its keyword


class Arguments:
    """What one call is given. `reads`: the slots of the tensors met so far; `numbers`: the values of numbers
    that were read off data. Of the call's own arguments, by their places: `operands`, the values of tensors,
    and `settings`, the numbers and tuples of numbers; `constants`: the numbers alone."""

    __slots__ = ("constants", "numbers", "operands", "reads", "recorder", "settings")

    def __init__(self, recorder: GraphDriver) -> None:
        self.recorder = recorder
        self.reads: list[Slot] = []
        self.numbers: list[int] = []
        self.operands: list[tuple[Place, int]] = []
        self.settings: list[tuple[Place, object]] = []
        self.constants: list[object] = []

    def of_call(
        self, args: Args, kwargs: Kwargs
    ) -> tuple[tuple[Args, Kwargs], tuple[tuple[Any, ...], dict[str, Any]]]:
        """Positional and named arguments as the call gets them, and as the graph holds them."""
        run, held = [], []
        for position, item in enumerate(args):
            given, node = self._own(position, item)
            run.append(given)
            held.append(node)
        named = {key: self._own(key, item) for key, item in kwargs.items()} if kwargs else {}
        return (
            (tuple(run), {key: given for key, (given, _) in named.items()}),
            (tuple(held), {key: node for key, (_, node) in named.items()}),
        )

    def with_shapes(self, name: str, args: Args, held: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments as the graph holds them, of `Tensor.new`: it takes a `torch.Size` for a shape, and
        any other sequence for data."""
        if name != "new":
            return held
        made = self.recorder.graph.call_function
        return tuple(
            made(torch.Size, (node,)) if type(item) is torch.Size else node
            for item, node in zip(args, held, strict=True)
        )

    def _own(self, place: Place, item: object) -> tuple[object, object]:
        if isinstance(item, torch.Tensor):
            slot = self.recorder.slot_of(item)
            self.reads.append(slot)
            self.operands.append((place, slot.value))
            return slot(), slot.node
        if isinstance(item, NUMBERS):
            self.settings.append((place, symbols.plain(item)))
            if not isinstance(item, bool):
                self.constants.append(item)
        elif isinstance(item, SEQUENCES) and all(isinstance(x, int) for x in item):
            self.settings.append((place, tuple(map(symbols.plain, item))))
        return self.convert(item)

    def convert(self, item: object) -> tuple[object, Any]:
        """An argument as the call gets it and as the graph holds it."""
        if type(item) in EXACTLY_PLAIN:
            return item, item
        if isinstance(item, torch.Tensor):
            slot = self.recorder.slot_of(item)
            self.reads.append(slot)
            return slot.tensor, slot.node
        if isinstance(item, SYMBOLIC):
            return symbols.plain(item), self._symbol(item)
        if isinstance(item, _PLAIN):
            return item, _pythons_own(item)
        if isinstance(item, tuple):
            return self._tuple(item)
        if isinstance(item, list):
            pairs = [self.convert(x) for x in item]
            return [p[0] for p in pairs], [p[1] for p in pairs]
        if type(item) is dict:
            both = {k: self.convert(v) for k, v in item.items()}
            return {k: v[0] for k, v in both.items()}, {k: v[1] for k, v in both.items()}
        if isinstance(item, slice):
            start, stop, step = self.convert(item.start), self.convert(item.stop), self.convert(item.step)
            return slice(start[0], stop[0], step[0]), slice(start[1], stop[1], step[1])
        return item, self._object(item)

    def _tuple(self, item: tuple[Any, ...]) -> tuple[object, object]:
        pairs: list[tuple[Any, Any]] = [self.convert(x) for x in item]
        run, held = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        if type(item) is torch.Size:
            return torch.Size(run), held
        if not hasattr(item, "_fields"):
            return run, held
        kind: Any = type(item)
        if kind.__bases__ == (tuple,):
            return kind(*run), kind(*held)
        # A named tuple with a constructor of its own (PackedSequence) looks at its fields: only a call can
        # build it from nodes.
        return kind(*run), self.recorder.graph.call_function(kind, held)

    def _object(self, item: Any) -> torch.fx.Node | tuple[int, ...]:
        if isinstance(item, range):
            return tuple(item)
        if isinstance(item, FUNCTIONS):
            return self._function(item)
        if (
            isinstance(item, torch.Generator)
            and item is not torch.default_generator
            and not self.recorder.reach.found(item)
        ):
            return self._generator(item)
        return object_node(self.recorder, item)

    def _function(self, function: Callable[..., object]) -> torch.fx.Node:
        """A function handed to torch (a tensor hook) or to an `autograd.Function`: the tensors of this run
        that it holds become arguments."""
        slots = self.recorder.slots
        held = {id(t): t for t in held_tensors(function) if id(t) in slots}
        inner = {key: (t, slots[key]) for key, t in held.items() if slots[key].node.op != "get_attr"}
        if not inner:
            return object_node(self.recorder, function)
        self.reads.extend(slot for _, slot in inner.values())
        return bound_closure(self.recorder, Closure(function), inner)

    def _generator(self, generator: torch.Generator) -> torch.fx.Node:
        """A generator that the program made in this run: the graph makes one that draws the same numbers."""
        self.recorder.assume("", (), None, what="the random numbers of a generator that the forward makes")
        return self.recorder.graph.call_function(
            call_object, (object_node(self.recorder, GeneratorState(generator)),)
        )

    def _symbol(self, item: Any) -> object:
        if item.origin.owner is not self.recorder:
            return symbols.plain(item)
        if item.origin.data:
            self.numbers.extend(self.recorder.symbol_reads(item.origin))
        return item.origin.node()


def _pythons_own(item: Any) -> object:
    """A NumPy scalar is a float to Python but prints as `np.float64(8.0)`, a name the generated code does not
    have."""
    return item.item() if type(item).__module__ == "numpy" else item


def bound_closure(
    recorder: GraphDriver, closure: Closure, inner: dict[int, tuple[torch.Tensor, Slot]]
) -> torch.fx.Node:
    """A closure whose tensors are those of the run that calls it, not those of the recorded run."""
    holder = object_node(recorder, closure)
    closure.captured = tuple(tensor for tensor, _ in inner.values())
    return recorder.graph.call_method("bind", (holder, *(slot.node for _, slot in inner.values())))
