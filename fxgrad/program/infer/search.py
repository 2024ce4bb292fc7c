"""The search for inputs that a model runs on: the likeliest combination first, and what each failed try
showed before the next.

`combinations` are tried until one runs. A model that raises for reasons of its own (an in-place write on a
leaf, a misspelt attribute) raises on right inputs too: those are found by how far it got. Not handled: inputs
that only make sense together beyond their shapes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

import torch

from fxgrad.program.infer.candidates import Candidate, Ground
from fxgrad.program.infer.combinations import Combinations
from fxgrad.program.infer.probe import Try
from fxgrad.program.infer.provenance import EndlessLoop
from fxgrad.program.infer.spec import Spec
from fxgrad.torch_api.errors import WHATEVER_THE_INPUTS, says

SECONDS = 8.0  # of CPU, for one search


class Prober(Protocol):
    """What runs a try; `given` are the inputs that are not searched for."""

    def run(self, arguments: Mapping[str, Candidate], given: Mapping[str, object]) -> Try: ...


_OF_AN_INPUT = (
    "'Tensor' object",
    "'FakeTensor' object",
    "'int' object",
    "'float' object",
    "'bool' object",
    "'NoneType' object",
)


@dataclass(frozen=True, slots=True)
class Found:
    """The inputs that ran, or with which the model came furthest.

    `made_up`: it asked for values and got made-up ones; `stopped`: what it raised that other inputs would not
    have changed, or what fake tensors cannot do; `nothing`: it returned None.
    """

    candidates: Mapping[str, Candidate]
    made_up: bool
    stopped: Exception | None
    beyond: bool
    nothing: bool = False


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No combination ran: the input behind the last failure (None: unknown), that failure, and how many tries
    there were; `proposal`: what would fit that input by what was seen; `reached`: the inputs of the try
    that came furthest; `out_of_time`: there were others to try.
    """

    name: str | None
    error: Exception | None
    tries: int
    proposal: Candidate | None = None
    reached: Mapping[str, Candidate] = field(default_factory=dict)
    out_of_time: bool = False


def search(
    prober: Prober,
    queues: Mapping[str, Sequence[Candidate]],
    given: Mapping[str, object],
    *,
    tries: int,
    unlike: Mapping[str, int] = MappingProxyType({}),
) -> Found | GaveUp:
    """The first combination, one candidate from each queue, that the model runs on; else the furthest where
    the inputs are not to blame.

    `unlike`: by input, a number of dimensions that it must not have.
    """
    state = Combinations({name: list(queue) for name, queue in queues.items()}, unlike)
    furthest: Reached | None = None
    deepest: Reached | None = None
    spare: Found | None = None
    count = 0
    end = time.process_time() + SECONDS
    while count < tries and (combination := state.next(end)) is not None:
        count += 1
        outcome = prober.run(combination, given)
        if _ran(outcome):
            found = _found(combination, outcome)
            if not outcome.seen.emptied:
                return found
            spare = spare or found  # it runs, and is hardly meant
            continue
        deepest = _further(deepest, (combination, outcome))
        if outcome.beyond or _of_the_program(outcome):
            furthest = _further(furthest, (combination, outcome))
        if isinstance(outcome.error, EndlessLoop):  # other inputs will not end it, and real ones might hang
            break
        state.learn(combination, outcome)
    if spare is not None:
        return spare
    if furthest is not None and _further(furthest, deepest) is furthest:
        return _found(*furthest)
    late = count < tries and time.process_time() >= end
    return _given_up(state, deepest, _blamed(deepest, queues), count, late=late)


def _given_up(
    state: Combinations, deepest: Reached | None, blamed: str | None, count: int, *, late: bool
) -> GaveUp:
    reached, error = (deepest[0], deepest[1].error) if deepest is not None else ({}, None)
    return GaveUp(blamed, error, count, state.likeliest(blamed), reached, late)


Reached = tuple[Mapping[str, Candidate], Try]


def _further(best: Reached | None, other: Reached | None) -> Reached | None:
    """Of two failures the one after more calls; the earlier of like ones."""
    if best is None or other is None:
        return best or other
    return other if other[1].seen.calls > best[1].seen.calls else best


def _ran(outcome: Try) -> bool:
    return outcome.error is None or _of_autograd(outcome.error)


def confirmed(prober: Prober, found: Found, given: Mapping[str, object]) -> bool:
    """Whether the inputs found by one prober also run under another."""
    return runs(prober, found.candidates, given)


def runs(prober: Prober, candidates: Mapping[str, Candidate], given: Mapping[str, object]) -> bool:
    """Whether the model runs on these inputs."""
    return _ran(prober.run(candidates, given))


def _found(combination: Mapping[str, Candidate], outcome: Try) -> Found:
    inputs, made_up = _bounded(combination, outcome), outcome.seen.made_up > 0
    return Found(inputs, made_up, outcome.error, outcome.beyond, outcome.nothing)


def _of_autograd(error: Exception) -> bool:
    """Then the shapes were right, or the call would not have come so far."""
    return says(str(error), *WHATEVER_THE_INPUTS, any_case=True)


def _of_the_program(outcome: Try) -> bool:
    """An error that no torch function raised and that is not about what the input is."""
    error = outcome.error
    if isinstance(error, AttributeError):
        return not any(part in str(error) for part in _OF_AN_INPUT)
    return outcome.seen.failure is None and isinstance(
        error, NameError | NotImplementedError | ImportError | ZeroDivisionError
    )


def _bounded(combination: Mapping[str, Candidate], outcome: Try) -> dict[str, Candidate]:
    """The combination with every integer input kept below what it indexes, and with the layer that a guess
    turned out to fit."""
    seen = outcome.seen
    fitted = {
        name: replace(candidate, why=seen.needs[name].why, ground=seen.needs[name].ground)
        if name in seen.needs and candidate.ground is Ground.NOTHING
        else candidate
        for name, candidate in combination.items()
    }
    return {name: _below(candidate, seen.limits.get(name)) for name, candidate in fitted.items()}


def _below(candidate: Candidate, limit: int | None) -> Candidate:
    """Below what it indexes; a floating one too, which the program makes an index of by `x.long()`."""
    spec = candidate.spec
    if not isinstance(spec, Spec) or limit is None or spec.dtype is torch.bool:
        return candidate
    high = limit if spec.high is None else min(spec.high, limit)
    return replace(candidate, spec=replace(spec, low=min(spec.low or 0, high - 1), high=high))


def _blamed(
    deepest: tuple[Mapping[str, Candidate], Try] | None, queues: Mapping[str, Sequence[Candidate]]
) -> str | None:
    seen = deepest[1].seen if deepest else None
    if seen is None:
        return next(iter(queues), None)
    failed = seen.failure.inputs if seen.failure else frozenset()
    asked = {name for name in seen.needs if name not in seen.passed}
    for behind in (failed - seen.passed, asked, failed, seen.touched - seen.passed, seen.touched):
        named = next((name for name in queues if name in behind), None)
        if named is not None:
            return named
    return next(iter(queues), None)
