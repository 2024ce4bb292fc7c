"""Guards on what a forward read of Python's side: the training flag, attributes, globals, variables of closures.

The training flag is that of the regenerated module, whose parts have one each. Another attribute of a module may be set on the model, which
the module came from, or on the module, in its place: both are compared. Values of one name, class and content are one guard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fxgrad.fix_graph.guards import Guard, Place
from fxgrad.fix_graph.snapshots import snapshot
from fxgrad.source.sites import site_of
from fxgrad.trace.python_state import Read
from fxgrad.world.undo import MISSING, attributes


@dataclass(frozen=True, slots=True)
class OfAttributes:
    """Guards, and for each the places where the value stands: () for the training flag, which is an expression."""

    guards: tuple[Guard, ...]
    places: tuple[tuple[Place, ...], ...]


def of_attributes(reads: Iterable[Read]) -> OfAttributes:
    """The guards of what the forward read and did not change."""
    groups: dict[Any, list[Read]] = {}
    for read in reads:
        if read.value is not MISSING and not read.changed:
            kind = type(read.owner) if read.owner is not None else id(read.holder)
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
    text = repr(first.value)
    what = f"`{where}{first.name}`{beside} is {text if len(text) <= 60 else text[:57] + '...'}"
    return Guard(what, site_of(first.spots[0]) if first.spots else None, expression, first.value, terms)


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
        if read.path is not None:
            yield None, read.path, read.name
