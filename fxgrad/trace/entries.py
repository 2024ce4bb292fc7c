"""How tensors and objects come into the graph of a run: what the user had before it, what is made past
torch's functions, what Python hands in.

A tensor that no step has made *enters* at its first use. It is the user's (an attribute), lies over memory
that is in the graph (an alias, or NumPy and DLPack brought it back), or was made from Python data (the graph
keeps a copy).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.fx

from fxgrad.records.facts import WRAPPER
from fxgrad.source.sites import Spot
from fxgrad.torch_api.calls import add_node
from fxgrad.torch_api.tensors import inner_tensors
from fxgrad.trace import targets
from fxgrad.trace.driver import GraphDriver
from fxgrad.trace.observations import ENTRY, Shared, Step, copied
from fxgrad.trace.slots import Slot
from fxgrad.world.standins import is_fake


def adopted(recorder: GraphDriver, tensor: torch.Tensor) -> Slot:
    """The slot of a tensor that no step has made."""
    if _is_outside(recorder, tensor):
        return external(recorder, tensor)
    sharing = recorder.seen.tensors.sharing(tensor)
    if sharing:
        return _alias(recorder, tensor, sharing[-1])
    if tensor.grad_fn is not None:
        recorder.note_unseen("a tensor that was computed where no mode of torch looks")
    found = (recorder.slots.get(id(part)) for part in inner_tensors(tensor).values())
    parts = [slot.value for slot in found if slot is not None]
    if not parts:
        return entry(recorder, tensor, tensor, "constructor", recorder.spots())
    return entry(recorder, tensor, tensor, WRAPPER, recorder.births.of(tensor) or recorder.spots(), parts)


def _is_outside(recorder: GraphDriver, tensor: torch.Tensor) -> bool:
    if id(tensor) in recorder.reach.tensors:
        return True
    return recorder.standins.fake is not None and not is_fake(tensor)


def external(recorder: GraphDriver, tensor: torch.Tensor) -> Slot:
    """A tensor from before the run: parameter, buffer, attribute, closure."""
    made = recorder.standin(tensor)
    name = recorder.names.get(id(tensor))
    if name is None:
        attribute = f"_tensor_constant{len(recorder.externals)}"
        recorder.attributes[attribute] = tensor
    else:
        attribute = name
    node = attribute_node(recorder, attribute)
    step = recorder.add_step(node, "attribute", attribute, ())
    slot = recorder.seen.bind(made, node, node.name)
    step.makes.append(slot.value)
    if recorder.allow is not None and attribute in recorder.allow:
        slot = own_copy(recorder, slot)
    recorder.slots[id(tensor)] = slot
    recorder.keep(tensor)
    if name is None:
        recorder.externals[id(tensor)] = (tensor, slot.value)
    return slot


def own_copy(recorder: GraphDriver, slot: Slot) -> Slot:
    """A leaf that the program writes although autograd does not let it: what it writes is a copy with the
    leaf's gradient."""
    recorder.quiet += 1
    try:
        with torch.enable_grad():
            made = slot.tensor.clone()
    finally:
        recorder.quiet -= 1
    node = recorder.graph.call_method("clone", (slot.node,))
    step = recorder.add_step(node, "op", "Tensor.clone", ())
    step.reads.append(slot.value)
    own = recorder.seen.bind(made, node, node.name)
    step.makes.append(own.value)
    recorder.keep(made)
    return own


def attribute_node(recorder: GraphDriver, attribute: str) -> torch.fx.Node:
    """The node of an attribute. GraphModule resolves these when it is made from the recorder's attributes;
    the graph has no owner yet."""
    return add_node(recorder.graph, "get_attr", attribute)


def object_node(recorder: GraphDriver, item: object) -> torch.fx.Node:
    """A Python object (generator, callable, configuration) that the graph refers to as an attribute."""
    name = recorder.object_names.get(id(item))
    if name is None:
        name = f"_object{len(recorder.object_names)}"
        recorder.object_names[id(item)] = name
        recorder.attributes[name] = item
        recorder.keep(item)
    return attribute_node(recorder, name)


