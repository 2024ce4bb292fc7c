"""`t.grad` is None where the program reads it: for one of six reasons, each with its own line and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from fxgrad.passes.analyses.death.absent import GRADIENT, NoGradient, is_of_none, symptom
from fxgrad.passes.analyses.death.leaves import computed_name, parts_of
from fxgrad.passes.analyses.death.record import Death, look_up, raising_text
from fxgrad.passes.ended import Cause
from fxgrad.passes.findings import line_of, listed, source_of
from fxgrad.records import Facts, Finding, Site
from fxgrad.source.assigned import assigned_names, names_read, next_backward

_ZEROING = re.compile(r"\.grad(\.data)?\.(zero_|fill_)\b")


def frozen(death: Death) -> Iterator[Cause]:
    """It does not require grad."""
    none = _none(death, "frozen")
    if none is not None:
        yield Cause(
            f"`{none.name}.grad` is None: `{none.name}` does not require grad",
            death.site,
            f"make it a leaf that does: `{none.name}.requires_grad_()`",
        )


def at_the_wrong_time(death: Death) -> Iterator[Cause]:
    """It is asked for before there is one, or after it was dropped."""
    early, late, site = _none(death, "no backward"), _none(death, "cleared"), death.site
    if early is not None:
        what = f"`{early.name}.grad` is None: no backward has run yet"
        yield Cause(what, site, _after_backward(early.name, site))
    if late is not None:
        line = line_of(death.ended.cleared, site)
        yield Cause(
            f"`{late.name}.grad` is None: it was dropped{line} after the last backward",
            site,
            f"use the gradient before it is cleared: move this above{line}",
        )


def blamed(death: Death) -> tuple[str, Finding] | None:
    """What no backward went through, and the finding that says why."""
    none = _none(death, "unreached")
    errors = (f for f in death.found if f.severity == "error" and f.site is not None)
    cause = next((f for f in errors if none.name in f.parameters), None) if none is not None else None
    return (none.name, cause) if none is not None and cause is not None else None


def unreached(death: Death) -> Iterator[Cause]:
    """No backward went through it, and nothing says why."""
    none = _none(death, "unreached")
    if none is not None and blamed(death) is None:
        yield Cause(
            f"`{none.name}.grad` is None: no backward so far went through `{none.name}`",
            death.site,
            "mend what keeps it from the loss, or skip parameters without a gradient",
            (none.name,),
        )


def no_leaf(death: Death) -> Iterator[Cause]:
    """An operation made it, so it never had a `.grad`."""
    none = _none(death, "no leaf")
    if none is not None and not any(computed(death)):
        yield _no_leaf(death, none)


def computed(death: Death) -> Iterator[Cause]:
    """A module computes it each time it runs, or it is read: what that computes it from has the gradient."""
    if not is_of_none(death.error):
        return
    none = _none(death, "no leaf")
    known = computed_name(death, none.tensor) if none is not None else None
    if known is not None:
        yield _of_computed(death, *known)
        return
    text, namespace = raising_text(death.error)
    for match in GRADIENT.finditer(text):
        base, _, name = match.group(1).rpartition(".")
        owner = look_up(base, namespace)
        leaves = parts_of(owner, f"{base}.{name}") if isinstance(owner, nn.Module) else []
        if leaves:
            yield _of_computed(death, f"{base}.{name}", leaves)
            return


def _of_computed(death: Death, name: str, leaves: list[str]) -> Cause:
    when = (
        "each time it is read" if any(".parametrizations." in leaf for leaf in leaves) else "in every forward"
    )
    return Cause(
        f"`{name}.grad` is None: `{name}` is computed {when}, from {listed(leaves)}, and backward leaves "
        "gradients on leaves alone",
        death.site,
        f"read `{leaves[0]}.grad`" if len(leaves) == 1 else "read the `.grad` of these",
    )


def _none(death: Death, why: str) -> NoGradient | None:
    """What has no gradient, where that is the reason."""
    none = symptom(death)
    return none if isinstance(none, NoGradient) and none.why(death) == why else None


def _after_backward(name: str, site: Site | None) -> str:
    """What to do about a gradient that is asked for before the first backward."""
    if _ZEROING.search(source_of(site)):
        return (
            f"guard the first time: `if {name}.grad is not None:`, or let an optimizer's `zero_grad()` do it"
        )
    later = next_backward(site) if site is not None else None
    below = (
        f"below `{source_of(later)}`{line_of(later, site)}"
        if later is not None
        else "below the backward of this step"
    )
    return (
        f"move this {below}: only then is there a gradient, and `zero_grad()` drops it again before the next"
    )


def _no_leaf(death: Death, none: NoGradient) -> Cause:
    """An update that lost the leaf, or a leaf made too early."""
    name, facts, known = none.name, death.facts, death.known(none.tensor)
    value, site = known.value if known is not None else -1, death.site
    maker = facts.maker_of.get(value)
    made = maker.site if maker is not None else None
    text = source_of(made)
    what = f"`{text}` made" if text else "an operation made"
    if made is not None and any(
        read.endswith(".grad") or read == f"{name}.grad" for read in names_read(made)
    ):
        return Cause(
            f"`{name}` is no leaf any more: {what} a new tensor, and backward leaves its gradient on the old "
            "one",
            made,
            f"update in place, with gradients off: `with torch.no_grad(): {name} -= lr * {name}.grad`; "
            f"or make a leaf of it again: `{name} = {name}.detach().requires_grad_()`",
        )
    leaf = _leaf_behind(facts, value)
    other = f"read `{leaf}.grad`, " if leaf and leaf != name else ""
    return Cause(
        f"`{name}` is no leaf: {what} it, and backward leaves gradients on leaves alone"
        + (f", here on `{leaf}`" if other else ""),
        made or site,
        f"{other}{'or ' if other else ''}make the leaf last, `{name} = {name}.detach().requires_grad_()` "
        "behind this line, "
        f"or call `{name}.retain_grad()` before the backward",
    )


def _leaf_behind(facts: Facts, value: int) -> str:
    """What the user calls the one leaf that a value was computed from, where a line of a script or function
    made it, or made it a leaf by its flag, and nothing else was."""
    pending, seen, leaves = [value], {value}, set()
    while pending:
        current = pending.pop()
        node = facts.maker_of.get(current)
        if facts.values[current].is_leaf:
            leaves.add(current)
        for flow in node.flows if node is not None else ():
            if flow.open and flow.target == current and flow.source not in seen:
                seen.add(flow.source)
                pending.append(flow.source)
    makers = [facts.maker_of.get(leaf) for leaf in leaves]
    names = [
        names[0]
        for node in makers
        if node is not None and node.site is not None and (names := assigned_names(node.site))
    ]
    return names[0].removesuffix(".requires_grad") if len(leaves) == len(names) == 1 else ""
