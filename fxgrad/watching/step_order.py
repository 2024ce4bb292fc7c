"""Things done in the wrong order in a training step: a step before its backward, gradients cleared between
backward and step.

Definitions:
 1. A step comes *too early* for a backward if that backward goes back through a value that was computed
    before the step from a parameter the step's optimizer holds. Where torch can tell (a saved weight changed)
    the backward raises and FXG205 names both lines from there; this finds it where torch cannot.
    What a module keeps that was computed once is no such value: no step can come before it (FXG109 says so).
 2. Gradients were *cleared* for a step if a backward had left some, none is left as the step begins, and
    something dropped them between.
"""

from __future__ import annotations

import itertools
import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from types import CodeType

from fxgrad.passes.findings import line_of
from fxgrad.records import Facts, Finding, Fix, NodeFact, Site, Step
from fxgrad.source.sites import site_of
from fxgrad.trace.notes import Backward, Taken
from fxgrad.trace.observer import Observer

EARLY = ("FXG205", "step-before-backward")
IDLE = ("FXG303", "optimizer-idle-parameter")


def check(facts: Facts, observer: Observer, cleared: tuple[str, ...]) -> Iterator[Finding]:
    """At most one finding per line. `cleared`: the parameters whose gradients were gone as a step began."""
    early = list(_early(facts, observer, cleared))
    # Of a step that comes before its backward it goes without saying that gradients are cleared between.
    others = (
        []
        if any(finding.severity == "error" for finding in early)
        else [*_cleared(observer, cleared), *_never(observer)]
    )
    seen: set[Site | None] = set()
    for finding in (*early, *others):
        if finding.site not in seen:
            seen.add(finding.site)
            yield finding


def _cleared(observer: Observer, names: tuple[str, ...]) -> Iterator[Finding]:
    for taken in observer.taken:
        if "some" in taken.states or not taken.cleared or not taken.had:
            continue
        site = site_of(taken.cleared[0])
        step = _site(taken)
        yield Finding(
            *IDLE,
            "error",
            f"gradients are cleared here, after backward{line_of(_last(observer, taken), site)} and before "
            f"the step{line_of(step, site)}: "
            f"the step changes nothing",
            site,
            names,
            (Step("step", step), Step("zero_grad", site, True), Step("backward", _last(observer, taken))),
            Fix("call zero_grad() before backward, or after the step"),
        )


def _early(facts: Facts, observer: Observer, cleared: tuple[str, ...]) -> Iterator[Finding]:
    changes = [*_steps(observer), *_writes(facts)]
    of_leaf: dict[int, list[tuple[int, int]]] = {}  # by leaf edge: (note, position in `changes`)
    for place, change in enumerate(changes):
        for leaf in change.leaves:
            of_leaf.setdefault(leaf, []).append((change.note, place))
    if not of_leaf:
        return
    for noted in of_leaf.values():
        noted.sort()
    uses = _uses(facts, of_leaf)
    said: set[tuple[Site | None, bool]] = set()
    for backward in observer.backwards:
        if backward.failed or backward.partial:
            continue
        for place, used in sorted(_between(facts, backward, uses, of_leaf).items()):
            change = changes[place]
            if (change.site, change.nothing) in said:
                continue
            said.add((change.site, change.nothing))
            node = facts.node_named[f"n{used}"]
            names = cleared if change.nothing else ()
            yield _finding(backward, node, change.site, change.what, names, nothing=change.nothing)


@dataclass(frozen=True, slots=True)
class _Change:
    """Leaves are other values from note `note` on. `nothing`: a step that had no gradients to use."""

    note: int
    leaves: frozenset[int]
    what: str
    site: Site | None
    nothing: bool = False


def _steps(observer: Observer) -> Iterator[_Change]:
    for taken in observer.taken:
        # `taken.note` is the last call before it, which may be the one that uses a leaf.
        yield _Change(taken.note + 1, taken.leaves, "step", _site(taken), nothing="some" not in taken.states)


def _writes(facts: Facts) -> Iterator[_Change]:
    """The calls outside of modules that rewrote leaves."""
    for node in facts.nodes:
        if not node.writes or node.module or node.target == "Tensor.__set__":
            continue
        made = [facts.values[v] for v in node.makes]
        leaves = frozenset(value.grad for value in made if value.is_leaf and value.grad is not None)
        if leaves:
            yield _Change(_number(node), leaves, "write", node.site)


