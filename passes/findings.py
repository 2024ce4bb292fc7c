"""How a rule speaks: groups of cuts, severity, paths from the loss, and steps and tensors in words.

Made from facts, their causes and the source text behind a Site. Where the text is long, generated or gone,
the operation's name stands for it. Not handled: which rule speaks of what, which is each rule's own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.analyses.cuts import Cut, Way
from fxgrad.passes.analyses.hidden_writes import of_values
from fxgrad.passes.context import Context
from fxgrad.passes.ended import Cause
from fxgrad.records import Facts, Finding, Fix, NodeFact, ParameterFact, Severity, Site, Step
from fxgrad.source import line_text
from fxgrad.torch_api import registry

LONGEST = 60  # characters of source quoted in a sentence
NAMED = 3  # names listed before "and n more"


def expression(node: NodeFact) -> str:
    """The step as the user wrote it (`out += identity`); the operation's name where that is not one short
    line."""
    text = text_of(node.site)
    if not text:
        name = node.target.rpartition(".")[2]
        return f"{name} in {node.module}" if node.site is None and node.module else name
    return f"{text} = ..." if node.target.endswith(("__setitem__", "__set__")) else text


def text_of(site: Site | None) -> str:
    """The source between a site's columns, if it is one short line of a file; else ""."""
    if site is None or site.end_line != site.line:
        return ""
    text = source_of(site)
    return text if len(text) <= LONGEST else ""


def source_of(site: Site | None) -> str:
    """The source between a site's columns, its lines joined by a space; "" where there is none."""
    if site is None or not site.column or site.end_line < site.line:
        return ""
    lines = [line_text(site.file, number) for number in range(site.line, site.end_line + 1)]
    lines[-1] = lines[-1][: site.end_column - 1]
    lines[0] = lines[0][site.column - 1 :]
    return " ".join(line.strip() for line in lines).strip()


def shape(sizes: tuple[int, ...]) -> str:
    """`2x4x6`, or `scalar`."""
    return "x".join(map(str, sizes)) or "scalar"


def line_of(site: Site | None, seen_from: Site | None = None) -> str:
    """` (line 12)` in the same file, ` (blocks.py:12)` in another; "" where nothing is known."""
    if site is None:
        return ""
    if seen_from is not None and site.file == seen_from.file:
        return f" (line {site.line})"
    return f" ({os.path.basename(site.file)}:{site.line})"


def listed(names: Iterable[str], limit: int = NAMED) -> str:
    """ "`a`, `b` and `c`", or the first ones "and n more"."""
    quoted = [f"`{name}`" for name in dict.fromkeys(names)]
    if len(quoted) > limit + 1:
        return f"{', '.join(quoted[:limit])} and {len(quoted) - limit} more"
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else "".join(quoted)


def some(names: Collection[str], limit: int = NAMED) -> str:
    """ "`a`, `b`", or the first ones "and n more"."""
    shown = ", ".join(f"`{name}`" for name in islice(names, limit))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


SAID_LIMIT = 60  # characters of the user's expression in a message
PATH_LIMIT = 9  # stations shown of a path; a deep network's is hundreds


def cut_groups(context: Context, facts: Facts, code: str) -> Iterator[tuple[NodeFact, tuple[str, ...], Way]]:
    """The cuts of one rule, grouped by the line they stand on: the step, the parameters it starves, one way
    as an example."""
    groups: dict[tuple[str, int], tuple[NodeFact, dict[str, None], Way]] = {}
    for parameter, way, cut, node in _cuts(context, facts):
        place = (node.site.file, node.site.line) if node.site is not None else (node.name, 0)
        if cut.code == code and place not in of_values(facts, context):  # that is FXG203's
            groups.setdefault(place, (node, {}, way))[1].update(dict.fromkeys(parameter.names))
    for node, names, way in groups.values():
        yield node, tuple(names), way


def cut_at(context: Context, facts: Facts, line: tuple[str, int]) -> tuple[str, ...]:
    """The parameters that are cut off on a line."""
    cut_off: dict[str, None] = {}
    for parameter, _, _, node in _cuts(context, facts):
        if node.site is not None and (node.site.file, node.site.line) == line:
            cut_off.update(dict.fromkeys(parameter.names))
    return tuple(cut_off)


def _cuts(context: Context, facts: Facts) -> Iterator[tuple[ParameterFact, Way, Cut, NodeFact]]:
    """Every cut, with the parameter that it starves and the way that it is on."""
    causes: Causes = context.causes
    for parameter in causes.starved:
        way = causes.frontier.ways.get(parameter.name)
        if way is not None:
            yield from ((parameter, way, cut, facts.node_named[cut.node]) for cut in way.cuts)


