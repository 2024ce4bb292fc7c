"""Guards on what a forward read of Python's side: the training flag, attributes, globals, variables of
closures.

The training flag is that of the regenerated module, whose parts have one each. Another attribute of a module
may be set on the model, which the module came from, or on the module, in its place: both are compared. Values
of one name, class and content are one guard.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch

from fxgrad.fix_graph.convention import own_names
from fxgrad.fix_graph.guards import Guard, Place
from fxgrad.source.sites import innermost
from fxgrad.trace.python_state import Cell, Globals, Holder, Read
from fxgrad.trace.run import Run
from fxgrad.world.snapshots import snapshot
from fxgrad.world.undo import MISSING, attributes


@dataclass(frozen=True, slots=True)
class OfAttributes:
    """Guards, and for each the places where the value stands: () for the training flag, which is an
    expression."""

    guards: tuple[Guard, ...]
    places: tuple[tuple[Place, ...], ...]


def of_attributes(reads: Iterable[Read]) -> OfAttributes:
    """The guards of what the forward read and did not change."""
    groups: dict[object, list[Read]] = {}
    for read in reads:
        if read.value is not MISSING and not read.changed:
            kind = id(read.holder.place) if isinstance(read.holder, Cell | Globals) else type(read.owner)
            groups.setdefault((read.name, kind, snapshot(read.value)), []).append(read)
    guards: list[Guard] = []
    places: list[tuple[Place, ...]] = []
    for group in groups.values():
        paths = [read.path for read in group if read.path is not None]
        if group[0].name == "training" and paths:
            guards.append(_guard(group, *_training(paths, group[0].value)))
            places.append(())
        elif group[0].name != "training":
            guards.append(_guard(group, "", ()))
            places.append(tuple(_places(group)))
    return OfAttributes(tuple(guards), tuple(places))


def _guard(group: Sequence[Read], expression: str, terms: tuple[str, ...]) -> Guard:
    first = group[0]
    where = f"{first.where}." if first.where else ""
    beside = f" (and in {len(group) - 1} more)" if len(group) > 1 else ""
    text = _said(first.value)
    what = f"`{where}{first.name}`{beside} is {text if len(text) <= 60 else text[:57] + '...'}"
    return Guard(what, innermost(first.spots), expression, first.value, terms)


def _said(value: Any) -> str:
    """A value in short: functions and classes by name, modules and tensors by type."""
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return value.__qualname__
    if isinstance(value, torch.nn.Module | torch.Tensor):
        return type(value).__name__
    if type(value) in (list, tuple):
        inner = ", ".join(map(_said, value))
        return f"[{inner}]" if type(value) is list else f"({inner}{',' if len(value) == 1 else ''})"
    if type(value) is dict:
        return "{" + ", ".join(f"{_said(key)}: {_said(inner)}" for key, inner in value.items()) + "}"
    return repr(value)


def _training(paths: Sequence[str], flag: bool) -> tuple[str, tuple[str, ...]]:
    flags = tuple(f"{part(path)}.training" for path in paths)
    return (" and " if flag else " or ").join(flags), flags[:1] if len(flags) == 1 else ()


def part(path: str) -> str:
    """A part of a module as an expression, names that are no identifiers among them."""
    return "self" + "".join(f"._modules[{name!r}]" for name in path.split(".") if path)


def _places(group: Sequence[Read]) -> Iterator[Place]:
    for read in group:
        yield read.holder, None, read.name
        own = attributes(read.owner) if read.owner is not None else None
        if own is not None and own is not read.holder:
            yield own, None, read.name  # a class's value, which the object's own would hide
        # `meta` of the graph module itself is torch.fx's
        if read.path is not None and (read.path or read.name not in own_names()):
            yield None, read.path, read.name


def of_tensors(run: Run) -> OfAttributes:
    """The guards of tensors that the graph refers to and no module registers: that their names still lead to
    them."""
    guards, places = [], []
    recorder = run.recorder
    first = {step.node: step for step in recorder.steps if step.kind == "attribute"}
    for number, (tensor, _) in enumerate(recorder.externals.values()):
        holder, key = recorder.reach.where.get(id(tensor), (None, ""))
        place = _place_of(tensor, holder, key)
        if place is None:
            continue
        where = f"{recorder.owners[id(holder)]}." if id(holder) in recorder.owners else ""
        node = next((node for node in first if node.target == f"_tensor_constant{number}"), None)
        readers = (
            (step for step in recorder.steps if step.spots and first[node].makes[0] in step.reads)
            if node is not None
            else iter(())
        )
        spots = next((step.spots for step in readers), ())
        site = innermost(spots)
        guards.append(Guard(f"`{where}{key}` is the tensor that it was", site, "", tensor))
        places.append((place,))
    return OfAttributes(tuple(guards), tuple(places))


class _Item:
    """A part of a container, as something that holds it."""

    def __init__(self, scope: Holder, index: Any) -> None:
        self.scope, self.index = scope, index

    def get(self, name: str, default: object, /) -> object:
        held = self.scope.get(name, None)
        try:
            return held[self.index] if isinstance(held, dict | list | tuple) else default
        except LookupError:
            return None


_KEY = re.compile(r"(\w+)(?:\[(.+)\])?")


def _place_of(tensor: torch.Tensor, holder: object, key: str) -> Place | None:
    """Where the program has a tensor; None where no name leads to it by one step, or two."""
    scope: Holder | None = Globals(holder) if isinstance(holder, FunctionType) else attributes(holder)
    parts = _KEY.fullmatch(key)
    if scope is None or parts is None:
        return None
    name, index = parts[1], parts[2]
    if isinstance(holder, FunctionType) and name in holder.__code__.co_freevars:
        scope = Cell((holder.__closure__ or ())[holder.__code__.co_freevars.index(name)])
    if index is not None:
        try:
            scope = _Item(scope, ast.literal_eval(index))
        except (ValueError, SyntaxError):
            return None
    return (scope, None, name) if scope.get(name, None) is tensor else None
