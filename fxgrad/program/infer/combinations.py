"""Combinations of one candidate for each input, the likeliest first, and what a failed try changes in them.

A failed try adds what the first layers need to the front of the lists, rules out the candidates behind the
failure together, and for a flattened image works out the size from two failures. Not handled: inputs that
only make sense together beyond their shapes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fxgrad.program.infer.candidates import Candidate, Change, Need, distinct, from_need
from fxgrad.program.infer.probe import Try
from fxgrad.program.infer.spec import Group, Spec
from fxgrad.program.infer.told import told

_POSITIONS = 50_000  # combinations looked at for one that was not ruled out


class Combinations:
    """The queues as they stand, and what has been ruled out."""

    def __init__(self, queues: dict[str, list[Candidate]], unlike: Mapping[str, int]) -> None:
        self._unlike = unlike
        self._queues = {name: self._allowed(name, queue) for name, queue in queues.items()}
        self._tried: set[tuple[str, ...]] = set()
        # (input, candidate) pairs that fail whatever the other inputs are
        self._ruled_out: list[frozenset[tuple[str, str]]] = []
        # the same with the inputs whose sizes were read before
        self._measured: list[frozenset[tuple[str, str]]] = []
        self._needs: set[tuple[str, Need]] = set()
        # per input: side length, and features got as a length
        self._sides: dict[str, list[tuple[int, float]]] = {}

    def next(self, end: float) -> dict[str, Candidate] | None:
        """The likeliest combination that is left: the one with the smallest sum of positions. None also once
        the CPU time is `end`.

        Where all are ruled out, a size that was read off another input may have been at fault.
        """
        found = self._next(end)
        if found is None and self._ruled_out != self._measured:
            self._ruled_out = self._measured
            found = self._next(end)
        return found

    def _allowed(self, name: str, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Without those of the number of dimensions that is not wanted."""
        dims = self._unlike.get(name)
        return [
            one
            for one in candidates
            if dims is None or not (isinstance(one.spec, Spec) and len(one.spec.shape) == dims)
        ]

    def likeliest(self, name: str | None) -> Candidate | None:
        """What stands first for the input by now of what was not tried; None where all was."""
        names = list(self._queues)
        if name not in names:
            return None
        tried = {mark[names.index(name)] for mark in self._tried}
        return next((one for one in self._queues[name] if one.text() not in tried), None)

    def _next(self, end: float) -> dict[str, Candidate] | None:
        names = list(self._queues)
        for positions in itertools.islice(_by_sum([len(self._queues[name]) for name in names]), _POSITIONS):
            if time.process_time() >= end:
                return None
            chosen = {
                name: self._queues[name][position] for name, position in zip(names, positions, strict=True)
            }
            pairs = {(name, candidate.text()) for name, candidate in chosen.items()}
            mark = tuple(candidate.text() for candidate in chosen.values())
            if mark not in self._tried and not any(bad <= pairs for bad in self._ruled_out):
                self._tried.add(mark)
                return chosen
        return None

    def learn(self, tried: Mapping[str, Candidate], outcome: Try) -> None:
        """Reorder the queues by what the failed try showed."""
        seen = outcome.seen
        if not outcome.beyond:
            self._rule_out(tried, outcome)
        for name, need in seen.needs.items():
            accepted = tried[name] if name in seen.passed and name in tried else None
            self._add(name, need, after=accepted, tuples=_is_group(tried, name))

    def _rule_out(self, tried: Mapping[str, Candidate], outcome: Try) -> None:
        """The candidates that the failure came from; what would have gone through comes first."""
        seen, failure = outcome.seen, outcome.seen.failure
        behind = self._behind(tried, outcome)
        self._remember(tried, behind, seen.measured)
        if outcome.error is not None and not (failure and (failure.likes or failure.features)):
            self._prefer(tried, behind, outcome.error)
        if failure is None:
            return
        for name, need in _likeliest(failure.likes, tried, seen.needs):
            self._add(name, need, tuples=_is_group(tried, name))
        # folded into channels, or joined with itself; what several inputs bring is told by `likes`
        if failure.channels is not None and len(behind) == 1:
            self._lengthen(behind, tried, failure.channels, Change.FOLDED)
        if failure.features is not None:
            images = [name for name in behind if name in seen.needs and seen.needs[name].kind == "channels"]
            self._resize(images, tried, failure.features)
            self._lengthen([name for name in behind if name not in images], tried, failure.features)

    def _remember(
        self, tried: Mapping[str, Candidate], behind: Iterable[str], measured: Iterable[str]
    ) -> None:
        """These candidates do not go together."""
        strict = frozenset((name, tried[name].text()) for name in behind)
        if self._ruled_out is not self._measured:
            self._ruled_out.append(strict)
        self._measured.append(strict | {(name, tried[name].text()) for name in measured if name in tried})

    def _prefer(self, tried: Mapping[str, Candidate], names: Iterable[str], error: Exception) -> None:
        """What the error's text tells of these inputs comes first."""
        for name in names:
            asked = self._allowed(name, list(told(tried[name], error)))
            known = {one.text(): one for one in self._queues[name]}
            wanted = [known.get(one.text(), one) for one in asked]
            self._queues[name] = distinct(wanted + self._queues[name])

    def _behind(self, tried: Mapping[str, Candidate], outcome: Try) -> list[str]:
        """The inputs that the failure came from; of one that no torch function raised, all that were looked
        at so far.

        Python constants leave no trace, so they may always be behind it. None at all: it fails whatever is
        given.
        """
        failure = outcome.seen.failure
        if failure is not None and failure.inputs:
            return [name for name in failure.inputs if name in tried]
        return [
            name
            for name, candidate in tried.items()
            if candidate.spec is None or name in outcome.seen.touched
        ]

    def _add(self, name: str, need: Need, *, after: Candidate | None = None, tuples: bool = False) -> None:
        """What the need asks for comes first, but after a candidate that its layer has accepted. `tuples`:
        the input is a pair of such."""
        if name in self._queues and (name, need) not in self._needs:
            self._needs.add((name, need))
            first = [after] if after is not None else []
            asked = from_need(need)
            if tuples and need.kind != "state":
                asked = [
                    replace(one, spec=Group(None, (one.spec, one.spec)))
                    for one in asked
                    if isinstance(one.spec, Spec)
                ] + asked
            self._queues[name] = distinct([*first, *self._allowed(name, asked), *self._queues[name]])

    def _resize(
        self, images: Sequence[str], tried: Mapping[str, Candidate], features: tuple[int, int]
    ) -> None:
        """Features of a flattened map grow with the side to the power of its dimensions: two sides give the
        line to the wanted one."""
        for name in images:
            spec = tried[name].spec
            if not isinstance(spec, Spec) or len(spec.shape) < 3 or len(set(spec.shape[2:])) > 1:
                continue
            side, power = spec.shape[-1], 1 / (len(spec.shape) - 2)
            known = self._sides.setdefault(name, [])
            known.append((side, features[0] ** power))
            (side_a, got_a), (side_b, got_b) = known[0], known[-1]
            if side_a == side_b or got_a == got_b:
                continue
            middle = round(side_a + (features[1] ** power - got_a) * (side_b - side_a) / (got_b - got_a))
            sides = [middle + step for step in (0, 1, -1, 2, -2, 3, -3, 4) if 0 < middle + step <= 4096]
            why = f"{tried[name].reason}, and the flattened map fits the linear layer"
            resized = [
                Candidate(replace(spec, shape=(*spec.shape[:2], *(s,) * (len(spec.shape) - 2))), why=why)
                for s in sides
            ]
            self._queues[name] = distinct([*resized, *self._queues[name]])

    def _lengthen(
        self,
        names: Sequence[str],
        tried: Mapping[str, Candidate],
        features: tuple[int, int],
        fits: Change = Change.LENGTHENED,
    ) -> None:
        """Of what was flattened before a linear layer each size is in proportion to the features that it
        takes; `fits` is said of what is so."""
        got, wanted = features
        for name in names if got else ():  # nothing is in proportion to nothing
            spec = tried[name].spec
            # Longer once and still not fitting: the layer's input is no longer for it.
            if not isinstance(spec, Spec) or tried[name].change is fits:
                continue
            places = [
                place for place in range(len(spec.shape) - 1, 0, -1) if spec.shape[place] * wanted % got == 0
            ]
            shapes = [
                (*spec.shape[:place], spec.shape[place] * wanted // got, *spec.shape[place + 1 :])
                for place in places
            ]
            longer = [tried[name].changed(shape, fits) for shape in shapes]
            self._queues[name] = distinct([*longer, *self._queues[name]])


def _is_group(tried: Mapping[str, Candidate], name: str) -> bool:
    return name in tried and isinstance(tried[name].spec, Group)


def _by_sum(lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All positions in lists of these lengths, those with the smallest sum first."""
    if 0 in lengths:
        return
    for total in range(sum(lengths) - len(lengths) + 1):
        yield from _with_sum(lengths, total)


def _with_sum(lengths: Sequence[int], total: int) -> Iterator[tuple[int, ...]]:
    if not lengths:
        if total == 0:
            yield ()
        return
    for first in range(min(lengths[0] - 1, total) + 1):
        yield from ((first, *rest) for rest in _with_sum(lengths[1:], total - first))


def _likeliest(
    likes: Sequence[tuple[str, Need]], tried: Container[str], decided: Container[str]
) -> Sequence[tuple[str, Need]]:
    """Of two inputs that do not fit each other, the one that no layer has taken yet; else both."""
    return [like for like in likes if like[0] in tried and like[0] not in decided] or likes
