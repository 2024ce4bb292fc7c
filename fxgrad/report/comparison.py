"""Two reports compared: which parameters' gradients were lost, gained, or are missing for another reason.

Made from two reports, of which one may be of another day (`fxgrad.report.read_back`). Definitions:

1. A parameter *has* a gradient where its verdict is `flows` or `branch`. It is *lost* where it had one and
   has none now, *gained* the other way round.
2. Where it is neither and something is missing on both sides, it has an *other cause* if the verdict differs,
   or the codes of the findings that starve it, or what they name as the cut. Files, lines, functions and
   words do not count: moving code is no change. Findings about an optimizer or DistributedDataParallel tell
   what follows from a missing gradient, not why it is missing, and do not count either.
3. Names are compared as they are. One that is on one side alone is *added* or *removed*, neither gained nor
   lost.

Not handled: renamed parameters; they are removed and added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fxgrad.records import Raised, Site
from fxgrad.records.report import ReportData
from fxgrad.source.excerpt import place

Kind = Literal["lost", "gained", "other cause", "removed", "added"]
KINDS: tuple[Kind, ...] = ("lost", "gained", "other cause", "removed", "added")

_HAS_ONE = frozenset({"flows", "branch"})
_WHY = ("FXG0", "FXG1", "FXG2", "FXG4")  # the rules that say why a gradient is missing


@dataclass(frozen=True, slots=True)
class Side:
    """One report. `states`: by parameter its verdict, `frozen` where it asks for no gradient and has none;
    `causes`: what starves it, comparable; `said`: the same in words with places."""

    title: str
    report: ReportData
    states: Mapping[str, str]
    causes: Mapping[str, frozenset[tuple[str, str]]]
    said: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One parameter. `before`, `after`: its states ("" where it was not there); `because`: what starves it
    now, of one that was gained what did."""

    kind: Kind
    parameter: str
    before: str
    after: str
    because: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What has changed, by kind and in the order of the parameters."""

    old: Side
    new: Side
    changes: tuple[Change, ...]

    @property
    def ok(self) -> bool:
        """No gradient was lost."""
        return all(change.kind != "lost" for change in self.changes)


def compare(old: Side, new: Side) -> Comparison:
    """The changes from one report to another."""
    found = [_change(old, new, name) for name in dict.fromkeys([*new.states, *old.states])]
    changes = [change for change in found if change is not None]
    return Comparison(old, new, tuple(sorted(changes, key=lambda change: KINDS.index(change.kind))))


def _change(old: Side, new: Side, name: str) -> Change | None:
    before, after = old.states.get(name, ""), new.states.get(name, "")
    if not before:
        return Change("added", name, before, after, new.said.get(name, ""))
    if not after:
        return Change("removed", name, before, after, old.said.get(name, ""))
    had, has = before in _HAS_ONE, after in _HAS_ONE
    if had and not has:
        return Change("lost", name, before, after, new.said.get(name, ""))
    if has and not had:
        return Change("gained", name, before, after, old.said.get(name, ""))
    if before == after and old.causes.get(name) == new.causes.get(name):
        return None
    was, now = old.said.get(name, ""), new.said.get(name, "")
    return Change("other cause", name, before, after, f"{was} -> {now}" if was and now else now or was)


def side(title: str, report: ReportData, folder: tuple[str, str] | None = None) -> Side:
    """A report as a side. `folder`: where its files lay and where they are shown."""
    frozen = {name for fact in report.parameters for name in fact.names if not fact.requires_grad}
    states = {
        name: "frozen" if verdict == "none" and name in frozen else verdict
        for name, verdict in report.verdicts.items()
    }
    causes, said = _told(report, states, folder)
    return Side(
        title,
        report,
        states,
        {name: frozenset(keys) for name, keys in causes.items()},
        {name: ", ".join(dict.fromkeys(words)) for name, words in said.items()},
    )


def _told(
    report: ReportData, states: Mapping[str, str], folder: tuple[str, str] | None
) -> tuple[dict[str, set[tuple[str, str]]], dict[str, list[str]]]:
    """By name of a parameter without a full gradient, the causes as they are compared, and in words."""
    causes: dict[str, set[tuple[str, str]]] = {}
    said: dict[str, list[str]] = {}
    for finding in (*report.findings, *report.notes, *report.suppressed):
        if not finding.code.startswith(_WHY):
            continue
        cuts = [step.label for step in finding.path if step.cut] or [""]
        words = f"{finding.code} {finding.name}{_at(finding.site, folder)}"
        for name in finding.parameters:
            if states.get(name, "flows") not in ("flows", "frozen"):
                causes.setdefault(name, set()).update((finding.code, cut) for cut in cuts)
                said.setdefault(name, []).append(words)
    for name, state in states.items():
        reason = _reason(state, report.error, folder)
        if reason and name not in causes:
            causes[name] = {reason[:2]}
            said[name] = [reason[2]]
    return causes, said


def _reason(state: str, error: Raised | None, folder: tuple[str, str] | None) -> tuple[str, str, str] | None:
    """What is known of a state that no finding explains: two parts to compare, and words."""
    if state == "frozen":
        return "frozen", "", "requires_grad=False"
    if state == "blocked" and error is not None:
        return error.type, error.phase, f"{error.type}{_at(error.site, folder)}"
    return None


def _at(site: Site | None, folder: tuple[str, str] | None) -> str:
    """` model.py:13:9`, or nothing."""
    if site is None:
        return ""
    if folder is not None and site.file.startswith(folder[0]):
        site = replace(site, file=folder[1] + site.file.removeprefix(folder[0]))
    return f" {place(site)}"
