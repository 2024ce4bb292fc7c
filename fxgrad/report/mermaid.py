"""The report as a Mermaid flowchart, for a pull request: the loss, each cut, and what it starves. GitHub
draws it from a code block.

Made from a `Report` alone. Not handled: the whole graph; only the ways that are cut are drawn.
"""

from __future__ import annotations

from fxgrad.records.report import ReportData
from fxgrad.report.globs import shown
from fxgrad.source.excerpt import place

_NAMES = 4


def render(report: ReportData, *, verbose: bool = False) -> str:
    """`flowchart RL`: an arrow points the way the gradient would go back."""
    lines = ["flowchart RL", f'  loss(["loss of {_text(report.model)}"])']
    findings = [*report.findings, *(report.notes if verbose else ())]
    for number, finding in enumerate(findings):
        where = f"<br/>{_text(place(finding.site))}" if finding.site else ""
        lines.append(f'  cut{number}{{{{"{finding.code} {finding.name}{where}"}}}}:::{finding.severity}')
        lines.append(f"  loss --x cut{number}")
        if finding.parameters:
            names = _text(shown(finding.parameters, report.verdicts, limit=_NAMES))
            lines.append(f'  cut{number} -.-> starved{number}["{names}"]')
    healthy = sum(v == "flows" for v in report.verdicts.values())
    lines.append(f'  loss --> healthy["{healthy} parameters get a gradient"]:::fine')
    lines += [
        "  classDef error stroke:#b3261e,stroke-width:2px",
        "  classDef warning stroke:#8a5a00,stroke-width:2px",
        "  classDef note stroke:#31549b",
        "  classDef fine stroke:#1a6b3c",
    ]
    return "\n".join(lines)


def _text(text: str) -> str:
    """Mermaid reads quotes and brackets as its own, and `%%{init: ...}` wherever it stands."""
    return text.replace("%", "#37;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
