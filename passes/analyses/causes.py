"""Who is starved and by what: the parameters without a gradient, the frontier of cuts and the dead ends.

A parameter is *starved* if it requires grad and backward left no gradient on it; where backward did not run,
if none of its values is live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fxgrad.passes.analyses import cuts, dead_ends, moving_averages
from fxgrad.passes.analyses.cuts import Frontier
from fxgrad.passes.analyses.dead_ends import DeadEnd
from fxgrad.records import Facts, ParameterFact, Site


@dataclass(frozen=True, slots=True)
class Causes:
    """The starved parameters of one run and why; `averaged` are those that the program itself sets from other
    parameters, `tested` those whose data goes no further than a branch that changes the loss, with the
    branch."""

    starved: tuple[ParameterFact, ...]
    frontier: Frontier
    ends: Mapping[str, DeadEnd]
    averaged: frozenset[str] = frozenset()
    tested: Mapping[str, Site | None] = field(default_factory=dict)


def analyse(
    facts: Facts, undecided: frozenset[str] = frozenset(), deciding: frozenset[str] = frozenset()
) -> Causes:
    """Causes for every starved parameter but the `undecided`, whose cause is a branch. `deciding`: nodes
    whose truth changes the loss."""
    starved = tuple(
        p
        for p in facts.parameters
        if p.requires_grad and is_starved(facts, p) and not undecided.intersection(p.names)
    )
    frontier = cuts.analyse(facts, starved)
    endless = [p for p in starved if p.name not in frontier.ways] if facts.loss is not None else []
    tested = _tested(facts, endless, deciding)
    ends = dict(dead_ends.analyse(facts, [p for p in endless if p.name not in tested]))
    return Causes(starved, frontier, ends, moving_averages.analyse(facts, starved), tested)


def _tested(
    facts: Facts, parameters: list[ParameterFact], deciding: frozenset[str]
) -> dict[str, Site | None]:
    """Parameters whose data a deciding branch tests, with the branch's line."""
    found: dict[str, Site | None] = {}
    for parameter in parameters if deciding else ():
        reached = set(parameter.values)
        for node in facts.nodes:
            if reached.intersection(f.source for f in node.flows):
                reached.update(node.makes)
            if node.name in deciding and reached.intersection(node.makes):
                found[parameter.name] = next(
                    (d.site for d in facts.decisions if d.node == node.name), node.site
                )
                break
    return found


def is_starved(facts: Facts, parameter: ParameterFact) -> bool:
    """Whether no gradient comes back to the parameter."""
    if parameter.gradient == "unknown":
        return facts.loss is not None and not any(v in facts.live for v in parameter.values)
    return parameter.gradient == "none"


def unconnected(facts: Facts, causes: Causes) -> bool:
    """Whether the loss was computed from nothing that any parameter had a part in: then the loss is to blame,
    not the parameters' ends."""
    return (
        facts.loss is not None
        and not facts.loss_requires_grad
        and not any(way.cuts for way in causes.frontier.ways.values())
    )
