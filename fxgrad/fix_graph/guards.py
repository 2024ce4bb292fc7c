"""What a graph took for granted, checked at each call of its module: `Guards`, a tuple of `Guard` records.

A guard is an expression, or a place in the program, and the value it had. Expressions over a call's inputs,
the training flag and modes are one generated function that runs before the graph, and after it the places are
looked at (attributes, globals, variables of closures); those on what the graph computes on the way are nodes
of it (`Holds`). A call that breaks one raises `GuardError`. What makes guards of a run is
`fxgrad.fix_graph.taken`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fxgrad.records import Site
from fxgrad.records.errors import GuardError
from fxgrad.trace.python_state import Holder
from fxgrad.world.reach import not_walked
from fxgrad.world.snapshots import snapshot

HINT = "give `fxgrad.fix` a call like this one, or switch the checks off: `module.guards.enabled = False`"


@not_walked
@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """One thing taken for granted: `what` in words, `site` the line that took it (None: no line is known).

    `expression` is Python over the names of the call's tensors, `self` and `torch`; `taken` is what it gave
    (a snapshot, where it was an object). "" where nothing is compared: the graph fits every call, and `what`
    says in which sense. `terms` are parts of the expression that say what a broken guard found. `inside`: it
    is over nodes of the graph and checked there.
    """

    what: str
    site: Site | None
    expression: str = ""
    taken: object = None
    terms: tuple[str, ...] = ()
    inside: bool = False

    def broken(self, now: str) -> GuardError:
        """The error of a call in which it does not hold."""
        return GuardError(f"the graph takes for granted: {self.what}; now {now}", site=self.site, hint=HINT)

    def check(self, now: object) -> None:
        """Compare what the expression gives now.

        Raises:
            GuardError: it is not what was taken.
        """
        if self.taken is True or self.taken is False:
            held = self.taken if now else not self.taken  # `now` may be a symbol of torch.compile
        else:
            held = same(now, self.taken)
        if not held:
            raise self.broken(f"it is {short(now)}")


def same(now: object, taken: object) -> bool:
    """Whether a value is the one that was taken: NaN is itself, True is not 1."""
    if now is taken:
        return True
    kind = type(taken)
    if kind is int or kind is float:  # a number that remembers where it came from is one too
        return (
            isinstance(now, kind)
            and not isinstance(now, bool)
            and bool(now == taken or (now != now and taken != taken))
        )
    if kind in _COMPARED and type(now) is kind and now == taken:
        return True
    return bool(snapshot(now) == snapshot(taken))


_IMMUTABLE = frozenset((int, float, str, torch.Size))
_COMPARED = frozenset((bool, str, torch.dtype, torch.device))


def short(value: object) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Where a value stands: somewhere in the program, or (None) in the regenerated module's part of this path; and
# its name.
Place = tuple[Holder | None, str | None, str]


class Guards(tuple[Guard, ...]):
    """All guards of a module, in the order in which they were taken. `enabled = False` switches the checks
    off, for copies of the module too."""

    enabled: bool = True
    names: tuple[str, ...] = ()
    _before: Callable[..., int] | None = None
    _places: tuple[tuple[int, Place], ...] = ()
    _parts: tuple[Any, list[tuple[int, Holder, str, object]]] | None = None

    def __deepcopy__(self, memo: object) -> Guards:
        return self

    def __reduce__(self) -> Any:  # the program's own dictionaries do not travel
        return _again, (
            tuple(self),
            self.names,
            self.enabled,
            tuple((n, place) for n, place in self._places if place[0] is None),
        )

    def arm(self, names: Sequence[str], places: Sequence[tuple[int, Place]]) -> None:
        """Make the checks that run before the graph: `names` are the call's tensors; `places`: by the guard's
        number, where its value stands."""
        self.names, self._places = tuple(names), tuple(places)
        early = [
            (number, guard) for number, guard in enumerate(self) if guard.expression and not guard.inside
        ]
        if early:
            self._before = _compiled(early, self.names)

    def with_guards(self, guards: Iterable[Guard]) -> Guards:
        """The same checks under other words."""
        made = Guards(guards)
        made.arm(self.names, self._places)
        made.enabled = self.enabled
        return made

    @property
    def armed(self) -> bool:
        """Whether something is checked before the graph runs."""
        return self._before is not None or bool(self._places)

    def check(self, module: torch.nn.Module, *tensors: torch.Tensor) -> None:
        """Check what can be checked before the graph runs.

        Raises:
            GuardError: one does not hold.
        """
        if not self.enabled:
            return
        if self._before is not None:
            number = self._before(module, *tensors)
            if number >= 0:
                raise self._found(self[number], module, tensors)
        if self._places and not torch.compiler.is_compiling():
            self._check_places(module)

    def _check_places(self, module: Any) -> None:
        if self._parts is None or self._parts[0]() is not module:
            self._parts = (
                weakref.ref(module),
                [self._at(module, number, *place) for number, place in self._places],
            )
        for number, held, name, taken in self._parts[1]:
            now = held.get(name, taken)
            if now is not taken and not same(now, taken):
                raise self[number].broken(f"it is {short(now)}")

    def _at(
        self, module: torch.nn.Module, number: int, held: Holder | None, path: str | None, name: str
    ) -> tuple[int, Holder, str, object]:
        """A place of this module, with the very object that stands there where it is what was taken: it is
        compared by identity first."""
        place = vars(module.get_submodule(path or "")) if held is None else held
        taken = self[number].taken
        now = place.get(name, taken)
        return number, place, name, now if type(now) in _IMMUTABLE and same(now, taken) else taken

    def _found(self, guard: Guard, module: torch.nn.Module, tensors: Sequence[torch.Tensor]) -> GuardError:
        scope = {"self": module, "torch": torch, **dict(zip(self.names, tensors, strict=True))}
        found = [f"`{term}` is {short(eval(term, scope))}" for term in guard.terms]
        return guard.broken(", ".join(found) or f"it is {short(eval(guard.expression, scope))}")


def _again(
    guards: tuple[Guard, ...], names: tuple[str, ...], enabled: bool, places: Sequence[tuple[int, Place]]
) -> Guards:
    made = Guards(guards)
    made.arm(names, places)
    made.enabled = enabled
    return made


def _compiled(early: Sequence[tuple[int, Guard]], names: Sequence[str]) -> Callable[..., int]:
    """A function of the module and its tensors: the number of the first guard that does not hold, -1 where
    all do."""
    scope: dict[str, Any] = {"torch": torch, "same": same}
    lines = [f"def before({', '.join(('self', *names))}):"]
    for number, guard in early:
        scope[f"taken_{number}"] = guard.taken
        lines += [f"    if {differs(guard, f'taken_{number}')}:", f"        return {number}"]
    exec("\n".join([*lines, "    return -1"]), scope)
    made: Callable[..., int] = scope["before"]
    return made


def differs(guard: Guard, taken: str) -> str:
    """The condition, as Python, under which a guard does not hold; `taken` names the value it was taken
    with."""
    if guard.taken is True:
        return f"not ({guard.expression})"
    if guard.taken is False:
        return f"{guard.expression}"
    if type(guard.taken) is int:
        return f"{guard.expression} != {guard.taken}"
    if isinstance(guard.taken, torch.dtype):
        return f"{guard.expression} != {guard.taken}"
    return f"not same({guard.expression}, {taken})"


class Holds:
    """A guard on what the graph computes, as the function that a node of the graph calls with the value."""

    __name__ = __qualname__ = "guard"
    __module__ = "fxgrad.fix_graph.guards"

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.guards: Guards | None = None

    def __deepcopy__(self, memo: object) -> Holds:
        return self

    def __call__(self, value: object) -> None:
        if self.guards is not None and self.guards.enabled:
            self.guard.check(value)
