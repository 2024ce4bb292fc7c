"""Calling a class or factory whose arguments nobody gave: each is guessed, a failed call changes one guess,
`--arg` decides.

An argument is, in this order: what the user writes, what the file's own call of it says, what the file has
for it (`parts`). Settings that no class makes are read attribute by attribute, each attribute a guess of its
own (`config.n_embd`). Not handled: arguments that only fit in ways no name tells.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fxgrad.program.load.definitions import UNKNOWN, Definitions, Way
from fxgrad.program.load.parts import Built, read_as, values_for
from fxgrad.program.load.values import Settings, Value, written
from fxgrad.records.errors import LoadError

TRIES = 64
SECONDS = 8.0  # of CPU, for all tries together
_DEEP = 3  # classes built for arguments of classes built for arguments
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_LACKS = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)")


@dataclass(slots=True, eq=False)
class Guesses:
    """The values taken so far, by key: `width`, of an attribute `config.width`. `positions`: which of a key's
    values, 0 where not told."""

    definitions: Definitions
    given: Mapping[str, Any]
    positions: Mapping[str, int] = field(default_factory=dict)
    # what an earlier try lacked: `**settings` and `**kwargs` hand these on
    lacking: tuple[str, ...] = ()
    hands_on: bool = False
    # what may be left out by a default of None is given, one by one, where a call without fails
    fills: bool = False
    taken: dict[str, Value] = field(default_factory=dict)
    left: dict[str, list[Value]] = field(default_factory=dict)

    def take(self, key: str, values: Sequence[Value]) -> Value:
        """The value of the key in this try."""
        if key not in self.taken:
            position = min(self.positions.get(key, 0), len(values) - 1)
            self.taken[key] = values[position]
            self.left[key] = list(values)
        return self.taken[key]


_LEFT_OUT = Value(None, "")
_ASKED_FOR = (Value(False, ""), Value(True, ""))


class Read:
    """An object of settings that is not there: an attribute or key is guessed when it is read, and stays as
    it was guessed or set."""

    def __init__(self, guesses: Guesses, prefix: str) -> None:
        self.__dict__.update(_guesses=guesses, _prefix=prefix)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = self._guesses.definitions
        key, of = f"{self._prefix}.{name}", self._prefix.rpartition(".")[2]
        if key in self._guesses.given:
            value = self._guesses.given[key]
        elif name in known.options:
            value = self._guesses.take(
                key, [Value(known.options[name], written(known.options[name]), "the default of the option")]
            ).value
        elif name in known.optional and name not in known.beside(of):
            if known.optional[name] is UNKNOWN:
                raise AttributeError(name)
            value = known.optional[name]
        else:
            value = _made(self._guesses, key, self._guesses.take(key, read_as(known, name, of)))
        self.__dict__[name] = value
        return value

    def __getitem__(self, name: object) -> object:
        if not isinstance(name, str):
            raise TypeError(f"`{self._prefix}` is guessed as settings, not as a list")
        return getattr(self, name)

    def __setitem__(self, name: str, value: object) -> None:
        self.__dict__[name] = value

    def __contains__(self, name: object) -> bool:
        """What nobody told is not there: a program that asks has its own way without. Where that fails, it
        is."""
        known = self._guesses.definitions
        key = f"{self._prefix}.{name}"
        if name in self.__dict__ or name in known.options or key in self._guesses.given:
            return True
        beside = known.beside(self._prefix.rpartition(".")[2])
        if beside.values:
            return name in beside
        if name in known.optional:
            return known.optional[name] is not UNKNOWN
        return bool(self._guesses.take(f"{key} in", _ASKED_FOR).value)

    def get(self, name: str, default: object = None) -> Any:
        return getattr(self, name, default)

    def keys(self) -> tuple[str, ...]:
        """What a call of `f(**settings)` was found to lack: which there are is not known before."""
        guesses: Guesses = self._guesses
        guesses.hands_on = True
        return guesses.lacking

    def __deepcopy__(self, memo: dict[int, object]) -> Read:
        other = Read(self._guesses, self._prefix)
        other.__dict__.update(self.__dict__)
        return other


@dataclass(frozen=True, slots=True, eq=False)
class Construction:
    """What a call with guessed arguments made."""

    value: Any
    text: str
    guesses: Guesses
    function: Callable[..., Any]

    @property
    def assumed(self) -> tuple[str, ...]:
        """One line for each guess, as `--arg` writes it."""
        lines = []
        for key, value in self.guesses.taken.items():
            if value.text:
                # What is built of guesses in turn is no Python to paste; those guesses follow it.
                option = "" if value.text.endswith("(...)") else "--arg "
                lines.append(f"{option}{key}={value.text} ({value.why})")
        return tuple(lines)

    @property
    def doubtful(self) -> tuple[str, ...]:
        """The guesses that nothing speaks for; else those that make another model; else all."""
        told = {key: value for key, value in self.guesses.taken.items() if value.text}
        unfounded = [f"{key}={value.text}" for key, value in told.items() if value.unfounded]
        chosen = [f"{key}={value.text}" for key, value in told.items() if value.choice]
        return tuple(unfounded or chosen or [f"{key}={value.text}" for key, value in told.items()])

    @property
    def kinds(self) -> dict[str, str]:
        """The names of the guessed values' classes, each with the first guess of it: `body=nn.ReLU()`."""
        found: dict[str, str] = {}
        for key, value in self.guesses.taken.items():
            if value.text:
                made = value.value.function if isinstance(value.value, Built) else type(value.value)
                found.setdefault(made.__name__, f"{key}={value.text}")
        return found

    def others(self) -> Iterator[tuple[str, str, str, Construction]]:
        """The same with another value for a guess that makes another model of it, one of each guess before a
        second of any: key, both values, what the call made then."""
        for key, position in self._choices():
            guesses = Guesses(
                self.guesses.definitions,
                self.guesses.given,
                {**self.guesses.positions, key: position},
                fills=self.guesses.fills,
            )
            with contextlib.suppress(Exception):  # another value need not fit
                with _silent():
                    made = _called(guesses, self.function, self.function.__name__)
                yield key, self.guesses.taken[key].text, self.guesses.left[key][position].text, made

    def _choices(self) -> list[tuple[str, int]]:
        found: list[tuple[int, str, int]] = []
        for key, value in self.guesses.taken.items():
            others = [
                position
                for position, other in enumerate(self.guesses.left[key] if value.choice else ())
                if other is not value and other is not _LEFT_OUT
            ]
            found += [(turn, key, position) for turn, position in enumerate(others)]
        return [(key, position) for _, key, position in sorted(found, key=lambda one: one[0])]


