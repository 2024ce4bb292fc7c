"""`t.grad` is None where the program reads it: for one of five reasons, each with its own line and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch

from fxgrad.passes.analyses.death.record import Death
from fxgrad.passes.ended import Cause
from fxgrad.passes.findings import line_of, source_of
from fxgrad.records import Facts, Finding, Site
from fxgrad.source.assigned import assigned_names, names_read, next_backward

_ZEROING = re.compile(r"\.grad(\.data)?\.(zero_|fill_)\b")


@dataclass(frozen=True, slots=True)
class NoGradient:
    """`name.grad` is None."""

    name: str
    tensor: torch.Tensor

    def why(self, death: Death) -> Literal["no leaf", "frozen", "no backward", "unreached", "cleared", ""]:
        """The reason; "" where none is known."""
        known = death.known(self.tensor)
        if self.tensor.requires_grad and not self.tensor.is_leaf:
            return "no leaf"
        if not self.tensor.requires_grad:
            return "frozen"
        if not death.walks:
            return "no backward"
        if known is not None and not known.after:
            return "unreached"
        return "cleared" if death.ended.cleared is not None else ""


def frozen(death: Death, name: str) -> Cause:
    """It does not require grad."""
    return Cause(
        f"`{name}.grad` is None: `{name}` does not require grad",
        death.site,
        f"make it a leaf that does: `{name}.requires_grad_()`",
    )


def no_backward(death: Death, name: str) -> Cause:
    """It is asked for too early."""
    site = death.site
    return Cause(f"`{name}.grad` is None: no backward has run yet", site, _after_backward(name, site))


def cleared(death: Death, name: str) -> Cause:
    """It is asked for too late."""
    site, line = death.site, line_of(death.ended.cleared, death.site)
    return Cause(
        f"`{name}.grad` is None: it was dropped{line} after the last backward",
        site,
        f"use the gradient before it is cleared: move this above{line}",
    )


def blamed(name: str, found: Iterable[Finding]) -> Finding | None:
    """The finding that says why no backward went through it."""
    errors = (f for f in found if f.severity == "error" and f.site is not None)
    return next((f for f in errors if name in f.parameters), None)


def unreached(death: Death, name: str) -> Cause:
    """No backward went through it, and nothing says why."""
    return Cause(
        f"`{name}.grad` is None: no backward so far went through `{name}`",
        death.site,
        "mend what keeps it from the loss, or skip parameters without a gradient",
        (name,),
    )


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


def no_leaf(death: Death, none: NoGradient) -> Cause:
    """An operation made it, so it never had a `.grad`: an update that lost the leaf, or a leaf made too
    early."""
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
    made it and nothing else was."""
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
    return names[0] if len(leaves) == len(names) == 1 else ""
