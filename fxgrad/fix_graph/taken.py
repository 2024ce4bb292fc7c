"""What a run took for granted (`fxgrad.trace.observations.Assumed`) as guards of its graph.

A size of an input, and what is computed of such sizes alone, is an expression over the inputs: checked before
the graph runs. All else is over what the graph computes: its nodes are written right after the last one that
they read. Sizes of parameters are what they are. One guard says each thing once. Not handled: numbers of more
than `LONGEST` operations are guarded by the sizes that they were made of.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.fx

from fxgrad.fix_graph.guards import Guard, Holds, short
from fxgrad.source.sites import innermost
from fxgrad.torch_api import symbols
from fxgrad.torch_api.symbols import SYMBOLS, Origin, Symbol
from fxgrad.trace.observations import ENTRY, Assumed
from fxgrad.trace.targets import numel

LONGEST = 40
_INFIX: Mapping[object, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.truediv: "/",
    operator.pow: "**",
    operator.and_: "&",
    operator.or_: "|",
    operator.xor: "^",
    operator.lshift: "<<",
    operator.rshift: ">>",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
}
_CALLED: Mapping[object, str] = {operator.neg: "-", abs: "abs", operator.abs: "abs", round: "round"}


class Taken:
    """The guards of one run, in the order in which things were taken; `early` ones are there at once, the
    others come with their nodes, which `waiting` holds."""

    def __init__(self, assumed: Sequence[Assumed], nodes: Sequence[torch.fx.Node]) -> None:
        self._order = {node: number for number, node in enumerate(nodes)}
        self.waiting: dict[torch.fx.Node, list[tuple[int, Assumed]]] = {}
        self._found: dict[int, Guard] = {}
        self._said: set[tuple[str, str]] = set()
        self._numbers: dict[int, torch.fx.Node] = {}
        self.held: list[Holds] = []
        for number, one in enumerate(self._parts(assumed)):
            self._take(number, one)

    def guards(self) -> list[Guard]:
        """All guards, once every node is copied."""
        return [self._found[number] for number in sorted(self._found)]

    def _parts(self, assumed: Sequence[Assumed]) -> Iterator[Assumed]:
        for one in assumed:
            made_of = _made_of(one.args)
            if len(made_of) <= LONGEST:
                yield one
            else:
                yield from (
                    Assumed(None, (leaf,), leaf, one.spots)
                    for leaf in made_of
                    if not any(leaf.origin.inputs())
                )

    def _take(self, number: int, one: Assumed) -> None:
        if one.target == "":
            self._found[number] = Guard(one.what, innermost(one.spots))
            return
        text = _early(one)
        if text is not None:
            self._say(number, one, text, inside=False)
            return
        needed = [node for node in _nodes(one.args) if node is not None]
        if needed and all(node.op == "get_attr" for node in needed) and one.target in ("size", "ndim"):
            return
        if all(node in self._order for node in needed) and needed:
            self.waiting.setdefault(max(needed, key=self._order.__getitem__), []).append((number, one))

    def _say(self, number: int, one: Assumed, text: str, *, inside: bool) -> Guard | None:
        taken = symbols.plain(one.taken)
        sides = text.split(f" {_INFIX.get(one.target)} ") if len(one.args) == 2 else []
        if len(sides) == 2 and sides[0] == sides[1]:
            return None  # a size is itself
        if (text, repr(taken)) in self._said:
            return None
        self._said.add((text, repr(taken)))
        what = one.what or f"`{text}` is {short(taken)}"
        if one.what.startswith("the value"):
            what = f"{one.what} is {short(taken)}"
        terms = () if inside else tuple(dict.fromkeys(_terms(one)))
        made = self._found[number] = Guard(what, innermost(one.spots), text, taken, terms, inside)
        return made

    def after(
        self, node: torch.fx.Node, graph: torch.fx.Graph, copied: Mapping[torch.fx.Node, torch.fx.Node]
    ) -> None:
        """Write the guards that `node` of the run was the last to be read by, at the end of `graph`."""
        for number, one in self.waiting.pop(node, ()):
            text = _told(one, lambda n: copied[n].name)
            guard = self._say(number, one, text, inside=True)
            if guard is None:
                continue
            value = self._value(one, graph, copied)
            holds = Holds(guard)
            self.held.append(holds)
            made = graph.call_function(holds, (value,))
            if guard.site is not None:
                made.meta["site"] = guard.site

    def _value(
        self, one: Assumed, graph: torch.fx.Graph, copied: Mapping[torch.fx.Node, torch.fx.Node]
    ) -> Any:
        args = tuple(self._node(arg, graph, copied) for arg in one.args)
        if one.target is None:
            return args[0]
        if one.target == "size":
            return graph.call_method("size", args)
        if isinstance(one.target, str):
            name = one.target.removesuffix("()")
            return (
                graph.call_method(name, args)
                if name != one.target
                else graph.call_function(getattr, (*args, name))
            )
        return graph.call_function(one.target, args)

    def _node(self, arg: object, graph: torch.fx.Graph, copied: Mapping[torch.fx.Node, torch.fx.Node]) -> Any:
        """An argument as the new graph has it; a number that no node of the run computes gets its own."""
        if isinstance(arg, torch.fx.Node):
            return copied[arg]
        if not isinstance(arg, SYMBOLS):
            return arg
        stack = [arg.origin]
        while stack:
            origin = stack[-1]
            if id(origin) in self._numbers:
                stack.pop()
            elif origin.resolved is not None and origin.resolved in copied:
                self._numbers[id(origin)] = copied[origin.resolved]
            elif waiting := [inner for inner in origin.inputs() if id(inner) not in self._numbers]:
                stack.extend(waiting)
            else:
                held = tuple(self._held(a, copied) for a in origin.args)
                made = (
                    graph.call_function(origin.target, held)
                    if callable(origin.target)
                    else graph.call_method("size", held)
                )
                self._numbers[id(origin)] = made
        return self._numbers[id(arg.origin)]

    def _held(self, arg: object, copied: Mapping[torch.fx.Node, torch.fx.Node]) -> Any:
        if isinstance(arg, SYMBOLS):
            return self._numbers[id(arg.origin)]
        return copied[arg] if isinstance(arg, torch.fx.Node) else arg


def _made_of(args: Sequence[object]) -> list[Symbol]:
    """All symbolic numbers that arguments were made of, themselves among them, each once."""
    found: dict[int, Symbol] = {}
    stack = list(args)
    while stack:
        arg = stack.pop()
        if isinstance(arg, SYMBOLS) and id(arg) not in found:
            found[id(arg)] = arg
            stack.extend(arg.origin.args)
    return list(found.values())


def _nodes(args: Sequence[object]) -> Iterator[torch.fx.Node | None]:
    """The nodes of the run that arguments are computed from."""
    for arg in args:
        if isinstance(arg, torch.fx.Node):
            yield arg
        elif isinstance(arg, SYMBOLS):
            yield from _nodes_of(arg.origin)


def _nodes_of(origin: Origin) -> Iterator[torch.fx.Node | None]:
    for inner in origin.walk():
        if inner.resolved is not None:
            yield inner.resolved
        else:
            yield from (arg for arg in inner.args if isinstance(arg, torch.fx.Node))


class _Inside(Exception):
    """It is over what the graph computes."""


def is_over_inputs(one: Assumed) -> bool:
    """Whether its guard is checked before the graph runs."""
    return _early(one) is not None


def _early(one: Assumed) -> str | None:
    """The expression over inputs alone; None where there is none."""
    try:
        return _told(one, _input)
    except _Inside:
        return None


def _input(node: torch.fx.Node) -> str:
    if node.op != "placeholder":
        raise _Inside
    return node.name


def _told(one: Assumed, name: Callable[[torch.fx.Node], str]) -> str:
    """What was asked, as Python."""
    args = [_text(arg, name) for arg in one.args]
    if isinstance(one.target, str) and not args:
        return one.target  # a mode
    if one.target is None or one.target == ENTRY:
        return args[0]
    if one.target == "size":
        return f"{args[0]}.size({args[1]})"
    if isinstance(one.target, str):
        return f"{args[0]}.{one.target}"
    return _call(one.target, args)


def _text(arg: object, name: Callable[[torch.fx.Node], str]) -> str:
    if isinstance(arg, torch.fx.Node):
        return name(arg)
    if not isinstance(arg, SYMBOLS):
        return repr(arg)
    origin = arg.origin
    if origin.target is None:
        assert origin.resolved is not None
        return name(origin.resolved)
    base = origin.args[0] if origin.args else None
    if isinstance(base, torch.fx.Node):
        if base.op == "get_attr":
            return repr(symbols.plain(arg))  # a parameter's size is what it is
        return f"{name(base)}.numel()" if origin.target is numel else f"{name(base)}.size({origin.args[1]})"
    told = _call(origin.target, [_text(inner, name) for inner in origin.args])
    return f"({told})" if origin.target in _INFIX else told


def _call(target: object, args: Sequence[str]) -> str:
    if target in _INFIX and len(args) == 2:
        return f"{args[0]} {_INFIX[target]} {args[1]}"
    word = str(_CALLED.get(target) or getattr(target, "__name__", "outcome"))
    if getattr(math, word, None) is target:
        word = f"math.{word}"
    return f"{word}({', '.join(args)})"


def _terms(one: Assumed) -> Iterator[str]:
    """The sizes that an early expression reads."""
    for arg in one.args:
        if isinstance(arg, SYMBOLS):
            for origin in arg.origin.walk():
                base = origin.args[0] if origin.args else None
                if isinstance(base, torch.fx.Node) and base.op == "placeholder":
                    yield (
                        f"{base.name}.numel()"
                        if origin.target is numel
                        else f"{base.name}.size({origin.args[1]})"
                    )
