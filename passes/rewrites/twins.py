"""Functional twins: what computes, without writing, the value that an in-place node leaves in the tensors it
writes.

`twin_of` reads torch's own registry: an in-place operator has a twin if the operator of the same name without
the underscore takes the same arguments (`add_` and `add`). `inplace=True`, `out=`, `operator.iadd`, `x[i] =
v` and `torch._foreach_*_` are ways to say the same. A trial runs the twin on fake tensors and accepts it only
if dtype and layout come out as the in-place form leaves them and autograd knows its derivative. Not handled,
and then None: random fills (a twin may draw other numbers), anything without a registered twin.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.fx
from torch import nn

from fxgrad.passes.analyses.aliases import Aliases, NodeAliases, Place
from fxgrad.passes.rewrites import registry, setitem
from fxgrad.passes.rewrites.forest import dense
from fxgrad.passes.rewrites.ops import FakeOps, Ops
from fxgrad.passes.rewrites.registry import target_name
from fxgrad.torch_api.internals import FakeTensorMode
from fxgrad.torch_api.tensors import Geometry

Resolve = Callable[[object], Any]


Build = Callable[[Ops, Sequence[object], Resolve], Sequence[object] | None]


@dataclass(frozen=True, slots=True)
class Twin:
    """`build(ops, targets' values, resolve)` gives the new value of each target, None if this form has no
    twin after all.

    `casts`: the dtype that each value must be brought back to: an in-place op keeps its target's, whatever
    its operands promote to. `unseen`: autograd does not see the write (`logical_and_`): the gradient passes
    the in-place form as if it were not there.
    """

    targets: tuple[torch.fx.Node, ...]
    build: Build
    casts: tuple[torch.dtype | None, ...] = ()
    unseen: bool = False

    def values(self, ops: Ops, values: Sequence[object], resolve: Resolve) -> Sequence[Any]:
        """The new values, in the targets' dtypes."""
        made = self.build(ops, values, resolve)
        assert made is not None, "twin_of tried it"
        return [v if c is None else ops.method("to", v, c) for v, c in zip(made, self.casts, strict=True)]


def written_targets(node: torch.fx.Node, owner: torch.fx.GraphModule) -> tuple[torch.fx.Node, ...] | None:
    """The argument nodes that an in-place node writes, by its operator's schema or by the conventions of its
    kind; None: not known."""
    outs = registry.out_arguments(node)
    if outs:
        return _out_nodes(node, outs)
    known = registry.written(node)
    if known is not None:
        return known
    name = target_name(node)
    if (
        name.startswith("_foreach_")
        and name.endswith("_")
        and node.args
        and isinstance(node.args[0], list | tuple)
    ):
        return tuple(n for n in node.args[0] if isinstance(n, torch.fx.Node))
    first = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("self"))
    return (first,) if isinstance(first, torch.fx.Node) and _writes_first(node, name, owner) else None


def _writes_first(node: torch.fx.Node, name: str, owner: torch.fx.GraphModule) -> bool:
    """Whether a node writes its first argument, by the conventions of its kind."""
    if node.op == "call_method":
        return name.endswith("_")
    if node.op == "call_module":
        return inplace_module(node, owner) is not None
    if node.op != "call_function":
        return False
    if node.target is operator.setitem or inplace_operator(node.target) is not None:
        return True
    return registry.out_of_place(node) is not None or has_flag(node)


def _out_nodes(node: torch.fx.Node, keywords: Sequence[str]) -> tuple[torch.fx.Node, ...] | None:
    found: list[object] = []
    for keyword in keywords:
        value = node.kwargs[keyword]
        found += value if isinstance(value, list | tuple) else [value]
    nodes = tuple(n for n in found if isinstance(n, torch.fx.Node))
    return nodes if len(nodes) == len(found) else None


def _rest(node: torch.fx.Node) -> tuple[tuple[object, ...], dict[str, object]]:
    """A call's arguments without the first, which is the tensor it writes."""
    if node.args:
        return tuple(node.args[1:]), dict(node.kwargs)
    return (), {k: v for k, v in node.kwargs.items() if k not in ("self", "input")}


def copies(node: torch.fx.Node) -> bool:
    """Whether the functional form copies its target and changes a part, where the in-place form only touches
    that part."""
    return target_name(node).startswith(
        ("setitem", "index_", "scatter", "masked_scatter", "put_", "fill_diagonal")
    )


def twin_of(node: torch.fx.Node, owner: torch.fx.GraphModule, aliases: Aliases) -> Twin | None:
    """The functional twin of an in-place node; None if there is none or what it does is not known."""
    note = aliases.nodes[node.name]
    targets = written_targets(node, owner)
    if not targets or note.random:
        return None
    build = _build(node, owner, aliases, note)
    if build is None:
        return None
    return _trial(node, Twin(targets, build), owner, aliases)


