"""What a failed backward met a second time: read off the very graph it failed on, which torch leaves in
place.

Definitions:
 1. An autograd node is *spent* if an earlier backward walked it without keeping the graph (the node itself
    carries the mark) and torch refuses to give out what it had saved. A node that saved nothing (a sum, a
    view) can be walked again and is never to blame.
 2. A tensor is *met again* if its autograd node was walked earlier, a spent node lies at or behind it, and
    the failed walk comes to it from a node that was never walked before, or begins at it.
Not handled: graphs that were freed before the watch began.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.autograd.graph import Node

from fxgrad.records.training import MetAgain
from fxgrad.torch_api.autograd_graph import leaf_of, nodes_behind, one_back
from fxgrad.torch_api.errors import SECOND_TIME, says
from fxgrad.torch_api.internals import RAW_SAVED
from fxgrad.trace.edges import Key, freed_by, is_custom, number_of
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Backward


@dataclass(frozen=True, slots=True)
class _Held:
    """The last tensor that the program had in hand on the way to a node: its value, and the note that took it
    up; `after`: the one before it on the way from the loss."""

    value: int
    reader: int
    after: _Held | None


def _carried(held: _Held, walks: tuple[int, ...]) -> _Held:
    """The tensor that was carried past the walks, where something made before them only took up the one that
    they walked: `self.cache = v[:, -2:]`. That one itself, where all of the loss was made before them."""
    carried: _Held | None = held
    while carried is not None and 0 <= carried.reader < walks[-1]:
        carried = carried.after
    return carried if carried is not None and carried.reader >= 0 else held


def met_again(ledger: Ledger, failed: Backward) -> tuple[MetAgain, ...]:
    """The tensors that a failed backward met a second time (definition 2; of a node that made no tensor the
    program had in hand, the next such tensor on the way to it), that made last first: torch walks in that
    order."""
    found: dict[int, MetAgain] = {}
    seen: set[Key] = set()
    pending: list[tuple[Node, _Held]] = []
    for function, value in zip(failed.started, failed.losses, strict=False):
        pending.append((function, _Held(value, -1, None)))
    while pending:
        function, held = pending.pop()
        walks = tuple(note for note in freed_by(function) if note < failed.note)
        if walks:
            met = _met(ledger, function, _carried(held, walks), walks)
            if met is not None:
                found.setdefault(met.value, met)
            continue
        maker = ledger.edges.maker(function)
        for inner, number in one_back(function):
            key = number_of(inner), number
            if key in seen:
                continue
            seen.add(key)
            known = ledger.edges.values.get(key)
            pending.append((inner, _Held(known[-1], maker, held) if known else held))
    return tuple(sorted(found.values(), key=lambda met: -met.maker))


def walked_anew(ledger: Ledger, failed: Backward) -> tuple[frozenset[int], frozenset[int]]:
    """What the failed backward walks for the first time: the notes that made it, and the leaf edges it hands
    on to."""
    notes: set[int] = set()
    leaves: set[int] = set()
    for function in nodes_behind(failed.started):
        if leaf_of(function) is not None or any(note < failed.note for note in freed_by(function)):
            continue
        notes.add(ledger.edges.maker(function))
        leaves.update(
            ledger.edges.key_of(inner, 0)[0] for inner, _ in one_back(function) if leaf_of(inner) is not None
        )
    return frozenset(notes - {-1}), frozenset(leaves)


def _met(ledger: Ledger, function: Node, held: _Held, walks: tuple[int, ...]) -> MetAgain | None:
    value, reader = held.value, held.reader
    behind = list(nodes_behind([function]))
    spent = [inner for inner in behind if _is_spent(inner)]
    known = ledger.values[value] if value >= 0 else None
    if not spent or known is None:
        return None
    maker = int(known.node[1:])
    makes = next((note.makes for note in ledger.notes if note.number == maker), [])
    leaves = {ledger.edges.key_of(inner, 0)[0] for inner in behind if leaf_of(inner) is not None}
    notes = sorted({note for inner in spent if (note := ledger.edges.maker(inner)) >= 0})
    position = makes.index(value) if value in makes else 0
    return MetAgain(value, maker, position, reader, tuple(notes), walks, frozenset(leaves))


def _is_spent(function: Node) -> bool:
    """Definition 1, of a node that was walked: what it saved is asked for, by whatever name it has there."""
    if not freed_by(function):
        return False
    for name in dir(function):
        if name.startswith(RAW_SAVED):
            public = "saved_tensors" if is_custom(function) else name.replace("_raw", "", 1)
            try:
                getattr(function, public)
            except RuntimeError as error:
                if says(str(error), SECOND_TIME):
                    return True
    return False
