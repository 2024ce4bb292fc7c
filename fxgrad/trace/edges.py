"""Autograd's edges, by number: which value's gradient arrives where, and what lies behind a value.

Definitions, cited by number wherever facts are made:
 1. An *edge* is a pair (autograd node, output number), or a leaf: the thing a gradient is delivered to.
 2. A flow source -> target through a step is *open* if walking back from target's edge reaches source's edge
    without passing an edge that an earlier step made.
 3. A value is *live* if its edge is reachable from the loss's edge.
Autograd decides both; no list of differentiable operations is kept here. A watch numbers a node in its own
`metadata`, for the Python object that stands for it comes and goes while the node lives on: so nothing here
keeps a graph alive. A recorded run, which keeps its graph, numbers nodes by their objects, which is quicker.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import Node

from fxgrad.records import Flow
from fxgrad.torch_api.autograd_graph import leaf_of, nodes_behind

Key = tuple[int, int]  # (number of an autograd node, output number), or (-number of a leaf, 0)

PAIRS = 4096  # flows of one call that are written out; a `_foreach_` call of more is paired by position

_NUMBERS = itertools.count(1)  # for all watches of a process: a graph may outlive one
_MARK = "fxgrad"
_FREED = "fxgrad freed by"


def number_of(function: Any) -> int:
    """The number of an autograd node, given at the first look."""
    metadata = function.metadata
    number = metadata.get(_MARK)
    if number is None:
        number = metadata[_MARK] = next(_NUMBERS)
    return int(number)


def note_freed(functions: Iterable[Any], note: int) -> None:
    """The backward of that note walks these autograd nodes and frees what they saved. The nodes themselves
    carry it: it goes with them."""
    for function in functions:
        metadata = function.metadata
        metadata[_FREED] = (*metadata.get(_FREED, ()), note)


def freed_by(function: Any) -> tuple[int, ...]:
    """The notes of the backwards that walked an autograd node and did not keep the graph."""
    found: tuple[int, ...] = function.metadata.get(_FREED, ())
    return found


@dataclass(frozen=True, slots=True)
class Behind:
    """What lies behind some autograd nodes: edges, nodes and leaf tensors. Short-lived: it holds the
    graph."""

    keys: set[Key]
    functions: list[Node]
    leaves: list[torch.Tensor]


class Edges(ABC):
    """The edges met so far."""

    def __init__(self) -> None:
        self.values: dict[Key, list[int]] = {}  # the values whose gradient arrives there
        # the number of an autograd node -> the note of the call that made it
        self.makers: dict[int, int] = {}

    @abstractmethod
    def key_of(self, function: Node, number: int) -> Key:
        """The edge of an output of an autograd node; where that accumulates into a leaf, the leaf's."""

    def flows(
        self,
        note: int,
        keys: Sequence[Key | None],
        reads: Sequence[int],
        makes: Sequence[tuple[int, Node | None]],
    ) -> list[Flow]:
        """The flows of a call (definition 2). `keys`: the edge of each value so far; `reads`: the values it
        was given, each once; `makes`: those it made, each with its autograd node, None for a leaf."""
        if len(makes) == 1 and keys[makes[0][0]] is None:  # data, or made where gradients are off
            return [Flow(read, makes[0][0], False) for read in reads if read != makes[0][0]]
        by_key = _by_key(reads, keys)
        own, count = {keys[make] for make, _ in makes}, len(makes)
        every = len(reads) * count <= PAIRS
        found: list[Flow] = []
        for position, (make, function) in enumerate(makes):
            reached: set[int] = set()
            key = keys[make]
            if key is not None and key in by_key:
                reached.update(by_key[key])
            elif function is not None:
                start = key[0] if key is not None else self.key_of(function, 0)[0]
                reached = self._behind(function, start, by_key, own, note)
            near = reads if every else reads[position::count]
            reached.discard(make)
            found += [Flow(read, make, read in reached) for read in near if read != make]
            for read in reached.difference(near):
                found.append(Flow(read, make, True))
        return found

    def _behind(
        self, function: Node, start: int, reads: dict[Key, list[int]], own: set[Key | None], note: int
    ) -> set[int]:
        """The values behind an autograd node of number `start`, no further back than one earlier call.

        `reads`: the edges of what the call was given; `own`: those of what it made. Nodes met on the way
        belong to `note`.
        """
        reached: set[int] = set()
        self.makers.setdefault(start, note)
        stack, seen = [function], {start}
        while stack:
            for inner, number in stack.pop().next_functions:
                if inner is None:
                    continue
                key = self.key_of(inner, number)
                given = reads.get(key)
                if given is not None:
                    reached.update(given)
                    continue
                known = self.values.get(key)
                if known is not None and key not in own:
                    # reached without being an argument: a closure, a second derivative
                    reached.add(known[-1])
                    continue
                if key[0] < 0 or key[0] in seen:  # a leaf, or a node that the walk has met
                    continue
                seen.add(key[0])
                if self.makers.setdefault(key[0], note) == note:
                    stack.append(inner)
        return reached

    def reachable(self, functions: Iterable[Node]) -> Behind:
        """Everything behind some autograd nodes (definition 3), themselves included."""
        found = Behind(set(), [], [])
        for function in nodes_behind(functions):
            leaf = leaf_of(function)
            if leaf is not None:
                found.leaves.append(leaf)
                continue
            found.functions.append(function)
            for inner, number in function.next_functions:
                if inner is not None:
                    found.keys.add(self.key_of(inner, number))
        return found


class WatchedEdges(Edges):
    """Those of a watched program. `leaf_key` gives the edge of a leaf tensor and adopts one that was not
    known."""

    def __init__(self, leaf_key: Callable[[torch.Tensor], Key]) -> None:
        super().__init__()
        self._leaf_key = leaf_key

    def key_of(self, function: Node, number: int) -> Key:
        leaf = leaf_of(function)
        return (number_of(function), number) if leaf is None else self._leaf_key(leaf)

    def inputs_of(self, function: Node) -> list[list[int]]:
        """By position, the values whose gradient an autograd node hands on; none where it hands on
        nothing."""
        found: list[list[int]] = []
        for inner, number in function.next_functions:
            found.append([] if inner is None else list(self.values.get(self.key_of(inner, number), ())))
        return found

    def maker(self, function: Node) -> int:
        """The note of the call that made an autograd node; -1 if no noted call did."""
        return self.makers.get(number_of(function), -1)


def _by_key(reads: Iterable[int], keys: Sequence[Key | None]) -> dict[Key, list[int]]:
    """The values with an edge, by it."""
    found: dict[Key, list[int]] = {}
    for read in reads:
        key = keys[read]
        if key is not None:
            found.setdefault(key, []).append(read)
    return found


def is_custom(function: Node) -> bool:
    """Whether an autograd node is a Python `autograd.Function`'s."""
    return isinstance(function, torch.autograd.function.BackwardCFunction)
