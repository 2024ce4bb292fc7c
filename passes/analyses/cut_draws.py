"""Draws by a distribution's `sample()` through which a part of a gradient is lost: what is computed from the
draw gives nothing to the parameters of the distribution, which get a gradient another way (the Kullback-
Leibler term of a variational autoencoder), so that none of them is without one.

A draw counts where all of this is true:
 1. It is of a distribution that has an `rsample()` (`NodeFact.sampled`), by a call that is written
    `.sample(...)`, and torch itself switched gradients off inside that call.
 2. What it was drawn with requires grad, and lies behind a loss.
 3. Something that requires grad is computed from the draw and lies behind the same loss.
 4. Nothing is computed from the draw and from what it was drawn with together, as the log-probability of an
    action is: then the draw is meant to have no history.
Not handled: a draw that is shown to something outside of torch.
"""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fxgrad.passes.analyses.no_grad_regions import inside_call
from fxgrad.records import Facts, NodeFact, Site
from fxgrad.source.assigned import call_at
from fxgrad.source.parsing import last_name

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
    for draw in _draws(facts):
        first, last = draw[0], draw[-1]
        if first.site is None:
            continue
        asked[first.site] += 1
        if first.site in told or asked[first.site] > _TIMES or not _is_written(facts, first, first.site):
            continue
        given = _given(facts, draw)
        used = _uses(facts, draw, _derived(facts, given)) if given else None
        if used is None or not any(_joins(facts, walk, given, used) for walk in walks):
            continue
        names = _behind(facts, given)
        if names:
            told.add(first.site)
            yield CutDraw(last, names, used[0])


def _draws(facts: Facts) -> Iterator[tuple[NodeFact, ...]]:
    """The steps of each draw, which follow each other: arithmetic on noise, or one operation."""
    ops = (node for node in facts.nodes if node.kind == "op")
    for (sampled, _), steps in itertools.groupby(ops, lambda node: (node.sampled, node.stack)):
        if sampled:
            yield tuple(steps)


def _is_written(facts: Facts, node: NodeFact, site: Site) -> bool:
    """Definition 1."""
    call = call_at(site)
    written = call is not None and isinstance(call.func, ast.Attribute) and call.func.attr == "sample"
    return written and inside_call(facts, node)


def _given(facts: Facts, draw: Sequence[NodeFact]) -> frozenset[int]:
    """What the call was given that requires grad, and what the distribution has computed that from."""
    made = {value for node in draw for value in node.makes}
    read = {value for node in draw for value in node.reads} - made
    pending = [value for value in read if facts.values[value].requires_grad]
    found = set(pending)
    while pending:
        maker = facts.maker_of.get(pending.pop())
        if maker is None or not _is_inside(maker, draw[0]):
            continue
        more = {flow.source for flow in maker.flows if flow.open} - found
        found |= more
        pending.extend(more)
    return frozenset(found)


def _is_inside(node: NodeFact, draw: NodeFact) -> bool:
    """Whether a step ran inside a call of the user's that is written otherwise (`D.Gumbel(...)`), and inside
    no module."""
    call = call_at(node.site) if node.site is not None and node.module == draw.module else None
    return call is not None and last_name(call.func) != node.target.rpartition(".")[2]


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


def _uses(facts: Facts, draw: Sequence[NodeFact], derived: set[int]) -> list[NodeFact] | None:
    """The steps that compute something with a history from the draw's numbers; None by definition 4."""
    drawn = {value for node in draw for value in node.makes}
    own = {node.name for node in draw}
    found: list[NodeFact] = []
    for node in facts.nodes:
        if node.name in own or drawn.isdisjoint(node.reads):
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