def _build(
    node: torch.fx.Node, owner: torch.fx.GraphModule, aliases: Aliases, note: NodeAliases
) -> Build | None:
    name = target_name(node)
    if registry.out_arguments(node):
        return _without_out(node)
    if node.target is operator.setitem:
        target, index, value = node.args
        assert isinstance(target, torch.fx.Node)
        return lambda ops, values, resolve: _one(
            setitem.assign(ops, values[0], target, index, value, aliases, resolve)
        )
    if name == "copy_":
        return _copy(node, aliases, note)
    if name.startswith("_foreach_"):
        return _foreach(node, name)
    if node.op == "call_module":
        return _module(node, owner)
    if has_flag(node):
        return _flag_off(node)
    functional = inplace_operator(node.target) if node.op == "call_function" else None
    plain = ("call_function", functional) if functional is not None else registry.out_of_place(node)
    return _named(node, *plain) if plain is not None else None


def _one(value: object) -> Sequence[object] | None:
    return None if value is None else (value,)


def _named(node: torch.fx.Node, op: str, target: Any) -> Build:
    """`x.add_(y)`, `torch.relu_(x)`, `torch.ops.aten.add_.Tensor(x, y)`, `x += y`."""
    args, kwargs = _rest(node)
    if op == "call_method":
        return lambda ops, values, resolve: (
            ops.method(target, values[0], *resolve(args), **resolve(kwargs)),
        )
    return lambda ops, values, resolve: (ops.function(target, values[0], *resolve(args), **resolve(kwargs)),)


def _copy(node: torch.fx.Node, aliases: Aliases, note: NodeAliases) -> Build | None:
    """`t.copy_(s)`: a fresh copy of `s`, unless autograd must still see that `t` gets a gradient of zeros."""
    arguments = registry.positional(node)
    if arguments is None or len(arguments) < 2:
        return None
    target, source = arguments[:2]
    if (
        not isinstance(target, torch.fx.Node)
        or not isinstance(source, torch.fx.Node)
        or target.name in note.needs_grad
    ):
        return None
    rank, source_rank = aliases.rank(target), aliases.rank(source)

    def build(ops: Ops, values: Sequence[object], resolve: Resolve) -> Sequence[object]:
        value = resolve(source)
        if source_rank > rank:
            value = ops.function(operator.getitem, value, (0,) * (source_rank - rank))
        return (ops.method("to", ops.method("expand_as", value, values[0]), values[0], copy=True),)

    return build


def _foreach(node: torch.fx.Node, name: str) -> Build | None:
    functional = getattr(torch, name[:-1], None)
    if functional is None or not node.args:
        return None

    def build(ops: Ops, values: Sequence[object], resolve: Resolve) -> Sequence[object]:
        made = ops.function(functional, list(values), *resolve(node.args[1:]), **resolve(node.kwargs))
        return [ops.function(operator.getitem, made, i) for i in range(len(values))]

    return build


def _without_out(node: torch.fx.Node) -> Build:
    outs = registry.out_arguments(node)
    several = len(outs) > 1 or not isinstance(node.kwargs[outs[0]], torch.fx.Node)

    def build(ops: Ops, values: Sequence[object], resolve: Resolve) -> Sequence[object]:
        kwargs = {k: resolve(v) for k, v in node.kwargs.items() if k not in outs}
        if node.op == "call_method":
            made = ops.method(str(node.target), *resolve(node.args), **kwargs)
        else:
            assert callable(node.target)
            made = ops.function(registry.without_out(node.target), *resolve(node.args), **kwargs)
        return [ops.function(operator.getitem, made, i) for i in range(len(values))] if several else (made,)

    return build


# ------------------------------------------------------------------------------------------------------ flags


def inplace_operator(target: object) -> Callable[..., object] | None:
    """`operator.add` for `operator.iadd`, and so on."""
    name = getattr(target, "__name__", "")
    if getattr(target, "__module__", "") != "_operator" or not name.startswith("i"):
        return None
    if name in ("index", "indexOf", "inv", "invert", "is_", "is_not", "itemgetter"):
        return None
    plain = getattr(operator, f"__{name[1:].strip('_')}__", None)
    return plain if callable(plain) else None


def has_flag(node: torch.fx.Node) -> bool:
    """Whether a function is called with `inplace=True`."""
    bound = _bound(node)
    return bound is not None and bound.arguments.get("inplace") is True


def _bound(node: torch.fx.Node) -> inspect.BoundArguments | None:
    if node.op != "call_function" or not callable(node.target):
        return None
    try:
        signature = inspect.signature(node.target)
        return signature.bind(*node.args, **node.kwargs) if "inplace" in signature.parameters else None
    except (TypeError, ValueError):  # a built-in without a signature
        return None


