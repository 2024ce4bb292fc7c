"""Tensors used but not registered: where they are built, and whether one is used like a weight."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

from fxgrad.passes.context import Context
from fxgrad.records import External, Facts, NodeFact, Site
from fxgrad.source import attribute_site, attribute_sites, container_sites
from fxgrad.source.parsing import Source, enclosing_function, functions, load, nodes, site_of

_RANDOM = frozenset(
    [
        "randn",
        "rand",
        "randn_like",
        "rand_like",
        "normal",
        "normal_",
        "uniform",
        "uniform_",
        "trunc_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "xavier_uniform",
        "xavier_normal",
        "kaiming_uniform",
        "kaiming_normal",
        "orthogonal_",
        "sparse_",
        "standard_normal",
    ]
)
_WEIGHT_OPS = frozenset(
    [
        "matmul",
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose2d",
        "mm",
        "bmm",
        "einsum",
        "embedding",
        "addmm",
        "bilinear",
        "mv",
    ]
)
_EMBEDDING_OPS = frozenset(
    [
        "add",
        "radd",
        "iadd",
        "cat",
        "expand",
        "repeat",
        "expand_as",
        "concat",
    ]
)  # how a class token or a position enters
_WORD = re.compile(r"(\w+)|\[([^\]]+)\]")
_PERIODIC = frozenset(["sin", "cos", "Sin"])


def assignment(context: Context, external: External) -> Site | None:
    """The line that builds the attribute: for a container the lines that fill it, else its assignment."""
    owner = owner_of(context, external)
    if owner is None:
        return None
    if external.is_parameter or "[" in external.path:
        filled = container_sites(owner, external.attribute)
        if filled:
            return filled[0]
    return attribute_site(owner, external.attribute, context.files) or _variable_site(
        context, external.attribute
    )


def is_state(context: Context, external: External) -> bool:
    """Whether another method than `__init__` sets the attribute or an item of it: what one step keeps for the
    next is no weight."""
    owner = owner_of(context, external)
    if owner is None:
        return False
    sites = (
        *attribute_sites(owner, external.attribute, context.files),
        *container_sites(owner, external.attribute, context.files),
    )
    return any(not site.function.endswith("__init__") for site in sites)


def is_variable(context: Context, external: External) -> bool:
    """Whether it is a global, or a variable of a function around the class, that the module's methods
    name."""
    owner = owner_of(context, external)
    return owner is not None and not hasattr(owner, external.attribute)


def _variable_site(context: Context, name: str) -> Site | None:
    for file in context.files:
        source = load(file)
        for statement in nodes(source, ast.Assign):
            names = {
                node.id
                for target in statement.targets
                for node in ast.walk(target)
                if isinstance(node, ast.Name)
            }
            if name in names:
                return site_of(source, statement)
    return None


def owner_of(context: Context, external: External) -> object | None:
    """The registered module from which the tensor was reached."""
    if external.owner is None:
        return None
    try:
        return context.model.get_submodule(external.owner)
    except AttributeError:
        return None


def hides_on_purpose(site: Site | None) -> bool:
    """Whether the statement is the idiom that keeps a given module out of `parameters()`: `self.teacher =
    [teacher]`, `object.__setattr__(self, "teacher", teacher)`, `self.__dict__["teacher"] = teacher`."""
    if site is None:
        return False
    source = load(site.file)
    for node in nodes(source, ast.Assign) + nodes(source, ast.Call):
        if node.lineno != site.line:
            continue
        match node:
            case ast.Assign(targets=[ast.Subscript(value=ast.Attribute(attr="__dict__"))]):
                return True
            case ast.Assign(value=ast.List(elts=[ast.Name(id=name)]) | ast.Tuple(elts=[ast.Name(id=name)])):
                function = enclosing_function(source, node)
                return function is not None and name in {
                    a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)
                }
            case ast.Call(func=ast.Attribute(value=ast.Name(id="object"), attr="__setattr__")):
                return True
    return False


def is_optimized(context: Context, external: External) -> bool:
    """Whether the optimizer that was given holds the tensor all the same: the user has seen to it."""
    groups = getattr(context.optimizer, "param_groups", None)
    if not isinstance(groups, list):
        return False
    tensor = _tensor(context, external)
    return tensor is not None and any(p is tensor for group in groups for p in group.get("params", ()))


def _tensor(context: Context, external: External) -> object | None:
    item: object | None = owner_of(context, external)
    for word, key in _WORD.findall(external.path):
        try:
            item = getattr(item, word) if word else operator.getitem(cast(Any, item), ast.literal_eval(key))
        except (AttributeError, LookupError, TypeError, ValueError, SyntaxError):
            return None
    return item


def in_layer(external: External) -> bool:
    """Whether it is a parameter of a layer or object that the attribute holds, not a tensor the attribute
    holds itself."""
    return external.is_parameter and "." in external.path


def by_line(context: Context, externals: Iterable[External]) -> list[tuple[Site | None, list[External]]]:
    """The tensors grouped by the line that builds what holds them: a dozen blocks of one class are one
    mistake."""
    groups: dict[object, tuple[Site | None, list[External]]] = {}
    known: dict[object, Site | None] = {}
    for external in externals:
        key = (
            type(owner_of(context, external)),
            external.attribute,
            in_layer(external),
            "[" in external.path,
        )
        if key not in known:
            known[key] = assignment(context, external)
        site = known[key]
        groups.setdefault(site or (external.owner, external.attribute), (site, []))[1].append(external)
    return list(groups.values())


def holders(members: Iterable[External]) -> str:
    """What holds them, for a message: `0.mix` (and 11 more like it)."""
    names = tuple(dict.fromkeys(f"{e.owner}.{e.attribute}" if e.owner else e.attribute for e in members))
    return f"`{names[0]}`" + (f" (and {len(names) - 1} more like it)" if len(names) > 1 else "")


def qualified(external: External) -> str:
    """The tensor's name as the user would write it from the model on."""
    return f"{external.owner}.{external.path}" if external.owner else external.path


