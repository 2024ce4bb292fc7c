"""Why a result was left behind: the branch that kept the lines from running that read it, the index, slice or
loop that took others out of the list or dict it was put into, the branch that wrote over it.

From the text of the function that had the result and how often its parts ran. Said only where that shows it.
Not handled: results kept in attributes, and lists that go through several variables.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace

from fxgrad.passes.analyses.decisions import Decision, as_far_as, at, deciding, is_inside, together, told
from fxgrad.passes.context import Context
from fxgrad.passes.findings import line_of
from fxgrad.records import Site
from fxgrad.source.handed_on import reads_of_result
from fxgrad.source.held import Held, held_in
from fxgrad.source.objects import origin
from fxgrad.source.parsing import (
    Function,
    Source,
    absolute,
    ancestors,
    enclosing_function,
    load,
    nodes,
    site_of,
)
from fxgrad.source.passed_by import Counts, led_to, passed_by, quoted

_TOLD = 2  # reads of one result that are told


def of_result(context: Context, stack: Sequence[Site], seen_from: Site | None) -> Decision | None:
    """What passed by the lines that read the variable in which a result is kept, or took others out of it.

    `stack`: where the result was made, and the calls around that, outwards: a function may hand it on by a
    `return` that went another way, or under a key that its caller does not ask for.
    """
    returned: str | int | None = None  # the key under which the inner function has it
    for site in stack if context.ran else ():
        if origin(site.file) != "user":
            continue
        held = held_in(site, returned)
        if held is not None and not held.picks:
            returned = held.own_key
            continue
        if held is not None:
            decision = _of_picks(context, held, seen_from)
        else:
            found = reads_of_result(site)
            decision = _of_reads(context, *found, seen_from) if found is not None else None
        if decision is not None:
            return replace(decision, text=decision.text + as_far_as(context))
    return None


def of_statement(context: Context, site: Site | None) -> Decision | None:
    """Which branch led to the statement at `site`, that lost a result."""
    if site is None or origin(site.file) != "user":
        return None
    source = load(site.file)
    node = next((n for n in nodes(source, ast.stmt) if _begins(site_of(source, n), site)), None)
    function = enclosing_function(source, node) if node is not None else None
    passed = led_to(source, node) if node is not None else None
    if function is None or passed is None:
        return None
    counts = _of_one_module(context, source, function)
    if counts is None or not counts.times(passed.node):
        return None
    place = deciding(source, passed.node)
    return Decision(f"this line runs {passed.how.format(line_of(place, site))}", place)


def _begins(one: Site, other: Site) -> bool:
    return (one.line, one.column) == (other.line, other.column)


def _of_reads(
    context: Context, source: Source, function: Function, reads: Sequence[ast.expr], seen_from: Site | None
) -> Decision | None:
    counts = _of_one_module(context, source, function)
    if counts is None or not 0 < len(reads) <= _TOLD:
        return None
    said: list[Decision] = []
    for node in reads:
        passed = passed_by(source, node, counts) if counts.times(node) == 0 else None
        decision = told(source, node, passed, seen_from)
        if decision is None:
            return None
        said.append(decision)
    only = "only " if len(said) == 1 else ""
    clauses = ", and ".join(decision.text for decision in said)
    return Decision(f"`{quoted(source, reads[0])}` is used {only}{clauses}", said[0].site)


def _of_picks(context: Context, held: Held, seen_from: Site | None) -> Decision | None:
    """Fewer were taken out than put in, or others by their keys; or the lines that take it out did not
    run."""
    counts = _of_one_module(context, held.source, held.function)
    if counts is None or not 0 < len(held.picks) <= _TOLD:
        return None
    taken = [counts.times(pick) or 0 for pick in held.picks]
    if not any(taken):
        return _of_reads(context, held.source, held.function, held.picks, seen_from)
    put = sum(counts.times(one) or 0 for one in held.puts)
    if not all(taken) or not _leaves_some(held, sum(taken), put):
        return None
    source = held.source
    chosen = [_chooser(source, pick) for pick in held.picks]
    sites = [site_of(source, node) for node in chosen]
    clauses = " and ".join(
        f"`{quoted(source, node)}`{line_of(site, seen_from)}"
        for node, site in zip(chosen, sites, strict=True)
    )
    some = "takes others" if len(chosen) == 1 else "take others"
    if not held.puts:
        return Decision(f"of `{held.name}` {clauses} {some} than `{held.own_key!r}`", sites[0])
    where = at(site_of(source, held.own), seen_from)
    return Decision(f"it is put in `{held.name}` {where}, of which {clauses} {some}", sites[0])


def _leaves_some(held: Held, taken: int, put: int) -> bool:
    keys = [held.key(pick) for pick in held.picks]
    if held.own_key is not None and all(key is not None for key in keys):
        return held.own_key not in keys
    if any(isinstance(pick.slice, ast.Slice) for pick in held.picks):
        return len(held.picks) == 1
    return taken < put


def _chooser(source: Source, pick: ast.Subscript) -> ast.expr:
    """The test of the comprehension, or what the loop goes over, that the index comes from; else the pick
    itself."""
    index = {node.id for node in ast.walk(pick.slice) if isinstance(node, ast.Name)}
    for parent in ancestors(source, pick):
        loops = getattr(parent, "generators", [parent])
        for loop in loops:
            if isinstance(loop, ast.For | ast.comprehension) and index & {
                node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)
            }:
                tests = getattr(loop, "ifs", [])
                return tests[0] if tests else loop.iter
    return pick


def _of_one_module(context: Context, source: Source, function: Function) -> Counts | None:
    """How often the parts of a function ran, where all was counted and on one module alone; of what runs
    inside it, such as a generator, the module is not known."""
    here = [one for one in context.ran if absolute(one.file) == source.file]
    ran = tuple(one for one in here if is_inside(one, function))
    if not all(one.whole for one in ran) or len({one.module for one in ran} - {None}) > 1:
        return None
    return together(ran)
