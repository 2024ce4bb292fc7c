"""Larger inputs than those guessed: the lengths among their sizes, which the model takes of any size.

A guess of a length is as good as another until the model shortens it to one element (a softmax, a
normalisation over it) or to none. A size is a length if the model also runs with it larger, alone or with
all guessed sizes that equal it. The first sizes of inputs, of which most are batches, are enlarged last.
Not handled: sizes inside tuples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from fxgrad.program.infer.candidates import Candidate, Change
from fxgrad.program.infer.spec import Spec

FAR, NEAR = 128, 2  # an enlarged length is at least FAR, where it may be; else NEAR times what it was
MOST = 2**24  # elements of an enlarged input

Runs = Callable[[Mapping[str, Candidate]], bool]
Place = tuple[str, int]  # the input and the position of a size in its shape


def lengthened(runs: Runs, candidates: Mapping[str, Candidate]) -> Iterator[dict[str, Candidate]]:
    """The inputs with their lengths enlarged, the likeliest first; none where nothing is a length."""
    sizes = {
        (name, position): size
        for name, one in candidates.items()
        if isinstance(one.spec, Spec)
        for position, size in enumerate(one.spec.shape)
    }
    inner = {place: size for place, size in sizes.items() if place[1]}
    first = {place: size for place, size in sizes.items() if not place[1]}

    def fit(larger: Mapping[Place, int]) -> bool:
        made = _enlarged(candidates, larger)
        return bool(larger) and _fits(made) and runs(made)

    told: list[dict[Place, int]] = []
    for some in (inner, first):
        larger = _lengths(fit, some, sizes)
        if larger not in told and fit(larger):
            told.append(larger)
            yield _enlarged(candidates, larger)


def _lengths(
    fit: Callable[[Mapping[Place, int]], bool], some: Mapping[Place, int], sizes: Mapping[Place, int]
) -> dict[Place, int]:
    """How large each of some places may be, as far as it was tried."""
    found: dict[Place, int] = {}
    for place, size in some.items():
        if place in found:
            continue
        equal = [other for other, its in sizes.items() if its == size]
        for together in ([place], equal) if len(equal) > 1 else ([place],):
            tries = (dict.fromkeys(together, large) for large in (max(4 * size, FAR), NEAR * size))
            fitting = next(filter(fit, tries), None)
            if fitting is not None:
                found.update(fitting)
                break
    return found


def _enlarged(candidates: Mapping[str, Candidate], larger: Mapping[Place, int]) -> dict[str, Candidate]:
    made = dict(candidates)
    for name, one in candidates.items():
        if not isinstance(one.spec, Spec):
            continue
        shape = tuple(larger.get((name, position), size) for position, size in enumerate(one.spec.shape))
        if shape != one.spec.shape:
            # what it indexes bounds it as before
            made[name] = replace(one, spec=replace(one.spec, shape=shape), change=Change.ENLARGED)
    return made


def _fits(candidates: Mapping[str, Candidate]) -> bool:
    shapes = [one.spec.shape for one in candidates.values() if isinstance(one.spec, Spec)]
    return all(math.prod(shape) <= MOST for shape in shapes)
