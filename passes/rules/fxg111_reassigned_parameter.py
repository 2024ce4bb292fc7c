"""A parameter is replaced while the model runs: through `.data`, by `copy_`, by a new `nn.Parameter`, by a
plain tensor, by None.

What it finds
    - A computed value stored into a parameter as plain numbers (`p.data = t`, `p.copy_(t)` under no_grad,
      `vector_to_parameters`, `load_state_dict`), where that is the only way from other parameters to the
      loss.
    - `self.weight = nn.Parameter(...)` in forward: a new object in every call, while the optimizer keeps the
      first.
    - In a watched script `.grad` of a tensor that is no leaf: an update by hand that made a new tensor, or a
      leaf that was cast or clamped after it was made.
    - A plain tensor assigned to a Parameter's name, which torch refuses, and a Parameter set to None that a
      layer still needs.

Why it matters
    What generated the weights gets no gradient; the replaced Parameter gets none either, so the optimizer
    trains a tensor nobody uses.

Example
    def forward(self, x, context):
        self.target.weight.data = self.generate(context).view(2, 4)  # FXG111: `generate` never trains
        return self.target(x)

Instead
    def forward(self, x, context):
        weight = self.generate(context).view(2, 4)
        return torch.func.functional_call(self.target, {"weight": weight}, (x,))

When the fix is safe
    Never applied by itself. A moving average of other weights is rightly stored this way: what it averages
    gets its gradient elsewhere, and then nothing is reported.

Not handled
    A replacement between the forward and the optimizer's step (FXG302 sees what the optimizer holds), and a
    new Parameter that travels through a variable before it is assigned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from fxgrad.passes.analyses.causes import is_starved
from fxgrad.passes.analyses.stored_parameters import emptied, replaced, storages
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, said, starved, subject
from fxgrad.records import Facts, Finding, Fix, NodeFact, Site, Step
from fxgrad.torch_api.errors import assigned_parameter

CODE = "FXG111"
NAME = "reassigned-parameter"
SEVERITY = "error"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """Cuts where a computed value is stored into a parameter, parameters made anew, and the assignments torch
    refuses."""
    told: set[Site | None] = set()
    for group in cut_groups(context, facts, CODE):
        node, parameters, _ = group
        told.add(node.site)
        yield finding(context, facts, (CODE, NAME), group, _message(facts, node, parameters), ADVICE)
    yield from _made_anew(facts, told)
    yield from _refused(facts, context)


ADVICE = (
    "use the computed tensor itself (F.linear(x, w), torch.func.functional_call) instead of storing it "
    "in a parameter"
)


def _message(facts: Facts, node: NodeFact, parameters: tuple[str, ...]) -> str:
    how = {"Tensor.__set__": "`.data = ...` stores", "torch.nn.Parameter": "`nn.Parameter(...)` copies"}
    what = how.get(node.target.partition(",")[0], f"{said(node)} writes")
    owned = storages(facts)
    where = (
        "a parameter"
        if node.kind == "leaf" or any(facts.values[v].storage in owned for v in node.makes)
        else "another tensor"
    )
    return (
        f"{what} the numbers of a computed tensor into {where}, not its history: {starved(parameters)} "
        f"({subject(parameters)})"
    )


def _made_anew(facts: Facts, told: set[Site | None]) -> Iterator[Finding]:
    """A registered parameter whose place a new one takes in every forward."""
    for site, names in _replacements(facts, told).items():
        which = f"`{names[0]}` is" if len(set(names)) == 1 else f"{len(set(names)) or 'some'} parameters are"
        yield Finding(
            CODE,
            NAME,
            "error",
            f"{which} replaced by a new Parameter in every forward: the optimizer keeps the old one, which "
            "never gets a gradient",
            site,
            tuple(dict.fromkeys(names)),
            (Step("loss"), Step("Parameter", site, True)),
            Fix(
                "keep the Parameter made in __init__ and give the computed tensor a name of its own (a "
                "local "
                "variable)"
            ),
        )


def _replacements(facts: Facts, told: set[Site | None]) -> dict[Site | None, list[str]]:
    """By line, the starved parameters whose place a new one takes there."""
    groups: dict[Site | None, list[str]] = {}
    starving = {name for p in facts.parameters if is_starved(facts, p) for name in p.names}
    for node in facts.nodes:
        if node.kind != "leaf" or node.target != "torch.nn.Parameter" or node.site in told:
            continue
        taken = replaced(facts, node) if not facts.live.isdisjoint(node.makes) else None
        if taken is not None:
            groups.setdefault(node.site, []).extend(name for name in taken if name in starving)
    return groups


def _refused(facts: Facts, context: Context) -> Iterator[Finding]:
    error = facts.error
    if error is None or error.phase == "backward":
        return
    name = assigned_parameter(error.message)
    if name is not None:
        owner = next((n.module for n in reversed(facts.nodes) if n.module), "")
        names = [n for p in facts.parameters for n in p.names]
        full = f"{owner}.{name}" if owner else name
        yield Finding(
            CODE,
            NAME,
            "error",
            f"the parameter `{full if full in names else name}` is overwritten by a plain tensor in forward, "
            "which torch refuses",
            error.site,
            (full,) if full in names else tuple(n for n in names if n.rpartition(".")[2] == name),
            (),
            Fix("keep the Parameter and give the computed tensor a name of its own (a local variable)"),
        )
    if "NoneType" in error.message:
        for site, name in emptied(context):
            yield dataclasses.replace(
                Finding(CODE, NAME, "error", f"`{name}` was set to None, and a layer still needs it", site),
                fix=Fix(
                    "keep the parameter: freeze it with requires_grad_(False), or replace the layer that "
                    "reads it"
                ),
            )
