"""The values of a rewrite while it goes: for each tensor of the old graph the node of the new one that stands
for it now.

After a write every later use of the written tensor, of its bases and of its views gets the new value:
`Values.value` makes a view again from its source's new value when it is next used, in the grad mode it was
first made in. Not handled: what a write becomes; that is for `fxgrad.passes.rewrites.write_forms`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.fx

from fxgrad.passes.analyses.aliases import Aliases, NodeAliases
from fxgrad.passes.rewrites import registry
from fxgrad.passes.rewrites.forest import Forest
from fxgrad.passes.rewrites.ops import GraphOps
from fxgrad.passes.rewrites.straight_through import replaced_value
from fxgrad.torch_api.internals import set_grad_enabled


class Values:
    """What the tensors of the graph `old` are now. `graph` is the new graph, `ops` appends to it, `grad` is
    the mode at its end.

    By tensor object (`Forest.canonical`): `now`, its node; `stamps`, how often that has changed; `recipes`,
    for a view how it was made and `used`, of which sources at which stamp; `state`, the object that it has
    become by a write of its shape. `names`: of the nodes, old to new.
    """

    def __init__(self, old: torch.fx.Graph, owner: torch.fx.GraphModule, aliases: Aliases) -> None:
        self.aliases = aliases
        self.forest = Forest(old, aliases)
        self.graph = torch.fx.Graph()
        self.ops = GraphOps(self.graph, owner)
        self.grad = True
        self.now: dict[torch.fx.Node, torch.fx.Node] = {}
        self.stamps: dict[torch.fx.Node, int] = {}
        self.recipes: dict[torch.fx.Node, torch.fx.Node] = {}
        self.used: dict[torch.fx.Node, dict[torch.fx.Node, tuple[int, torch.fx.Node]]] = {}
        self.state: dict[torch.fx.Node, torch.fx.Node] = {}
        self.names: dict[str, str] = {}

    def value(self, node: torch.fx.Node) -> torch.fx.Node:
        """The node of the new graph that stands for `node` now."""
        return self.current(self.object(node))

    def resolve(self, item: Any) -> Any:
        """An argument tree of the old graph with the values of now."""
        return torch.fx.node.map_arg(item, self.value)

    def object(self, node: torch.fx.Node) -> torch.fx.Node:
        """The tensor object a node returned, in its present shape."""
        node = self.forest.canonical(node)
        while node in self.state:
            node = self.state[node]
        return node

    def current(self, node: torch.fx.Node) -> torch.fx.Node:
        sources = self.forest.sources.get(node, ())
        stale = False
        for source in sources:
            self.current(source)
            stale |= self.used[node][source][0] != self.stamps.get(source, 0)
        if stale:
            self._replay(node)
        return self.now[node]

    def _replay(self, node: torch.fx.Node) -> None:
        """Make a view again, from what its sources are now."""
        replaced = {self.used[node][s][1]: self.now[s] for s in self.forest.sources[node]}
        recipe, note = self.recipes[node], self.aliases.nodes[node.name]

        def swap(argument: torch.fx.Node) -> torch.fx.Node:
            return replaced.get(argument, argument)

        args, kwargs = torch.fx.node.map_arg(recipe.args, swap), torch.fx.node.map_arg(recipe.kwargs, swap)
        with self.mode(note.grad):
            plain = registry.out_of_place(node) if note.metadata else None
            op, target = plain if plain is not None else (recipe.op, recipe.target)
            made = self.graph.create_node(op, target, args, kwargs)
            self.ops.made.append(made)
            self.bind(node, made)
            if self.frozen_shape(node, note):
                self.now[node] = self.ops.function(replaced_value, made.all_input_nodes[0], made)

    def bind(self, node: torch.fx.Node, made: torch.fx.Node) -> None:
        """`made` is what `node`'s tensor object is from now on."""
        self.now[node] = self.recipes[node] = made
        self.stamps[node] = self.stamps.get(node, 0) + 1
        self.used[node] = {s: (self.stamps.get(s, 0), self.now[s]) for s in self.forest.sources.get(node, ())}

    def rebind(self, node: torch.fx.Node, made: torch.fx.Node) -> None:
        """`made` takes the tensor's place, in memory of its own."""
        self.forest.cut(node)
        self.bind(node, made)

    @contextlib.contextmanager
    def mode(self, grad: bool) -> Iterator[None]:
        """Nodes written here run in the given grad mode."""
        if grad == self.grad:
            yield
            return
        before = self.grad
        self.ops.function(set_grad_enabled, grad)
        self.grad = grad
        try:
            yield
        finally:
            self.ops.function(set_grad_enabled, before)
            self.grad = before

    def enter(self, node: torch.fx.Node, note: NodeAliases, made: torch.fx.Node) -> None:
        """`made` is what a node of the old graph has come to, which brings a new tensor or hands on one that
        is there."""
        self.names[node.name] = made.name
        same = self.forest.canonical(node)
        if same is not node:
            self.now[self.object(node)] = made
            return
        if self._is_view(node) and node.users:
            self.ops.made.append(made)
        sources = tuple(dict.fromkeys(self.object(self.forest.by_name[v]) for v in note.views))
        # Nothing else sees the memory: the tensor is what it is, and no view to be made again.
        own = self.forest.call_of(node) is not None or (
            self.frozen_shape(node, note) and not self.forest.lives_beside(sources[0], note.index)
        )
        self.forest.enter(node, () if own else sources)
        for source in sources:
            self.current(source)
        self.bind(node, made)
        if note.metadata and note.single and note.views:
            self.state[sources[0]] = node

    def size(self, node: torch.fx.Node) -> int:
        """How many elements the results of a node have."""
        return sum(math.prod(p.geometry.shape) for p in self.aliases.nodes[node.name].places)

    def frozen_shape(self, node: torch.fx.Node, note: NodeAliases) -> bool:
        """Whether a tensor that requires grad gets another shape under `no_grad`: eager lets the gradient
        pass as it is."""
        return (
            note.metadata
            and not note.grad
            and self.needs_grad(self.forest.canonical(node.all_input_nodes[0]))
        )

    def needs_grad(self, node: torch.fx.Node) -> bool:
        """Whether the tensor of a node requires grad at some time."""
        return node in self.forest.with_grad

    def _is_view(self, node: torch.fx.Node) -> bool:
        note = self.aliases.nodes[node.name]
        return (
            bool(note.views)
            and not note.writes
            and node.op in ("call_method", "call_function")
            and not note.random
        )
