"""Where an attribute of an object is assigned, and where a plain list or dict attribute is built and filled.

Made from the class statements of the object and, for assignments from outside, from other files. A look-up by
name: whether a statement ran is not known. Not handled: values that travel through other variables before
they reach the attribute, except for one local name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from fxgrad.records import Site
from fxgrad.source.bindings import Binding, bindings
from fxgrad.source.classes import ELSEWHERE, Lineage, lineage
from fxgrad.source.names import argument, fits, is_unknown, name_pattern
from fxgrad.source.parsing import (
    Function,
    Source,
    enclosing_function,
    enclosing_method,
    nodes,
    position,
    site_of,
)

_KEYED = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_FILLING = frozenset(
    {"append", "appendleft", "extend", "extendleft", "insert", "add", "update", "setdefault"}
)
_DISPLAYS = (
    ast.List,
    ast.Tuple,
    ast.Set,
    ast.Dict,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


@dataclass(frozen=True, slots=True)
class _Found:
    """One statement that assigns the attribute.

    `grade`: 0 a value, 1 a placeholder, 2 an augmented assignment, 3 a name that only the run knows. `rank`:
    see `Lineage.rank`.
    """

    source: Source
    binding: Binding
    grade: int
    rank: int
    method: Function | None

    def key(self, type_name: str) -> tuple[int, int, bool, bool, bool]:
        """Sorting key: what surely gives the present value first, the nearest class first, `__init__`
        first."""
        later = self.method is not None and self.method.name != "__init__"
        names_type = _mentions(self.binding.value, type_name)
        return (self.grade, self.rank, "*" in self.binding.name, later, not names_type)


def attribute_site(owner: object, attribute: str, files: Sequence[str] = ()) -> Site | None:
    """Where the attribute gets its value: the first of `attribute_sites`."""
    return next(iter(attribute_sites(owner, attribute, files)), None)


def attribute_sites(
    owner: object, attribute: str, files: Sequence[str] = (), *, named: bool = False
) -> tuple[Site, ...]:
    """Every statement that assigns the attribute, likeliest source of its value first. `named`: only those
    that name it.

    The owner's class comes before its bases, `__init__` before other methods, those before the class body,
    and code outside the classes (`model.fc = ...` in `files`) after them; a statement naming the type of the
    present value before others. After all of these come placeholders (`self.x = None`), augmented
    assignments, and `setattr(self, name, ...)` with a name only the run knows.
    """
    family = lineage(owner)
    type_name = _present_type(owner, attribute)
    found = sorted(_assignments(family, owner, attribute, files), key=lambda item: item.key(type_name))
    if named:
        found = [item for item in found if item.grade < 3]
    body = [site_of(source, statement) for source, statement in _class_body(family, attribute)]
    inside = [item.binding.site(item.source) for item in found if item.grade == 0 and item.rank < ELSEWHERE]
    rest = [item.binding.site(item.source) for item in found if item.grade > 0 or item.rank == ELSEWHERE]
    return tuple(dict.fromkeys([*inside, *body, *rest]))


def container_sites(owner: object, attribute: str, files: Sequence[str] = ()) -> tuple[Site, ...]:
    """Where a plain list or dict gets its items, then where it is made.

    It gets items by `self.a.append(...)`, `self.a[k] = ...`, `self.a = [nn.Linear(...)]`, also through a
    local list that is assigned later.
    """
    family = lineage(owner)
    found = [item for item in _assignments(family, owner, attribute, files) if item.grade < 3]
    filling = [item for item in found if item.grade == 2 or _is_filled(item.binding.value)]
    fills = [item.binding.site(item.source) for item in filling]
    for source in family.sources(files):
        receivers = filter(None, (_local_name(item) for item in found if item.source is source))
        fills += [site_of(source, node) for node in _fills(family, source, attribute, list(receivers))]
    makes = [item.binding.site(item.source) for item in found if item not in filling]
    makes += [site_of(source, statement) for source, statement in _class_body(family, attribute)]
    return tuple(dict.fromkeys([*fills, *makes]))


def _assignments(family: Lineage, owner: object, attribute: str, files: Sequence[str]) -> Iterator[_Found]:
    for source in family.sources(files):
        for binding in bindings(source):
            if binding.kind == "delete" or not fits(binding.name, attribute):
                continue
            if binding.item and not isinstance(owner, _KEYED):  # `cache["fc"] = x` is no attribute
                continue
            placed = family.rank(source, binding.base, binding.first)
            if placed is None or (is_unknown(binding.name) and placed[0] == ELSEWHERE):
                continue
            yield _Found(source, binding, _grade(binding), *placed)
            if is_unknown(binding.name) and placed[1] is not None:
                yield from _handed_in(family, source, binding, placed[1], attribute, files)


def _handed_in(
    family: Lineage, source: Source, binding: Binding, method: Function, attribute: str, files: Sequence[str]
) -> Iterator[_Found]:
    """The calls that give a method the name which it assigns: `model.add("fc", nn.Linear(1, 1))` where `add`
    calls `setattr(self, name, module)`."""
    taken = [argument.arg for argument in (*method.args.posonlyargs, *method.args.args)][1:]
    values = _names_in(binding.value)
    name = next((word for word in taken if word in _names_in(binding.first) - values), None)
    module = next((word for word in taken if word in values), None)
    if name is None:
        return
    for file in family.sources(files):
        for call in nodes(file, ast.Call):
            if not isinstance(call.func, ast.Attribute) or call.func.attr != method.name:
                continue
            given = argument(call, taken.index(name), name)
            placed = family.rank(file, call.func.value, call)
            if given is None or placed is None or name_pattern(given) != attribute:
                continue
            value = argument(call, taken.index(module), module) if module is not None else None
            yield _Found(file, Binding(call, call, call.func.value, attribute, value), 0, *placed)


def _names_in(expression: ast.AST | None) -> set[str]:
    found = ast.walk(expression) if expression is not None else ()
    return {node.id for node in found if isinstance(node, ast.Name)}


def _grade(binding: Binding) -> int:
    if is_unknown(binding.name):
        return 3
    return 2 if binding.kind == "augment" else int(binding.is_placeholder)


def _class_body(family: Lineage, attribute: str) -> Iterator[tuple[Source, ast.stmt]]:
    """`attribute = ...` and `attribute: T` in the bodies of the classes; those with a value first."""
    declared: list[tuple[Source, ast.stmt]] = []
    for source, cls in family.classes:
        for statement in nodes(source, ast.stmt):
            if not isinstance(statement, ast.Assign | ast.AnnAssign):
                continue
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            if attribute not in names or enclosing_method(source, statement) != (cls, None):
                continue
            if statement.value is None:
                declared.append((source, statement))
            else:
                yield source, statement
    yield from declared


def _present_type(owner: object, attribute: str) -> str:
    """The type name of the attribute's value now, without running properties; "" if it has none."""
    state = getattr(owner, "__dict__", {})
    for slots in (state, *(state.get(name) or {} for name in ("_modules", "_parameters", "_buffers"))):
        if attribute in slots and slots[attribute] is not None:
            return type(slots[attribute]).__name__
    return ""