def _flag_off(node: torch.fx.Node) -> Build:
    bound = _bound(node)
    assert bound is not None
    first = next(iter(bound.arguments))
    target = node.target
    assert callable(target)

    def build(ops: Ops, values: Sequence[object], resolve: Resolve) -> Sequence[object]:
        rest = {k: resolve(v) for k, v in bound.arguments.items() if k not in (first, "inplace")}
        return (ops.function(target, values[0], **rest),)

    return build


def inplace_module(node: torch.fx.Node, owner: torch.fx.GraphModule) -> nn.Module | None:
    """The called module if it, or one inside it, has `inplace=True` and it holds no tensors of its own."""
    module = owner.get_submodule(str(node.target))
    if not any(getattr(m, "inplace", False) is True for m in module.modules()):
        return None
    held = next(module.parameters(), None) is not None or next(module.buffers(), None) is not None
    return None if held else module


def _module(node: torch.fx.Node, owner: torch.fx.GraphModule) -> Build | None:
    module = inplace_module(node, owner)
    if module is None:
        return None
    plain = copy.deepcopy(module)
    for inner in plain.modules():
        if getattr(inner, "inplace", False) is True:
            inner.inplace = False  # type: ignore[assignment]
    path = f"{node.target}_out_of_place"
    args, kwargs = _rest(node)
    return lambda ops, values, resolve: (
        ops.module(path, plain, values[0], *resolve(args), **resolve(kwargs)),
    )


# ------------------------------------------------------------------------------------------------------ trial


def _trial(node: torch.fx.Node, twin: Twin, owner: torch.fx.GraphModule, aliases: Aliases) -> Twin | None:
    """The twin with the casts it needs to leave what the in-place form leaves, both tried on fake tensors
    that require grad; None: it does not fit."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad():
            stand = _Stand(owner, aliases)
            values = [stand.of(t) for t in twin.targets]
            built = twin.build(FakeOps(), values, stand.resolve)
            made = [value for value in built or () if isinstance(value, torch.Tensor)]
            if built is None or len(made) != len(built):
                return None
            if not all(_alike(new, old) for new, old in zip(made, values, strict=True)):
                return None
            histories = _histories(node, twin.targets, owner, stand)
            if any(h != "none" and not new.requires_grad for h, new in zip(histories, made, strict=False)):
                return None  # a comparison in place keeps a gradient, of zeros
            casts = tuple(
                None if new.dtype == old.dtype else old.dtype for new, old in zip(made, values, strict=True)
            )
            return replace(twin, casts=casts, unseen="old" in histories)
    except Exception:  # whatever an operator says of arguments it does not take: no twin
        return None


def _histories(
    node: torch.fx.Node, targets: Sequence[torch.fx.Node], owner: torch.fx.GraphModule, stand: _Stand
) -> list[str]:
    """What the in-place form leaves of each target for autograd: "none" (it does not require grad), its "old"
    history, or a "new" one. Nothing where it cannot be tried: by `out=` with a gradient."""
    written = {t: stand.of(t).clone() for t in targets}
    before = [t.grad_fn for t in written.values()]
    args, kwargs = torch.fx.node.map_arg(
        (node.args, node.kwargs), lambda n: written[n] if n in written else stand.of(n)
    )
    target: Any = node.target
    ops = FakeOps()
    try:
        if node.op == "call_method":
            ops.method(target, *args, **kwargs)
        else:
            ops.function(owner.get_submodule(target) if node.op == "call_module" else target, *args, **kwargs)
    except Exception:  # as above
        return []
    after = zip(before, written.values(), strict=True)
    return ["none" if not t.requires_grad else "old" if t.grad_fn is old else "new" for old, t in after]


def _alike(new: torch.Tensor, old: torch.Tensor) -> bool:
    known = new.grad_fn is None or "NotImplemented" not in new.grad_fn.name()
    # A tensor with gaps loses its strides in any form, a clone included.
    return known and new.shape == old.shape and (new.stride() == old.stride() or not dense(Geometry.of(old)))


class _Stand:
    """Fake tensors for the nodes of the old graph."""

    def __init__(self, owner: torch.fx.GraphModule, aliases: Aliases) -> None:
        self.owner = owner
        self.aliases = aliases

    def resolve(self, item: Any) -> Any:
        return torch.fx.node.map_arg(item, self.of)

    def of(self, node: torch.fx.Node) -> Any:
        note = self.aliases.nodes[node.name]
        made = [self._tensor(place) for place in note.places]
        if note.single:
            return made[0]
        if note.number is not None:
            return note.number
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.owner)
        if made:
            return tuple(made)
        raise LookupError(node.name)

    def _tensor(self, place: Place) -> torch.Tensor:
        geometry = place.geometry
        made = torch.empty_strided(geometry.shape, geometry.stride, dtype=place.dtype, device=place.device)
        return made.requires_grad_() if place.dtype.is_floating_point or place.dtype.is_complex else made
