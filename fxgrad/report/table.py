"""The report as plain text: a headline, a table of verdicts, every finding with its source line, and a
closing count.

Made from a `Report` alone, source lines from the files as they are now. Names are grouped by exact globs
(`fxgrad.report.globs`) and whatever is shortened says how much was left out. For a terminal its width can be
given: the table and the source lines fit it, sentences are the terminal's to fold. Not handled: colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fxgrad.records import Finding, Fix, Raised, Step
from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks
from fxgrad.report.columns import fitting
from fxgrad.report.globs import Group, grouped, shown
from fxgrad.source.excerpt import WIDTH, brief_path, excerpt, place

_ROWS = 12  # rows of one verdict and reason; more are counted, not shown
_MARGIN = len("   | ") + len(" ...")  # beside a source line and its number
_NARROW = 40  # columns of source, however narrow the terminal is
_SINGLY = 4  # up to so many names are not grouped
_EVERYTHING = 10**9
_SEVERITIES = ("error", "warning", "note")
_RANK = ("blocked", "none", "zero", "branch", "flows")
PHASES = {"forward": "the forward pass", "loss": "the loss", "backward": "the backward pass"}
_SAID = {
    "blocked": "blocked by an error",
    "none": "get no gradient",
    "zero": "get only zeros",
    "branch": "depend on a branch",
    "frozen": "frozen",
}


def render(report: ReportData, *, verbose: bool = False, width: int | None = None) -> str:
    """The whole report; blocks are parted by an empty line."""
    blocks = [
        "\n".join(head(report)),
        _verdict_table(report, verbose, width),
        "\n".join(across_ranks.differing(report)),
        "\n".join(_decisions(report) if verbose else ()),
        "\n".join(_error(report, verbose)),
        findings(report, verbose=verbose, width=width),
        closing(report, verbose),
    ]
    return "\n\n".join(block for block in blocks if block)


def headline(report: ReportData) -> str:
    """`Net: 4 parameters, 2 get no gradient, 1 error`."""
    return f"{report.model}{across_ranks.title(report)}: {', '.join([*_counts(report), *_found(report)])}"


def findings(report: ReportData, *, verbose: bool = False, width: int | None = None) -> str:
    """The findings alone, and the notes if verbose; "" where there is none."""
    shown = [*report.findings, *(report.notes if verbose else ())]
    return "\n\n".join("\n".join(_finding(report, finding, verbose, width)) for finding in shown)


def head(report: ReportData) -> Iterable[str]:
    """The model and what was found in one line, then what that is based on."""
    yield headline(report)
    basis = [f"on {report.values} values"]
    if report.loss_used:
        basis.append(f"loss: {report.loss_used}")
    if report.paths > 1:
        basis.append(f"{report.paths} outcomes of data-dependent branches")
    yield "; ".join(basis)
    if report.paths_cut_off:
        yield (
            f"not every outcome was explored: the limit of {plural(report.paths, 'path')} was reached "
            "(max_paths, --max-paths)"
        )
    yield from (f"assumed: {assumption}" for assumption in report.assumptions)
    yield from across_ranks.endings(report)


def _counts(report: ReportData) -> Iterable[str]:
    """How many parameters there are and what becomes of those that do not simply train."""
    total = len(report.verdicts)
    tied = total - len(report.parameters) if report.parameters else 0
    yield (plural(total, "parameter") if total else "no parameters") + (f" ({tied} tied)" if tied > 0 else "")
    counts = Counter(_states(report).values())
    if total and counts["flows"] == total:
        yield "all get a gradient" if total > 1 else "it gets a gradient"
    for state, said in _SAID.items():
        if counts[state]:
            yield f"{counts[state]} {said if counts[state] > 1 else _singular(said)}"


def _singular(said: str) -> str:
    verb, space, rest = said.partition(" ")
    return f"{verb}s{space}{rest}" if verb in ("get", "depend") else said


def _found(report: ReportData) -> Iterable[str]:
    counts = Counter(finding.severity for finding in report.findings)
    if not report.findings:
        yield "no findings"
    for severity in ("error", "warning"):
        if counts[severity]:
            yield plural(counts[severity], severity)


def _states(report: ReportData) -> dict[str, str]:
    """The verdicts, with `frozen` for a parameter that asks for no gradient and gets none."""
    frozen = _frozen(report)
    return {
        n: "frozen" if verdict == "none" and n in frozen else verdict
        for n, verdict in report.verdicts.items()
    }


def _frozen(report: ReportData) -> frozenset[str]:
    return frozenset(name for fact in report.parameters if not fact.requires_grad for name in fact.names)


HEADERS = ("parameter", "count", "gradient", "because")


def verdict_rows(report: ReportData, verbose: bool) -> list[list[str]]:
    """One row a parameter or group of equal verdict and reason; what flows only beside what does not, or when
    verbose."""
    because = _reasons(report)
    classes: dict[tuple[str, str], list[str]] = {}
    for name, verdict in report.verdicts.items():
        classes.setdefault((verdict, because.get(name, "")), []).append(name)
    if not verbose and not report.findings:
        classes = {key: names for key, names in classes.items() if key[0] != "flows"}
    rows: list[list[str]] = []
    for (verdict, reason), names in sorted(classes.items(), key=lambda item: _rank(item[0][0])):
        groups = (
            grouped(names, report.verdicts)
            if len(names) > _SINGLY
            else [Group(name, (name,)) for name in names]
        )
        limit = len(groups) if verbose or len(groups) == _ROWS + 1 else _ROWS
        rows += [[group.pattern, str(len(group.names)), verdict, reason] for group in groups[:limit]]
        left = sum(len(group.names) for group in groups[limit:])
        if left:
            rows.append([f"... {plural(len(groups) - limit, 'more group')} (-v)", str(left), verdict, reason])
    return rows


def _verdict_table(report: ReportData, verbose: bool, width: int | None) -> str:
    rows = verdict_rows(report, verbose)
    if not rows:
        return ""
    from tabulate import tabulate  # here: it takes half as long to import as all of fxgrad

    if width is not None:
        rows = fitting(rows, HEADERS, width, (0, 3))
    table = tabulate(
        rows, HEADERS, tablefmt="simple", disable_numparse=True, colalign=("left", "right", "left", "left")
    )
    return "\n".join(line.rstrip() for line in table.splitlines())


def _rank(verdict: str) -> int:
    return _RANK.index(verdict) if verdict in _RANK else len(_RANK)


def _reasons(report: ReportData) -> dict[str, str]:
    """By parameter name, the code and place of the first finding that names it, else what else is known.

    Of findings of one severity those with a path from the loss come first: what an optimizer then does is no
    reason.
    """
    reasons: dict[str, str] = {}
    found = sorted(
        report.findings, key=lambda finding: (_SEVERITIES.index(finding.severity), not finding.path)
    )
    for finding in [*found, *report.notes]:
        said = f"{finding.code} {place(finding.site)}" if finding.site else finding.code
        ranks = across_ranks.where(report, finding)
        said += f" on {ranks}" if ranks else ""
        for name in finding.parameters:
            reasons.setdefault(name, said)
    for name in _frozen(report):
        reasons.setdefault(name, "requires_grad=False")
    if report.error is not None:
        error = f"{report.error.type} {place(report.error.site)}" if report.error.site else report.error.type
        for name in (name for name, verdict in report.verdicts.items() if verdict == "blocked"):
            reasons.setdefault(name, error)
    return reasons


def _decisions(report: ReportData) -> Iterable[str]:
    for decision in report.decisions:
        where = place(decision.site) if decision.site else "an unknown line"
        basis = "the example inputs decide" if decision.known else "explored"
        yield f"branch at {where}: took {decision.outcome} ({basis})"


def _error(report: ReportData, verbose: bool) -> Iterable[str]:
    error = report.error
    if error is None:
        return
    yield raised(error, verbose=verbose)
    if report.ok and error.site is not None:  # else a finding shows the line
        yield from _indented(excerpt(error.site))


def raised(error: Raised, *, verbose: bool = False) -> str:
    """`the forward pass raises KeyError at model.py:3:5: 'x'`; of a long message the first line, and how many
    more there are."""
    phase = PHASES[error.phase]
    where = f" at {place(error.site)}" if error.site else ""
    first, *more = error.message.strip().splitlines() or [""]
    if verbose:
        first = "\n    ".join([first, *more])
    elif more:
        first += f" (and {plural(len(more), 'more line')})"
    return f"{phase} raises {error.type}{where}: {first}"


def _finding(report: ReportData, finding: Finding, verbose: bool, width: int | None) -> Iterable[str]:
    where = place(finding.site) if finding.site else report.model
    message = "\n  ".join(finding.message.splitlines())
    yield f"{where}: {finding.code} {finding.name} [{finding.severity}] {message}"
    if finding.site is not None:
        room = WIDTH if width is None else max(width - _MARGIN - len(str(finding.site.end_line)), _NARROW)
        yield from _indented(excerpt(finding.site, room))
    if ranks := across_ranks.where(report, finding):
        yield f"  on: {ranks}"
    if finding.path:
        yield f"  path: {path(finding.path)}"
    if finding.parameters:
        starved = all(report.verdicts.get(name, "none") != "flows" for name in finding.parameters)
        names = shown(finding.parameters, report.verdicts, limit=_EVERYTHING if verbose else _ROWS // 2)
        yield f"  {'starves' if starved else 'parameters'}: {names}"
    if finding.fix is not None:
        yield from _fix(finding.fix)


def path(steps: Iterable[Step]) -> str:
    """`loss <- head <- detach (model.py:13) <- a.weight`: a cut has its line."""
    return " <- ".join(
        f"{step.label} ({brief_path(step.site.file)}:{step.site.line})"
        if step.cut and step.site
        else step.label
        for step in steps
    )


def _fix(fix: Fix) -> Iterable[str]:
    yield f"  help: {fix.advice}"
    for edit in fix.edits:
        yield f"  fix ({fix.safety}) {place(edit.site)}: `{_one_line(edit.old)}` -> `{_one_line(edit.new)}`"


def _one_line(text: str) -> str:
    first, *more = text.strip().splitlines() or [""]
    return f"{first} ..." if more else first


def _indented(lines: Iterable[str]) -> Iterable[str]:
    return (f"  {line}" for line in lines)


def closing(report: ReportData, verbose: bool) -> str:
    """The outcome in a sentence, and what is not shown."""
    sentences = [_outcome(report)]
    fixable = sum(bool(finding.fix and finding.fix.edits) for finding in report.findings)
    if fixable:
        sentences.append(
            f"{fixable} of {plural(len(report.findings), 'finding')} can be repaired by an edit shown above."
        )
    if report.notes and not verbose:
        sentences.append(f"{plural(len(report.notes), 'note')} not shown (-v).")
    if report.deselected:
        sentences.append(f"{report.deselected} left out by select and ignore.")
    return " ".join(sentences)


def _outcome(report: ReportData) -> str:
    counts = Counter(finding.severity for finding in report.findings)
    if report.findings:
        return f"Found {plural(counts['error'], 'error')} and {plural(counts['warning'], 'warning')}."
    if report.error is not None:
        return "No finding explains the error."
    states = set(_states(report).values())
    if not states:
        return "There is nothing to train."
    if states <= {"flows", "frozen"} and "flows" in states and not across_ranks.left_out(report):
        return "OK: every parameter that asks for a gradient gets one."
    return "No findings."


def plural(count: int, noun: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