def _uses(facts: Facts, leaves: Collection[int]) -> dict[int, list[tuple[int, int]]]:
    """By value, from which of these leaves it was computed, and by which call (its number)."""
    found: dict[int, list[tuple[int, int]]] = {}
    once = _computed_once(facts)
    for node in facts.nodes:
        for flow in node.flows:
            leaf = facts.values[flow.source].grad
            if leaf is None or leaf not in leaves or not flow.open or flow.target in once:
                continue
            if not facts.values[flow.target].is_leaf:
                found.setdefault(flow.target, []).append((leaf, _number(node)))
    return found


def _computed_once(facts: Facts) -> set[int]:
    """What a module keeps that was computed before the first forward, and the values on the way to it."""
    found = {external.value for external in facts.externals if not external.is_leaf}
    if found:
        for node in reversed(facts.nodes):
            found.update(flow.source for flow in node.flows if flow.target in found)
    return found


def _between(
    facts: Facts,
    backward: Backward,
    uses: Mapping[int, list[tuple[int, int]]],
    changes: Mapping[int, list[tuple[int, int]]],
) -> dict[int, int]:
    """Definition 1: by its position, every change between the first call that this backward goes back through
    and the backward; with the number of that call."""
    first: dict[int, int] = {}
    for value in backward.live:
        for leaf, number in uses.get(value, ()):
            first[leaf] = min(number, first.get(leaf, number))
    found: dict[int, int] = {}
    for leaf, number in first.items():
        begun = bisect_right(changes[leaf], number, key=itemgetter(0))
        end = bisect_right(changes[leaf], backward.note, key=itemgetter(0))
        for _, place in changes[leaf][begun:end]:
            found[place] = min(number, found.get(place, number))
    return found


def _number(node: NodeFact) -> int:
    return int(node.name[1:])


def _finding(
    backward: Backward, used: NodeFact, site: Site | None, what: str, names: tuple[str, ...], *, nothing: bool
) -> Finding:
    there = site_of(backward.spots[0]) if backward.spots else None
    return Finding(
        *EARLY,
        "error" if nothing else "warning",
        (
            f"this {what} runs between a forward{line_of(used.site, site)} and its "
            f"backward{line_of(there, site)}: "
        )
        + (
            "it has no gradients to use"
            if nothing
            else "the gradients belong to weights that are no longer there"
        ),
        site,
        names,
        (Step("backward", there), Step(what, site, True), Step("forward", used.site)),
        Fix(f"call backward first, then {what}"),
    )


def harms(finding: Finding, facts: Facts) -> bool:
    """Whether a write through `.data` is a hazard in a training loop: inside a model it is; an initialisation
    or clipping is none."""
    return finding.severity == "error" or any(
        node.module for node in facts.nodes if node.site == finding.site
    )


def in_closure(finding: Finding, facts: Facts, closures: Collection[CodeType]) -> Finding:
    """Gradients that are off where an optimizer's step calls the closure it was given: that call is to blame,
    not the closure."""
    if finding.code != "FXG104":
        return finding
    given = {(os.path.abspath(code.co_filename), code.co_qualname) for code in closures}
    lines = {step.site for step in finding.path}
    for node in facts.nodes:
        if node.site not in lines or node.grad_enabled:
            continue
        for inner, outer in itertools.pairwise(node.stack):
            if (inner.file, inner.function) in given:
                return replace(
                    finding,
                    message="the optimizer's step calls its closure where gradients are "
                    f"off{line_of(finding.site, outer)}: {finding.message}",
                    site=outer,
                    fix=Fix(
                        "switch them on for the closure alone: `with torch.enable_grad(): loss = closure()`"
                    ),
                )
    return finding


def _never(observer: Observer) -> Iterator[Finding]:
    if observer.backwards or not observer.taken:
        return
    yield Finding(
        *EARLY,
        "error",
        "the optimizer steps and no backward has run: nothing has a gradient",
        _site(observer.taken[0]),
        (),
        (),
        Fix("call `loss.backward()` before the step"),
    )


def _site(taken: Taken) -> Site | None:
    return site_of(taken.spots[0]) if taken.spots else None


def _last(observer: Observer, taken: Taken) -> Site | None:
    """The last backward before a step."""
    earlier = [b for b in observer.backwards if b.note < taken.note and b.spots]
    return site_of(earlier[-1].spots[0]) if earlier else None
