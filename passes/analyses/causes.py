"""Who is starved and by what: the parameters without a gradient, the frontier of cuts, the dead ends, and findings made from them.

A parameter is *starved* if it requires grad and backward left no gradient on it; where backward did not run, if none of its values is live.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fxgrad.passes.analyses import cuts, dead_ends, moving_averages
from fxgrad.passes.analyses.cuts import Cut, Frontier, Way
from fxgrad.passes.analyses.dead_ends import DeadEnd
from fxgrad.passes.analyses.index import by_name, once
from fxgrad.passes.context import Context
from fxgrad.records import Facts, Finding, Fix, NodeFact, ParameterFact, Severity, Site, Step
from fxgrad.source import line_text

SAID_LIMIT = 60  # characters of the user's expression in a message
PATH_LIMIT = 9  # stations shown of a path; a deep network's is hundreds


@dataclass(frozen=True, slots=True)
class Causes:
    """The starved parameters of one run and why; `averaged` are those that the program itself sets from other parameters, `tested` those
    whose data goes no further than a branch that changes the loss, with the branch."""

    starved: tuple[ParameterFact, ...]
    frontier: Frontier
    ends: Mapping[str, DeadEnd]
    averaged: frozenset[str] = frozenset()
    tested: Mapping[str, Site | None] = field(default_factory=dict)


def analyse(facts: Facts, undecided: frozenset[str] = frozenset(), deciding: frozenset[str] = frozenset()) -> Causes:
    """Causes for every starved parameter but the `undecided`, whose cause is a branch. `deciding`: nodes whose truth changes the loss."""
    starved = tuple(p for p in facts.parameters if p.requires_grad and is_starved(facts, p) and not undecided.intersection(p.names))
    frontier = cuts.analyse(facts, starved)
    endless = [p for p in starved if p.name not in frontier.ways] if facts.loss is not None else []
    tested = _tested(facts, endless, deciding)
    ends = dict(dead_ends.analyse(facts, [p for p in endless if p.name not in tested]))
    return Causes(starved, frontier, ends, moving_averages.analyse(facts, starved), tested)


def _tested(facts: Facts, parameters: list[ParameterFact], deciding: frozenset[str]) -> dict[str, Site | None]:
    """Parameters whose data a deciding branch tests, with the branch's line."""
    found: dict[str, Site | None] = {}
    for parameter in parameters if deciding else ():
        reached = set(parameter.values)
        for node in facts.nodes:
            if reached.intersection(f.source for f in node.flows):
                reached.update(node.makes)
            if node.name in deciding and reached.intersection(node.makes):
                found[parameter.name] = next((d.site for d in facts.decisions if d.node == node.name), node.site)
                break
    return found


def is_starved(facts: Facts, parameter: ParameterFact) -> bool:
    """Whether no gradient comes back to the parameter."""
    if parameter.gradient == "unknown":
        return facts.loss is not None and not any(v in facts.live for v in parameter.values)
    return parameter.gradient == "none"


def unconnected(facts: Facts, causes: Causes) -> bool:
    """Whether the loss was computed from nothing that any parameter had a part in: then the loss is to blame, not the parameters' ends."""
    return facts.loss is not None and not facts.loss_requires_grad and not any(way.cuts for way in causes.frontier.ways.values())


def cut_groups(context: Context, facts: Facts, code: str) -> Iterator[tuple[NodeFact, tuple[str, ...], Way]]:
    """The cuts of one rule, grouped by the line they stand on: the step, the parameters it starves, one way as an example."""
    causes: Causes = context.causes
    nodes = once(facts, by_name)
    groups: dict[tuple[str, int], tuple[NodeFact, dict[str, None], Way]] = {}
    for parameter in causes.starved:
        way = causes.frontier.ways.get(parameter.name)
        if way is None:
            continue
        for cut in way.cuts:
            if cut.code != code:
                continue
            node = nodes[cut.node]
            place = (node.site.file, node.site.line) if node.site is not None else (node.name, 0)
            groups.setdefault(place, (node, {}, way))[1].update(dict.fromkeys(parameter.names))
    for node, names, way in groups.values():
        yield node, tuple(names), way


def severity(context: Context, parameters: tuple[str, ...]) -> Severity:
    """Error where a parameter that should train is starved, else a note."""
    return "error" if wanted(context).intersection(parameters) else "note"


