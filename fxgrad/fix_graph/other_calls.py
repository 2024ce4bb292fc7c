"""What a graph takes for granted beside what the recorder notes by itself: what C code takes, and what other
calls of the program show.

C code takes the value of a number without a word (an index into a list, NumPy), and what the recorder calls
`weak` may not matter. Whether there is any such thing shows in one more run: in it C code must ask for each
number (`Experiment.open_numbers`). Where there is, or may be, the program is recorded again, with one thing
other each time: a size of its inputs, a number that leaves torch. Where it records another graph,
 1. a guard that the recorder noted does not hold in that call either: nothing is missing;
 2. or something weak was other in that call: it is a guard;
 3. or nothing is known of it: the size itself is a guard, at the line where the runs part.
Not handled: sizes that only other numbers than those tried tell apart; inputs that are no plain strided
tensors.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.fx

from fxgrad.fix_graph.guards import same
from fxgrad.fix_graph.one_path import first_difference, same_graph
from fxgrad.fix_graph.recording import recording
from fxgrad.fix_graph.taken import is_over_inputs
from fxgrad.program.program import Program
from fxgrad.records import Inputs
from fxgrad.records.errors import FixError, InputError
from fxgrad.source.sites import Spot
from fxgrad.torch_api import symbols, tree
from fxgrad.trace.experiment import Experiment, Nudge
from fxgrad.trace.observations import Assumed, Step
from fxgrad.trace.run import Run

SIZES = 4  # groups of equal sizes that are tried
MORE = (1, 8, 64)  # sizes that are tried of a small program: C code that takes an index says nothing
STEPS, ELEMENTS = 500, 1_000_000  # at most, of a small one
NUMBERS = 8  # lines at which a number leaves torch


@dataclass(frozen=True, slots=True)
class _Group:
    """Dimensions that are made longer together: by tensor id, and the size they have."""

    dims: tuple[tuple[int, int], ...]
    size: int


def shown(target: Program, first: Run, asked: Experiment) -> tuple[Assumed, ...]:
    """What else the graph of `first` takes for granted. `asked`: how the program is recorded once more."""
    items = list(_items(first))
    sizes = _goes_by_sizes(first)
    if not (sizes or items) or _is_open(target, first, asked):
        return ()
    found: list[Assumed] = []
    for group in _groups(target)[:SIZES] if sizes else ():
        found += _by_size(target, first, asked, group)
    for number, read in items:
        found += _by_number(target, first, asked, number, read)
    return tuple(replace(one, weak=False) for one in {id(one): one for one in found}.values())


def _goes_by_sizes(first: Run) -> bool:
    """Whether sizes were read, or may have been."""
    recorder = first.recorder
    if recorder.sizes_read or recorder.unfollowed:
        return True
    return any(one.target is symbols.LEN for one in recorder.assumed)


def _by_number(target: Program, first: Run, asked: Experiment, number: int, read: Assumed) -> list[Assumed]:
    """What shows when a number that leaves torch is another."""
    others = [_recorded(target, replace(asked, nudge=Nudge(number, amount))) for amount in (1, -1)]
    ran = [other for other in others if other is not None]
    if not ran:
        return [read]  # no other number will do: somebody looks at it
    return [one for other in ran for one in _missing(first, other) or ()]


def _is_open(target: Program, first: Run, asked: Experiment) -> bool:
    """Whether nothing but what the recorder noted takes a size or a number: C code that must ask for one does
    not ask, nothing weak was made of one, and what was taken apart has as many parts whatever the sizes."""
    weak = [one for one in first.recorder.assumed if one.weak and not _goes_without_sizes(one, first)]
    taken_apart = [one for one in weak if one.target is symbols.LEN]
    if first.recorder.unfollowed or len(taken_apart) < len(weak):
        return False
    if any(one.target == "" for one in first.recorder.assumed):
        # what no guard compares may go by sizes: where the second draw of a generator begins does
        return False
    opened = first.experiment is not None and first.experiment.open_numbers  # then nothing asked
    return (opened and not taken_apart) or _is_same_opened(target, first, asked, taken_apart)


def _is_same_opened(target: Program, first: Run, asked: Experiment, taken_apart: Sequence[Assumed]) -> bool:
    """Whether the program records the same where C code must ask for numbers, and what was taken apart has
    other sizes."""
    groups = _groups(target)[:SIZES] if taken_apart else []
    for group in groups:
        target = _longer(target, group, 2 * group.size + 1)
    other = _recorded(target, replace(asked, open_numbers=True))
    if other is None or not same_graph(first, other):
        return False
    told = [[(one.target, one.spots) for one in run.recorder.assumed] for run in (first, other)]
    return told[0] == told[1] and (not groups or _same_parts(first, other, taken_apart))


def _goes_without_sizes(one: Assumed, first: Run) -> bool:
    """Whether it is the value of `.item()`, which is a number as a size is one; or a rank, where none goes by
    a size."""
    if one.target == "ndim":
        return not any(step.target.endswith("squeeze") for step in first.recorder.steps)
    return one.target is None and isinstance(one.args[0], torch.fx.Node)


def _same_parts(first: Run, other: Run, taken_apart: Sequence[Assumed]) -> bool:
    """Whether what was taken apart in `first` was cut along sizes that are the same in `other`, the same
    graph on other sizes."""
    nodes = {one.args[0] for one in taken_apart}
    return all(
        _along(first, step) == _along(other, again)
        for step, again in zip(first.recorder.steps, other.recorder.steps, strict=False)
        if step.node in nodes
    )


def _along(run: Run, step: Step) -> tuple[int, list[int]]:
    """How many parts a step made, and the sizes of what it took apart that they may have been cut from."""
    values = run.recorder.values
    parts = [values[v].shape for v in step.makes]
    whole = values[step.reads[0]].shape if step.reads else ()
    if any(len(part) != len(whole) for part in parts):
        return len(parts), []  # `unbind`: as many as the size
    return len(parts), [size for dim, size in enumerate(whole) if sum(part[dim] for part in parts) == size]


def _by_size(target: Program, first: Run, asked: Experiment, group: _Group) -> tuple[Assumed, ...]:
    """What shows when the inputs have other sizes."""
    first_ones = (group.size + 1, 2 * group.size + 1)
    more = [size for size in MORE if size not in (*first_ones, group.size)] if _is_small(first) else []
    for size in (*first_ones, *more):
        other = _recorded(_longer(target, group, size), asked)
        if other is None and size in first_ones:
            break  # the program has one size for it
        if other is None:
            continue
        missing = _missing(first, other)
        if missing is not None:
            return missing or tuple(
                _the_size(first, other, group) if _is_steady(target, first, asked) else ()
            )
    return ()


def _is_small(first: Run) -> bool:
    """Whether a run more costs nothing."""
    recorder = first.recorder
    elements = sum(math.prod(filter(_is_plain, value.shape)) for value in recorder.values)
    return len(recorder.steps) <= STEPS and elements <= ELEMENTS


def _is_plain(size: object) -> bool:
    """The size of a ragged dimension is none that can be multiplied."""
    return type(size) is int


def _is_steady(target: Program, first: Run, asked: Experiment) -> bool:
    """Whether the same call records the same graph: objects that a forward makes may be others in each
    run."""
    again = _recorded(target, asked)
    return again is not None and same_graph(first, again)


def _recorded(target: Program, asked: Experiment) -> Run | None:
    """A run to its end; None where the program does not take the call."""
    try:
        other = recording(target, asked)
    except (FixError, InputError):
        return None
    return other if other.output_structure is not None else None


def _missing(first: Run, other: Run) -> tuple[Assumed, ...] | None:
    """The weak things that another call, which records another graph, has otherwise; None where nothing is
    missing."""
    if same_graph(first, other):
        return None
    weak: list[Assumed] = []
    for one, another in zip(first.recorder.assumed, other.recorder.assumed, strict=False):
        if one.target != another.target or one.spots != another.spots:
            break
        if not same(symbols.plain(another.taken), symbols.plain(one.taken)):
            if one.weak:
                weak.append(one)
            elif is_over_inputs(one) or not weak:
                return None
            else:
                break  # checked only inside, behind what the weak ones may make impossible
    return tuple(weak)


def _the_size(first: Run, other: Run, group: _Group) -> Iterator[Assumed]:
    """That the inputs have the sizes that they have."""
    parts = first_difference(first, other)
    spots = next((step.spots for step in first.recorder.steps if step.node is parts), ())
    for key, dim in group.dims:
        node = first.recorder.inputs.get(key)
        if node is not None:
            yield Assumed("size", (node, dim), group.size, spots)


def _items(first: Run) -> Iterator[tuple[int, Assumed]]:
    """The numbers that leave torch as such, one of each line: their place among all that leaves it, and what
    was read."""
    reads = {one.args[0]: one for one in first.recorder.assumed if one.target is None and one.weak}
    lines: set[tuple[Spot, ...]] = set()
    for number, step in enumerate(step for step in first.recorder.steps if step.kind == "escape"):
        if step.node in reads and step.spots not in lines and len(lines) < NUMBERS:
            lines.add(step.spots)
            yield number, reads[step.node]


# ------------------------------------------------------------------------------------------------ other sizes


def _plain(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and type(tensor) is torch.Tensor
        and not tensor.is_quantized
        and not tensor.is_inference()
    )


def _groups(target: Program) -> list[_Group]:
    """The first dimensions of the commonest size, then the others by their sizes."""
    leaves, _ = target.flat_inputs()
    tensors = list({id(t): t for t in leaves if _plain(t)}.values())
    first = _batch(tensors)
    rest: dict[int, list[tuple[int, int]]] = {}
    for tensor in tensors:
        for dim, size in enumerate(tensor.shape):
            if size and (first is None or (id(tensor), dim) not in first.dims):
                rest.setdefault(size, []).append((id(tensor), dim))
    groups = [_Group(tuple(dims), size) for size, dims in rest.items()]
    return [first, *groups] if first is not None else groups


def _batch(tensors: Sequence[torch.Tensor]) -> _Group | None:
    """The first dimensions of the commonest size."""
    sizes = Counter(t.shape[0] for t in tensors if t.dim() and t.shape[0]).most_common(1)
    if not sizes:
        return None
    size = sizes[0][0]
    return _Group(tuple((id(t), 0) for t in tensors if t.dim() and t.shape[0] == size), size)


def _longer(target: Program, group: _Group, size: int) -> Program:
    """The program on inputs whose dimensions of the group have this size: what they hold is repeated,
    or cut."""
    leaves, structure = target.flat_inputs()
    made: dict[int, torch.Tensor] = {}
    for tensor in leaves:
        dims = [dim for key, dim in group.dims if key == id(tensor)]
        if id(tensor) not in made:
            made[id(tensor)] = _repeated(tensor, dims, size) if dims else tensor
    args, kwargs = tree.unflatten(structure, [made[id(t)] for t in leaves])
    return replace(target, inputs=Inputs(args, kwargs))


def _repeated(tensor: torch.Tensor, dims: Sequence[int], size: int) -> torch.Tensor:
    with torch.no_grad():
        made = tensor
        for dim in dims:
            made = made.index_select(dim, torch.arange(size, device=tensor.device) % tensor.shape[dim])
    return made.detach().requires_grad_(tensor.requires_grad)
