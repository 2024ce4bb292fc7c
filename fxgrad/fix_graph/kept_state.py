"""State of Python's that a forward keeps for its next call and goes by: a counter that switches a layer on, a
schedule.

A graph holds one value of it. What the forward reads and itself changes (`fxgrad.trace.python_state`) is
given another value, and the program is recorded again: where it then records another graph, no module stands
for it. What shows at the second call, `fxgrad.fix_graph.true_step` sees. Not handled: state that is not seen
there, and other values than those tried.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fxgrad.fix_graph.one_path import same_graph
from fxgrad.fix_graph.recording import recording
from fxgrad.fix_graph.true_step import seeds
from fxgrad.program.program import Program
from fxgrad.records.errors import FixError
from fxgrad.source.sites import innermost
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.python_state import Cell, Globals, Read, is_generator, is_stream
from fxgrad.trace.run import Run

STEPS = (1, 1_000_000)  # added to a number


def refuse_kept_state(target: Program, first: Run, asked: Experiment) -> None:
    """Raise FixError where the graph of `first` goes by an attribute that its forward changes. `asked`: how
    it is recorded again."""
    for read in first.recorder.reads.values():
        if not read.changed:
            continue
        changes = (
            _streams(read)
            if is_stream(read.value)
            else [functools.partial(_put, read, value) for value in _others(read.value)]
        )
        for change in changes:
            other = recording(replace(target, call=_after(change, target.call)), asked)
            if other.output_structure is None or not same_graph(first, other):
                raise kept(read)


def kept(read: Read) -> FixError:
    """Why there is no module."""
    where = f"{read.where}." if read.where else ""
    return FixError(
        f"the forward changes `{where}{read.name}` and goes by it: a graph would hold one value of it",
        site=innermost(read.spots),
        hint="keep the number outside of the model and pass it in, or keep it in a buffer and compute with "
        "it",
    )


def _others(value: object) -> tuple[object, ...]:
    if isinstance(value, bool):
        return (not value,)
    return tuple(value + step for step in STEPS) if isinstance(value, int | float) else ()


def _streams(read: Read) -> list[Callable[[], None]]:
    """A stream further on; a generator of random numbers elsewhere."""
    if not is_generator(read.value):
        return [functools.partial(_advance, read, steps) for steps in (1, 1000)]
    return [functools.partial(_reseed, read.value, seed) for seed in (*seeds(), *range(REDRAWN))]


REDRAWN = 24


def _advance(read: Read, steps: int) -> None:
    stream: Any = read.holder.get(read.name, None)  # each run has a copy of its own
    for _ in range(steps):
        next(stream, None)


def _reseed(generator: torch.Generator, seed: int) -> None:
    if hasattr(generator, "bit_generator"):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    else:
        generator.seed(seed)


def _after(change: Callable[[], None], call: Callable[..., object]) -> Callable[..., object]:
    """The program after a change, which the run takes back."""

    def changed(*args: object, **kwargs: object) -> object:
        change()
        return call(*args, **kwargs)

    return changed


def _put(read: Read, value: object) -> None:
    if isinstance(read.holder, Cell | Globals):
        read.holder.put(read.name, value)
    else:
        object.__setattr__(read.owner, read.name, value)