def looks_like_weight(facts: Facts, context: Context, external: External) -> bool:
    """Whether it is drawn at random where it is built, and a weight's operation on a way to the loss reads
    it.

    A mask, a table and a constant are neither. Random frequencies (`sin(x @ B)`) and random hyperplanes (`x @
    B > 0`) are fixed by design.
    """
    if external.constant:
        return False
    site = assignment(context, external)
    if site is None or not _drawn(site):
        return False
    # one row for the whole batch
    added = len(facts.values[external.value].shape) > 1 and facts.values[external.value].shape[0] == 1
    names = _WEIGHT_OPS | (_EMBEDDING_OPS if added else frozenset())
    users = [
        node
        for node in facts.nodes
        if external.value in node.reads and node.target.rpartition(".")[2].strip("_") in names
    ]
    return any(_reaches_loss(facts, node.makes) and not _periodic(facts, node) for node in users)


def _reaches_loss(facts: Facts, start: Iterable[int]) -> bool:
    """Whether the values get to the loss as floating numbers."""
    reached = set(start)
    for node in facts.nodes:
        for flow in node.flows:
            if flow.source in reached and not flow.weak and facts.values[flow.target].dtype.is_floating_point:
                reached.add(flow.target)
    return facts.loss in reached


def _periodic(facts: Facts, node: NodeFact) -> bool:
    """Whether nothing but sine and cosine (of a multiple) reads what the step makes."""
    pending, seen, found = list(node.makes), set(node.makes), False
    while pending:
        value = pending.pop()
        for reader in facts.nodes:
            if value not in reader.reads:
                continue
            name = reader.target.rpartition(".")[2]
            if name in _PERIODIC:
                found = True
            elif name in ("mul", "div", "add", "__rmul__"):
                pending += [v for v in reader.makes if v not in seen]
                seen.update(reader.makes)
            else:
                return False
    return found


def _drawn(site: Site) -> bool:
    """Whether the statement draws numbers: itself, what fills the local name it assigns, or a function of the
    same file that it calls."""
    source = load(site.file)
    statement = next(
        (
            s
            for s in nodes(source, ast.stmt)
            if s.lineno == site.line and isinstance(s, ast.Assign | ast.AnnAssign)
        ),
        None,
    )
    if statement is None:  # a fill: `self.filters.append(torch.randn(3))`
        calls = (
            node
            for node in nodes(source, ast.Call)
            if site.line <= node.lineno <= max(site.end_line, site.line)
        )
        return any(_draws(node) for node in calls)
    if any(_draws(node) for node in ast.walk(statement)):
        return True
    return any(_draws(node) for part in _behind(source, statement) for node in ast.walk(part))


def _draws(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _RANDOM


def _behind(source: Source, statement: ast.stmt) -> Iterator[ast.AST]:
    """The statements about the local names that the statement reads, and the functions of the file that it
    calls."""
    around = enclosing_function(source, statement)
    names = {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    called = {
        getattr(n.func, "attr", getattr(n.func, "id", ""))
        for n in ast.walk(statement)
        if isinstance(n, ast.Call)
    }
    yield from (function for function in functions(source) if function.name in called)
    if around is None:
        return
    names -= {argument.arg for argument in ast.walk(around.args) if isinstance(argument, ast.arg)}
    for other in ast.walk(around):
        if isinstance(other, ast.Assign | ast.Expr | ast.AugAssign) and _mentions(other, names):
            yield other


def _mentions(statement: ast.stmt, names: set[str]) -> bool:
    return any(isinstance(node, ast.Name) and node.id in names for node in ast.walk(statement))


__all__ = [
    "assignment",
    "by_line",
    "hides_on_purpose",
    "holders",
    "in_layer",
    "is_optimized",
    "is_variable",
    "looks_like_weight",
    "owner_of",
    "qualified",
]
