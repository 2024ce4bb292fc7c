"""A comparison of two reports as text: a table, Markdown for a pull request, an HTML page, JSON.

    schema_version  1
    ok              whether no gradient was lost
    old, new        title (as it was given), model, parameters (their number)
    changes         kind ("lost", "gained", "other cause", "removed", "added"), parameter, before, after
                    (verdicts, "frozen" where it asks for no gradient, null where it is not there), because

Names are grouped by exact globs as in a report. Not handled: findings that starve nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from fxgrad.records.plain_text import one_line, without_commands
from fxgrad.report.as_json import dumps
from fxgrad.report.columns import fitting
from fxgrad.report.comparison import KINDS, Comparison, Side
from fxgrad.report.globs import grouped
from fxgrad.report.markdown import code, prose, table
from fxgrad.report.printable import as_printable
from fxgrad.report.table import plural

SCHEMA_VERSION = 1
_HEADERS = ("change", "parameter", "count", "before", "after", "because")
_ROWS = 12  # rows of one change and reason; more are counted, not shown


def as_table(comparison: Comparison, *, verbose: bool = False, width: int | None = None) -> str:
    """A headline, and a row a group of parameters, folded to a terminal's width."""
    from tabulate import tabulate

    rows: Sequence[Sequence[str]] = _rows(comparison, verbose)
    if not rows:
        return _headline(comparison)
    if width is not None:
        rows = fitting(rows, _HEADERS, width, (1, 5))
    shown = tabulate(
        rows,
        _HEADERS,
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", "left", "right", "left", "left", "left"),
    )
    return without_commands("\n".join([_headline(comparison), "", *map(str.rstrip, shown.splitlines())]))


def as_markdown(comparison: Comparison, *, verbose: bool = False, width: int | None = None) -> str:
    """The same as GitHub's Markdown; parameters that came or went are folded away."""
    del width
    rows = [
        (f"**{kind}**" if kind == "lost" else kind, code(name), count, before, after, prose(because))
        for kind, name, count, before, after, because in _rows(comparison, verbose)
    ]
    apart = [row for row in rows if row[0] in ("removed", "added")]
    changed = [row for row in rows if row not in apart]
    old, new = comparison.old, comparison.new
    blocks = [
        f"### Gradients of {prose(new.report.model)}: {_counts(comparison)}",
        f"{code(old.title)} → {code(new.title)}",
        table(_HEADERS, changed),
    ]
    if apart:
        said = _apart(comparison)
        blocks.append(f"<details><summary>{said}</summary>\n\n{table(_HEADERS, apart)}\n\n</details>")
    return without_commands("\n\n".join(block for block in blocks if block))


def as_json(comparison: Comparison, *, verbose: bool = False, width: int | None = None) -> str:
    """Every change, whatever `verbose` says."""
    del verbose, width
    changes = [
        {
            "kind": change.kind,
            "parameter": change.parameter,
            "before": change.before or None,
            "after": change.after or None,
            "because": change.because,
        }
        for change in comparison.changes
    ]
    return dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "ok": comparison.ok,
            "old": _about(comparison.old),
            "new": _about(comparison.new),
            "changes": changes,
        }
    )


def as_page(comparison: Comparison, *, verbose: bool = False, width: int | None = None) -> str:
    """Both reports on one HTML page, below the changes. The files they speak of are read now."""
    from fxgrad.report.html import side_by_side

    del verbose, width
    old, new = comparison.old, comparison.new
    titles = (one_line(old.title), one_line(new.title))
    page = side_by_side(as_printable(old.report), as_printable(new.report), comparison.changes, titles)
    return without_commands(page)


FORMATS: Mapping[str, Callable[..., str]] = {
    "table": as_table,
    "markdown": as_markdown,
    "json": as_json,
    "html": as_page,
}


def _about(side: Side) -> dict[str, object]:
    return {"title": side.title, "model": side.report.model, "parameters": len(side.states)}


def _headline(comparison: Comparison) -> str:
    old, new = comparison.old, comparison.new
    apart = _apart(comparison)
    said = f"{_counts(comparison)}{f'; {apart}' if apart else ''}"
    return f"{one_line(new.report.model)}, {one_line(old.title)} -> {one_line(new.title)}: {said}"


def _counts(comparison: Comparison) -> str:
    counts = Counter(change.kind for change in comparison.changes)
    if not any(counts[kind] for kind in ("lost", "gained", "other cause")):
        return "no gradient gained or lost"
    parts = [f"{counts['lost']} lost", f"{counts['gained']} gained"]
    if counts["other cause"]:
        parts.append(f"{counts['other cause']} missing for another reason")
    return ", ".join(parts)


def _apart(comparison: Comparison) -> str:
    counts = Counter(change.kind for change in comparison.changes)
    return ", ".join(
        f"{plural(counts[kind], 'parameter')} {kind}" for kind in ("removed", "added") if counts[kind] > 0
    )


def _rows(comparison: Comparison, verbose: bool) -> list[tuple[str, str, str, str, str, str]]:
    """Groups of parameters that changed alike."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for change in comparison.changes:
        key = (change.kind, change.before, change.after, change.because)
        alike.setdefault(key, []).append(change.parameter)
    universe = tuple(dict.fromkeys([*comparison.new.states, *comparison.old.states]))
    rows = []
    for (kind, *said), names in sorted(alike.items(), key=lambda item: KINDS.index(item[0][0])):
        before, after, because = map(one_line, said)
        groups = grouped(names, universe)
        limit = len(groups) if verbose or len(groups) == _ROWS + 1 else _ROWS
        rows += [
            (kind, one_line(group.pattern), str(len(group.names)), before, after, because)
            for group in groups[:limit]
        ]
        left = sum(len(group.names) for group in groups[limit:])
        if left:
            more = f"... {plural(len(groups) - limit, 'more group')} (-v)"
            rows.append((kind, more, str(left), before, after, because))
    return rows
