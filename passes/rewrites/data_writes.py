"""Writes through `.data` that falsify a gradient, made writes of the tensor itself: `h.data.mul_(k)` becomes
`h.mul_(k)`.

Autograd does not see a write through `.data`: what it saved is overwritten, backward runs, and the gradient
is wrong. `expose` lets each such read of `.data` read the tensor, so that the write is seen, and
differentiated, and then rewritten like any other. Only of intermediate results: of a parameter or buffer
`.data` keeps its meaning, and what was saved of it is copied instead.
"""

from __future__ import annotations

import torch
import torch.fx

from fxgrad.passes.analyses.aliases import Aliases
from fxgrad.passes.rewrites.forest import Forest
from fxgrad.passes.rewrites.ops import sibling
from fxgrad.passes.rewrites.views import name_of
from fxgrad.torch_api.graph_modules import set_graph
from fxgrad.torch_api.module_internals import codegen_of


def expose(
    graph_module: torch.fx.GraphModule, aliases: Aliases
) -> tuple[torch.fx.GraphModule, tuple[str, ...]]:
    """The module with harmful reads of `.data` taken out of a copy of its graph, and their names (the module
    itself if there is none)."""
    forest = Forest(graph_module.graph, aliases)
    wanted: set[str] = set()
    for save in aliases.hazards:
        if save.counted or save.overwriter is None or save.storage in aliases.external:
            continue
        for argument in forest.by_name[save.overwriter].all_input_nodes:
            wanted.update(_data_reads(argument, forest, aliases))
    if not wanted:
        return graph_module, ()
    graph = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in graph_module.graph.nodes:
        if node.name in wanted:
            copied[node] = copied[node.all_input_nodes[0]]
        else:
            copied[node] = graph.node_copy(node, copied.__getitem__)
    graph.set_codegen(codegen_of(graph_module.graph))
    made = sibling(graph_module)
    set_graph(made, graph)
    return made, tuple(sorted(wanted))


def _data_reads(node: torch.fx.Node, forest: Forest, aliases: Aliases) -> set[str]:
    """The `.data` reads between a written tensor and the memory it lies in."""
    found: set[str] = set()
    pending = [node]
    while pending:
        here = forest.canonical(pending.pop())
        note = aliases.nodes[here.name]
        if name_of(here) == "data" and any(
            p.requires_grad for v in note.views for p in aliases.nodes[v].places
        ):
            found.add(here.name)
        pending += [forest.by_name[v] for v in note.views]
    return found
