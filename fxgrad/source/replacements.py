"""Statements that could have put another object in a parameter's place after the model was built.

Made from parsed files by attribute path: `x.lm_head.weight = ...` may replace the parameter `lm_head.weight`
and, since any module may sit deeper, `decoder.lm_head.weight`. Not handled: `weight_norm` and
parametrizations, `_apply`-style swaps, and calls that reach a replacing function through another one, unless
by calls on `self`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fxgrad.records import Site
from fxgrad.source.bindings import Binding, bindings, is_self
from fxgrad.source.names import fits, is_unknown, last_word, path_of
from fxgrad.source.objects import origin
from fxgrad.source.parsing import Source, enclosing_function, enclosing_method, load, nodes, site_of

_CONSTRUCTORS = frozenset({"__init__", "__new__", "__post_init__"})
_GENERIC = frozenset({"weight", "bias"})  # every layer has them: alone they name no parameter


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of something named `name`. `caller`: the method that makes it on its own `self`, "" for any
    other call."""

    source: Source
    node: ast.Call
    name: str
    caller: str


def replacement_sites(files: Sequence[str], name: str) -> tuple[Site, ...]:
    """Statements that bind or delete `name` or a module on its path, then the calls of the functions that
    hold one.

    Of the statements those that spell out most of the path come first, `self.weight = ...` of some class
    last; of the calls those from outside (`model.tie_weights()`) before those on `self`. A method that calls
    such a method on `self` counts as one that holds a statement. A constructor's work on its own object, and
    its calls of its own methods, are construction and left out. Installed packages come after the user's
    files.
    """
    path = tuple(name.split("."))
    sources = [load(file) for file in dict.fromkeys(files)]
    found: list[tuple[tuple[bool, int], Site]] = []
    holders: set[str] = set()
    for source in sources:
        installed = origin(source.file) == "installed"
        for binding, shared in _replacing(source, path):
            found.append(((installed, -shared), binding.site(source)))
            function = enclosing_function(source, binding.first)
            if function is not None and function.name not in _CONSTRUCTORS:
                holders.add(function.name)
    calls = [call for source in sources for call in _calls(source)]
    holders = _through_self(holders, calls)
    for call in calls:
        if call.name in holders:
            key = (origin(call.source.file) == "installed", 1 + bool(call.caller))
            found.append((key, site_of(call.source, call.node)))
    return tuple(dict.fromkeys(site for _, site in sorted(found, key=lambda item: item[0])))


def _replacing(source: Source, path: tuple[str, ...]) -> Iterator[tuple[Binding, int]]:
    """The bindings whose target may lie on the path, each with how many words it shares with it.

    0: only a `weight` or `bias`.
    """
    for binding in bindings(source):
        words = (*path_of(binding.base).words, binding.name)
        best = max(_alignments(words, path), default=None)
        if best is None or binding.kind not in ("assign", "delete"):
            continue
        shared, reaches_model = best
        if not reaches_model and _constructs(source, binding.base, binding.first):
            continue
        yield binding, shared


def _alignments(words: tuple[str, ...], path: tuple[str, ...]) -> Iterator[tuple[int, bool]]:
    """The ways the words, compared backwards, lie on the path: how many they share, and whether any are left
    over.

    Words left over (`self.model.fc` for `fc.weight`) say that the statement reaches the model from outside.
    """
    for end in range(1, len(path) + 1):
        length = min(len(words), end)
        pairs = list(zip(words[-length:], path[end - length : end], strict=True))
        known = [word for word, _ in pairs if not is_unknown(word)]
        if not known or not all(fits(word, part) for word, part in pairs):
            continue
        only_generic = length == 1 and len(path) > 1 and words[-1] in _GENERIC
        yield 0 if only_generic else len(known), len(words) > end


def _constructs(source: Source, base: ast.expr, node: ast.AST) -> bool:
    """Whether the statement is a constructor's work on its own object."""
    place = enclosing_method(source, node)
    if place is None or place[1] is None or place[1].name not in _CONSTRUCTORS:
        return False
    return any(is_self(part, place[1]) for part in ast.walk(base) if isinstance(part, ast.Name | ast.Call))


def _calls(source: Source) -> Iterator[_Call]:
    """Every call by its last name, less a constructor's of its own methods, and less `super().f()`."""
    for node in nodes(source, ast.Call):
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        if isinstance(receiver, ast.Call) and last_word(source, receiver.func) == "super":
            continue
        place = enclosing_method(source, node)
        method = place[1] if place is not None else None
        own = receiver is not None and method is not None and is_self(receiver, method)
        if own and method is not None and method.name in _CONSTRUCTORS:
            continue
        yield _Call(
            source, node, last_word(source, node.func), method.name if own and method is not None else ""
        )


def _through_self(holders: set[str], calls: Sequence[_Call]) -> set[str]:
    """The functions that replace, and the methods that reach one of them by calls on `self`."""
    while more := {call.caller for call in calls if call.caller and call.name in holders} - holders:
        holders = holders | more
    return holders
