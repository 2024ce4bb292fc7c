"""Every place where a file binds, rebinds or deletes an attribute or an item of an object.

Made from one parsed file: assignments (tuples unpacked), `for` and `with` targets, `del`, `setattr`,
`delattr`, and the registering methods of `nn.Module`. Not handled: `__dict__.update(...)`,
`vars(self).update(...)`, and assignments inside strings given to `exec`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from fxgrad.records import Site
from fxgrad.source.names import REGISTRIES, argument, is_literal, name_pattern, plain_dotted
from fxgrad.source.parsing import Function, Source, position, site_of

Spanned = ast.stmt | ast.expr

# Methods that bind an attribute by name, with the keyword of the value.
_REGISTERING = {
    "register_buffer": "tensor",
    "register_parameter": "param",
    "register_module": "module",
    "add_module": "module",
    "__setattr__": "value",
}


Kind = Literal["assign", "augment", "declare", "delete"]


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """`base.name = value` at `first`..`last` (the whole statement, a call for `setattr` and its kind).

    `name` is a pattern (see `name_pattern`). `value` is None where it is not written down (`for`, `with`,
    `del`, a bare annotation). `item`: it is `base[name]`, not `base.name`.
    """

    first: Spanned
    last: Spanned
    base: ast.expr
    name: str
    value: ast.expr | None
    kind: Kind = "assign"
    item: bool = False

    @property
    def is_placeholder(self) -> bool:
        """Whether it only reserves the name: `self.x = None`, `self.x: Tensor`."""
        return self.kind == "declare" or is_literal(self.value, None) and self.value is not None

    def site(self, source: Source) -> Site:
        """The span of the statement."""
        return site_of(source, self.first, self.last)


@lru_cache(maxsize=512)
def bindings(source: Source) -> tuple[Binding, ...]:
    """All of them in the order of the text."""
    found = [binding for node in source.parents for binding in _of_node(node)]
    return tuple(sorted(found, key=lambda binding: position(binding.first)))


def _of_node(node: ast.AST) -> Iterator[Binding]:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _of_target(node, node, target, value)
        case ast.AnnAssign(target=target, value=value):
            yield from _as("declare" if value is None else "assign", _of_target(node, node, target, value))
        case ast.AugAssign(target=target, value=value):
            yield from _as("augment", _of_target(node, node, target, value))
        case ast.For(target=target) | ast.AsyncFor(target=target):
            yield from _of_target(target, target, target, None)
        case ast.withitem(context_expr=context, optional_vars=ast.expr() as target):
            yield from _of_target(context, target, target, None)
        case ast.Delete(targets=targets):
            for target in targets:
                yield from _as("delete", _of_target(node, node, target, None))
        case ast.Call():
            yield from _of_call(node)


def _as(kind: Kind, found: Iterable[Binding]) -> Iterator[Binding]:
    return (replace(binding, kind=kind) for binding in found)


def _of_target(first: Spanned, last: Spanned, target: ast.expr, value: ast.expr | None) -> Iterator[Binding]:
    match target:
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part, its_value in zip(parts, _parted(value, parts), strict=True):
                yield from _of_target(first, last, part, its_value)
        case ast.Starred(value=inner):
            yield from _of_target(first, last, inner, value)
        case ast.Attribute(value=base, attr=name):
            yield Binding(first, last, base, name, value)
        case ast.Subscript(value=ast.Attribute(value=base, attr=registry), slice=key) if (
            registry in REGISTRIES
        ):
            yield Binding(first, last, base, name_pattern(key), value)
        case ast.Subscript(value=ast.Call(func=ast.Name(id="vars"), args=[base]), slice=key):
            yield Binding(first, last, base, name_pattern(key), value)
        case ast.Subscript(value=base, slice=key):
            yield Binding(first, last, base, name_pattern(key), value, item=True)


def _parted(value: ast.expr | None, parts: list[ast.expr]) -> list[ast.expr | None]:
    """`a, b = x, y` gives each target its own value; otherwise each has the whole right side."""
    values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    if len(values) == len(parts) and not any(isinstance(item, ast.Starred) for item in (*values, *parts)):
        return [*values]
    return [value] * len(parts)


def _of_call(call: ast.Call) -> Iterator[Binding]:
    match call:
        case ast.Call(func=ast.Name(id="setattr"), args=[base, key, value]):
            yield Binding(call, call, base, name_pattern(key), value)
        case ast.Call(func=ast.Attribute(attr="__setattr__"), args=[base, key, value]):
            yield Binding(call, call, base, name_pattern(key), value)  # object.__setattr__(self, "x", v)
        case ast.Call(func=ast.Name(id="delattr"), args=[base, key]):
            yield Binding(call, call, base, name_pattern(key), None, "delete")
        case ast.Call(func=ast.Attribute(value=base, attr=method)) if method in _REGISTERING:
            name = argument(call, 0, "name")
            if name is not None:
                yield Binding(call, call, base, name_pattern(name), argument(call, 1, _REGISTERING[method]))


def self_name(method: Function | None) -> str:
    """The name a method gives its object; "" for a static method and outside methods."""
    if method is None or "staticmethod" in map(plain_dotted, method.decorator_list):
        return ""
    arguments = [*method.args.posonlyargs, *method.args.args]
    return arguments[0].arg if arguments else ""


def is_self(expression: ast.expr, method: Function | None) -> bool:
    """Whether the expression is the method's own object: `self`, `super()`."""
    match expression:
        case ast.Name(id=name):
            return name == self_name(method)
        case ast.Call(func=ast.Name(id="super")):
            return method is not None
    return False
