"""`t.grad` is None where the program reads it: for one of five reasons, each with its own line and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import torch

from fxgrad.passes.findings import line_of, source_of
from fxgrad.records import Facts, Finding, Site
from fxgrad.source.assigned import assigned_names, names_read, next_backward
from fxgrad.source.sites import site_of
from fxgrad.watching.death.record import Death, finding

UNUSED = ("FXG101", "unused-parameter")
_ZEROING = re.compile(r"\.grad(\.data)?\.(zero_|fill_)\b")


def of_attribute(death: Death, name: str, tensor: torch.Tensor) -> Iterator[Finding]:
    """Why `name.grad` is None."""
    site, observer = death.site, death.observer
    slot = death.ledger.tensors.get(tensor)
    if tensor.requires_grad and not tensor.is_leaf:
        yield _no_leaf(name, slot.value if slot is not None else -1, site, death.facts)
    elif not tensor.requires_grad:
        yield finding(
            ("FXG102", "frozen-parameter"),
            f"`{name}.grad` is None: `{name}` does not require grad",
            site,
            f"make it a leaf that does: `{name}.requires_grad_()`",
        )
    elif not observer.backwards:
        yield finding(
            ("FXG205", "step-before-backward"),
            f"`{name}.grad` is None: no backward has run yet",
            site,
            _after_backward(name, site),
        )
    elif slot is not None and not slot.after:
        cause = next(
            (f for f in death.found if f.severity == "error" and f.site is not None and name in f.parameters),
            None,
        )
        if cause is not None:
            yield replace(
                cause, message=f"{cause.message}; so `{name}.grad`{line_of(site, cause.site)} is None"
            )
            return
        yield finding(
            UNUSED,
            f"`{name}.grad` is None: no backward so far went through `{name}`",
            site,
            "mend what keeps it from the loss, or skip parameters without a gradient",
            (name,),
        )
    elif observer.cleared:
        cleared = site_of(observer.cleared[0])
        yield finding(
            ("FXG205", "step-before-backward"),
            f"`{name}.grad` is None: it was dropped{line_of(cleared, site)} after the last backward",
            site,
            f"use the gradient before it is cleared: move this above{line_of(cleared, site)}",
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


def _no_leaf(name: str, value: int, site: Site | None, facts: Facts) -> Finding:
    """Of a tensor that an operation made, which never had a `.grad`: an update that lost the leaf, or a leaf
    made too early."""
    maker = facts.maker_of.get(value)
    made = maker.site if maker is not None else None
    text = source_of(made)
    what = f"`{text}` made" if text else "an operation made"
    if made is not None and any(
        read.endswith(".grad") or read == f"{name}.grad" for read in names_read(made)
    ):
        return finding(
            ("FXG111", "reassigned-parameter"),
            f"`{name}` is no leaf any more: {what} a new tensor, and backward leaves its gradient on the old "
            "one",
            made,
            f"update in place, with gradients off: `with torch.no_grad(): {name} -= lr * {name}.grad`; "
            f"or make a leaf of it again: `{name} = {name}.detach().requires_grad_()`",
        )
    leaf = _leaf_behind(facts, value)
    other = f"read `{leaf}.grad`, " if leaf and leaf != name else ""
    return finding(
        ("FXG111", "reassigned-parameter"),
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
