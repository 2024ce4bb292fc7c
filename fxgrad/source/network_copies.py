"""Which networks the user's text keeps as copies of others, by the last word of their names.

 - `self.target = copy.deepcopy(self.online).to(device)`, the same in a dict, as a keyword, or item by item of
   another list;
 - `target.load_state_dict(online.state_dict())`;
 - parameters of the one written from those of the other: in a loop over both side by side, or by name out of
   two tables of parameters.
Where a function does so to what it is given (`soft_update(self.target, self.online, tau)`), the arguments of
its calls are meant.

Not handled: which of these lines ran; functions that are handed on under another name; copies in files that
are not given.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from fxgrad.source.bindings import bindings
from fxgrad.source.names import argument, last_word, name_pattern, path_of
from fxgrad.source.parsing import Function, Source, ancestors, enclosing_function, nodes

_WALKS = frozenset(["parameters", "named_parameters", "state_dict", "buffers"])
_TABLES = frozenset(["list", "tuple", "dict", "OrderedDict", "enumerate"])
_FIRST = ("self", "cls")


def copied_networks(sources: Iterable[Source]) -> Mapping[str, bool]:
    """By name, as a pattern (see `fxgrad.source.names.name_pattern`): whether it is written from the other
    one's parameters again and again."""
    everywhere = tuple(sources)
    pending = [(source, *found) for source in everywhere for found in (*_made(source), *_averaged(source))]
    names: dict[str, bool] = {}
    asked: set[tuple[Source, Function | None, str, bool]] = set()
    while pending:
        source, node, name, again = pending.pop()
        if name:
            names[name] = names.get(name, False) or again
        function = enclosing_function(source, node)
        if (source, function, name, again) in asked:
            continue
        asked.add((source, function, name, again))
        pending.extend((source, value, other, again) for value, other in _renamed(source, function, name))
        if function is None:
            continue
        pending.extend(
            (other, call, given, again)
            for other in everywhere
            for call, given in _handed_over(other, function, name)
        )
    return names


def _renamed(source: Source, function: Function | None, name: str) -> Iterator[tuple[ast.expr, str]]:
    """What a variable of that function is given to: `System(net, average)`, `self.teacher = average`."""
    for value, other in _named_values(source):
        if isinstance(value, ast.Name) and value.id == name and enclosing_function(source, value) is function:
            yield value, other


def _handed_over(source: Source, function: Function, name: str) -> Iterator[tuple[ast.Call, str]]:
    """What the calls of the function give for its parameter of that name."""
    parameters = _parameters(function)
    if name not in parameters:
        return
    place = parameters.index(name) - (parameters[0] in _FIRST)
    for call in nodes(source, ast.Call):
        if last_word(source, call.func) == function.name:
            given = argument(call, place, name)
            if given is not None:
                yield call, _walked(given) or _word(given)


def _parameters(function: Function) -> list[str]:
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


# where it says so, the name, and whether the copy is written again and again
_Found = tuple[ast.AST, str, bool]


def _made(source: Source) -> Iterator[_Found]:
    for value, name in _named_values(source):
        if _is_copy(source, value, name):
            yield value, name, False
    for call in nodes(source, ast.Call):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "load_state_dict" and call.args:
            given = _walked(call.args[0])
            if given and given != _word(call.func.value):
                yield call, _word(call.func.value), _is_repeated(source, call)


def _is_repeated(source: Source, call: ast.Call) -> bool:
    """Whether a method other than `__init__` does it, or a loop."""
    for parent in ancestors(source, call):
        if isinstance(parent, ast.For | ast.While):
            return True
        if isinstance(parent, Function):
            return parent.name != "__init__" and isinstance(source.parents.get(parent), ast.ClassDef)
    return False


def _averaged(source: Source) -> Iterator[_Found]:
    for loop in nodes(source, ast.For):
        yield from ((loop, name, True) for name in _side_by_side(source, loop))
    yield from ((loop, name, True) for loop, name in _by_name(source))


def _named_values(source: Source) -> Iterator[tuple[ast.expr, str]]:
    """Every value that the text gives a name: an attribute, a variable, a keyword, a key."""
    for binding in bindings(source):
        if binding.value is not None:
            yield binding.value, binding.name
    for statement in nodes(source, ast.Assign):
        yield from (
            (statement.value, target.id) for target in statement.targets if isinstance(target, ast.Name)
        )
    for keyword in nodes(source, ast.keyword):
        yield keyword.value, keyword.arg or ""
    for call in nodes(source, ast.Call) if _definitions(source) else ():
        yield from zip(call.args, _definitions(source).get(last_word(source, call.func), ()), strict=False)
    for table in nodes(source, ast.Dict):
        yield from (
            (value, name_pattern(key))
            for key, value in zip(table.keys, table.values, strict=True)
            if key is not None
        )


@lru_cache(maxsize=64)
def _definitions(source: Source) -> Mapping[str, list[str]]:
    """The names of the arguments of each class of the file, in order."""
    found = {}
    for function in nodes(source, ast.FunctionDef):
        owner = source.parents.get(function)
        if function.name == "__init__" and isinstance(owner, ast.ClassDef):
            found[owner.name] = _parameters(function)[1:]
    return found


