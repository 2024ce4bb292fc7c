"""Things done in the wrong order in a training step: a step before its backward, gradients cleared between
backward and step.

Definitions:
 1. A step comes *too early* for a backward if that backward goes back through a value that was computed
    before the step from a parameter the step's optimizer holds. Where torch can tell (a saved weight changed)
    the backward raises and FXG205 names both lines from there; this finds it where torch cannot.
 2. Gradients were *cleared* for a step if a backward had left some, none is left as the step begins, and
    something dropped them between.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator
from dataclasses import replace
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
    for backward in observer.backwards:
        if backward.failed or backward.partial:
            continue
        for taken in observer.taken:
            used = _used_before(facts, backward, taken.note, taken.leaves)
            if used is not None:
                nothing = "some" not in taken.states
                yield _finding(
                    backward, used, _site(taken), "step", cleared if nothing else (), nothing=nothing
                )
        for node in facts.nodes:
            leaves = frozenset() if node.module or node.target == "Tensor.__set__" else _written(facts, node)
            used = _used_before(facts, backward, int(node.name[1:]), leaves) if leaves else None
            if used is not None:
                yield _finding(backward, used, node.site, "write", (), nothing=False)


def _written(facts: Facts, node: NodeFact) -> frozenset[int]:
    """The edges of the leaves that a call rewrote."""
    if not node.writes:
        return frozenset()
    return frozenset(
        edge for v in node.makes if facts.values[v].is_leaf and (edge := facts.values[v].grad) is not None
    )


def _used_before(facts: Facts, backward: Backward, number: int, leaves: frozenset[int]) -> NodeFact | None:
    """Definition 1: the first call before note `number` whose result the backward goes back through."""
    if number > backward.note:
        return None
    for node in facts.nodes:
        if int(node.name[1:]) >= number:
            return None
        for flow in node.flows:
            leaf, made = facts.values[flow.source].grad, facts.values[flow.target]
            if flow.open and leaf in leaves and flow.target in backward.live and not made.is_leaf:
                return node
    return None


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
