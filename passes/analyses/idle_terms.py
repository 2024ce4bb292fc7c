"""A term of the loss without a history, made of what `torch.autograd.grad` gave without `create_graph=True`:
a gradient penalty that changes the loss and trains nothing.

A loss has terms where it is a sum: additions, and what is linear and takes one tensor. Not a term: what was
detached, read off or computed without gradients on the way, for that is written to have none; a gradient that
is multiplied by what has a history, or that a network is given, which is data there.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.analyses.cuts import DETACHES, GRAD
from fxgrad.records import Facts, NodeFact

_SUMS = frozenset(["add", "sub", "rsub", "iadd", "isub", "stack", "cat"])
_LINEAR = frozenset(["sum", "mean", "neg", "mul", "div", "truediv", "squeeze", "view", "reshape", "backward"])


def without_history(facts: Facts) -> Iterator[NodeFact]:
    """The calls of `torch.autograd.grad` that such terms are made of, in the order of the program."""
    found = {node.name for term in _constant_terms(facts) for node in _derivatives(facts, term)}
    yield from (node for node in facts.nodes if node.name in found)


def _constant_terms(facts: Facts) -> Iterator[int]:
    """The values that are added to the loss and have no history."""
    # A watched script has a loss per backward: each of them makes the one that the facts have.
    pending = [node for node in facts.nodes if facts.loss in node.makes]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        word = node.target.rpartition(".")[2].strip("_")
        if word not in _SUMS and not (word in _LINEAR and len(node.reads) == 1):
            continue
        for value in set(node.reads) - seen:
            seen.add(value)
            if not facts.values[value].requires_grad:
                yield value
            elif value in facts.maker_of:
                pending.append(facts.maker_of[value])


def _derivatives(facts: Facts, term: int) -> Iterator[NodeFact]:
    """The derivatives without a history that a term was computed from, where nothing on the way says that it
    is to have none."""
    pending, seen = [term], set[int]()
    while pending:
        value = pending.pop()
        node = facts.maker_of.get(value)
        if node is None or value in seen or facts.values[value].requires_grad:
            continue
        seen.add(value)
        if node.target == GRAD:
            if not node.grad_enabled:
                yield node
        elif node.kind == "op" and node.grad_enabled and node.target not in DETACHES:
            pending.extend(node.reads)
