"""The report as data: verdicts and findings of one analysis, what the formats read.

Nothing in it refers to a live tensor or module, so it can be kept, pickled and compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fxgrad.records.facts import Decision, ParameterFact, Raised
from fxgrad.records.findings import Finding, Site
from fxgrad.records.ranks import Ranks

_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class ReportData:
    """What `analyze` found.

    Attributes:
        verdicts: by `named_parameters()` name: "flows", "zero", "none", "branch" or "blocked".
        findings: errors first, then by code and place.
        notes: findings at note level; the table shows them when verbose.
        parameters: one fact per parameter.
        loss_used: how the loss was found.
        values: "fake" or "real", what the model ran on.
        assumptions: what was assumed because it was not given, one sentence each.
        model: the model's name.
        model_site: where the user wrote its class (else that of the first of its modules that the user
            wrote), or the function; None where all of it is others'.
        nodes: steps recorded on the path that the inputs take.
        paths: outcomes of data-dependent branches explored; 1 where there is no such branch.
        paths_cut_off: there are more outcomes than `max_paths` allowed.
        decisions: the data-dependent branches taken, in order.
        error: what the program raised; None if it ran through backward.
        deselected: findings and notes that `selected` left out.
        suppressed: findings that a comment, the project's settings or a baseline silences.
        ranks: the processes that it was gathered from; None for a report on one.
        versions: of fxgrad, torch and Python, by name; empty in a report that no analysis made.
        command: the command line that asked for it; "" where Python code did.
    """

    verdicts: Mapping[str, str]
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...] = ()
    parameters: tuple[ParameterFact, ...] = ()
    loss_used: str = ""
    values: str = "real"
    assumptions: tuple[str, ...] = ()
    model: str = "model"
    nodes: int = 0
    paths: int = 1
    paths_cut_off: bool = False
    decisions: tuple[Decision, ...] = ()
    error: Raised | None = None
    deselected: int = 0
    suppressed: tuple[Finding, ...] = ()
    ranks: Ranks | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    model_site: Site | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdicts", dict(self.verdicts))
        object.__setattr__(self, "findings", tuple(sorted(self.findings, key=_order)))
        object.__setattr__(self, "notes", tuple(sorted(self.notes, key=_order)))

    @property
    def ok(self) -> bool:
        """No finding at error level."""
        return all(finding.severity != "error" for finding in self.findings)


def _order(finding: Finding) -> tuple[object, ...]:
    site = finding.site
    place = (site.file, site.line, site.column) if site else ("", 0, 0)
    return _SEVERITIES.index(finding.severity), finding.code, site is None, place, finding.parameters
