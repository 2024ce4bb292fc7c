"""What is wrong, one article each: the findings, and what the program raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from fxgrad.records import Finding, Raised
from fxgrad.records.report import ReportData
from fxgrad.report import across_ranks
from fxgrad.report.html.change import changes
from fxgrad.report.html.markup import attribute, place_link, prose
from fxgrad.report.html.source import source
from fxgrad.report.html.tree import shown_verdicts
from fxgrad.report.html.way import way
from fxgrad.report.table import PHASES, plural

_BLAMED = 6  # findings that the error names


def articles(report: ReportData, findings: Sequence[Finding], anchors: Sequence[str]) -> list[str]:
    """One for each finding."""
    verdicts = shown_verdicts(report)
    return [
        "\n".join(filter(None, _article(finding, anchor, verdicts, across_ranks.where(report, finding))))
        for finding, anchor in zip(findings, anchors, strict=True)
    ]


def _article(finding: Finding, anchor: str, verdicts: Mapping[str, str], ranks: str) -> Iterator[str]:
    states = " ".join(dict.fromkeys(verdicts[name] for name in finding.parameters if name in verdicts))
    search = attribute(
        f"{finding.code} {finding.name} {finding.severity} {finding.message} "
        f"{' '.join(finding.parameters)}".lower()
    )
    where = [place_link(finding.site), f"on {escape(ranks)}" if ranks else ""]
    yield (
        f'<article id="{anchor}" tabindex=-1 class="finding {finding.severity}" data-s="{search}" '
        f'data-v="{states}">'
    )
    yield (
        f'<h3><span class=sev>{finding.severity}</span> <a href="#{anchor}">{finding.code}</a> '
        f"{escape(finding.name)} <small>{', '.join(filter(None, where))}</small></h3>"
    )
    yield f"<p>{prose(finding.message)}</p>"
    if finding.site is not None:
        yield source(finding.site)
    if finding.path:
        yield way(
            finding.path,
            max(len(finding.parameters) - 1, 0),
            finding.site.file if finding.site is not None else "",
        )
    if finding.parameters:
        names = "".join(f"<li>{escape(name)}</li>" for name in finding.parameters)
        count = plural(len(finding.parameters), "parameter")
        yield f"<details class=names><summary>{count}</summary><ul>{names}</ul></details>"
    if finding.fix is not None:
        yield f"<p class=help><b>help:</b> {prose(finding.fix.advice)}</p>"
        yield from changes(finding.fix)
    yield "</article>"


def raised(error: Raised, anchor: str, findings: Sequence[tuple[str, str]]) -> str:
    """What the program raised, with the frames that were in it; `findings`: those at error level, each by its
    code and anchor."""
    links = ", ".join(f'<a href="#{to}">{code}</a>' for code, to in findings[:_BLAMED])
    where = f" <small>{place_link(error.site)}</small>" if error.site is not None else ""
    search = attribute(f"{error.type} {error.phase} {error.message} blocked".lower())
    frames = "".join(
        f"<li>{place_link(site)}{f' in {escape(site.function)}' if site.function else ''}</li>"
        for site in error.stack
    )
    parts = [
        f'<article id="{anchor}" tabindex=-1 class="finding error" data-s="{search}" data-v=blocked>',
        f"<h3><span class=sev>raised</span> {escape(error.type)} in {PHASES[error.phase]}{where}</h3>",
        f"<pre class=said>{escape(error.message.strip())}</pre>" if error.message.strip() else "",
        source(error.site) if error.site is not None else "",
        f"<p>what is to blame: {links}</p>" if links else "",
        f"<details class=names><summary>{plural(len(error.stack), 'frame')}, innermost first</summary>"
        f"<ol>{frames}</ol></details>"
        if error.stack
        else "",
        "</article>",
    ]
    return "\n".join(part for part in parts if part)