def constructions(
    function: Callable[..., object],
    name: str,
    definitions: Definitions,
    given: Mapping[str, object],
    *,
    fills: bool = False,
) -> Iterator[Construction]:
    """What calls with the likeliest arguments make, those of the failed calls changed one by one. `fills`:
    what may be left out by a default of None is guessed too, as few as do.

    Raises:
        LoadError: none of the calls comes to its end; the first one's error is told.
    """
    calls = _Calls()
    first: Exception | None = None
    made, begun = 0, time.process_time()
    lacking: tuple[str, ...] = ()
    for _ in range(TRIES):
        if not calls.pending or time.process_time() - begun > SECONDS:
            break
        guesses = Guesses(definitions, given, calls.pending.pop(0), lacking, fills=fills)
        try:
            with _silent():
                built = _called(guesses, function, name)
        except OSError as error:  # of no argument's making
            raise LoadError(
                f"building it raises {type(error).__name__}: {error}",
                hint=(
                    "what it reads or downloads is not here: write a function that builds it "
                    "without, and name that"
                ),
            ) from error
        except Exception as error:  # whatever wrong arguments make the user's code raise
            lacks = [name for name in _lacks(error) if name not in lacking] if guesses.hands_on else []
            if lacks:
                lacking = (*lacking, *lacks)
                calls.pending.insert(0, guesses.positions)
                continue
            first = first or error
        else:
            made += 1
            yield built
            calls.choose(guesses)
        calls.vary(guesses)
    if not made:
        said = next(iter(str(first).strip().splitlines()), "")
        raise LoadError(
            f"no guess for them ran: the first raised {type(first).__name__}{f': {said}' if said else ''}"
        ) from first


