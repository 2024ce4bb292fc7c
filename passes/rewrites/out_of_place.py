"""In-place writes made out of place: what must be, or all of it, on any `torch.fx.GraphModule`.

`rewrite` returns a new module that shares the old one's parameters, with a list of what was rewritten and of
what was not and why. `needed` rewrites what breaks backward or falsifies a gradient: for each tensor saved
for backward the first write after it, or, where that copies less, the saving; nothing else changes.
`everything` leaves only what the caller must see, as `copy_`. `OutOfPlace` is the same as a pass:
`OutOfPlace(inputs)(graph_module)` is a `PassResult`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.fx
from torch.fx.passes.infra.pass_base import PassResult

from fxgrad.passes.analyses.aliases import Aliases, Save
from fxgrad.passes.rewrites import data_writes, plans
from fxgrad.passes.rewrites.look import observe
from fxgrad.passes.rewrites.ops import sibling
from fxgrad.passes.rewrites.plans import Applied, Plan, Refused
from fxgrad.passes.rewrites.walk import Walk
from fxgrad.records.errors import InputError
from fxgrad.torch_api.graph_modules import set_graph

Mode = Literal["needed", "all"]
_ROUNDS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Rewriting:
    """The new module, what was rewritten, what was to be and was not.

    `found`: the saves that backward found overwritten before, `hazards`: those it still would. `exposed`:
    nodes that read `.data` and are gone, `reference`: the module without them, not yet rewritten.
    """

    graph_module: torch.fx.GraphModule
    applied: tuple[Applied, ...]
    refused: tuple[Refused, ...]
    hazards: tuple[Save, ...] = ()
    found: tuple[Save, ...] = ()
    exposed: tuple[str, ...] = ()
    reference: torch.fx.GraphModule | None = None


class OutOfPlace:
    """The rewrite as a pass. `inputs`: examples, one per placeholder, tensors or not; None: fake ones from
    `node.meta["val"]`."""

    def __init__(self, inputs: Sequence[Any] | None = None, *, mode: Mode = "needed") -> None:
        self.inputs = inputs
        self.mode = mode

    def __call__(self, graph_module: torch.fx.GraphModule) -> PassResult:
        inputs, fake = (self.inputs, None) if self.inputs is not None else _from_meta(graph_module)
        made = rewrite(graph_module, inputs, mode=self.mode, fake=fake)
        return PassResult(made.graph_module, bool(made.applied or made.exposed))


def _from_meta(graph_module: torch.fx.GraphModule) -> tuple[Sequence[torch.Tensor], object]:
    found = [
        n.meta.get("val", n.meta.get("example_value"))
        for n in graph_module.graph.nodes
        if n.op == "placeholder"
    ]
    if not all(isinstance(v, torch.Tensor) for v in found):
        raise InputError(
            "OutOfPlace needs example inputs", hint="pass them, or set node.meta['val'] of every placeholder"
        )
    return found, next((m for v in found if (m := getattr(v, "fake_mode", None)) is not None), None)


def rewrite(
    graph_module: torch.fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    *,
    mode: Mode = "needed",
    fake: Any = None,
    allow: bool = False,
    careful: bool = False,
) -> Rewriting:
    """Rewrite in-place writes. `inputs`: one tensor per placeholder; `fake`: a FakeTensorMode to look on
    instead of real values.

    `allow`: the graph makes writes that autograd refuses; they are rewritten too. `careful`: only forms that
    run the very operators of the graph, on copies.

    Raises:
        Exception: whatever running the graph on `inputs` raises.
    """
    aliases = observe(graph_module, inputs, fake=fake, allow=allow)
    graph_module, exposed = data_writes.expose(graph_module, aliases)
    if exposed:
        aliases = observe(graph_module, inputs, fake=fake, allow=allow)
    plan = (plans.everything if mode == "all" else plans.needed)(graph_module, aliases, allow=allow)
    plan = replace(plan, careful=careful)
    made = _walked(graph_module, aliases, plan)
    # What was refused stays in place in either mode; what it overwrites is then copied when it is saved.
    better = plans.cheaper(aliases, plan, made.applied if mode == "needed" else (), made.refused)
    if better is not plan:
        plan, made = better, _walked(graph_module, aliases, better)
    if made.applied:
        made = _checked(graph_module, inputs, aliases, plan, made, fake)
    else:
        made = Rewriting(graph_module, (), made.refused, aliases.hazards)
    return replace(made, found=aliases.hazards, exposed=exposed, reference=graph_module)


def _walked(graph_module: torch.fx.GraphModule, aliases: Aliases, plan: Plan) -> Rewriting:
    made = sibling(graph_module)
    walk = Walk(graph_module, made, aliases, plan)
    set_graph(made, walk.run())
    made.graph.lint()
    made.meta["fxgrad.names"] = walk.names
    return Rewriting(made, tuple(walk.applied), tuple(walk.refused))


def _checked(
    before: torch.fx.GraphModule,
    inputs: Sequence[torch.Tensor],
    aliases: Aliases,
    plan: Plan,
    made: Rewriting,
    fake: object,
) -> Rewriting:
    """The rewriting, looked at as the old graph was, and done again with what that shows to be missing."""
    for _ in range(_ROUNDS):
        try:
            after = observe(made.graph_module, inputs, fake=fake)
        except Exception:  # whatever it raises, the new graph does not run: only copies are left
            if plan.careful:
                return made
            plan = replace(plan, careful=True)
        else:
            made = replace(made, hazards=after.hazards)
            better = _improved(aliases, after, plan, made)
            if better is None:
                return made
            plan = better
        made = _walked(before, aliases, plan)
    return made


def _improved(before: Aliases, after: Aliases, plan: Plan, made: Rewriting) -> Plan | None:
    """A plan with copies of results that now share memory, and with writes that a part's new memory has left
    to be the first."""
    names: Mapping[str, str] = made.graph_module.meta["fxgrad.names"]
    old_names = {new: old for old, new in names.items()}
    shared = (
        frozenset(old for old, new in names.items() if _newly_shared(before, after, old, new)) - plan.fresh
    )
    writers = {old_names.get(save.overwriter or "") for save in after.hazards}
    missed = (
        frozenset(w for w in writers if w is not None and before.external.isdisjoint(before.nodes[w].writes))
        - plan.convert
    )
    if not shared and not missed:
        return None
    return replace(plan, fresh=plan.fresh | shared, convert=plan.convert | missed)


def _newly_shared(before: Aliases, after: Aliases, old: str, new: str) -> bool:
    """Whether a result that had its own memory shares some now that is written in place later."""
    was, now = before.nodes[old], after.nodes.get(new)
    if (
        now is None
        or not was.single
        or not now.single
        or was.same_as
        or was.views
        or was.places[0].storage in before.external
    ):
        return False
    storage = now.places[0].storage
    shared = bool(now.same_as or now.views)
    return shared and any(storage in n.writes and n.index > now.index for n in after.nodes.values())
