"""Where an attribute of an object is used: `self.head(x)`, `for layer in self.layers`, `model.head(x)` in
another function.

Made from the class statements of the object, nearest class first, and other files. A use hands the value on
or calls it; a test for None, a shape that is read, what builds or resets the object is none. Not handled:
values that travel through other variables, except for a dict or list of attributes that is kept in one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from fxgrad.source.bindings import bindings, is_self
from fxgrad.source.classes import Lineage, lineage
from fxgrad.source.names import fits, is_unknown, name_pattern
from fxgrad.source.parsing import Function, Source, ancestors, enclosing_function, enclosing_method, nodes
from fxgrad.source.statements import SAYS_WHAT_IT_IS

# Of tensors: what says something of one and is no use of its data.
_SAYS = SAYS_WHAT_IT_IS | {"requires_grad_", "grad", "data"}
_BUILDING = ("__init__", "__repr__", "extra_repr", "__del__", "__setattr__", "__getattr__")
_BUILDING_WORDS = ("init", "reset", "freeze", "load", "save", "param")


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """`node` is the expression for the attribute in `function`. `pattern`: its name is put together
    (`getattr(self, f"fc{i}")`).

    `held`: the variable or attribute of the same object that a list or dict with it in is given to. `builds`:
    the attribute that the constructor computes from it.
    """

    source: Source
    node: ast.expr
    function: Function
    pattern: str = ""
    held: ast.expr | None = None
    builds: str = ""

    @property
    def display(self) -> ast.expr | None:
        """The list or dict that it is put in, where it is."""
        return _display(self.source, self.node)


def uses(owner: object, attribute: str, files: Sequence[str] = ()) -> tuple[Use, ...]:
    """The uses in methods of the object's own classes; where there is none, those of a variable with such an
    attribute in `files`."""
    family = lineage(owner)
    found = tuple(_of_self(family, attribute))
    return found or tuple(_of_variables(family.sources(files), attribute))


def _of_self(family: Lineage, attribute: str) -> Iterator[Use]:
    for source, cls in family.classes:
        for node in nodes(source, ast.expr):
            base, name, pattern = _attribute(node)
            if base is None or not fits(name, attribute) or is_unknown(name):
                continue
            place = enclosing_method(source, node)
            if place is None or place[0] is not cls or place[1] is None or not is_self(base, place[1]):
                continue
            use = _in_method(source, node, place[1], attribute, pattern)
            if use is not None:
                yield use


def _in_method(source: Source, node: ast.expr, method: Function, attribute: str, pattern: str) -> Use | None:
    held = _held_in(source, node)
    if method.name == "__init__" and held is None:
        builds = _computed_from(source, node, method, attribute)
        if builds:
            return Use(source, node, method, pattern, builds=builds)
    # what a constructor keeps is used later
    built = _builds(method) and not isinstance(held, ast.Attribute)
    return Use(source, node, method, pattern, held) if not built and _is_use(source, node) else None


def _of_variables(sources: Sequence[Source], attribute: str) -> Iterator[Use]:
    """`model.head(x)`: only calls, for any object may have an attribute of that name."""
    for source in sources:
        for node in nodes(source, ast.Attribute):
            parent = source.parents.get(node)
            if node.attr != attribute or not isinstance(parent, ast.Call) or parent.func is not node:
                continue
            function = next((p for p in ancestors(source, node) if isinstance(p, Function)), None)
            if function is None or _builds(function) or _is_own(source, node):
                continue
            yield Use(source, node, function)


def _is_own(source: Source, node: ast.Attribute) -> bool:
    """Whether it is an attribute of the `self` of a class: of one that is not the object's."""
    place = enclosing_method(source, node)
    return place is not None and is_self(node.value, place[1])


