"""Structures of tensors: finding every tensor in an input or output, and rebuilding the same structure around
new tensors.

Goes through torch's pytree registry (tuples, lists, dicts, named tuples, `ModelOutput`, caches), then
dataclasses and plain objects with attributes. Shared by the tracer and the regenerated module's calling
convention, so that both see the same tensors in the same order.
"""

from __future__ import annotations

import copy
import dataclasses
import types
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fxgrad.torch_api.internals import pytree

_MAX_DEPTH = 6  # objects within objects; a batch holds stores that hold mappings
_LEAVES = (torch.Tensor, str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, type)


@dataclasses.dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of a structure: the n-th tensor (`index`), or a Python constant."""

    index: int | None
    constant: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """A pytree node: its spec and children."""

    spec: Any
    children: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Attributes:
    """A plain object: a template without its tensors, and the attributes that hold tensors."""

    template: object
    names: tuple[str, ...]
    children: tuple[Any, ...]


Structure = Leaf | Branch | Attributes


def flatten(tree: object, kinds: tuple[type, ...] = (torch.Tensor,)) -> tuple[list[Any], Structure]:
    """The leaves of the types `kinds` in `tree`, in order, and the structure to put others in their place."""
    leaves: list[object] = []
    return leaves, _flatten(tree, leaves, kinds, 0, set())


def _flatten(
    item: object, leaves: list[object], kinds: tuple[type, ...], depth: int, above: set[int]
) -> Structure:
    if isinstance(item, kinds):
        leaves.append(item)
        return Leaf(len(leaves) - 1)
    if isinstance(item, _LEAVES) or depth > _MAX_DEPTH or id(item) in above:
        return Leaf(None, item)
    if pytree.tree_is_leaf(item):
        names = _attributes(item)
        if not names:
            return Leaf(None, item)
        before = len(leaves)
        inner = tuple(_flatten(_get(item, n), leaves, kinds, depth + 1, above | {id(item)}) for n in names)
        if len(leaves) == before:
            return Leaf(None, item)
        return Attributes(item, names, inner)
    # One level of it: the first that is asked about is the item itself. Torch's function refers to itself and
    # to what is asked, so nothing of the item may be held there until the garbage collector comes.
    answers = iter((False,))
    children, spec = pytree.tree_flatten(item, is_leaf=lambda _: next(answers, True))
    return Branch(spec, tuple(_flatten(child, leaves, kinds, depth, above) for child in children))


def _attributes(item: object) -> tuple[str, ...]:
    if isinstance(item, torch.nn.Module) or callable(item):
        return ()
    if dataclasses.is_dataclass(item):
        return tuple(f.name for f in dataclasses.fields(item) if hasattr(item, f.name))
    attributes = getattr(item, "__dict__", None)
    declared = _slots(type(item))
    slots = tuple(name for name in declared if hasattr(item, name))
    return (*(attributes if isinstance(attributes, dict) else ()), *slots)


def _slots(kind: type) -> tuple[str, ...]:
    """The names that the `__slots__` of a class and its bases declare, in the order of their making."""
    own = [base for base in reversed(kind.__mro__) if "__slots__" in vars(base)]
    return tuple(
        name
        for base in own
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType)
    )


def _get(item: object, name: str) -> object:
    attributes = getattr(item, "__dict__", {})
    return attributes[name] if name in attributes else getattr(item, name)


def unflatten(structure: Structure, leaves: Sequence[object]) -> Any:
    """The structure rebuilt around `leaves`."""
    if isinstance(structure, Leaf):
        return structure.constant if structure.index is None else leaves[structure.index]
    if isinstance(structure, Branch):
        made = pytree.tree_unflatten([unflatten(c, leaves) for c in structure.children], structure.spec)
        # torch's registry makes a plain tuple of it
        return torch.Size(made) if structure.spec.type is torch.Size else made
    made = copy.copy(structure.template)
    for name, child in zip(structure.names, structure.children, strict=True):
        value = unflatten(child, leaves)
        attributes = getattr(made, "__dict__", None)
        if isinstance(attributes, dict) and name in attributes:
            attributes[name] = value
        else:
            object.__setattr__(made, name, value)
    return made


def constants(structure: Structure) -> list[object]:
    """The Python constants of a structure, in order: what a regenerated module was specialised to."""
    if isinstance(structure, Leaf):
        return [structure.constant] if structure.index is None else []
    return [c for child in structure.children for c in constants(child)]


def tensors_in(item: object) -> Iterator[torch.Tensor]:
    """The tensors in an argument or a result: in tuples, lists, dictionaries, slices and dataclasses."""
    if isinstance(item, torch.Tensor):
        yield item
    elif isinstance(item, (tuple, list)):
        for inner in item:
            yield from tensors_in(inner)
    elif isinstance(item, dict):
        for inner in item.values():
            yield from tensors_in(inner)
    elif isinstance(item, slice):
        yield from tensors_in((item.start, item.stop, item.step))
    elif dataclasses.is_dataclass(item):  # asked of its class: a `torch.fx.Proxy` has every attribute
        for name in item.__dataclass_fields__:
            yield from tensors_in(getattr(item, name, None))