@dataclass(slots=True)
class _Calls:
    """The calls that are to be tried, each by the positions of its guesses, and none twice."""

    pending: list[Mapping[str, int]] = field(default_factory=lambda: [{}])
    seen: set[frozenset[tuple[str, int]]] = field(default_factory=lambda: {frozenset()})

    def vary(self, guesses: Guesses) -> None:
        """The same call with one guess changed: the one that was read last is the likeliest to be wrong."""
        for key in reversed(guesses.left):
            position = guesses.positions.get(key, 0) + 1
            if position < len(guesses.left[key]):
                self.pending += self._new({**guesses.positions, key: position})

    def choose(self, guesses: Guesses) -> None:
        """Next, the same call with each other of the texts that the class itself tells apart: what comes to
        its end and then runs on no inputs is the likeliest to want one."""
        found: list[Mapping[str, int]] = []
        for key, values in guesses.left.items():
            if key not in guesses.positions and isinstance(values[0].value, str) and values[0].choice:
                for position in range(1, len(values)):
                    found += self._new({**guesses.positions, key: position})
        self.pending[:0] = found

    def _new(self, positions: Mapping[str, int]) -> list[Mapping[str, int]]:
        """The call, unless it was to be tried before."""
        key = frozenset(positions.items())
        if key in self.seen:
            return []
        self.seen.add(key)
        return [positions]


def _lacks(error: Exception) -> list[str]:
    """The names of the arguments that a call did not give."""
    found = _LACKS.search(str(error)) if isinstance(error, TypeError) else None
    return re.findall(r"'(\w+)'", found[1]) if found is not None else []


def _called(guesses: Guesses, function: Callable[..., object], name: str, prefix: str = "") -> Construction:
    """One call. Settings of the user's (`given`) may be for any parameter, guesses are for those without a
    default."""
    parameters = _parameters(guesses, function, prefix)
    way = _way(guesses, function, name, parameters, prefix)
    args: list[Any] = []
    words: dict[str, object] = {}
    texts = []
    for parameter in parameters:
        key = f"{prefix}{parameter.name}"
        if key in guesses.given:
            value = Value(guesses.given[key], written(guesses.given[key]))
        elif parameter.name in way:
            value = guesses.take(key, [way[parameter.name]])
        elif parameter.default is parameter.empty:
            value = guesses.take(key, values_for(guesses.definitions, name, parameter))
        elif parameter.default is None and guesses.fills and not prefix:
            value = guesses.take(key, [_LEFT_OUT, *values_for(guesses.definitions, name, parameter)])
        else:
            continue
        if value is _LEFT_OUT:
            continue
        made = _made(guesses, key, value)
        texts.append(f"{parameter.name}={value.text or '...'}")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            args.append(made)
        else:
            words[parameter.name] = made
    return Construction(function(*args, **words), f"{name}({', '.join(texts)})", guesses, function)


def _parameters(guesses: Guesses, function: Callable[..., object], prefix: str) -> list[inspect.Parameter]:
    """What the function takes by name, and what of the user's settings it may hand on in `**kwargs`."""
    signature = inspect.signature(function).parameters.values()
    parameters = [p for p in signature if p.kind not in _VARIABLE]
    if not prefix and any(p.kind is p.VAR_KEYWORD for p in signature):
        guesses.hands_on = True
        known = {p.name for p in parameters}
        given = (name.partition(".")[0] for name in guesses.given)
        more = [name for name in dict.fromkeys((*given, *guesses.lacking)) if name not in known]
        parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in more]
    return parameters


def _way(
    guesses: Guesses,
    function: Callable[..., object],
    name: str,
    parameters: Sequence[inspect.Parameter],
    prefix: str,
) -> dict[str, Value]:
    """The arguments that the file's own call gives, by name."""
    ways = [way for way in guesses.definitions.ways(name) if _binds(function, way)]
    if not ways:
        return {}
    choice = guesses.take(f"{prefix}()", [*(Value(way, "") for way in ways), Value(None, "")]).value
    if choice is None:
        return {}
    bound = inspect.signature(function).bind_partial(*choice.args, **choice.kwargs).arguments
    why = f"as line {choice.line} builds it"
    plain = {p.name for p in parameters}
    return {
        key: Value(value, written(value), why)
        for key, value in bound.items()
        if value is not UNKNOWN and key in plain
    }


def _binds(function: Callable[..., object], way: Way) -> bool:
    try:
        inspect.signature(function).bind(*way.args, **way.kwargs)
    except TypeError:
        return False
    return True


def _made(guesses: Guesses, key: str, value: Value) -> object:
    """The value itself; what stands for something to be made is made now, and anew for each try."""
    if value.value is Settings:
        return Read(guesses, key)
    if isinstance(value.value, Built):
        if key.count(".") >= _DEEP:
            raise LoadError(f"`{key}` is built of too many others")
        function = value.value.function
        return _called(guesses, function, function.__name__, f"{key}.").value
    if isinstance(value.value, nn.Module | list | dict):
        return copy.deepcopy(value.value)
    return value.value


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
