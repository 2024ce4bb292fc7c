"""The rewriting walk: copies a graph node by node and gives chosen in-place writes an out-of-place form.

Alias-aware: after a write every later use of the written tensor, of its bases and of its views gets the new
value (`fxgrad.passes.rewrites.values`); a write takes the first form that is right where it stands
(`fxgrad.passes.rewrites.write_forms`). Storages that the caller can see are never moved: their writes stay
visible, in order. Not handled: `as_strided` of a part that was written (it reads the old layout): then the
result fails its verification.
"""

from __future__ import annotations

import torch
import torch.fx

from fxgrad.passes.analyses.aliases import Aliases
from fxgrad.passes.rewrites import setitem, views
from fxgrad.passes.rewrites.plans import Applied, Plan, Refused
from fxgrad.passes.rewrites.registry import target_name
from fxgrad.passes.rewrites.values import Values
from fxgrad.passes.rewrites.write_forms import Refusal, WriteForms
from fxgrad.torch_api.internals import set_grad_enabled
from fxgrad.torch_api.module_internals import codegen_of


class Walk:
    """One walk over `graph_module`'s graph. `run` returns the new graph; `applied`, `refused` and `names`
    (old to new) tell of it."""

    def __init__(
        self, graph_module: torch.fx.GraphModule, owner: torch.fx.GraphModule, aliases: Aliases, plan: Plan
    ) -> None:
        self.old = graph_module.graph
        self.aliases = aliases
        self.plan = plan
        self.values = Values(self.old, owner, aliases)
        self.graph = self.values.graph
        self.ops = self.values.ops
        self.forest = self.values.forest
        self.applied: list[Applied] = []
        self.refused: list[Refused] = []
        self.names = self.values.names
        self.forms = WriteForms(self.old, self.values, plan, self.applied)

    def run(self) -> torch.fx.Graph:
        for node in self.old.nodes:
            # in torch 2.11 `reversed` of nodes is no iterator
            last = next(iter(reversed(self.graph.nodes)), None)
            self._visit(node)
            self._place(node, last)
        self._sweep()
        self.graph.set_codegen(codegen_of(self.old))
        return self.graph

    def _place(self, node: torch.fx.Node, last: torch.fx.Node | None) -> None:
        """What was made for a node stands for the same line of the user's (`meta["site"]`, where whoever made
        the graph noted it)."""
        site = node.meta.get("site")
        for made in reversed(self.graph.nodes) if site is not None else ():
            if made is last:
                break
            made.meta.setdefault("site", site)

    def _visit(self, node: torch.fx.Node) -> None:
        if node.op == "output":
            self.graph.node_copy(node, self.values.value)
            return
        note = self.aliases.nodes[node.name]
        self.values.grad = note.grad
        if note.same_as is not None and not note.writes and self.forest.takes_one(node):
            # a part of a write's result, or one taken out before: that tensor is known under its own name
            return
        if node.name in self.plan.single and self._part(node):
            return
        if node.name in self.plan.convert or node.name in self.plan.copy_back:
            try:
                self.forms.convert(node, note)
                return
            except Refusal as refusal:
                self.refused.append(Refused(node.name, target_name(node), str(refusal)))
        self.forms.copy(node, note, self.values.value)

    def _part(self, node: torch.fx.Node) -> bool:
        """Write a part of a split as a view of its own."""
        split, index = node.args
        assert isinstance(split, torch.fx.Node)
        sources = self.forest.sources.get(split, ())
        if len(sources) != 1 or not isinstance(index, int):
            return False
        source = self.values.current(sources[0])
        step = views.part(self.ops, split, index, source, self.aliases.rank(sources[0]), self.values.resolve)
        if step is None:
            return False
        made = setitem.view(self.ops, source, (step,))
        self.names[node.name] = made.name
        self.forest.enter(node, sources)
        self.values.bind(node, made)
        return True

    def _sweep(self) -> None:
        """What this walk made and nobody uses: views made again in vain, results that nothing reads."""
        mine = set(self.ops.made)
        for made in reversed(list(self.graph.nodes)):
            if made in mine and not made.users and made.target not in (set_grad_enabled, "copy_"):
                self.graph.erase_node(made)
        previous: torch.fx.Node | None = None
        for made in list(self.graph.nodes):
            is_switch = made.target is set_grad_enabled and made in mine
            if is_switch and previous is not None:
                self.graph.erase_node(previous)
                self.graph.erase_node(made)
                previous = None
            else:
                previous = made if is_switch else None
