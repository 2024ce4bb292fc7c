"""Draws by a distribution's `sample()` through which a part of a gradient is lost: what is computed from the
draw gives nothing to the parameters of the distribution, which get a gradient another way (the Kullback-
Leibler term of a variational autoencoder), so that none of them is without one.

A draw counts where all of this is true:
 1. It is of a kind that has a derivative (`rsample()`), by a call that is written `.sample(...)`, and torch
    itself switched gradients off inside that call.
 2. What it was drawn with requires grad, and lies behind a loss.
 3. Something that requires grad is computed from the draw and lies behind the same loss.
 4. Nothing is computed from the draw and from what it was drawn with together, as the log-probability of an
    action is: then the draw is meant to have no history.
Not handled: distributions whose draws are arithmetic on noise (Laplace, Uniform); a draw that is shown to
something outside of torch.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fxgrad.passes.analyses.no_grad_regions import inside_call
from fxgrad.records import Facts, NodeFact, Site
from fxgrad.source.assigned import call_at
from fxgrad.torch_api.calls import DRAWS_WITH_DERIVATIVE

_TIMES = 8  # draws of one line that are looked at


@dataclass(frozen=True, slots=True)
class CutDraw:
    """`names`: the parameters that get their gradient another way; `used`: the first step that reads the
    draw."""

    node: NodeFact
    names: tuple[str, ...]
    used: NodeFact


def analyse(facts: Facts, walks: Sequence[frozenset[int]]) -> Iterator[CutDraw]:
    """One for each line. `walks`: what lies behind each loss."""
    asked: Counter[Site] = Counter()
    told: set[Site] = set()
    for node in facts.nodes:
        if node.site is None or not _may_be_draw(node):
            continue
        asked[node.site] += 1
        if node.site in told or asked[node.site] > _TIMES or not _is_draw(facts, node, node.site):
            continue
        given = _given(facts, node)
        derived = _derived(facts, given)
        used = _uses(facts, node, derived) if given else None
        if used is None or not any(_joins(facts, walk, given, used) for walk in walks):
            continue
        names = _behind(facts, given)
        if names:
            told.add(node.site)
            yield CutDraw(node, names, used[0])


def _may_be_draw(node: NodeFact) -> bool:
    return not node.grad_enabled and node.target in DRAWS_WITH_DERIVATIVE


def _is_draw(facts: Facts, node: NodeFact, site: Site) -> bool:
    """Definition 1."""
    call = call_at(site)
    written = call is not None and isinstance(call.func, ast.Attribute) and call.func.attr == "sample"
    return written and inside_call(facts, node)


def _given(facts: Facts, node: NodeFact) -> frozenset[int]:
    """What the call was given that requires grad: inside, it is expanded without a history."""
    found: set[int] = set()
    pending = list(node.reads)
    while pending:
        value = pending.pop()
        maker = facts.maker_of.get(value)
        if maker is not None and not maker.grad_enabled and maker.stack == node.stack:
            pending.extend(maker.reads)
        elif facts.values[value].requires_grad:
            found.add(value)
    return frozenset(found)


def _derived(facts: Facts, given: frozenset[int]) -> set[int]:
    """These values, and all that has a history of them."""
    found = set(given)
    pending = list(given)
    while pending:
        for _, flow in facts.open_from.get(pending.pop(), ()):
            if flow.target not in found:
                found.add(flow.target)
                pending.append(flow.target)
    return found


def _uses(facts: Facts, draw: NodeFact, derived: set[int]) -> list[NodeFact] | None:
    """The steps that compute something with a history from the draw's numbers; None by definition 4."""
    drawn = set(draw.makes)
    found: list[NodeFact] = []
    for node in facts.nodes:
        if node is draw or drawn.isdisjoint(node.reads):
            continue
        if not derived.isdisjoint(node.reads):
            return None
        drawn.update(value for value in node.makes if not facts.values[value].requires_grad)
        if any(facts.values[value].requires_grad for value in node.makes):
            found.append(node)
    return found or None


def _joins(facts: Facts, walk: frozenset[int], given: frozenset[int], used: Sequence[NodeFact]) -> bool:
    """Definitions 2 and 3, of one loss."""
    return not walk.isdisjoint(given) and any(not walk.isdisjoint(node.makes) for node in used)


def _behind(facts: Facts, given: frozenset[int]) -> tuple[str, ...]:
    """The parameters that these have a history of and that get a gradient."""
    found = set(given)
    for node in reversed(facts.nodes):
        found.update(flow.source for flow in node.flows if flow.open and flow.target in found)
    parameters = (p for p in facts.parameters if p.gradient == "some" and not found.isdisjoint(p.values))
    return tuple(name for parameter in parameters for name in parameter.names)