def _is_copy(source: Source, value: ast.expr, name: str) -> bool:
    """`deepcopy(another)`, whatever methods are called on it, or a list of a copy of each item of another."""
    match _receiver(value):
        case ast.Call(func=function, args=[original, *_]) if last_word(source, function) == "deepcopy":
            return _word(original) != name
        case ast.Call(func=function, args=[ast.ListComp() | ast.GeneratorExp() as each]) if (
            last_word(source, function) == "ModuleList"
        ):
            variables = {_word(generator.target) for generator in each.generators}
            copied = _receiver(each.elt)
            return (
                _is_copy(source, copied, name)
                and isinstance(copied, ast.Call)
                and _word(copied.args[0]) in variables
            )
    return False


def _receiver(value: ast.expr) -> ast.expr:
    """`f(x)` of `f(x).to(device).eval()`."""
    while (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and isinstance(value.func.value, ast.Call)
    ):
        value = value.func.value
    return value


def _word(expression: ast.expr) -> str:
    path = path_of(expression)
    return path.words[-1] if path.words else path.root


def _walked(expression: ast.expr) -> str:
    """`net` of `self.net.parameters()`, `list(self.net.parameters())` or `self.net.state_dict().values()`; ""
    for anything else."""
    match expression:
        case ast.Call(func=ast.Attribute(value=owner, attr=method)) if method in _WALKS:
            return _word(owner)
        case ast.Call(func=ast.Attribute(value=ast.Call() as table, attr="values" | "items" | "keys")):
            return _walked(table)
        case ast.Call(func=ast.Name(id=name), args=[inner]) if name in _TABLES:
            return _walked(inner)
    return ""


def _side_by_side(source: Source, loop: ast.For) -> Iterator[str]:
    """Of a loop over two networks' parameters side by side the network whose parameters the body writes."""
    match loop.target, loop.iter:
        case ast.Tuple(elts=variables), ast.Call(func=ast.Name(id=function), args=walks) if (
            function.startswith("zip")
        ):
            networks = [_walked(walk) or _given(source, walk) for walk in walks]
        case _:
            return
    if len(networks) != len(variables) or len({name for name in networks if name}) < 2:
        return
    written = _variables(
        root for statement in loop.body for part in ast.walk(statement) for root in _written(part)
    )
    for variable, network in zip(variables, networks, strict=True):
        if written & _variables(ast.walk(variable)):
            yield network


def _variables(parts: Iterable[ast.AST]) -> set[str]:
    return {part.id for part in parts if isinstance(part, ast.Name)}


def _given(source: Source, walk: ast.expr) -> str:
    """A name that the function around is given: its calls tell whether it stands for parameters."""
    function = enclosing_function(source, walk)
    return (
        walk.id
        if isinstance(walk, ast.Name) and function is not None and walk.id in _parameters(function)
        else ""
    )


def _by_name(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """`slow[k].lerp_(fast[k], 0.01)`, where both are tables of parameters: `slow =
    dict(self.slow.named_parameters())`."""
    tables = _tables(source)
    for loop in nodes(source, ast.For):
        scope = enclosing_function(source, loop)
        standing = {name: network for (function, name), network in tables.items() if function is scope}
        walked = _walked(loop.iter)
        if walked:
            standing.update(dict.fromkeys(_variables(ast.walk(loop.target)), walked))
        parts = list(ast.walk(loop))
        read = {_standing_for(part, standing) for part in parts if isinstance(part, ast.Name | ast.Call)}
        for written in (root for part in parts for root in _written(part)):
            network = _standing_for(written, standing)
            if network and read - {network, ""}:
                yield loop, network


def _tables(source: Source) -> Mapping[tuple[Function | None, str], str]:
    """The network whose parameters a variable holds, by function and variable."""
    found = {}
    for statement in nodes(source, ast.Assign):
        for target, value in _pairs(statement):
            if isinstance(target, ast.Name) and _walked(value):
                found[enclosing_function(source, statement), target.id] = _walked(value)
    return found


def _standing_for(part: ast.expr, standing: Mapping[str, str]) -> str:
    return standing.get(part.id, "") if isinstance(part, ast.Name) else _walked(part)


def _pairs(statement: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    for target in statement.targets:
        if (
            isinstance(target, ast.Tuple)
            and isinstance(statement.value, ast.Tuple)
            and len(target.elts) == len(statement.value.elts)
        ):
            yield from zip(target.elts, statement.value.elts, strict=True)
        else:
            yield target, statement.value


def _written(part: ast.AST) -> Iterator[ast.expr]:
    """The variables, or tables of parameters, whose tensors a statement writes: `p.data = t`, `p += t`,
    `p[k].mul_(t)`, `f(t, out=p.data)`."""
    owner: ast.expr | None = None
    match part:
        case ast.Assign(targets=[ast.Attribute(value=base, attr="data")]):
            owner = base
        case ast.AugAssign(target=base):
            owner = base
        case ast.Call(func=ast.Attribute(attr=method, value=base)) if method.endswith(
            "_"
        ) and not method.endswith("__"):
            owner = base
        case ast.keyword(arg="out", value=base):
            owner = base
    while owner is not None and not isinstance(owner, ast.Name) and not _walked(owner):
        match owner:
            case ast.Call(func=inner) | ast.Attribute(value=inner) | ast.Subscript(value=inner):
                owner = inner
            case _:
                owner = None
    if owner is not None:
        yield owner
