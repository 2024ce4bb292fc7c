"""The safe repairs of a `MendResult`, put into the findings that they mend, as edits of the files as they lie
on disk.

A repair's edits are in positions of the text it was made in, after those before it. Where they touch nothing
that those have changed, they are the same edits of the file on disk, and can be made alone. Where they do,
the finding gets the whole change of all files. Not handled: a finding that went away by the repair of
another; it keeps its advice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fxgrad.fix_source.loop import MendResult, Repair
from fxgrad.fix_source.sheet import Span, apply, sheet
from fxgrad.fix_source.trouble import WRITES
from fxgrad.records import Edit, Finding, Fix, Site
from fxgrad.report import Report


def may_be_mended(report: Report) -> bool:
    """Whether a finding is of the kind that a safe edit can mend: else there is nothing to try."""
    return any(finding.severity == "error" and finding.code in WRITES for finding in report.findings)


def with_fixes(report: Report, result: MendResult) -> Report:
    """The report, each finding that has a safe repair with its edits."""
    texts = {file.stored.file: _History(file.stored.file, file.stored.text) for file in result.files}
    fixes: dict[tuple[object, ...], Repair] = {}
    for repair in result.repairs:
        site = repair.finding.site
        start = _original(texts, site) if site is not None else None
        edits = [_on_disk(texts, edit) for edit in repair.edits]
        own = tuple(edit for edit in edits if edit is not None)
        if repair.safety == "safe" and start is not None:
            whole = own if len(own) == len(edits) else result.source_edits
            fixes[repair.finding.code, start] = replace(repair, edits=whole)
        for history in texts.values():
            history.change(repair.edits)
    return replace(report, findings=tuple(_fixed(finding, fixes) for finding in report.findings))


def _fixed(finding: Finding, fixes: dict[tuple[object, ...], Repair]) -> Finding:
    site = finding.site
    repair = fixes.get((finding.code, _start(site))) if site is not None else None
    if repair is None:
        return finding
    advice = finding.fix.advice if finding.fix is not None else repair.how
    return replace(finding, fix=Fix(advice, "safe", repair.edits))


@dataclass(slots=True)
class _History:
    """One file: its text now, and the spans that each change replaced, with the length of what came."""

    file: str
    text: str
    stored: str = ""
    changes: list[list[tuple[Span, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stored = self.text

    def change(self, edits: Iterable[Edit]) -> None:
        page, mine = sheet(self.file, self.text), [edit for edit in edits if edit.site.file == self.file]
        spans = [(span, len(e.new)) for e in mine if (span := page.span_of_site(e.site)) is not None]
        self.changes.append(sorted(spans))
        self.text = apply(self.text, self.file, tuple(mine))

    def before(self, offset: int) -> int | None:
        """The offset in the stored text of one in the text now; None inside of what came by a change."""
        for change in reversed(self.changes):
            moved = 0  # how far what stands here has been moved by the spans before it
            for (start, stop), length in change:
                if offset <= start + moved:
                    break
                if offset < start + moved + length:
                    return None
                moved += length - (stop - start)
            offset -= moved
        return offset


def _on_disk(texts: dict[str, _History], edit: Edit) -> Edit | None:
    """The same edit of the stored text; None where it touches what an earlier one has changed."""
    history = texts[edit.site.file]
    span = sheet(edit.site.file, history.text).span_of_site(edit.site)
    if span is None:
        return None
    start, stop = (history.before(offset) for offset in span)
    if start is None or stop is None or history.stored[start:stop] != edit.old:
        return None
    return sheet(edit.site.file, history.stored).edit(start, stop, edit.new)


def _original(texts: dict[str, _History], site: Site) -> tuple[object, ...] | None:
    """Where a site of the text now begins in the stored text."""
    if site.file not in texts:
        return _start(site)
    history = texts[site.file]
    offset = history.before(sheet(site.file, history.text).offset(site.line, max(site.column, 1)))
    if offset is None:
        return None
    return _start(replace(sheet(site.file, history.stored).edit(offset, offset, "").site, file=site.file))


def _start(site: Site) -> tuple[object, ...]:
    return site.file, site.line, max(site.column, 1)
