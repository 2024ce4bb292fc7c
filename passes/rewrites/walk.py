"""The rewriting walk: copies a graph node by node and gives chosen in-place writes an out-of-place form.

Alias-aware: after a write every later use of the written tensor, of its bases and of its views gets the new value. A view is made again
from its source's new value when it is next used, in the grad mode it was first made in. A write takes, in this order, the first form
that is right where it stands (`Form`). What no form fits stays as it is and is refused with a reason. Storages that the caller can see
are never moved: their writes stay visible, in order. Not handled: `resize_` and `set_` on aliased tensors, inference mode; `as_strided`
of a part that was written (it reads the old layout): then the result fails its verification.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.fx

from fxgrad.passes.analyses.aliases import Aliases, NodeAliases
from fxgrad.passes.rewrites import registry, setitem, twins, views
from fxgrad.passes.rewrites.forest import Forest
from fxgrad.passes.rewrites.ops import GraphOps
from fxgrad.passes.rewrites.registry import target_name
from fxgrad.passes.rewrites.straight_through import replaced_copy, replaced_value
from fxgrad.torch_api.internals import set_grad_enabled
from fxgrad.torch_api.module_internals import codegen_of

# functional: the twin's result replaces the tensor. scatter: it is put back into the tensor's base. replaced: as these, with the old
# gradient (a write under no_grad). clone: the write stays in place, on a fresh copy. copy back: the twin's result is copied into a tensor
# of the caller's. view: a metadata write becomes a view. snapshot: a copy is saved for backward in the overwritten tensor's place.
Form = Literal["functional", "scatter", "replaced", "clone", "copy back", "view", "snapshot"]


@dataclass(frozen=True, slots=True)
class Applied:
    """One rewritten node: its name and target in the graph as it was, and the form it took. `copied`: elements copied for it."""

    node: str
    target: str
    form: Form
    copied: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A node that stays in place although it was to be rewritten."""

    node: str
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a walk is to do, nodes by name.

    `convert`: writes to be made out of place. `copy_back`: writes of the caller's tensors to be made by `copy_`. `snapshots`: per
    node that saves for backward, the arguments it gets a copy of. `fresh`: results to be copied because they must not share memory.
    `single`: parts of a split that are to be views of their own, because they are written. `functional`: leave no write in place
    where a form without one exists. `careful`: only forms that keep every stride.
    """

    convert: frozenset[str]
    copy_back: frozenset[str] = frozenset()
    snapshots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()
    single: frozenset[str] = frozenset()
    functional: bool = False
    careful: bool = False


_OTHER_MEMORY = ("resize_", "set_", "resize_as_")  # metadata writes that move a tensor, or change what its memory holds


class _Refusal(Exception):
    """This write has no form; the reason is the message."""


class Walk:
    """One walk over `graph_module`'s graph. `run` returns the new graph; `applied`, `refused` and `names` (old to new) tell of it."""

    def __init__(self, graph_module: torch.fx.GraphModule, owner: torch.fx.GraphModule, aliases: Aliases, plan: Plan) -> None:
        self.old = graph_module.graph
        self.owner = owner
        self.aliases = aliases
        self.plan = plan
        self.graph = torch.fx.Graph()
        self.ops = GraphOps(self.graph, owner)
        self.forest = Forest(self.old, aliases)
        self.now: dict[torch.fx.Node, torch.fx.Node] = {}
        self.stamps: dict[torch.fx.Node, int] = {}
        self.recipes: dict[torch.fx.Node, torch.fx.Node] = {}
        self.used: dict[torch.fx.Node, dict[torch.fx.Node, tuple[int, torch.fx.Node]]] = {}
        self.state: dict[torch.fx.Node, torch.fx.Node] = {}
        self.grad = True
        self.applied: list[Applied] = []
        self.refused: list[Refused] = []
        self.names: dict[str, str] = {}

    def run(self) -> torch.fx.Graph:
        for node in self.old.nodes:
            last = next(iter(reversed(self.graph.nodes)), None)  # in torch 2.11 `reversed` of nodes is no iterator
            self._visit(node)
            self._place(node, last)
        self._sweep()
        self.graph.set_codegen(codegen_of(self.old))
        return self.graph

    def _place(self, node: torch.fx.Node, last: torch.fx.Node | None) -> None:
        """What was made for a node stands for the same line of the user's (`meta["site"]`, where whoever made the graph noted it)."""
        site = node.meta.get("site")
        for made in reversed(self.graph.nodes) if site is not None else ():
            if made is last:
                break
            made.meta.setdefault("site", site)

    # ------------------------------------------------------------------ values

    def value(self, node: torch.fx.Node) -> torch.fx.Node:
        """The node of the new graph that stands for `node` now."""
        return self._current(self._object(node))

    def resolve(self, item: Any) -> Any:
        """An argument tree of the old graph with the values of now."""
        return torch.fx.node.map_arg(item, self.value)

    def _object(self, node: torch.fx.Node) -> torch.fx.Node:
        """The tensor object a node returned, in its present shape."""
        node = self.forest.canonical(node)
        while node in self.state:
            node = self.state[node]
        return node

    def _current(self, node: torch.fx.Node) -> torch.fx.Node:
        sources = self.forest.sources.get(node, ())
        stale = False
        for source in sources:
            self._current(source)
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
        with self._mode(note.grad):
            plain = registry.out_of_place(node) if note.metadata else None
            op, target = plain if plain is not None else (recipe.op, recipe.target)
            made = self.graph.create_node(op, target, args, kwargs)
            self.ops.made.append(made)
            self._bind(node, made)
            if self._frozen_shape(node, note):
                self.now[node] = self.ops.function(replaced_value, made.all_input_nodes[0], made)

    def _bind(self, node: torch.fx.Node, made: torch.fx.Node) -> None:
        """`made` is what `node`'s tensor object is from now on."""
        self.now[node] = self.recipes[node] = made
        self.stamps[node] = self.stamps.get(node, 0) + 1
        self.used[node] = {s: (self.stamps.get(s, 0), self.now[s]) for s in self.forest.sources.get(node, ())}

    def _rebind(self, node: torch.fx.Node, made: torch.fx.Node) -> None:
        """`made` takes the tensor's place, in memory of its own."""
        self.forest.cut(node)
        self._bind(node, made)

    @contextlib.contextmanager
    def _mode(self, grad: bool) -> Iterator[None]:
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

    # ------------------------------------------------------------------ the walk

    def _visit(self, node: torch.fx.Node) -> None:
        if node.op == "output":
            self.graph.node_copy(node, self.value)
            return
        note = self.aliases.nodes[node.name]
        self.grad = note.grad
        if note.same_as is not None and not note.writes and self.forest.takes_one(node):
            return  # a part of a write's result, or one taken out before: that tensor is known under its own name
        if node.name in self.plan.single and self._part(node, note):
            return
        if node.name in self.plan.convert or node.name in self.plan.copy_back:
            try:
                self._convert(node, note)
                return
            except _Refusal as refusal:
                self.refused.append(Refused(node.name, target_name(node), str(refusal)))
        self._copy(node, note, self.value)

    def _part(self, node: torch.fx.Node, note: NodeAliases) -> bool:
        """Write a part of a split as a view of its own."""
        split, index = node.args
        assert isinstance(split, torch.fx.Node)
        sources = self.forest.sources.get(split, ())
        if len(sources) != 1 or not isinstance(index, int):
            return False
        source = self._current(sources[0])
        step = views.part(self.ops, split, index, source, self.aliases.rank(sources[0]), self.resolve)
        if step is None:
            return False
        made = setitem.view(self.ops, source, (step,))
        self.names[node.name] = made.name
        self.forest.enter(node, sources)
        self._bind(node, made)
        return True

    def _copy(self, node: torch.fx.Node, note: NodeAliases, argument: Callable[[torch.fx.Node], torch.fx.Node]) -> torch.fx.Node:
        saved = self.plan.snapshots.get(node.name, ())
        if saved:
            inner, elements = argument, 0
            copies = {name: self.ops.method("clone", inner(self.forest.by_name[name])) for name in saved}
            argument = lambda a: copies[a.name] if a.name in copies else inner(a)  # noqa: E731  a closure over this node's copies
            elements = sum(self._size(self.forest.by_name[name]) for name in saved)
            self.applied.append(Applied(node.name, target_name(node), "snapshot", elements))
        made = self.graph.node_copy(node, argument)
        if node.name in self.plan.fresh:
            self.applied.append(Applied(node.name, target_name(node), "snapshot", self._size(node)))
            made = self.ops.method("clone", made)
        self._enter(node, note, made)
        return made

    def _enter(self, node: torch.fx.Node, note: NodeAliases, made: torch.fx.Node) -> None:
        self.names[node.name] = made.name
        same = self.forest.canonical(node)
        if same is not node:
            self.now[self._object(node)] = made
            return
        if self._is_view(node) and node.users:
            self.ops.made.append(made)
        sources = tuple(dict.fromkeys(self._object(self.forest.by_name[v]) for v in note.views))
        # Nothing else sees the memory: the tensor is what it is, and no view to be made again.
        own = self.forest.call_of(node) is not None or (self._frozen_shape(node, note) and not self._lives_beside(sources[0], note))
        self.forest.enter(node, () if own else sources)
        for source in sources:
            self._current(source)
        self._bind(node, made)
        if note.metadata and note.single and note.views:
            self.state[sources[0]] = node

    def _size(self, node: torch.fx.Node) -> int:
        return sum(math.prod(p.geometry.shape) for p in self.aliases.nodes[node.name].places)

    # ------------------------------------------------------------------ one write

    def _convert(self, node: torch.fx.Node, note: NodeAliases) -> None:
        if note.inference:
            raise _Refusal("it runs in inference mode, where autograd keeps nothing")
        inner = [s for s in note.writes if s not in self.aliases.external]
        if note.metadata and target_name(node) in _OTHER_MEMORY:
            raise _Refusal("it changes the tensor itself, not its content")
        if any(s in self.aliases.tangled for s in inner):
            cause = next((n for n in self.old.nodes if target_name(n) in _OTHER_MEMORY and self._lies_in(n, inner)), None)
            how = f"came by `{target_name(cause)}`" if cause is not None else "is shared in a way the graph does not show"
            raise _Refusal(f"the memory it writes {how}")
        if not inner:
            self._copy_back(node, note)
        elif note.metadata:
            self._as_view(node, note)
        else:
            self._write(node, note, inner)

    def _copy_back(self, node: torch.fx.Node, note: NodeAliases) -> None:
        """The caller sees this write: compute its result apart, then copy it in."""
        twin = None if note.metadata else twins.twin_of(node, self.owner, self.aliases)
        if twin is None:
            raise _Refusal("the caller sees this write, and it has no functional form")
        if twin.unseen and note.needs_grad:
            raise _Refusal("the caller sees this write, and autograd does not")
        objects = [self._object(t) for t in twin.targets]
        old = [self._current(t) for t in objects]
        # The twin may save what it reads, and that is what `copy_` overwrites; an in-place op saves a copy of its own.
        read = [self.ops.method("clone", t) for t in old] if note.grad and note.needs_grad else old
        made = twin.values(self.ops, read, self.resolve)
        for target, before, new in zip(objects, old, made, strict=True):
            self.now[target] = self.ops.method("copy_", before, new)
        self.applied.append(Applied(node.name, target_name(node), "copy back"))

    def _as_view(self, node: torch.fx.Node, note: NodeAliases) -> None:
        plain = registry.out_of_place(node)
        if plain is None or not note.views:
            raise _Refusal("it changes the tensor itself, not its content")
        target = self._object(node.all_input_nodes[0])
        frozen = self._frozen_shape(node, note)
        if frozen and self._written_beside(target, note):
            raise _Refusal("autograd does not see it, and memory it shares is written later")
        old = self._current(target)
        call = self.ops.method if plain[0] == "call_method" else self.ops.function
        made = call(plain[1], *self.resolve(node.args), **self.resolve(node.kwargs))
        self._enter(node, note, made)
        if frozen:
            self._rebind(node, self.ops.function(replaced_copy, old, made))
        self.applied.append(Applied(node.name, target_name(node), "replaced" if frozen else "view"))

    def _frozen_shape(self, node: torch.fx.Node, note: NodeAliases) -> bool:
        """Whether a tensor that requires grad gets another shape under `no_grad`: eager lets the gradient pass as it is."""
        return note.metadata and not note.grad and self._needs_grad(self.forest.canonical(node.all_input_nodes[0]))

    def _written_beside(self, target: torch.fx.Node, note: NodeAliases) -> bool:
        """Whether other results in the memory of `target` live on and that memory is written again."""
        storages = {p.storage for p in self.aliases.nodes[target.name].places}
        written = any(n.index > note.index and storages & set(n.writes) for n in self.aliases.nodes.values())
        return written and self._lives_beside(target, note)

    def _lives_beside(self, target: torch.fx.Node, note: NodeAliases) -> bool:
        storages = {p.storage for p in self.aliases.nodes[target.name].places}
        return any(n is not target and self.forest.last_use.get(n, -1) > note.index for s in storages for n in self.forest.by_storage[s])

    def _write(self, node: torch.fx.Node, note: NodeAliases, storages: Sequence[int]) -> None:
        targets = twins.written_targets(node, self.owner)
        twin = None if self.plan.careful or not self._returns_targets(node, note) else twins.twin_of(node, self.owner, self.aliases)
        if targets is None:
            targets = tuple(a for a in node.all_input_nodes if self._lies_in(a, note.writes))
        objects = [self._object(t) for t in targets]
        if len(objects) == 1 and len(storages) == 1:
            self._write_one(_Write(node, note, targets[0], objects[0], storages[0], twin))
            return
        self._write_many(node, note, targets, objects, twin)

    def _lies_in(self, node: torch.fx.Node, storages: Sequence[int]) -> bool:
        return any(p.storage in storages for p in self.aliases.nodes[node.name].places)

    def _returns_targets(self, node: torch.fx.Node, note: NodeAliases) -> bool:
        """Whether whoever reads the write's result reads a tensor it wrote."""
        if note.single:
            return note.same_as is not None
        return all(u.target is operator.getitem and self.aliases.nodes[u.name].same_as is not None for u in node.users)

    def _write_one(self, write: _Write) -> None:
        node, note = write.node, write.note
        chain = self.forest.chain(write.object, write.storage)
        others = list(self.forest.others(write.object, write.storage, note.index))
        self._check_movable(chain[-1] if others else write.object, write.storage, note)
        frozen = self._is_unseen(note, write.twin) and any(self._needs_grad(n) for n in chain)
        if not others:
            self._write_alone(write, frozen)
            return
        divided = self.forest.divided(chain) and any(self._needs_grad(n) for n in (*chain, *others))
        scatters = write.twin is not None and not divided and (self.plan.functional or all(views.covers(n) for n in chain[:-1]))
        if scatters and not (frozen and not self.plan.functional) and self._scatter(write, chain, frozen):
            return
        seen = note.grad and (note.needs_grad or any(self._needs_grad(n) for n in chain))
        if seen and any(not self.aliases.nodes[n.name].single for n in chain):
            if write.twin is not None and not divided and self._scatter(write, chain, frozen):
                return
            raise _Refusal("it writes one of several views made by one call")
        self._clone(node, note, (write.target,), (chain[-1],))

    def _is_unseen(self, note: NodeAliases, twin: twins.Twin | None) -> bool:
        """Whether autograd does not see a write."""
        return not note.grad or (twin is not None and twin.unseen)

    def _check_movable(self, region: torch.fx.Node, storage: int, note: NodeAliases) -> None:
        """Refuse where what is used later would be made again from `region` without a history it has, or not at all."""
        root = self.forest.chain(region, storage)[-1]
        call = self.forest.call_of(root)
        if call is not None and self.forest.last_whole_use(call) > note.index:
            raise _Refusal(f"it writes one of the results of {call.name}, which is used as a whole after")
        for name in self.aliases.nodes[root.name].copied:
            live = self.forest.live_beside(self._object(self.forest.by_name[name]), note.index)
            if live is not None:
                raise _Refusal(f"it writes a view that a custom Function returned, and {live.name} shares that memory and is used after")
        for chain in self.forest.live_chains(region, storage, note.index):
            for i, node in enumerate(chain):
                if self._has_history(node) and self.forest.divided(chain[i:]):
                    raise _Refusal(f"{node.name} shares the memory without the gradient, and has gradients of its own")

    def _storage(self, node: torch.fx.Node) -> int:
        return self.aliases.nodes[node.name].places[0].storage

    def _has_history(self, node: torch.fx.Node) -> bool:
        """Whether a detached tensor came to require grad by itself: by a write, or by requires_grad_."""
        born = any(p.requires_grad for p in self.aliases.nodes[node.name].places)
        return self._needs_grad(node) and (not born or any(u.target == "requires_grad_" for u in node.users))

    def _needs_grad(self, node: torch.fx.Node) -> bool:
        """Whether the tensor of a node requires grad at some time."""
        return node in self.forest.with_grad

    def _write_alone(self, write: _Write, frozen: bool) -> None:
        """Nothing used later overlaps the tensor but its own views."""
        node, note, twin = write.node, write.note, write.twin
        if twin is None or (frozen and not self.plan.functional):
            self._clone(node, note, (write.target,), (write.object,))
            return
        old = self._current(write.object)
        (made,) = twin.values(self.ops, [old], self.resolve)
        if frozen:
            made = self.ops.function(replaced_value, old, made)
        self._rebind(write.object, made)
        copied = self._size(write.object) if twins.copies(node) else 0
        self.applied.append(Applied(node.name, target_name(node), "replaced" if frozen else "functional", copied))

    def _scatter(self, write: _Write, chain: Sequence[torch.fx.Node], frozen: bool) -> bool:
        assert write.twin is not None
        (made,) = write.twin.values(self.ops, [self._current(write.object)], self.resolve)
        return self._put_back(write, chain, made, frozen, "scatter")

    def _put_back(self, write: _Write, chain: Sequence[torch.fx.Node], made: Any, frozen: bool, form: Form) -> bool:
        """Carry a view's new value down its chain to the root."""
        chain = tuple(chain)
        while len(chain) > 1:
            view, split = chain[0], self._split(chain[0])
            chain = chain[2:] if chain[1] is split else chain[1:]
            if not chain:
                return False
            old = self._current(chain[0])
            if split is None:
                made = views.put_back(self.ops, view, chain[0], made, old, self.aliases, self.resolve)
            else:
                assert isinstance(view.args[1], int)
                step = views.part(self.ops, split, view.args[1], old, self.aliases.rank(chain[0]), self.resolve)
                made = setitem.scatter(self.ops, old, made, (step,)) if step is not None else None
            if made is None:
                return False
        if frozen:
            made = self.ops.function(replaced_value, self._current(chain[0]), made)
        self._rebind(chain[0], made)
        size = self._size(chain[0]) if form != "functional" else 0
        self.applied.append(Applied(write.node.name, target_name(write.node), "replaced" if frozen else form, size))
        return True

    def _split(self, node: torch.fx.Node) -> torch.fx.Node | None:
        """The call that returned several tensors of which `node` picks one."""
        source = node.args[0] if node.target is operator.getitem else None
        several = isinstance(source, torch.fx.Node) and not self.aliases.nodes[source.name].single
        return source if several and isinstance(source, torch.fx.Node) and isinstance(node.args[1], int) else None

    def _clone(self, node: torch.fx.Node, note: NodeAliases, targets: Sequence[torch.fx.Node], regions: Sequence[torch.fx.Node]) -> None:
        """Give each region a fresh copy of itself, and write that."""
        before = {a: self.value(a) for a in node.all_input_nodes}
        elements = 0
        for region in dict.fromkeys(regions):
            old = self._current(region)
            with self._mode(True):
                copy = self.ops.method("clone", old)
            self._rebind(region, copy)
            elements += self._size(region)
        self.applied.append(Applied(node.name, target_name(node), "clone", elements))
        self._copy(node, note, lambda a: self.value(a) if a in targets else before[a])

    def _write_many(
        self,
        node: torch.fx.Node,
        note: NodeAliases,
        targets: Sequence[torch.fx.Node],
        objects: Sequence[torch.fx.Node],
        twin: twins.Twin | None,
    ) -> None:
        regions, alone = [], True
        for target in objects:
            storage = self._storage(target)
            if storage in self.aliases.external:
                alone = False
                continue
            chain = self.forest.chain(target, storage)
            others = list(self.forest.others(target, storage, note.index))
            self._check_movable(chain[-1] if others else target, storage, note)
            frozen = self._is_unseen(note, twin) and any(self._needs_grad(n) for n in chain)
            alone &= not others and not frozen
            regions.append(chain[-1] if others else target)
        if twin is not None and alone and len(set(objects)) == len(objects):
            made = twin.values(self.ops, [self._current(o) for o in objects], self.resolve)
            for target, new in zip(objects, made, strict=True):
                self._rebind(target, new)
            self.applied.append(Applied(node.name, target_name(node), "functional"))
            return
        self._clone(node, note, targets, regions)

    # ------------------------------------------------------------------ the end

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

    def _is_view(self, node: torch.fx.Node) -> bool:
        note = self.aliases.nodes[node.name]
        return bool(note.views) and not note.writes and node.op in ("call_method", "call_function") and not note.random


@dataclass(frozen=True, slots=True)
class _Write:
    node: torch.fx.Node
    note: NodeAliases
    target: torch.fx.Node
    object: torch.fx.Node
    storage: int
    twin: twins.Twin | None
