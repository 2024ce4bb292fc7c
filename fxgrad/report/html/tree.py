"""The parameters by module, coloured by verdict and folded: a thousand layers are a few lines.

Each row has the parameter's shape and size, and leads to the first finding that names it, else to the error
that blocks it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

from fxgrad.records import ParameterFact
from fxgrad.records.report import ReportData
from fxgrad.report.html.markup import attribute, badge

VERDICTS = ("blocked", "none", "zero", "branch", "frozen", "flows")  # the worst first
_DEPTH = 100  # so many modules in one another fold; what lies deeper has the rest of its path in its name
_RUN = 8  # so many layers side by side without a fault are one line
_UNFOLDED = 400  # modules with a fault that stand open at first
_FINE = frozenset({"flows", "frozen"})


@dataclass(slots=True)
class _Module:
    """Inner modules and parameters (their qualified names) by name."""

    modules: dict[str, _Module] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Rows:
    """What every row is made from."""

    verdicts: Mapping[str, str]
    facts: Mapping[str, ParameterFact]
    causes: Mapping[str, tuple[str, str]]  # what is to blame, and its anchor
    flowing: bool  # whether what simply trains has a row, or is counted alone
    left: int = _UNFOLDED


@dataclass(slots=True)
class _Counts:
    """Of some modules: their parameters by verdict, and how many numbers they hold (tied ones once)."""

    verdicts: Counter[str]
    values: int

    @classmethod
    def of(cls, modules: list[_Module], rows: _Rows) -> _Counts:
        names = [full for module in modules for full in _names(module)]
        facts = {fact.name: fact for name in names if (fact := rows.facts.get(name)) is not None}
        values = sum(math.prod(fact.shape) for fact in facts.values())
        return cls(Counter(rows.verdicts[name] for name in names), values)


def tree(report: ReportData, causes: Mapping[str, tuple[str, str]], *, flowing: bool = True) -> str:
    """`causes`: by parameter, what is to blame for its verdict and the anchor of that. `flowing`: with a row
    for what simply trains, which is counted else."""
    facts = {name: fact for fact in report.parameters for name in fact.names}
    rows = _Rows(shown_verdicts(report), facts, causes, flowing)
    root = _Module()
    for full in rows.verdicts:
        *path, last = full.split(".", _DEPTH)
        module = root
        for part in path:
            module = module.modules.setdefault(part, _Module())
        module.parameters[last] = full
    return _children(root, rows)


def shown_verdicts(report: ReportData) -> dict[str, str]:
    """With `frozen` for a parameter that asks for no gradient and gets none."""
    frozen = {n for p in report.parameters if not p.requires_grad for n in p.names}
    return {
        name: "frozen" if name in frozen and verdict == "none" else verdict
        for name, verdict in report.verdicts.items()
    }


def _children(module: _Module, rows: _Rows) -> str:
    parts = [
        _parameter(name, full, rows)
        for name, full in module.parameters.items()
        if rows.flowing or rows.verdicts[full] != "flows"
    ]
    inner = [(name, item, _Counts.of([item], rows)) for name, item in module.modules.items()]
    for fine, group in groupby(
        inner, key=lambda found: found[0].isdigit() and set(found[2].verdicts) <= _FINE
    ):
        items = list(group)
        inside = "".join(_folded(name, [item], counts, rows) for name, item, counts in items)
        if fine and len(items) >= _RUN:
            name = f"{items[0][0]} to {items[-1][0]}"
            inside = _details(name, _Counts.of([item for _, item, _ in items], rows), inside, rows)
        parts.append(inside)
    return "".join(parts)


def _folded(name: str, modules: list[_Module], counts: _Counts, rows: _Rows) -> str:
    return _details(name, counts, "".join(_children(module, rows) for module in modules), rows)


def _details(name: str, counts: _Counts, inside: str, rows: _Rows) -> str:
    worst = min(counts.verdicts, key=VERDICTS.index)
    opened = ""
    if worst not in _FINE and rows.left:
        rows.left, opened = rows.left - 1, " open"
    badges = "".join(badge(v, str(counts.verdicts[v])) for v in VERDICTS if counts.verdicts[v])
    size = f" <small>{counts.values:,}</small>" if counts.values else ""
    return (
        f'<details class="m {worst}"{opened}>'
        f"<summary>{escape(name)} {badges}{size}</summary>{inside}</details>"
    )


def _parameter(name: str, full: str, rows: _Rows) -> str:
    verdict, fact = rows.verdicts[full], rows.facts.get(full)
    said, anchor = rows.causes.get(full, ("", ""))
    cause = f' <a class=code href="#{anchor}">{escape(said)}</a>' if said else ""
    search = attribute(f"{full} {verdict} {said}".lower())
    size = f" <small>{_size(fact)}</small>" if fact is not None else ""
    return (
        f'<div class=p data-s="{search}" data-v={verdict}>{badge(verdict, verdict)} {escape(name)}{size}'
        f"{cause}</div>"
    )


def _size(fact: ParameterFact) -> str:
    """`64×40 = 2,560`; a tied one says to what."""
    count = f"{math.prod(fact.shape):,}"
    shape = "×".join(map(str, fact.shape))
    said = f"{shape} = {count}" if len(fact.shape) > 1 else count
    others = [name for name in fact.names if name != fact.name]
    return f"{said}, {escape(fact.name)}, {escape(', '.join(others))} are one" if others else said


def _names(module: _Module) -> Iterator[str]:
    pending = [module]
    while pending:
        current = pending.pop()
        pending.extend(current.modules.values())
        yield from current.parameters.values()