def _alias(recorder: GraphDriver, tensor: torch.Tensor, sibling: Slot) -> Slot:
    """A tensor made outside torch's function interface over a storage that is in the graph (`Variable(...)`,
    saved tensors)."""
    layout = tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())
    node = _new_leaf(recorder, sibling, layout, tensor.requires_grad)
    step = recorder.add_step(node, "leaf", "alias", recorder.births.of(tensor) or recorder.spots())
    step.reads.append(sibling.value)
    slot = recorder.seen.bind(tensor, node, node.name)
    step.makes.append(slot.value)
    return slot


def entry(
    recorder: GraphDriver,
    tensor: torch.Tensor,
    data: torch.Tensor,
    target: str,
    spots: tuple[Spot, ...],
    parts: Sequence[int] = (),
) -> Slot:
    """A tensor made outside torch's function interface from Python or NumPy data: what left torch before may
    have come back. Or, of a subclass, put around values of the graph, `parts`, of which autograd knows
    nothing: a leaf.

    Where its memory is that of a tensor of the graph, it is a new leaf over that. Else the graph keeps a copy
    of `data` as it is now and gives every run a fresh one: the program may go on to write into it.
    """
    source = recorder.seen.over_the_memory_of(tensor)
    node = _constant(recorder, data) if source is None else _exchanged(recorder, tensor, source)
    if tensor.requires_grad:
        node = recorder.graph.call_method("requires_grad_", (node,))
    step = recorder.add_step(node, "leaf" if parts else "entry", target, spots)
    step.reads.extend(parts)
    if not parts:
        step.weak.extend(recorder.escapes)
    slot = recorder.seen.bind(tensor, node, node.name)
    step.makes.append(slot.value)
    note_shared(recorder, step, tensor)
    return slot


def numpy_entry(
    recorder: GraphDriver, tensor: torch.Tensor, target: str, spots: tuple[Spot, ...]
) -> torch.Tensor:
    """A tensor made from NumPy data, as the program gets it."""
    data = tensor
    if recorder.standins.fake is not None and not is_fake(tensor):
        recorder.quiet += 1
        try:
            tensor = recorder.standins.fake.from_tensor(tensor, static_shapes=True)
        finally:
            recorder.quiet -= 1
    entry(recorder, tensor, data, target, spots)
    return tensor


def note_shared(recorder: GraphDriver, step: Step, tensor: torch.Tensor) -> None:
    """NumPy may hold this tensor's memory from now on, also where nobody holds the tensor."""
    recorder.keep(tensor)
    copy = copied(tensor, is_fake(tensor)) if recorder.shared is not None else None
    if recorder.shared is not None and copy is not None:
        recorder.shared.append(Shared(step, tensor, copy))


def _exchanged(recorder: GraphDriver, tensor: torch.Tensor, source: Slot) -> torch.fx.Node:
    """A tensor of the graph that left torch with its memory (NumPy, DLPack) and came back."""
    offset = (tensor.data_ptr() - source.tensor.untyped_storage().data_ptr()) // tensor.element_size()
    return _new_leaf(
        recorder, source, (tuple(tensor.shape), tuple(tensor.stride()), offset), requires_grad=False
    )


_Layout = tuple[tuple[int, ...], tuple[int, ...], int]  # sizes, strides in elements, offset in elements


def _new_leaf(recorder: GraphDriver, source: Slot, layout: _Layout, requires_grad: bool) -> torch.fx.Node:
    """A leaf over a tensor's memory; where it lies as that one does, no size is written down."""
    if layout == (tuple(source.tensor.shape), tuple(source.tensor.stride()), source.tensor.storage_offset()):
        return recorder.graph.call_function(targets.new_leaf, (source.node, requires_grad))
    return recorder.graph.call_function(targets.new_leaf_view, (source.node, *layout, requires_grad))


def _constant(recorder: GraphDriver, data: torch.Tensor) -> torch.fx.Node:
    attribute = f"_tensor_constant{len(recorder.attributes)}_"
    recorder.quiet += 1
    try:
        with torch.no_grad():
            recorder.attributes[attribute] = data.detach().clone()
    finally:
        recorder.quiet -= 1
    node = recorder.graph.call_method("clone", (attribute_node(recorder, attribute),))
    recorder.assume(ENTRY, (node,), None, weak=True, what="a tensor made from Python data")
    return node