def _attribute(node: ast.expr) -> tuple[ast.expr | None, str, str]:
    """The object and the name of an attribute that is read; the name again where it is put together."""
    match node:
        case ast.Attribute(value=base, attr=name, ctx=ast.Load()):
            return base, name, ""
        case ast.Call(func=ast.Name(id="getattr"), args=[base, key, *_]):
            pattern = name_pattern(key)
            return base, pattern, pattern if "*" in pattern else ""
    return None, "", ""


def _builds(function: Function) -> bool:
    name = function.name
    return name in _BUILDING or any(word in name.lower() for word in _BUILDING_WORDS)


def _computed_from(source: Source, node: ast.expr, method: Function, attribute: str) -> str:
    """The other attribute of the object that the statement around the node computes from it."""
    around = {node, *ancestors(source, node)}
    for binding in bindings(source):
        if (
            binding.value in around
            and binding.value is not node
            and is_self(binding.base, method)
            and binding.name != attribute
        ):
            return binding.name
    return ""


def _is_use(source: Source, node: ast.expr) -> bool:
    parent = source.parents.get(node)
    match parent:
        case ast.Attribute(attr=name):
            outer = source.parents.get(parent)
            called = isinstance(outer, ast.Call) and outer.func is parent
            return name not in _SAYS and (
                name == "forward"
                or not called
                or not hasattr(nn.Module, name)
                or name in ("keys", "values", "items")
            )
        case ast.Compare() | ast.UnaryOp(op=ast.Not()) | ast.Assert() | ast.Delete() | ast.Expr():
            return False
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            return test is not node
        case ast.BoolOp(values=values):
            return values[-1] is node
        case ast.Call(func=ast.Name(id=name)):
            return name not in ("isinstance", "hasattr", "len", "id", "type", "print", "repr", "str")
        case ast.Subscript(slice=index):
            return index is not node
    return True


def picks(use: Use, owner: object) -> tuple[ast.expr, ...]:
    """Where items are taken out of what holds it: `ways[kind]`, `self.ways.get(kind)`, `for way in
    ways[:2]`."""
    found = []
    held = use.held
    for node in nodes(use.source, ast.expr):
        match node, held:
            case ast.Name(id=name, ctx=ast.Load()), ast.Name(id=kept):
                same = name == kept and enclosing_function(use.source, node) is use.function
            case ast.Attribute(attr=name, value=base, ctx=ast.Load()), ast.Attribute(attr=kept):
                place = enclosing_method(use.source, node)
                own = [cls for _, cls in lineage(owner).classes]
                same = name == kept and place is not None and place[0] in own and is_self(base, place[1])
            case _:
                same = False
        pick = _pick(use.source, node) if same else None
        found += [pick] if pick is not None else []
    return tuple(found)


def _pick(source: Source, node: ast.expr) -> ast.expr | None:
    parent = source.parents.get(node)
    match parent:
        case ast.Subscript(value=value, ctx=ast.Load()) if value is node:
            return parent
        case ast.Attribute(attr="get" | "pop" | "values" | "items"):
            outer = source.parents.get(parent)
            return outer if isinstance(outer, ast.Call) and outer.func is parent else None
        case ast.For(iter=of) | ast.comprehension(iter=of) if of is node:
            return node
    return None


def _display(source: Source, node: ast.expr) -> ast.expr | None:
    parent = source.parents.get(node)
    match parent:
        case ast.List() | ast.Tuple() | ast.Dict():
            return parent
        case ast.keyword():
            outer = source.parents.get(parent)
            return (
                outer
                if isinstance(outer, ast.Call)
                and isinstance(outer.func, ast.Name)
                and outer.func.id == "dict"
                else None
            )
    return None


def _held_in(source: Source, node: ast.expr) -> ast.expr | None:
    """The one target that a list or dict around the node is assigned to, also inside a call that makes a
    container of it."""
    outer: ast.AST | None = _display(source, node)
    if outer is None:
        return None
    for parent in ancestors(source, outer):
        match parent:
            case ast.Call() | ast.keyword():
                continue
            case ast.Assign(targets=[ast.Name() | ast.Attribute() as target]):
                return target
            case _:
                return None
    return None