def wanted(context: Context) -> frozenset[str]:
    """What should train: what the user named, else what requires grad and is in the optimizer, where one was given that fits the model.

    A module that no step would change and that gets no gradient (a target network, the generator in the discriminator's step) is
    left alone on purpose; so is one that the program sets to an average of others, or keeps as a copy. A single parameter that is missing among its module's
    (a bias that a filter forgot) is not. An optimizer with an empty group or with tensors that the model no longer has says nothing
    about intent.
    """
    if context.explicit:
        return context.expected
    causes: Causes | None = context.causes
    return _optimized(context) - context.copies - (causes.averaged if causes is not None else frozenset())


def _optimized(context: Context) -> frozenset[str]:
    groups = getattr(context.optimizer, "param_groups", None)
    if not isinstance(groups, list):
        return context.expected
    held = [{id(p) for p in group.get("params", ())} for group in groups]
    everything = frozenset().union(*held)
    names = {name: id(p) for name, p in context.model.named_parameters(remove_duplicate=False)}
    if not all(held) or not everything <= set(names.values()):
        return context.expected
    modules = {name.rpartition(".")[0] for name, number in names.items() if number in everything}
    return context.expected & {name for name in names if name.rpartition(".")[0] in modules}


def path(facts: Facts, way: Way, parameter: str) -> tuple[Step, ...]:
    """The stations from the loss to the parameter, shortened in the middle, the cuts always kept."""
    nodes = once(facts, by_name)
    cut_nodes = {cut.node for cut in way.cuts}
    called: dict[int, str] = {}
    for call in facts.calls:  # a module's own call comes before the calls around it
        called.update((value, call.path) for value in call.values if value not in called)
    stations = [Step("loss")]
    for name in reversed(way.nodes):
        node = nodes[name]
        paths = [called[v] for v in node.makes if v in called] if node.kind == "module" else []
        stations.append(Step(paths[0] if paths else label(node), node.site, name in cut_nodes))
    stations.append(Step(parameter))
    if len(stations) <= PATH_LIMIT:
        return tuple(stations)
    kept = {0, 1, len(stations) - 1, len(stations) - 2}
    for i, station in enumerate(stations):
        if station.cut:
            kept.update((i - 1, i, i + 1))
    shown: list[Step] = []
    for i, station in enumerate(stations):
        if i in kept:
            shown.append(station)
        elif shown[-1].label != "...":
            shown.append(Step("..."))
    return tuple(shown)


def label(node: NodeFact) -> str:
    """A node's short name in a path."""
    if node.kind == "module":
        return node.name.replace("_", ".") if not node.module else f"{node.module}.{node.target}"
    return node.target.rpartition(".")[2]


def said(node: NodeFact) -> str:
    """The step in backticks as the user wrote it, where that is one short line; else the name of the operation."""
    site = node.site
    text = line_text(site.file, site.line)[site.column - 1 : site.end_column - 1] if site is not None and site.line == site.end_line else ""
    return f"`{text}`" if 0 < len(text) <= SAID_LIMIT else f"`{node.target.rpartition('.')[2].strip('_')}`"


def subject(names: tuple[str, ...]) -> str:
    """The parameters in few words: their modules, by the common part of their paths where there is one."""
    owners = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    prefix = ".".join(os.path.commonprefix([owner.split(".") for owner in owners]))
    if prefix:
        return f"`{prefix if len(names) > 1 else names[0]}`"
    parts = list(dict.fromkeys(owner.split(".")[0] for owner in owners))
    return ", ".join(f"`{part}`" for part in parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")


def starved(names: tuple[str, ...]) -> str:
    """ "1 parameter gets no gradient" or "n parameters get no gradient"."""
    return f"{len(names)} parameter{'s get' if len(names) != 1 else ' gets'} no gradient"


def plural(parameters: tuple[str, ...]) -> str:
    """ "1 parameter" or "n parameters"."""
    return f"{len(parameters)} parameter{'s' if len(parameters) != 1 else ''}"


def finding(
    context: Context,
    facts: Facts,
    rule: tuple[str, str],
    group: tuple[NodeFact, tuple[str, ...], Way],
    message: str,
    advice: str,
) -> Finding:
    """A finding at a cut."""
    node, parameters, way = group
    return Finding(
        code=rule[0],
        name=rule[1],
        severity=severity(context, parameters),
        message=message,
        site=node.site,
        parameters=parameters,
        path=path(facts, way, parameters[0]),
        fix=Fix(advice),
    )


__all__ = [
    "Causes",
    "Cut",
    "analyse",
    "cut_groups",
    "finding",
    "is_starved",
    "label",
    "path",
    "plural",
    "said",
    "severity",
    "starved",
    "subject",
    "unconnected",
    "wanted",
]
