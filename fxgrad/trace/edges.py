"""Autograd's edges, by number: which value's gradient arrives where, and what lies behind a value.

An *edge* is a pair (autograd node, output number), or a leaf. A node is numbered in its own `metadata`, for the Python object that stands
for it comes and goes while the node lives on. Nothing here keeps a graph alive. Definitions 2 and 3 are those of `fxgrad.trace.facts`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

Key = tuple[int, int]  # (number of an autograd node, output number), or (-number of a leaf, 0)

_NUMBERS = itertools.count(1)  # for all watches of a process: a graph may outlive one
_MARK = "fxgrad"


def number_of(function: Any) -> int:
    """The number of an autograd node, given at the first look."""
    metadata = function.metadata
    number = metadata.get(_MARK)
    if number is None:
        number = metadata[_MARK] = next(_NUMBERS)
    return int(number)


@dataclass(frozen=True, slots=True)
class Behind:
    """What lies behind some autograd nodes: edges, nodes and leaf tensors. Short-lived: it holds the graph."""

    keys: set[Key]
    functions: list[Any]
    leaves: list[torch.Tensor]


class Edges:
    """The edges met so far. `leaf_key` gives the edge of a leaf tensor and adopts one that was not known."""

    def __init__(self, leaf_key: Callable[[torch.Tensor], Key]) -> None:
        self._leaf_key = leaf_key
        self.values: dict[Key, list[int]] = {}  # the values whose gradient arrives there
        self.makers: dict[int, int] = {}  # the number of an autograd node -> the note of the call that made it

    def next_of(self, function: Any) -> Iterable[tuple[Key, Any]]:
        """The edges one step further back, each with its autograd node (None for a leaf)."""
        for inner, number in function.next_functions:
            if inner is None:
                continue
            variable = getattr(inner, "variable", None)
            if isinstance(variable, torch.Tensor):
                yield self._leaf_key(variable), None
            else:
                yield (number_of(inner), number), inner

    def inputs_of(self, function: Any) -> list[list[int]]:
        """By position, the values whose gradient an autograd node hands on; none where it hands on nothing."""
        found: list[list[int]] = []
        for inner, number in function.next_functions:
            variable = getattr(inner, "variable", None)
            key = None if inner is None else self._leaf_key(variable) if variable is not None else (number_of(inner), number)
            found.append(list(self.values.get(key, ())) if key is not None else [])
        return found

    def maker(self, function: Any) -> int:
        """The note of the call that made an autograd node; -1 if no noted call did."""
        return self.makers.get(number_of(function), -1)

    def behind(self, function: Any, reads: dict[Key, list[int]], own: set[Key | None], note: int) -> set[int]:
        """The values behind an autograd node, no further back than one earlier call (definition 2).

        `reads`: the edges of what the call was given; `own`: those of what it made. Nodes met on the way belong to `note`.
        """
        reached: set[int] = set()
        start = number_of(function)
        self.makers.setdefault(start, note)
        stack, seen = [function], {start}
        while stack:
            for key, inner in self.next_of(stack.pop()):
                given = reads.get(key)
                if given is not None:
                    reached.update(given)
                    continue
                known = self.values.get(key)
                if known is not None and key not in own:
                    reached.add(known[-1])  # reached without being an argument: a closure, a second derivative
                    continue
                if inner is None or key[0] in seen:
                    continue
                seen.add(key[0])
                if self.makers.setdefault(key[0], note) == note:
                    stack.append(inner)
        return reached

    def reachable(self, functions: Iterable[Any]) -> Behind:
        """Everything behind some autograd nodes (definition 3), themselves included."""
        stack = list(functions)
        numbers = {number_of(f) for f in stack}
        found = Behind(set(), list(stack), [])
        seen: set[int] = set()
        while stack:
            for inner, number in stack.pop().next_functions:
                if inner is None:
                    continue
                variable = getattr(inner, "variable", None)
                if isinstance(variable, torch.Tensor):
                    found.keys.add(self._leaf_key(variable))
                    if id(variable) not in seen:
                        seen.add(id(variable))
                        found.leaves.append(variable)
                    continue
                mark = number_of(inner)
                found.keys.add((mark, number))
                if mark not in numbers:
                    numbers.add(mark)
                    stack.append(inner)
                    found.functions.append(inner)
        return found


def is_custom(function: Any) -> bool:
    """Whether an autograd node is a Python `autograd.Function`'s."""
    return isinstance(function, torch.autograd.function.BackwardCFunction)
