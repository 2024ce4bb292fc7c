"""What the program learns of a tensor without a torch operation: properties, sizes, truth values and numbers.

Each function handles one kind of call for the recorder. Sizes and `.item()` become symbols
(`fxgrad.torch_api.symbols`) that carry their node; a truth value is a decision; a number that leaves torch is
an *escape*, the place where provenance must be followed through Python. What comes out as a plain Python
value is assumed (`fxgrad.trace.observations.Assumed`): the graph holds it fixed.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

import torch

from fxgrad.source.sites import asked_by_torch, is_unpacked
from fxgrad.torch_api import calls, errors, symbols
from fxgrad.torch_api.calls import Args, Function, Kwargs
from fxgrad.torch_api.symbols import Origin
from fxgrad.trace import targets
from fxgrad.trace.driver import GraphDriver
from fxgrad.trace.entries import note_shared
from fxgrad.trace.experiment import disturbed
from fxgrad.trace.observations import RawDecision, Step
from fxgrad.trace.slots import Slot

_TOLD = frozenset(
    (
        "ndim",
        "dtype",
        "device",
        "layout",
        "requires_grad",
        "is_cuda",
        "is_sparse",
        "is_meta",
        "is_nested",
        "is_quantized",
    )
)
_QUERIED = {
    "dim": "ndim",
    "ndimension": "ndim",
    "is_floating_point": "is_floating_point()",
    "is_complex": "is_complex()",
    "get_device": "device",
}
_EXTREME = 1e30  # in place of a float that exploration turns


def read_property(recorder: GraphDriver, func: Any, args: Any) -> object:
    """`x.shape`, `x.T`, `x.data`, `x.grad`, `x.dtype`: a node where a tensor comes out."""
    name = func.__self__.__name__
    tensor = args[0]
    slot = recorder.slot_of(tensor)
    out = func(slot.tensor)
    if name == "shape":
        return _symbolic_size(recorder, slot, out)
    if not isinstance(out, torch.Tensor) or out is slot.tensor:
        if name in _TOLD:
            recorder.assume(name, (slot.node,), out)
        elif isinstance(out, int) and not isinstance(out, bool):
            recorder.unfollowed = True
        if name == "grad_fn" and out is not None:
            recorder.looks = recorder.looks or recorder.spots()
        if name == "grad" and out is None and recorder.standins.had_gradient(slot.tensor):
            recorder.missed_gradient = recorder.missed_gradient or recorder.spots()
        return recorder.handed(out)
    node = recorder.graph.call_function(getattr, (slot.node, name))
    step = recorder.add_step(node, "op", f"Tensor.{name}", recorder.spots())
    step.reads = [slot.value]
    recorder.finish(step, [slot], out, keep=False)
    return recorder.handed(out)


def query(recorder: GraphDriver, func: Function, name: str, args: Args, kwargs: Kwargs) -> object:
    """`x.dim()`, `x.is_floating_point()`: an answer of Python's. Where data lies (strides, addresses) is not
    taken for granted."""
    out = func(*recorder.swap(args), **recorder.swap(kwargs))
    slot = recorder.slots.get(id(args[0])) if args and name in _QUERIED else None
    if slot is not None:
        by_torch = asked_by_torch(sys._getframe())  # `for row in x` asks for the rank
        recorder.assume(
            _QUERIED[name], (slot.node,), slot.tensor.device if name == "get_device" else out, weak=by_torch
        )
    elif isinstance(out, int | tuple) and not isinstance(out, bool) and not asked_by_torch(sys._getframe()):
        recorder.unfollowed = True
    return out


def _symbolic_size(recorder: GraphDriver, slot: Slot, sizes: Sequence[int]) -> torch.Size:
    node = slot.node
    recorder.sizes_read = True
    if node.op == "placeholder" and is_unpacked(sys._getframe()):
        recorder.assume("ndim", (node,), len(sizes))
    rank = len(sizes)
    return torch.Size(
        [
            symbols.make(v, Origin(recorder, "size", (node, i), data=False, rank=rank))
            for i, v in enumerate(sizes)
        ]
    )


def read_size(
    recorder: GraphDriver, func: Function, name: str, args: tuple[Any, ...], kwargs: Kwargs
) -> object:
    """`x.size()`, `x.size(0)`, `x.numel()` as symbols; `len(x)`, which Python makes a plain int of."""
    recorder.sizes_read = True
    slot = recorder.slot_of(args[0])
    rest, named = recorder.swap(tuple(args[1:])), recorder.swap(kwargs)
    out = func(slot.tensor, *rest, **named)
    if isinstance(out, torch.Size):
        return _symbolic_size(recorder, slot, out)
    if name == "__len__":
        recorder.assume("size", (slot.node, 0), out)
        return out
    if name == "size":
        dim = rest[0] if rest else named["dim"]
        return symbols.make(out, Origin(recorder, "size", (slot.node, dim), data=False))
    return symbols.make(out, Origin(recorder, targets.numel, (slot.node,), data=False))


def decide_on_tensor(recorder: GraphDriver, func: Any, args: Args, kwargs: Kwargs) -> object:
    """`bool(t)`, `torch.equal(a, b)`: a branch on data, unknown on fake values."""
    slots = [recorder.slot_of(a) for a in args if isinstance(a, torch.Tensor)]
    sub_args, sub_kwargs = recorder.swap(args), recorder.swap(kwargs)
    outcome: bool | None
    try:
        outcome = func(*sub_args, **sub_kwargs)
    except (RuntimeError, NotImplementedError) as error:
        if not errors.is_value_error(error):
            raise
        outcome = None
    node = slots[0].node.name if slots else ""
    nodes = {
        id(a): slot.node
        for a, slot in zip((a for a in args if isinstance(a, torch.Tensor)), slots, strict=True)
    }
    return recorder.decided(
        outcome,
        node,
        recorder.spots(),
        tuple(slot.value for slot in slots),
        (_question(func, args, kwargs), tuple(nodes.get(id(a), a) for a in args)),
    )


def _question(func: Function, args: Args, kwargs: Kwargs) -> object:
    """The function by which a graph asks it again."""
    if len(args) == 1 and not kwargs:
        return bool
    name = func.__name__
    return (
        getattr(torch, name)
        if hasattr(torch, name) and not kwargs
        else calls.named(functools.partial(func, **kwargs), name)
    )


def read_value(recorder: GraphDriver, func: Any, name: str, args: Any, kwargs: object) -> object:
    """`.item()`, `.tolist()`, `.numpy()`, `float(t)`: data leaves torch.

    Raises:
        NeedsValue: the tensor is fake and has none.
    """
    slot = recorder.slot_of(args[0])
    rest = recorder.swap(tuple(args[1:]))
    nudge = recorder.nudge
    touched = nudge is not None and not nudge.selection and nudge.number == len(recorder.escapes)
    tensor = disturbed(slot.tensor, name, nudge) if nudge is not None and touched else slot.tensor
    try:
        out = func(tensor, *rest, **recorder.swap(kwargs))
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        recorder.refuse_valueless(error, name)
        raise
    node = recorder.graph.call_method(name, (slot.node, *rest), {})
    step = recorder.add_step(node, "escape", f"Tensor.{name}", recorder.spots())
    step.reads = [slot.value]
    value = recorder.seen.pseudo_value(node.name)
    step.makes = [value]
    recorder.escapes.append(value)
    if name in ("numpy", "__array__"):
        note_shared(recorder, step, slot.tensor)
    if name == "item" and isinstance(out, int | float) and not isinstance(out, bool):
        origin = Origin(recorder, None, (), data=True)
        origin.resolved = node
        recorder.symbol_values[id(origin)] = value
        recorder.origins.append(origin)
        recorder.assume(None, (node,), out, what="the value of .item()", weak=True)
        return symbols.make(out, origin)
    if name == "__dlpack__":  # a capsule: what is made of it has the tensor's memory, and is known by it
        recorder.keep(slot.tensor)
    else:
        taken = out.copy() if name in ("numpy", "__array__") else out
        recorder.assume(None, (node,), taken, what=f"the value of .{name.strip('_')}()")
    if name == "__float__":
        return _turned_number(recorder, out, step)
    return out


def _turned_number(recorder: GraphDriver, out: float, step: Step) -> float:
    """`float(t)` cannot carry an origin: the number itself is a decision that exploration may replace by
    either extreme."""
    index = len(recorder.decisions)
    recorder.decisions.append(RawDecision(step.spots, step.node.name, True, True, tuple(step.reads)))
    if index < len(recorder.forced) and recorder.forced[index] is False:
        recorder.decisions[-1].outcome = False
        return -_EXTREME if out > 0.5 else _EXTREME
    return out