def _mentions(value: ast.expr | None, name: str) -> bool:
    words = (
        (getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(value))
        if value is not None
        else ()
    )
    return bool(name) and name in words


def _is_filled(value: ast.expr | None) -> bool:
    """Whether it builds a container with something in it: `[nn.Linear(1, 1)]`, not `[]` or `[None] * 3`."""
    for node in ast.walk(value) if value is not None else ():
        if not isinstance(node, _DISPLAYS):
            continue
        if not isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            return True
        elements = node.values if isinstance(node, ast.Dict) else node.elts
        if any(not isinstance(element, ast.Constant) for element in elements):
            return True
    return False


def _local_name(found: _Found) -> tuple[str, Function | None] | None:
    """`layers` of `self.hids = layers`, with the function it is local to: its fills are the attribute's."""
    value = found.binding.value
    return (
        (value.id, enclosing_function(found.source, found.binding.first))
        if isinstance(value, ast.Name)
        else None
    )


def _fills(
    family: Lineage, source: Source, attribute: str, receivers: Sequence[tuple[str, Function | None]]
) -> Iterator[ast.stmt | ast.expr]:
    """The statements of a file that put something in the container, or in a container inside it."""
    for node in sorted(source.parents, key=position):
        filled = _filled_by(node)
        if filled is None or not isinstance(node, ast.stmt | ast.expr):
            continue
        target = _outermost(filled)
        match target:
            case ast.Attribute(value=base, attr=name):
                fills = name == attribute and family.rank(source, base, node) is not None
            case ast.Name(id=name):
                fills = (name, enclosing_function(source, node)) in receivers
            case _:
                fills = False
        if fills:
            yield node


def _filled_by(node: ast.AST) -> ast.expr | None:
    """The container that one node fills: `c` of `c.append(x)`, `c[k] = x`, `c += x`; None if it fills
    none."""
    match node:
        case ast.Call(func=ast.Attribute(value=container, attr=method)) if method in _FILLING:
            return container
        case ast.Assign(targets=[ast.Subscript(value=container), *_]):
            return container
        case ast.AugAssign(target=ast.Subscript(value=container)):
            return container
        case ast.AugAssign(target=ast.Name() as container):
            return container
        case ast.Assign(targets=[ast.Name() as container], value=value) if _is_filled(value):
            return container
    return None


def _outermost(expression: ast.expr) -> ast.expr:
    """`self.a` of `self.a[k][j]` and of `self.a.setdefault(k, [])`."""
    while True:
        match expression:
            case (
                ast.Subscript(value=inner)
                | ast.Call(func=ast.Attribute(value=inner, attr="setdefault" | "get"))
            ):
                expression = inner
            case _:
                return expression