def severity(context: Context, parameters: tuple[str, ...]) -> Severity:
    """Error where a parameter that should train is starved, else a note."""
    return "error" if wanted(context).intersection(parameters) else "note"


def wanted(context: Context) -> frozenset[str]:
    """What should train: what the user named, else what requires grad and is in the optimizer, where one was
    given that fits the model.

    A module that no step would change and that gets no gradient (a target network, the generator in the
    discriminator's step) is left alone on purpose; so is one that the program sets to an average of others,
    or keeps as a copy, or that an optimizer of its own steps another time. A single parameter that is missing
    among its module's (a bias that a filter forgot) is not. An optimizer with an empty group or with tensors
    that the model no longer has says nothing about intent.
    """
    if context.explicit:
        return context.expected
    causes: Causes | None = context.causes
    return (
        _optimized(context)
        - context.copies
        - context.waiting
        - (causes.averaged if causes is not None else frozenset())
    )


def _optimized(context: Context) -> frozenset[str]:
    groups = getattr(context.optimizer, "param_groups", None)
    if not isinstance(groups, list):
        return context.expected
    held = [{id(p) for p in group.get("params", ())} for group in groups]
    everything = frozenset().union(*held)
    names = {name: id(p) for name, p in registry.named_parameters(context.model, remove_duplicate=False)}
    if not all(held) or not everything <= set(names.values()):
        return context.expected
    modules = {name.rpartition(".")[0] for name, number in names.items() if number in everything}
    return context.expected & {name for name in names if name.rpartition(".")[0] in modules}


def path(facts: Facts, way: Way, parameter: str) -> tuple[Step, ...]:
    """The stations from the loss to the parameter, shortened in the middle, the cuts always kept."""
    stations = _stations(facts, way, parameter)
    last = len(stations) - 1
    if last < PATH_LIMIT:
        return tuple(stations)
    kept = {0, 1, last - 1, last}
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


def _stations(facts: Facts, way: Way, parameter: str) -> list[Step]:
    nodes = facts.node_named
    cut_nodes = {cut.node for cut in way.cuts}
    called: dict[int, str] = {}
    for call in facts.calls:  # a module's own call comes before the calls around it
        for value in call.values:
            called.setdefault(value, call.path)
    stations = [Step("loss")]
    for name in reversed(way.nodes):
        node = nodes[name]
        paths = [called[v] for v in node.makes if v in called] if node.kind == "module" else []
        stations.append(Step(paths[0] if paths else label(node), node.site, name in cut_nodes))
    return [*stations, Step(parameter)]


def label(node: NodeFact) -> str:
    """A node's short name in a path."""
    if node.kind == "module":
        return node.name.replace("_", ".") if not node.module else f"{node.module}.{node.target}"
    return node.target.rpartition(".")[2]


def said(node: NodeFact) -> str:
    """The step in backticks as the user wrote it, where that is one short line; else the name of the
    operation."""
    site = node.site
    text = (
        line_text(site.file, site.line)[site.column - 1 : site.end_column - 1]
        if site is not None and site.line == site.end_line
        else ""
    )
    return f"`{text}`" if 0 < len(text) <= SAID_LIMIT else f"`{node.target.rpartition('.')[2].strip('_')}`"


FEW = 3


def subject(names: tuple[str, ...]) -> str:
    """The parameters in few words: their modules, by the common part of their paths where there is one."""
    owners = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    prefix = ".".join(os.path.commonprefix([owner.split(".") for owner in owners]))
    if prefix:
        return f"`{prefix if len(names) > 1 else names[0]}`"
    if len(names) <= FEW:  # a part of a module is not the module
        return listed(names)
    parts = list(dict.fromkeys(owner.split(".")[0] for owner in owners))
    return some(parts)


def starved(names: tuple[str, ...]) -> str:
    """ "1 parameter gets no gradient" or "n parameters get no gradient"."""
    return f"{len(names)} parameter{'s get' if len(names) != 1 else ' gets'} no gradient"


def plural(parameters: tuple[str, ...]) -> str:
    """ "1 parameter" or "n parameters"."""
    return f"{len(parameters)} parameter{'s' if len(parameters) != 1 else ''}"


def of_cause(rule: tuple[str, str], cause: Cause) -> Finding:
    """A finding at error level of why a script died."""
    return Finding(*rule, "error", cause.message, cause.site, cause.parameters, cause.path, Fix(cause.advice))


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
