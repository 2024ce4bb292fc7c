"""One write out of place: the first form (`fxgrad.passes.rewrites.plans.Form`) that is right where it stands.

In this order: the functional twin's value in the tensor's place, that value put back into the tensor's base,
a clone that is written; for a write that the caller sees, `copy_`. What no form fits is refused with a reason
and stays as it is. Not handled: `resize_` and `set_` on aliased tensors, inference mode.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx

from fxgrad.passes.analyses.aliases import NodeAliases
from fxgrad.passes.rewrites import registry, setitem, twins, views
from fxgrad.passes.rewrites.plans import Applied, Form, Plan
from fxgrad.passes.rewrites.registry import target_name
from fxgrad.passes.rewrites.straight_through import replaced_copy, replaced_value
from fxgrad.passes.rewrites.values import Values

# metadata writes that move a tensor, or change what its memory holds
_OTHER_MEMORY = ("resize_", "set_", "resize_as_")


class Refusal(Exception):
    """This write has no form; the reason is the message."""


class WriteForms:
    """Converts writes of the graph `old` for a walk; `applied` gets what was done."""

    def __init__(self, old: torch.fx.Graph, values: Values, plan: Plan, applied: list[Applied]) -> None:
        self.old = old
        self.values = values
        self.aliases = values.aliases
        self.forest = values.forest
        self.ops = values.ops
        self.plan = plan
        self.applied = applied

    def copy(
        self, node: torch.fx.Node, note: NodeAliases, argument: Callable[[torch.fx.Node], torch.fx.Node]
    ) -> None:
        """A node as it is, on what `argument` gives; where the plan has it so, with copies of what it saves,
        and of its result."""
        saved = self.plan.snapshots.get(node.name, ())
        copies = {name: self.ops.method("clone", argument(self.forest.by_name[name])) for name in saved}
        if saved:
            elements = sum(self.values.size(self.forest.by_name[name]) for name in saved)
            self.applied.append(Applied(node.name, target_name(node), "snapshot", elements))
        made = self.values.graph.node_copy(
            node, lambda a: copies[a.name] if a.name in copies else argument(a)
        )
        if node.name in self.plan.fresh:
            self.applied.append(Applied(node.name, target_name(node), "snapshot", self.values.size(node)))
            made = self.ops.method("clone", made)
        self.values.enter(node, note, made)

    def convert(self, node: torch.fx.Node, note: NodeAliases) -> None:
        """Write a node in another form.

        Raises:
            Refusal: there is none.
        """
        if note.inference:
            raise Refusal("it runs in inference mode, where autograd keeps nothing")
        inner = [s for s in note.writes if s not in self.aliases.external]
        if note.metadata and target_name(node) in _OTHER_MEMORY:
            raise Refusal("it changes the tensor itself, not its content")
        if any(s in self.aliases.tangled for s in inner):
            cause = next(
                (n for n in self.old.nodes if target_name(n) in _OTHER_MEMORY and self._lies_in(n, inner)),
                None,
            )
            how = (
                f"came by `{target_name(cause)}`"
                if cause is not None
                else "is shared in a way the graph does not show"
            )
            raise Refusal(f"the memory it writes {how}")
        if not inner:
            self._copy_back(node, note)
        elif note.metadata:
            self._as_view(node, note)
        else:
            self._write(node, note, inner)

    def _copy_back(self, node: torch.fx.Node, note: NodeAliases) -> None:
        """The caller sees this write: compute its result apart, then copy it in."""
        twin = None if note.metadata else twins.twin_of(node, self.ops.owner, self.aliases)
        if twin is None:
            raise Refusal("the caller sees this write, and it has no functional form")
        if twin.unseen and note.needs_grad:
            raise Refusal("the caller sees this write, and autograd does not")
        objects = [self.values.object(t) for t in twin.targets]
        old = [self.values.current(t) for t in objects]
        # The twin may save what it reads, and that is what `copy_` overwrites; an in-place op saves a copy of
        # its own.
        read = [self.ops.method("clone", t) for t in old] if note.grad and note.needs_grad else old
        made = twin.values(self.ops, read, self.values.resolve)
        for target, before, new in zip(objects, old, made, strict=True):
            self.values.now[target] = self.ops.method("copy_", before, new)
        self.applied.append(Applied(node.name, target_name(node), "copy back"))

    def _as_view(self, node: torch.fx.Node, note: NodeAliases) -> None:
        plain = registry.out_of_place(node)
        if plain is None or not note.views:
            raise Refusal("it changes the tensor itself, not its content")
        target = self.values.object(node.all_input_nodes[0])
        frozen = self.values.frozen_shape(node, note)
        if frozen and self._written_beside(target, note):
            raise Refusal("autograd does not see it, and memory it shares is written later")
        old = self.values.current(target)
        call = self.ops.method if plain[0] == "call_method" else self.ops.function
        made = call(plain[1], *self.values.resolve(node.args), **self.values.resolve(node.kwargs))
        self.values.enter(node, note, made)
        if frozen:
            self.values.rebind(node, self.ops.function(replaced_copy, old, made))
        self.applied.append(Applied(node.name, target_name(node), "replaced" if frozen else "view"))

    def _written_beside(self, target: torch.fx.Node, note: NodeAliases) -> bool:
        """Whether other results in the memory of `target` live on and that memory is written again."""
        storages = {p.storage for p in self.aliases.nodes[target.name].places}
        written = any(n.index > note.index and storages & set(n.writes) for n in self.aliases.nodes.values())
        return written and self.forest.lives_beside(target, note.index)

    def _write(self, node: torch.fx.Node, note: NodeAliases, storages: Sequence[int]) -> None:
        targets = twins.written_targets(node, self.ops.owner)
        twin = (
            None
            if self.plan.careful or not self._returns_targets(node, note)
            else twins.twin_of(node, self.ops.owner, self.aliases)
        )
        if targets is None:
            targets = tuple(a for a in node.all_input_nodes if self._lies_in(a, note.writes))
        objects = [self.values.object(t) for t in targets]
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
        return all(
            u.target is operator.getitem and self.aliases.nodes[u.name].same_as is not None
            for u in node.users
        )

    def _write_one(self, write: _Write) -> None:
        node, note = write.node, write.note
        chain = self.forest.chain(write.object, write.storage)
        others = list(self.forest.others(write.object, write.storage, note.index))
        self._check_movable(chain[-1] if others else write.object, write.storage, note)
        wants_grad = any(map(self.values.needs_grad, chain))
        frozen = wants_grad and self._is_unseen(note, write.twin)
        if not others:
            self._write_alone(write, frozen)
            return
        divided = self.forest.divided(chain) and any(map(self.values.needs_grad, (*chain, *others)))
        fits = write.twin is not None and not divided
        if fits and self._is_worth_scattering(chain, frozen) and self._scatter(write, chain, frozen):
            return
        if self._is_refused(note, chain, wants_grad):
            if fits and self._scatter(write, chain, frozen):
                return
            raise Refusal("it writes one of several views made by one call")
        self._clone(node, note, (write.target,), (chain[-1],))

    def _is_refused(self, note: NodeAliases, chain: Sequence[torch.fx.Node], wants_grad: bool) -> bool:
        """Whether autograd would refuse the write of a clone as well: one of several views of it would be
        written."""
        seen = note.grad and (note.needs_grad or wants_grad)
        return bool(seen) and any(not self.aliases.nodes[n.name].single for n in chain)

    def _is_worth_scattering(self, chain: Sequence[torch.fx.Node], frozen: bool) -> bool:
        """Whether putting the value back costs no more than a clone, or no write is to stay."""
        return self.plan.functional or (not frozen and all(map(views.covers, chain[:-1])))

    def _is_unseen(self, note: NodeAliases, twin: twins.Twin | None) -> bool:
        """Whether autograd does not see a write."""
        return not note.grad or (twin is not None and twin.unseen)

    def _check_movable(self, region: torch.fx.Node, storage: int, note: NodeAliases) -> None:
        """Refuse where what is used later would be made again from `region` without a history it has, or not
        at all."""
        root = self.forest.chain(region, storage)[-1]
        call = self.forest.call_of(root)
        if call is not None and self.forest.last_whole_use(call) > note.index:
            raise Refusal(f"it writes one of the results of {call.name}, which is used as a whole after")
        for name in self.aliases.nodes[root.name].copied:
            live = self.forest.live_beside(self.values.object(self.forest.by_name[name]), note.index)
            if live is not None:
                raise Refusal(
                    f"it writes a view that a custom Function returned, and {live.name} shares that "
                    "memory "
                    "and is used after"
                )
        for chain in self.forest.live_chains(region, storage, note.index):
            for i, node in enumerate(chain):
                if self._has_history(node) and self.forest.divided(chain[i:]):
                    raise Refusal(
                        f"{node.name} shares the memory without the gradient, and has gradients of its own"
                    )

    def _storage(self, node: torch.fx.Node) -> int:
        return self.aliases.nodes[node.name].places[0].storage

    def _has_history(self, node: torch.fx.Node) -> bool:
        """Whether a detached tensor came to require grad by itself: by a write, or by requires_grad_."""
        born = any(p.requires_grad for p in self.aliases.nodes[node.name].places)
        return self.values.needs_grad(node) and (
            not born or any(u.target == "requires_grad_" for u in node.users)
        )

    def _write_alone(self, write: _Write, frozen: bool) -> None:
        """Nothing used later overlaps the tensor but its own views."""
        node, note, twin = write.node, write.note, write.twin
        if twin is None or (frozen and not self.plan.functional):
            self._clone(node, note, (write.target,), (write.object,))
            return
        old = self.values.current(write.object)
        (made,) = twin.values(self.ops, [old], self.values.resolve)
        if frozen:
            made = self.ops.function(replaced_value, old, made)
        self.values.rebind(write.object, made)
        copied = self.values.size(write.object) if twins.copies(node) else 0
        self.applied.append(
            Applied(node.name, target_name(node), "replaced" if frozen else "functional", copied)
        )

    def _scatter(self, write: _Write, chain: Sequence[torch.fx.Node], frozen: bool) -> bool:
        assert write.twin is not None
        (made,) = write.twin.values(self.ops, [self.values.current(write.object)], self.values.resolve)
        return self._put_back(write, chain, made, frozen, "scatter")

    def _put_back(
        self, write: _Write, chain: Sequence[torch.fx.Node], made: Any, frozen: bool, form: Form
    ) -> bool:
        """Carry a view's new value down its chain to the root."""
        chain = tuple(chain)
        while len(chain) > 1:
            view, split = chain[0], self._split(chain[0])
            chain = chain[2:] if chain[1] is split else chain[1:]
            if not chain:
                return False
            old = self.values.current(chain[0])
            if split is None:
                made = views.put_back(self.ops, view, chain[0], made, old, self.aliases, self.values.resolve)
            else:
                assert isinstance(view.args[1], int)
                step = views.part(
                    self.ops, split, view.args[1], old, self.aliases.rank(chain[0]), self.values.resolve
                )
                made = setitem.scatter(self.ops, old, made, (step,)) if step is not None else None
            if made is None:
                return False
        if frozen:
            made = self.ops.function(replaced_value, self.values.current(chain[0]), made)
        self.values.rebind(chain[0], made)
        size = self.values.size(chain[0]) if form != "functional" else 0
        self.applied.append(
            Applied(write.node.name, target_name(write.node), "replaced" if frozen else form, size)
        )
        return True

    def _split(self, node: torch.fx.Node) -> torch.fx.Node | None:
        """The call that returned several tensors of which `node` picks one."""
        source = node.args[0] if node.target is operator.getitem else None
        several = isinstance(source, torch.fx.Node) and not self.aliases.nodes[source.name].single
        return (
            source
            if several and isinstance(source, torch.fx.Node) and isinstance(node.args[1], int)
            else None
        )

    def _clone(
        self,
        node: torch.fx.Node,
        note: NodeAliases,
        targets: Sequence[torch.fx.Node],
        regions: Sequence[torch.fx.Node],
    ) -> None:
        """Give each region a fresh copy of itself, and write that."""
        before = {a: self.values.value(a) for a in node.all_input_nodes}
        elements = 0
        for region in dict.fromkeys(regions):
            old = self.values.current(region)
            with self.values.mode(True):
                copy = self.ops.method("clone", old)
            self.values.rebind(region, copy)
            elements += self.values.size(region)
        self.applied.append(Applied(node.name, target_name(node), "clone", elements))
        self.copy(node, note, lambda a: self.values.value(a) if a in targets else before[a])

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
            frozen = self._is_unseen(note, twin) and any(self.values.needs_grad(n) for n in chain)
            alone &= not others and not frozen
            regions.append(chain[-1] if others else target)
        if twin is not None and alone and len(set(objects)) == len(objects):
            made = twin.values(self.ops, [self.values.current(o) for o in objects], self.values.resolve)
            for target, new in zip(objects, made, strict=True):
                self.values.rebind(target, new)
            self.applied.append(Applied(node.name, target_name(node), "functional"))
            return
        self._clone(node, note, targets, regions)


@dataclass(frozen=True, slots=True)
class _Write:
    node: torch.fx.Node
    note: NodeAliases
    target: torch.fx.Node
    object: torch.fx.Node
    storage: int
    twin: twins.Twin | None
