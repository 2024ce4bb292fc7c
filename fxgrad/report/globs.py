"""Long lists of qualified names as a few globs that are exact: each matches names of its group and no other
name.

Made from the names to show and all names there are. A glob is checked by `fnmatch.fnmatchcase`, the matching
that `expect` uses, so what a report shows can be pasted back. Not handled: names that hold glob characters
themselves; they are shown one by one.
"""

from __future__ import annotations

import bisect
import fnmatch
import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Group:
    """A glob, or a plain name, and the names it stands for."""

    pattern: str
    names: tuple[str, ...]


def grouped(names: Iterable[str], universe: Iterable[str]) -> tuple[Group, ...]:
    """The names as groups that part them: together they hold every name once; in the order of the first name
    of each.

    `universe` is every name that a glob could match; a glob that also matches a name outside `names` is never
    made.
    """
    wanted = tuple(dict.fromkeys(names))
    return _grouped(wanted, tuple(dict.fromkeys([*universe, *wanted])))


@functools.lru_cache(maxsize=4)  # a report shows what a finding starves in its table too
def _grouped(wanted: tuple[str, ...], everything: tuple[str, ...]) -> tuple[Group, ...]:
    groups = _whole_subtrees(wanted, everything)
    # two indices at once first: `stages.*.blocks.*.norm.weight`, where the blocks of a stage vary in number
    for size in (2, 1):
        groups = _merged(groups, everything, size)
    order = {name: position for position, name in enumerate(wanted)}
    return tuple(sorted(groups, key=lambda group: order[group.names[0]]))


def shown(names: Sequence[str], universe: Iterable[str], *, limit: int) -> str:
    """The names on one line: each where there are at most `limit`, else as globs with counts, of those at
    most `limit`."""
    if len(names) <= limit:
        return ", ".join(names)
    groups = grouped(names, universe)
    parts = [text(group) for group in groups[:limit]]
    left = sum(len(group.names) for group in groups[limit:])
    return ", ".join([*parts, *([f"and {left} more"] if left else [])])


def text(group: Group) -> str:
    """`encoder.layers.*.bias (12)`; a group of one is its name."""
    return group.pattern if len(group.names) == 1 else f"{group.pattern} ({len(group.names)})"


def _whole_subtrees(wanted: tuple[str, ...], everything: tuple[str, ...]) -> list[Group]:
    """One group for each largest module all of whose names are wanted, one for each name that is in none."""
    inside = set(wanted)
    if len(wanted) > 1 and len(inside) == len(everything):
        return [Group("*", wanted)]
    spoiled = {prefix for name in everything if name not in inside for prefix in _prefixes(name)}
    held: dict[str, list[str]] = {}  # by the glob for a whole module, or the name
    for name in wanted:
        whole = (prefix for prefix in _prefixes(name) if prefix not in spoiled and not _has_glob(prefix))
        outermost = next(whole, None)
        held.setdefault(name if outermost is None else f"{outermost}.*", []).append(name)
    return [Group(glob if len(names) > 1 else names[0], tuple(names)) for glob, names in held.items()]


def _prefixes(name: str) -> Iterable[str]:
    """The paths of the modules around a name, the outermost first."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts)))


def _has_glob(name: str) -> bool:
    return not _GLOB.isdisjoint(name)


def _merged(groups: list[Group], everything: tuple[str, ...], size: int) -> list[Group]:
    """The groups with those merged that differ only in `size` indices, as long as the glob for them matches
    nothing else."""
    merged: dict[str, Group] = {}  # by name: the group it ended in
    ordered = sorted(everything)
    for pattern, members in _proposals(groups, size):
        names = tuple(name for group in members for name in group.names)
        if any(name in merged for name in names):
            continue
        if set(names) == set(_matching(pattern, ordered)):
            merged.update(dict.fromkeys(names, Group(pattern, names)))
    kept = [group for group in groups if group.names[0] not in merged]
    return [*kept, *dict.fromkeys(merged.values())]


def _proposals(groups: list[Group], size: int) -> Iterable[tuple[str, list[Group]]]:
    """Globs over at least two of the groups: `layers.*.bias` for all indices, then `layers.[0-5].bias` for
    some."""
    # the parts, "*" for an index -> the index and its group
    templates: dict[tuple[str, ...], list[tuple[str, Group]]] = {}
    for group in groups:
        for parts, index in _templates(group.pattern, size):
            templates.setdefault(parts, []).append((index, group))
    several = sorted((item for item in templates.items() if len(item[1]) > 1), key=lambda item: -len(item[1]))
    for parts, members in several:
        yield ".".join(parts), [group for _, group in members]
    if size == 1:
        for parts, members in several:
            yield from _of_some(parts, members)


def _of_some(parts: tuple[str, ...], members: list[tuple[str, Group]]) -> Iterable[tuple[str, list[Group]]]:
    """Globs over some of the indices of one template, a decade each."""
    place = next(place for place, part in enumerate(parts) if part == "*")
    tens: dict[str, list[tuple[str, Group]]] = {}
    for index, group in members:
        tens.setdefault(index[:-1], []).append((index[-1], group))
    for start, ones in tens.items():
        if len(ones) > 1:
            glob = start + _digits([digit for digit, _ in ones])
            yield ".".join([*parts[:place], glob, *parts[place + 1 :]]), [group for _, group in ones]


def _digits(digits: list[str]) -> str:
    """The character class of some digits: `[0-5]`, `[024]`."""
    numbers = sorted(int(digit) for digit in digits)
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"[{numbers[0]}-{numbers[-1]}]"
    return f"[{''.join(map(str, numbers))}]"


def _templates(pattern: str, size: int) -> Iterable[tuple[tuple[str, ...], str]]:
    """The parts of the pattern with `size` of its indices replaced by `*`, and the last index replaced."""
    parts = pattern.split(".")
    if _has_glob(pattern.removesuffix(".*")):
        return
    indices = [place for place, part in enumerate(parts) if part.isdecimal()]
    for places in itertools.combinations(indices, size):
        yield tuple("*" if place in places else part for place, part in enumerate(parts)), parts[places[-1]]


def _matching(pattern: str, ordered: Sequence[str]) -> Iterable[str]:
    """What a glob matches of names in alphabetical order: only those that begin as it does are looked at."""
    start = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    first, last = (
        bisect.bisect_left(ordered, start),
        bisect.bisect_right(ordered, start, key=lambda name: name[: len(start)]),
    )
    matches = re.compile(fnmatch.translate(pattern)).match
    return (name for name in ordered[first:last] if matches(name))
