"""Structures of tensors: finding every tensor in an input or output, and rebuilding the same structure around
new tensors.

Goes through torch's pytree registry (tuples, lists, dicts, named tuples, `ModelOutput`, caches), then
what a subclass of dict or list holds, dataclasses and plain objects with attributes. Shared by the tracer and
the regenerated module's calling convention, so that both see the same tensors in the same order.
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
# What holds nothing of a program's; an object may refer to a module, which refers to all that is imported.
ATOMS = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    torch.dtype,
    torch.device,
    types.ModuleType,
    type,
)
_LEAVES = (torch.Tensor, *ATOMS)


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
    """A plain object: a template without its tensors, and where it holds tensors: the names of attributes,
    then, of a subclass of dict or list, what stands between the brackets."""

    template: object
    names: tuple[str | Key, ...]
    children: tuple[Any, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """The key or position of something in a subclass of dict or list."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"


def place(name: str | Key) -> str:
    """How what an object holds is reached: `.x`, `['ids']`."""
    return str(name) if isinstance(name, Key) else f".{name}"


Structure = Leaf | Branch | Attributes


def flatten(tree: object, kinds: tuple[type, ...] = (torch.Tensor,)) -> tuple[list[Any], Structure]:
    """The leaves of the types `kinds` in `tree`, in order, and the structure to put others in their place."""
    walk = _Walk(kinds)
    return walk.leaves, walk.flatten(tree, 0, frozenset())


class _Walk:
    """One walk over a structure."""

    def __init__(self, kinds: tuple[type, ...]) -> None:
        self.kinds = kinds
        self.leaves: list[object] = []
        # Objects without a leaf, and how deep they were looked at: many objects may refer to one, and to go
        # through it from each takes a time that no one has. The objects are kept, for their ids.
        self.barren: dict[int, tuple[int, object]] = {}

    def flatten(self, item: object, depth: int, above: frozenset[int]) -> Structure:
        if isinstance(item, self.kinds):
            self.leaves.append(item)
            return Leaf(len(self.leaves) - 1)
        if isinstance(item, _LEAVES) or depth > _MAX_DEPTH or id(item) in above:
            return Leaf(None, item)
        if pytree.tree_is_leaf(item):
            return self._object(item, depth, above | {id(item)})
        # One level of it: the first that is asked about is the item itself. Torch's function refers to itself
        # and to what is asked, so nothing of the item may be held there until the garbage collector comes.
        answers = iter((False,))
        children, spec = pytree.tree_flatten(item, is_leaf=lambda _: next(answers, True))
        return Branch(spec, tuple(self.flatten(child, depth, above) for child in children))

    def _object(self, item: object, depth: int, above: frozenset[int]) -> Structure:
        looked_at, _ = self.barren.get(id(item), (depth + 1, None))
        names: tuple[str | Key, ...] = (*_attributes(item), *_keys(item))
        if looked_at <= depth or not names:
            return Leaf(None, item)
        before = len(self.leaves)
        inner = tuple(self.flatten(_get(item, name), depth + 1, above) for name in names)
        if len(self.leaves) == before:
            self.barren[id(item)] = depth, item
            return Leaf(None, item)
        return Attributes(item, names, inner)


def _keys(item: object) -> tuple[Key, ...]:
    """Under what a subclass of dict or list holds something: torch's registry knows those classes alone."""
    if isinstance(item, dict):
        return tuple(map(Key, dict.keys(item)))
    return tuple(map(Key, range(list.__len__(item)))) if isinstance(item, list) else ()


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


def _get(item: Any, name: str | Key) -> object:
    if isinstance(name, Key):
        return (dict if isinstance(item, dict) else list).__getitem__(item, name.key)
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
    made = _copied(structure.template)
    for name, child in zip(structure.names, structure.children, strict=True):
        value = unflatten(child, leaves)
        attributes = getattr(made, "__dict__", None)
        if isinstance(name, Key):
            (dict if isinstance(made, dict) else list).__setitem__(made, name.key, value)
        elif isinstance(attributes, dict) and name in attributes:
            attributes[name] = value
        else:
            object.__setattr__(made, name, value)
    return made


def _copied(template: Any) -> Any:
    """A shallow copy; where the class does not let itself be copied (a `__getattr__` that raises whatever it
    is asked), an object of it with the same attributes."""
    try:
        return copy.copy(template)
    except Exception:  # the class's own code, which may raise anything
        kind: Any = type(template)
        base: Any = next((held for held in (dict, list) if isinstance(template, held)), object)
        made = base.__new__(kind)
        if base is not object:
            base.__init__(made, template)  # the class's own is not asked
        for name in _attributes(template):
            object.__setattr__(made, name, _get(template, name))
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
