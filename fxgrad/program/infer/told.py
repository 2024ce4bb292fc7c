"""What the text of an error tells of an input: sizes ("input height (64) doesn't match the model (32)"), or
into how many sizes a shape is unpacked.

Made from the text and the shape that was tried. Not handled: texts that name no number.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from fxgrad.program.infer.candidates import Candidate, Change, of_dimensions
from fxgrad.program.infer.spec import Spec

_MOST = 4  # numbers in a text that is about one size
_LARGEST = 4096


def told(tried: Candidate, error: Exception) -> Iterator[Candidate]:
    """What was tried, with a size that the text names replaced by another that it names: wherever it stands
    but for the batch, then in one place."""
    spec = tried.spec
    unpacked = re.search(r"unpack \(expected (\d+)", str(error)) if isinstance(error, ValueError) else None
    if unpacked is not None:
        yield from of_dimensions(int(unpacked[1]), f"it is unpacked into {unpacked[1]} sizes")
        return
    found = re.findall(r"(?<![\w.])\d{1,6}(?![\w.]*\d)", str(error))
    numbers = list(dict.fromkeys(map(int, found)))
    if not isinstance(spec, Spec) or not 2 <= len(numbers) <= _MOST or tried.change is Change.TOLD_AGAIN:
        return  # height and width; a check that every size fails would go on for ever
    change = Change.TOLD_AGAIN if tried.change is Change.TOLD else Change.TOLD
    for size, other in itertools.permutations(numbers, 2):
        for shape in _shapes(spec.shape, size, other):
            yield tried.changed(shape, change)


def _shapes(shape: tuple[int, ...], size: int, other: int) -> Iterator[tuple[int, ...]]:
    """With the one size replaced by the other: wherever it stands but for the batch, then in one place."""
    places = [place for place, one in enumerate(shape) if place and one == size]
    if not places or not 0 < other <= _LARGEST:
        return
    for chosen in dict.fromkeys([tuple(places), *((place,) for place in places)]):
        yield tuple(other if place in chosen else one for place, one in enumerate(shape))
