"""Which results of a graph share memory at a point of a rewrite, and which of those overlap a tensor that is
about to be written.

`Forest` is the alias structure while it changes: each view knows what it was made from, until a rewrite gives
it memory of its own.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from functools import lru_cache

import torch
import torch.fx

from fxgrad.passes.analyses.aliases import Aliases
from fxgrad.passes.rewrites.views import CUTS, name_of
from fxgrad.torch_api.internals import DisableTorchFunction
from fxgrad.torch_api.tensors import Geometry

# Above this many elements two interleaved views are taken to overlap: telling would cost a mask as large as
# their storage.
_EXACT = 1 << 22


class Forest:
    """Views and what they are views of now. Nodes are those of the old graph, one per tensor object
    (`canonical`)."""

    def __init__(self, graph: torch.fx.Graph, aliases: Aliases) -> None:
        self.aliases = aliases
        self.by_name: Mapping[str, torch.fx.Node] = {n.name: n for n in graph.nodes}
        self.sources: dict[torch.fx.Node, tuple[torch.fx.Node, ...]] = {}
        self.by_storage: dict[int, list[torch.fx.Node]] = {}
        self.last_use: dict[torch.fx.Node, int] = {}
        self.with_grad: set[torch.fx.Node] = set()  # tensors that require grad at some time
        for node in graph.nodes:
            node_class = self.canonical(node)
            if node.name in aliases.nodes and any(p.requires_grad for p in aliases.nodes[node.name].places):
                self.with_grad.add(node_class)
            last = max((self.index(u) for u in node.users), default=-1)
            self.last_use[node_class] = max(last, self.last_use.get(node_class, -1))

    def index(self, node: torch.fx.Node) -> int:
        """The position of a node; the output is after all."""
        note = self.aliases.nodes.get(node.name)
        return note.index if note is not None else len(self.aliases.nodes)

    def canonical(self, node: torch.fx.Node) -> torch.fx.Node:
        """The first node that returned this very tensor."""
        note = self.aliases.nodes.get(node.name)
        return self.by_name[note.same_as] if note is not None and note.same_as is not None else node

    def enter(self, node: torch.fx.Node, sources: tuple[torch.fx.Node, ...]) -> None:
        """A result comes into being."""
        self.sources[node] = sources
        for storage in {p.storage for p in self.aliases.nodes[node.name].places}:
            self.by_storage.setdefault(storage, []).append(node)

    def takes_one(self, node: torch.fx.Node) -> bool:
        """Whether a node takes one of several results out of a call: `found[0]`, `found.values`."""
        source = node.args[0] if node.target in (operator.getitem, getattr) else None
        return isinstance(source, torch.fx.Node) and not self.aliases.nodes[source.name].single

    def call_of(self, node: torch.fx.Node) -> torch.fx.Node | None:
        """The call of whose several results this is one, each in memory of its own; None for any other node,
        parts of a split too."""
        call = node
        while self.takes_one(call):
            call = call.all_input_nodes[0]
        return call if call is not node and not self.aliases.nodes[call.name].views else None

    def last_whole_use(self, call: torch.fx.Node) -> int:
        """The last position at which the results of a call are used otherwise than by taking one out; -1: at
        none."""
        inner = [u for u in call.users if self.takes_one(u) and not self.aliases.nodes[u.name].single]
        whole = [self.index(u) for u in call.users if not self.takes_one(u)]
        return max((*whole, *(self.last_whole_use(u) for u in inner)), default=-1)

    def cut(self, node: torch.fx.Node) -> None:
        """A result gets memory of its own; its views go with it."""
        self.sources[node] = ()

    def chain(self, node: torch.fx.Node, storage: int) -> tuple[torch.fx.Node, ...]:
        """A result and what it is a view of, and so on, down to the root of its memory."""
        found = [node]
        while True:
            above = [s for s in self.sources.get(found[-1], ()) if self._has(s, storage)]
            if not above:
                return tuple(found)
            found.append(above[0])

    def _has(self, node: torch.fx.Node, storage: int) -> bool:
        return any(p.storage == storage for p in self.aliases.nodes[node.name].places)

    def others(self, node: torch.fx.Node, storage: int, after: int) -> Iterator[torch.fx.Node]:
        """Results used after position `after` that overlap `node` without being views of it."""
        root = self.chain(node, storage)[-1]
        for other in self.by_storage.get(storage, ()):
            if self.last_use.get(other, -1) <= after or other is node:
                continue
            chain = self.chain(other, storage)
            if chain[-1] is root and node not in chain and self._overlap(node, other, storage):
                yield other

    def live_chains(
        self, region: torch.fx.Node, storage: int, after: int
    ) -> Iterator[tuple[torch.fx.Node, ...]]:
        """For each result used after position `after` that lies in `region`: the chain from it to there."""
        for node in self.by_storage.get(storage, ()):
            chain = self.chain(node, storage)
            if self.last_use.get(node, -1) > after and region in chain:
                yield chain[: chain.index(region) + 1]

    def live_beside(self, node: torch.fx.Node, after: int) -> torch.fx.Node | None:
        """A result used after position `after` in the memory of `node`."""
        storages = {p.storage for p in self.aliases.nodes[node.name].places}
        return next(
            (n for s in storages for n in self.by_storage.get(s, ()) if self.last_use.get(n, -1) > after),
            None,
        )

    def lives_beside(self, node: torch.fx.Node, after: int) -> bool:
        """Whether another result in the memory of `node` is used after position `after`."""
        storages = {p.storage for p in self.aliases.nodes[node.name].places}
        return any(
            n is not node and self.last_use.get(n, -1) > after for s in storages for n in self.by_storage[s]
        )

    def _overlap(self, one: torch.fx.Node, two: torch.fx.Node, storage: int) -> bool:
        here, there = (
            [p for p in self.aliases.nodes[n.name].places if p.storage == storage] for n in (one, two)
        )
        return any(a.dtype != b.dtype or overlap(a.geometry, b.geometry) for a in here for b in there)

    def divided(self, chain: tuple[torch.fx.Node, ...]) -> bool:
        """Whether autograd sees the first of the chain and its root as unrelated: a detach, or a view made
        without grad, lies between."""
        return any(self.cuts(lower, upper) for lower, upper in zip(chain, chain[1:], strict=False))

    def cuts(self, view: torch.fx.Node, source: torch.fx.Node) -> bool:
        """Whether no gradient passes this view."""
        note = self.aliases.nodes[view.name]
        if name_of(view) in CUTS or not note.grad:
            return True
        above = self.aliases.nodes[source.name].places
        return any(p.requires_grad for p in above) and not any(p.requires_grad for p in note.places)


@lru_cache(maxsize=4096)
def overlap(one: Geometry, two: Geometry) -> bool:
    """Whether two tensors of one storage (and one dtype) have an element in common."""
    (low, high), (other_low, other_high) = extent(one), extent(two)
    if low > high or other_low > other_high or high < other_low or other_high < low:
        return False
    size = max(high, other_high) + 1
    if one == two or size > _EXACT:
        return True
    mask = torch.zeros(size, dtype=torch.bool, device="cpu")
    with DisableTorchFunction():
        mask.as_strided(one.shape, one.stride, one.offset).fill_(True)
        return bool(mask.as_strided(two.shape, two.stride, two.offset).any())


def extent(geometry: Geometry) -> tuple[int, int]:
    """The first and the last element; an empty tensor's last comes before its first."""
    if 0 in geometry.shape:
        return 0, -1
    reach = sum((n - 1) * s for n, s in zip(geometry.shape, geometry.stride, strict=True))
    return geometry.offset, geometry.offset + reach


def dense(geometry: Geometry) -> bool:
    """Whether the tensor fills its extent: a clone then has the same strides."""
    low, high = extent(geometry)
    count = 1
    for size in geometry.shape:
        count *= size
    return count == high - low + 1
