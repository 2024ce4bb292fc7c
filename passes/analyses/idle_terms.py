"""A term of the loss without a history, made of what `torch.autograd.grad` gave without `create_graph=True`:
a gradient penalty that changes the loss and trains nothing.

A loss has terms where it is a sum: additions, and what is linear in the one tensor with a history that it
takes (a scaled loss). Not a term: what was detached, read off or computed without gradients on the way, for
that is written to have none; a gradient that is multiplied by what has a history, or that a network is given,
which is data there; the derivative of what no parameter takes part in, which could train nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fxgrad.passes.analyses.cuts import DETACHES, GRAD
from fxgrad.records import Facts, NodeFact

_SUMS = frozenset(["add", "sub", "rsub", "iadd", "isub", "stack", "cat"])
_LINEAR = frozenset(["sum", "mean", "neg", "div", "truediv", "squeeze", "view", "reshape", "backward"])


def without_history(facts: Facts) -> Iterator[NodeFact]:
    """The calls of `torch.autograd.grad` that such terms are made of, in the order of the program."""
    if all(node.target != GRAD for node in facts.nodes):
        return
    found = {node.name for node in _derivatives(facts, _constant_terms(facts))}
    yield from (node for node in facts.nodes if node.name in found and _trains(facts, node))


def _constant_terms(facts: Facts) -> Iterator[int]:
    """The values that are added to the loss and have no history."""
    # A watched script has a loss per backward: each of them makes the one that the facts have.
    pending = [node for node in facts.nodes if facts.loss in node.makes]
    seen: set[str] = set()
    while pending:
        node = pending.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        word = node.target.rpartition(".")[2].strip("_")
        with_history = [value for value in node.reads if facts.values[value].requires_grad]
        if word in _SUMS:
            yield from (value for value in node.reads if not facts.values[value].requires_grad)
        elif not _is_linear(word, node, with_history):
            continue
        pending.extend(facts.maker_of[value] for value in with_history if value in facts.maker_of)


def _is_linear(word: str, node: NodeFact, with_history: list[int]) -> bool:
    """Whether the result is linear in what has a history: its terms are terms of the result."""
    if word == "mul":
        return len(with_history) == 1
    return len(node.reads) == 1 and word in _LINEAR


def _derivatives(facts: Facts, terms: Iterable[int]) -> Iterator[NodeFact]:
    """The derivatives without a history that terms were computed from, where nothing on the way says that
    they are to have none."""
    pending, seen = list(terms), set[int]()
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


def _trains(facts: Facts, derivative: NodeFact) -> bool:
    """Whether a parameter takes part in what was differentiated."""
    parameters = {value for known in facts.parameters if known.requires_grad for value in known.values}
    pending, seen = list(derivative.reads), set[int]()
    while pending:
        value = pending.pop()
        if value in parameters:
            return True
        if value not in seen and value in facts.maker_of:
            pending.extend(facts.maker_of[value].reads)
        seen.add(value)
    return False
