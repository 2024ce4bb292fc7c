"""A layer runs in forward and is invisible to `parameters()`: it sits in a plain list, tuple, dict or object,
or is made in forward.

What it finds
    Layers that forward really calls and the model does not register: kept in a plain list, tuple or dict, in
    an object that is no nn.Module, in a closure or a global; and layers built anew in every forward. One
    finding per line that builds them, with all their parameters. Where none of them requires grad or gets a
    gradient (a frozen perceptual network, a teacher), and where the text hides a given module on purpose
    (`self.critic = [critic]`), it is a note.

Why it matters
    A gradient arrives and no optimizer ever uses it: the layers keep their random start. `model.to(device)`,
    `state_dict()` and `train()` pass them by as well.

Example
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(4, 4) for _ in range(3)]  # FXG110

Instead
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

When the fix is safe
    nn.ModuleList and nn.ModuleDict hold the same layers and are read the same way; the state dict gains keys,
    so older checkpoints lack them. The optimizer must be built after.

Not handled
    Layers that a plain function passed as the model keeps in a list of its own, and layers reached only
    through another module's globals.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from torch import nn

from fxgrad.passes.analyses.made_in_forward import made_in_forward
from fxgrad.passes.analyses.unregistered import (
    by_line,
    hides_on_purpose,
    holders,
    in_layer,
    is_optimized,
    is_variable,
    owner_of,
    qualified,
)
from fxgrad.passes.context import Context
from fxgrad.passes.findings import plural, subject
from fxgrad.records import External, Facts, Finding, Fix, Site, Step

CODE = "FXG110"
NAME = "unregistered-module"
SEVERITY = "error"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that builds what holds unregistered layers, one per line that makes a layer during
    the forward."""
    layers = [
        e for e in facts.externals if e.owner is not None and in_layer(e) and not is_optimized(context, e)
    ]
    for site, members in by_line(context, layers):
        yield _finding(context, facts, site, members)
    for made in made_in_forward(facts, directly=False):
        yield Finding(
            CODE,
            NAME,
            "error" if made.phase == "forward" else "warning",
            f"a layer is made anew in every {'forward' if made.phase == 'forward' else 'loss'}: "
            f"its {made.count} parameter{'s' if made.count != 1 else ''} start at random each time and no "
            "optimizer holds them"
            + (
                f"; those of {subject(made.names)}, whose place it takes, get no gradient"
                if made.names
                else ""
            ),
            made.site,
            made.names,
            (Step("loss"), Step("layer", made.site, True)),
            Fix("make the layer once, in __init__, as an attribute of the module"),
        )


def _finding(context: Context, facts: Facts, site: Site | None, members: list[External]) -> Finding:
    trained = [e for e in members if e.requires_grad and e.value in facts.live]
    names = tuple(dict.fromkeys(qualified(e) for e in trained or members))
    kind, advice = _kind(context, members[0])
    return Finding(
        CODE,
        NAME,
        "error" if trained and not hides_on_purpose(site) else "note",
        (
            f"{holders(members)} {kind}: {plural(names)} of it take part in forward, and parameters() does "
            "not "
            "list "
        )
        + ("it" if len(names) == 1 else "them"),
        site,
        names,
        (Step("loss"), Step(names[0])),
        Fix(advice),
    )


def _kind(context: Context, member: External) -> tuple[str, str]:
    """What the layers sit in, and what to put them in instead."""
    holder = getattr(owner_of(context, member), member.attribute, None)
    if is_variable(context, member):
        return (
            "is a variable outside the module",
            "assign the layer to an attribute of the module in __init__",
        )
    if isinstance(holder, dict):
        return "is a plain dict", "put the layers in nn.ModuleDict"
    for kind in (list, tuple):
        if isinstance(holder, kind):
            return f"is a plain {kind.__name__}", "put the layers in nn.ModuleList or nn.Sequential"
    if isinstance(holder, nn.Module):
        return (
            "is an attribute of the class, shared by all its objects",
            "assign the layer to an attribute of the module in __init__",
        )
    if hasattr(holder, "__code__") or isinstance(holder, functools.partial):
        return (
            "is a function that keeps layers of its own",
            "make the function an nn.Module that owns its layers",
        )
    return (
        f"is of class {type(holder).__name__}, which is no nn.Module",
        f"let {type(holder).__name__} inherit from nn.Module",
    )
