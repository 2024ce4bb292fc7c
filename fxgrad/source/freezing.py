"""Statements that freeze parameters, the likeliest for a given parameter first.

Made from parsed files by name alone: which of them ran, and on which parameter, is not known. A value that is
not the literal `True` counts as freezing, since it may be False. Not handled: guards of the form `if "head"
in name: continue`, freezing through a user's function other than one named after freezing, and parameters
frozen inside a library.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fxgrad.records import Site
from fxgrad.source.bindings import Binding, bindings, is_self
from fxgrad.source.classes import lineage
from fxgrad.source.names import argument, is_literal, last_word
from fxgrad.source.objects import origin
from fxgrad.source.parsing import (
    Function,
    Source,
    ancestors,
    enclosing_method,
    load,
    nodes,
    position,
    site_of,
)

_FREEZE_CALL = re.compile(r"(?i)(?<!un)(?<!un_)freeze|set_requires_grad")
_MAY_FREEZE = re.compile(
    r"(?i)freeze|requires_grad|parameter|from_pretrained"
)  # in some word of all of these
_GENERIC = frozenset({"weight", "bias"})  # every layer has them: sharing one says nothing


@dataclass(frozen=True, slots=True)
class _Freeze:
    """One freezing expression: what it freezes, and the value it gives `requires_grad` (None: a plain
    freeze)."""

    node: ast.stmt | ast.expr
    target: ast.expr | None
    value: ast.expr | None = None
    by_name: bool = False  # a call that only sounds like freezing


@dataclass(frozen=True, slots=True)
class _Words:
    """The names around a freezing statement.

    `strong`: attributes and keys on the way to what it freezes; `weak`: variables. `wanted` and `unwanted`:
    strings that its conditions ask of the parameter's name, or exclude.
    """

    strong: set[str]
    weak: set[str]
    wanted: set[str]
    unwanted: set[str]


def is_made_constant(owner: object, attribute: str) -> bool:
    """Whether the owner's class makes the attribute a parameter that was never to train, wherever it assigns
    it: `self.x = nn.Parameter(..., requires_grad=False)`."""
    values = [
        (source, binding.value)
        for source, cls in lineage(owner).classes
        for binding in bindings(source)
        if binding.name == attribute and binding.value is not None and _is_own(source, cls, binding)
    ]
    return bool(values) and all(_makes_constant(source, value) for source, value in values)


def _is_own(source: Source, cls: ast.ClassDef, binding: Binding) -> bool:
    """Whether a method of the class assigns it to its own object."""
    around = enclosing_method(source, binding.first)
    return around is not None and around[0] is cls and is_self(binding.base, around[1])


def _makes_constant(source: Source, value: ast.expr) -> bool:
    if not isinstance(value, ast.Call) or last_word(source, value.func) != "Parameter":
        return False
    return is_literal(argument(value, 1, "requires_grad"), False)


def freeze_sites(files: Sequence[str], *, name: str | None = None) -> tuple[Site, ...]:
    """Statements that set `requires_grad` to anything but a literal True, then calls that only sound like
    freezing.

    With `name` (`encoder.layer.0.weight`) they are ordered in three groups: those whose target or condition
    shares a word with it (most words first), those that name nothing at all (`for p in net.parameters()`),
    and those that name something else. Otherwise, and within a group, the order is that of the files. Those
    of installed packages are looked for where the others have none.
    """
    sources = [load(file) for file in files]
    for installed in (False, True):
        found: list[tuple[tuple[int, ...], Site]] = []
        for source in sources:
            if (origin(source.file) == "installed") == installed:
                for by_name, words, site in _in_order(source):
                    found.append((_relevance(by_name, words, name), site))
        if found:
            return tuple(dict.fromkeys(site for _, site in sorted(found, key=lambda item: item[0])))
    return ()


@lru_cache(maxsize=512)
def _in_order(source: Source) -> tuple[tuple[bool, _Words, Site], ...]:
    """The freezing expressions of a file: whether each only sounds like freezing, the names around it and its
    place. Looked for once, however many parameters are asked for."""
    if not any(map(_MAY_FREEZE.search, source.lines)):
        return ()  # to parse a big file takes a hundred times as long
    found = sorted(_freezes(source), key=lambda item: position(item.node))
    return tuple((item.by_name, _words(source, item), site_of(source, item.node)) for item in found)


def _freezes(source: Source) -> Iterator[_Freeze]:
    for binding in bindings(source):
        if (
            binding.name == "requires_grad"
            and binding.value is not None
            and not is_literal(binding.value, True)
        ):
            yield _Freeze(binding.first, binding.base, binding.value)
    for call in nodes(source, ast.Call):
        freeze = _freezing_call(source, call)
        if freeze is not None:
            yield freeze


def _freezing_call(source: Source, call: ast.Call) -> _Freeze | None:
    word = last_word(source, call.func)
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    if word == "requires_grad_":
        value = argument(call, 0, "requires_grad")
        return None if value is None or is_literal(value, True) else _Freeze(call, receiver, value)
    if word == "Parameter":
        value = argument(call, 1, "requires_grad")
        return (
            None
            if value is None or is_literal(value, True)
            else _Freeze(call, _assigned(source, call), value)
        )
    if (
        word == "from_pretrained"
        and receiver is not None
        and last_word(source, receiver).startswith("Embedding")
    ):
        value = argument(call, 1, "freeze")  # True where it is left out
        return None if is_literal(value, False) else _Freeze(call, _assigned(source, call))
    return _Freeze(call, call, by_name=True) if _FREEZE_CALL.search(word) and not _thaws(call, word) else None


def _thaws(call: ast.Call, word: str) -> bool:
    """`set_requires_grad(net, True)`."""
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return "requires_grad" in word and any(is_literal(value, True) for value in values)


def _assigned(source: Source, node: ast.AST) -> ast.expr | None:
    """The target of the assignment that the expression is part of."""
    for parent in ancestors(source, node):
        if isinstance(parent, ast.Assign):
            return parent.targets[0]
        if isinstance(parent, ast.stmt):
            return parent.target if isinstance(parent, ast.AnnAssign) else None
    return None


def _relevance(by_name: bool, words: _Words, name: str | None) -> tuple[int, ...]:
    """Sorting key: (sounds like freezing, group, -words shared, words not shared)."""
    if name is None:
        return (int(by_name),)
    parts = set(name.split(".")) - {"module"}  # a wrapper's, and many a variable's
    foreign = words.strong - parts
    shared = words.strong & parts if foreign else (words.strong | words.weak) & parts
    matched = {text for text in words.wanted if text in name}
    excluded = any(text in name for text in words.unwanted) or (words.wanted and not matched)
    group = 2 if excluded or foreign else 1
    if not excluded and (matched or shared - _GENERIC or (shared and not foreign)):
        group = 0
    return (int(by_name), group, -len(shared) - len(matched), len(foreign))


def _words(source: Source, freeze: _Freeze) -> _Words:
    words = _Words(set(), set(), set(), set())
    if freeze.target is not None:
        _gather(source, freeze.target, freeze.node, words)
    if isinstance(freeze.node, ast.Call) and freeze.by_name:
        words.weak.update(last_word(source, freeze.node.func).split("_"))  # `freeze_backbone()`
    # `p.requires_grad = "head" in name` freezes what is not the head.
    tests = [(freeze.value, True)] if freeze.value is not None else []
    child: ast.AST = freeze.node
    for parent in ancestors(source, freeze.node):
        if isinstance(parent, Function):
            break
        if isinstance(parent, ast.If):
            tests.append((parent.test, child in parent.orelse))
        for loop in _loops(parent):  # only a test of the loop's variable asks about the parameter
            variables = _variables(loop.target)
            for test, negated in tests:
                for text, unwanted in _strings(test, negated) if variables & _variables(test) else ():
                    (words.unwanted if unwanted else words.wanted).add(text)
        child = parent
    return words


def _variables(expression: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _gather(source: Source, expression: ast.expr, within: ast.AST, words: _Words) -> None:
    """Collect the names of an expression, and where one is a loop's variable those of what the loop walks
    over."""
    methods = {id(node.func) for node in ast.walk(expression) if isinstance(node, ast.Call)}
    for node in ast.walk(expression):
        match node:
            case ast.Attribute(attr=word):
                if id(node) not in methods:
                    words.strong.add(word)
            case ast.Subscript(slice=ast.Constant(value=str() | int() as key)):
                words.strong.add(str(key))
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str() as key), *_]):
                words.strong.add(key)
            case ast.Name(id=variable):
                words.weak.add(variable)
                walked = _walked(source, variable, within)
                if walked is not None:
                    _gather(source, walked[0], walked[1], words)


def _walked(source: Source, variable: str, within: ast.AST) -> tuple[ast.expr, ast.AST] | None:
    """What the innermost loop (or comprehension) around `within` that binds the variable walks over, and that
    loop."""
    for parent in ancestors(source, within):
        if isinstance(parent, Function):
            return None
        for loop in _loops(parent):
            if variable in _variables(loop.target):
                return _zipped(loop, variable), parent
    return None


def _loops(node: ast.AST) -> Sequence[ast.For | ast.AsyncFor | ast.comprehension]:
    """The loops a node is, innermost first."""
    match node:
        case ast.For() | ast.AsyncFor():
            return [node]
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            return node.generators[::-1]
    return []


def _zipped(loop: ast.For | ast.AsyncFor | ast.comprehension, variable: str) -> ast.expr:
    """`b` for the variable `q` of `for p, q in zip(a, b)`; the whole iterable otherwise."""
    match loop.target, loop.iter:
        case ast.Tuple(elts=targets), ast.Call(func=ast.Name(id="zip"), args=walked) if len(targets) == len(
            walked
        ):
            for target, iterable in zip(targets, walked, strict=True):
                if isinstance(target, ast.Name) and target.id == variable:
                    return iterable
    return loop.iter


def _strings(test: ast.expr, negated: bool) -> Iterator[tuple[str, bool]]:
    """The strings that a test compares a name with, each with whether it wants them absent.

    Read are `"a" in n`, `n == "a"`, `n in ("a", "b")`, `n.startswith("a")`, `any(k in n for k in ("a",
    "b"))`, and `not`, `and`, `or` of these.
    """
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield from _strings(operand, not negated)
        case ast.BoolOp(values=values):
            for value in values:
                yield from _strings(value, negated)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            for text in (*_constants(left), *_constants(right)):
                yield text, negated != isinstance(op, ast.NotIn | ast.NotEq)
        case ast.Call(func=ast.Attribute(attr="startswith" | "endswith"), args=[prefix, *_]):
            for text in _constants(prefix):
                yield text, negated
        case ast.Call(func=ast.Name(id="any"), args=[ast.GeneratorExp(generators=[loop])]):
            for text in _constants(loop.iter):
                yield text, negated


def _constants(expression: ast.expr) -> list[str]:
    """The strings of a constant, or of a tuple, list or set of them."""
    parts = expression.elts if isinstance(expression, ast.Tuple | ast.List | ast.Set) else [expression]
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
