"""Mending a program's source: analyse, edit, analyse again in a fresh process, until nothing changes.

`mend` takes MODEL (or a `Subject`) and returns a frozen `MendResult`; it never writes a user's file,
`MendResult.write` does. An edit is kept only where the trial that had it shows its finding gone, no verdict
worse, and (for what is called safe) outputs, gradients and state equal to the reference in float64. Not
handled: findings whose remedy is a choice; they stay with their advice.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fxgrad.fix_source import patch
from fxgrad.fix_source.patch import Mended
from fxgrad.fix_source.sheet import Sheet, apply, read, sheet
from fxgrad.fix_source.trials.job import Subject, Trial
from fxgrad.fix_source.trials.server import Server, Trials
from fxgrad.fix_source.trouble import EVERY, Trouble
from fxgrad.fix_source.ways.changes_of_intent import unsafe_proposals
from fxgrad.fix_source.ways.every_way import proposals
from fxgrad.fix_source.ways.proposal import Proposal
from fxgrad.records import Edit, Finding, Options, Safety, Site
from fxgrad.records.errors import FixError
from fxgrad.report.report import is_selected
from fxgrad.source.objects import origin
from fxgrad.trace.progress import tell

_ROUNDS = 200
_TRIED = 24  # proposals for one trouble
_RANK = {"blocked": 0, "none": 1, "zero": 2, "branch": 3, "flows": 4}


@dataclass(frozen=True, slots=True)
class Repair:
    """One accepted fix. `finding` and `edits` are in positions of the text it was made in; `how` says what it
    does."""

    finding: Finding
    safety: Safety
    how: str
    edits: tuple[Edit, ...]
    proof: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A finding that no edit was written for, and why. `unsafe_would_help`: with unsafe fixes allowed there
    is one."""

    finding: Finding
    reason: str
    unsafe_would_help: bool = False


@dataclass(frozen=True, slots=True)
class MendResult:
    """What mending came to. `before` and `after`: verdicts by parameter; `remaining`: findings that the
    mended source still has."""

    files: tuple[Mended, ...]
    repairs: tuple[Repair, ...]
    refused: tuple[Refusal, ...]
    fixed: tuple[Finding, ...]
    remaining: tuple[Finding, ...]
    before: Mapping[str, str]
    after: Mapping[str, str]

    @property
    def source_edits(self) -> tuple[Edit, ...]:
        """The whole change as edits of the files as they lie on disk."""
        return tuple(edit for file in self.files for edit in file.edits())

    @property
    def changes(self) -> Mapping[str, tuple[str, str]]:
        """Verdicts that changed: parameter name to (before, after)."""
        names = dict.fromkeys([*self.before, *self.after])
        pairs = {name: (self.before.get(name, ""), self.after.get(name, "")) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def diff(self, root: str | None = None) -> str:
        """A unified diff that `git apply` takes in `root` (None: the working directory); "" if nothing is to
        be changed."""
        return patch.diff(self.files, root)

    def write(self) -> tuple[str, ...]:
        """Write the mended files and return their names.

        Raises:
            FixError: a file is not what it was when it was analysed, or cannot be written.
        """
        return patch.write(self.files)


def mend(
    model: str | Subject,
    *,
    options: Options | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    limit: int = 600,
    server: Server | None = None,
) -> MendResult:
    """Mend the source of a program.

    `options.unsafe` allows fixes that change numbers or intent; `options.rewrite="all"` mends every in-place
    operation of the user's forward, also those that break nothing (item assignments stay as they are).
    `select`, `ignore`: prefixes of codes, as `Report.selected` takes them; other findings are neither mended
    nor counted. `limit`: seconds for one trial; `server`: the process for trials, where several programs are
    mended one after the other.

    Raises:
        FixError: the program cannot be analysed.
    """
    subject = Subject.of(model) if isinstance(model, str) else model
    options = options or Options()
    with contextlib.ExitStack() as stack:
        running = server or stack.enter_context(Server())
        trials = stack.enter_context(Trials(subject, options, running, limit=limit))
        return _Session(trials, options, tuple(select), tuple(ignore)).run()


@dataclass(slots=True, eq=False)
class _Session:
    """The state of one `mend`: texts as mended so far, and what was decided about each trouble."""

    trials: Trials
    options: Options
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    files: dict[str, Mended] = field(default_factory=dict)
    repairs: list[Repair] = field(default_factory=list)
    refused: dict[tuple[str, ...], Refusal] = field(default_factory=dict)
    unproved: str = ""
    untrue: str = ""

    def run(self) -> MendResult:
        first = state = self.trials.run({}, first=True)
        if first.error:
            raise FixError(f"the program cannot be analysed: {first.error}")
        self.unproved, self.untrue = first.unproved, first.untrue
        for _ in range(_ROUNDS):
            trouble = next(self._open(state), None)
            if trouble is None:
                break
            state = self._attempt(state, trouble)
        changed = tuple(file for file in self.files.values() if file.text != file.stored.text)
        wanted = tuple(trouble for trouble in first.troubles if self._is_selected(trouble.finding))
        gone = Counter(map(self._key_in_original, wanted)) - Counter(map(self._key, state.troubles))
        return MendResult(
            files=changed,
            repairs=tuple(self.repairs),
            refused=tuple(self.refused.values()),
            fixed=tuple(_taken(wanted, gone, self._key_in_original)),
            remaining=tuple(finding for finding in state.findings if self._is_selected(finding)),
            before=first.verdicts,
            after=state.verdicts,
        )

    # -------------------------------------------------------------------------------------------- one trouble

    def _open(self, state: Trial) -> Iterator[Trouble]:
        """Troubles not yet refused: writes in the order of the text, then the rest."""
        listed = [t for t in state.troubles if self._is_selected(t.finding)]
        order = sorted(listed, key=lambda t: (not t.is_write, _place(t.site)))
        return (trouble for trouble in order if self._key(trouble) not in self.refused)

    def _is_selected(self, finding: Finding) -> bool:
        """Whether it is to be mended, and counts: no note, and of a code that was asked for."""
        return finding.severity != "note" and (
            finding.code == EVERY or is_selected(finding.code, self.select, self.ignore)
        )

    def _attempt(self, state: Trial, trouble: Trouble) -> Trial:
        """The state after the first proposal that helps; the same state, and a refusal, where none does."""
        writes = list(proposals(self._page, trouble))
        safe = writes if self._may_be_safe(trouble) and not self.untrue else []
        unsafe = [*unsafe_proposals(self._page, trouble), *([] if safe else writes)]
        reasons: list[str] = []
        offers: tuple[tuple[Safety, list[Proposal]], ...] = (
            ("safe", safe),
            ("unsafe", unsafe if self.options.unsafe else []),
        )
        for safety, offered in offers:
            for proposal in list(dict.fromkeys(offered))[:_TRIED]:
                trial, reason = self._tried(state, trouble, proposal, safety)
                if trial is not None:
                    self._accept(trouble, proposal, safety, trial)
                    return trial
                reasons.append(f"{proposal.how}: {reason}")
        self.refused[self._key(trouble)] = self._refusal(
            trouble, reasons, bool(unsafe) and not self.options.unsafe
        )
        return state

    def _may_be_safe(self, trouble: Trouble) -> bool:
        """A proof needs numbers to compare with, and a finding whose remedy changes none that was right."""
        return (
            not self.unproved
            and trouble.is_write
            and (trouble.finding.severity == "error" or trouble.finding.code == EVERY)
        )

    def _tried(
        self, state: Trial, trouble: Trouble, proposal: Proposal, safety: Safety
    ) -> tuple[Trial | None, str]:
        """The trial of a proposal that helps, or None and what speaks against it."""
        try:
            texts = {file: mended.text for file, mended in self.files.items()}
            for file in dict.fromkeys(edit.site.file for edit in proposal.edits):
                texts[file] = apply(self._page(file).text, file, proposal.edits)
                compile(texts[file], file, "exec", dont_inherit=True)
        except (FixError, SyntaxError) as error:
            return None, str(error)
        tell(f"trying: {proposal.how}")
        trial = self.trials.run(
            {file: self._file(file).stored.encoded(text) for file, text in texts.items()},
            prove=not self.unproved,
        )
        reason = self._against(state, trial, trouble, proposal, texts, safety)
        return (None, reason) if reason else (trial, "")

    def _against(
        self,
        state: Trial,
        trial: Trial,
        trouble: Trouble,
        proposal: Proposal,
        texts: Mapping[str, str],
        safety: Safety,
    ) -> str:
        """Why an edit is not accepted; "" if it helps."""
        if trial.error:
            return trial.error
        key = self._key(trouble)
        before = _weights((self._key(t), t) for t in state.troubles)
        after = _weights((_key(t, texts), t) for t in trial.troubles)
        if after[key] >= before[key]:
            return "the finding stays"
        worse = _worse_verdict(state, trial) or _new_finding(state, trial, proposal, texts, before)
        if worse or safety == "unsafe":
            return worse
        return trial.difference if trial.proof else "nothing could be compared"

    def _accept(self, trouble: Trouble, proposal: Proposal, safety: Safety, trial: Trial) -> None:
        for file in dict.fromkeys(edit.site.file for edit in proposal.edits):
            text = apply(self._page(file).text, file, proposal.edits)
            self.files[file] = self._file(file).changed(text, trouble.finding.code, safety)
        self.repairs.append(
            Repair(
                trouble.finding, safety, proposal.how, proposal.edits, trial.proof if safety == "safe" else ""
            )
        )

    def _refusal(self, trouble: Trouble, reasons: list[str], unsafe: bool) -> Refusal:
        finding = trouble.finding
        advice = finding.fix.advice if finding.fix is not None else ""
        if finding.site is None:
            return Refusal(finding, "no line of the user's does this", unsafe)
        try:
            self._page(finding.site.file)
        except FixError as error:
            return Refusal(finding, "; ".join(filter(None, (error.reason, error.hint))), unsafe)
        if trouble.is_write and self.untrue and not unsafe:
            return Refusal(finding, f"no out-of-place edit is right: {self.untrue}")
        if unsafe:
            why = (
                f"not proved: {self.unproved}"
                if self.unproved and trouble.is_write
                else "what would help changes numbers or intent"
            )
            return Refusal(finding, f"{why}; it needs unsafe fixes", True)
        if reasons:
            return Refusal(finding, f"no edit was proved right; {'; '.join(dict.fromkeys(reasons))}")
        return Refusal(finding, advice or "no edit is known for this")

    # ---------------------------------------------------------------------------------------------- the texts

    def _file(self, file: str) -> Mended:
        if file not in self.files:
            self.files[file] = Mended.unchanged(read(file))
        return self.files[file]

    def _page(self, file: str) -> Sheet:
        """The sheet of a file as mended so far.

        Raises:
            FixError: the file is not the user's to edit.
        """
        kind = origin(file)
        if kind == "installed":
            raise FixError(
                f"{file} belongs to an installed package",
                hint="the graph can be mended instead: fxgrad.fix, or --module DIR",
            )
        if kind != "user" or not os.path.isfile(file):
            raise FixError(f"{file} is no file of the user's")
        return sheet(file, self._file(file).text)

    def _key(self, trouble: Trouble) -> tuple[str, ...]:
        return _key(trouble, {file: mended.text for file, mended in self.files.items()})

    def _key_in_original(self, trouble: Trouble) -> tuple[str, ...]:
        return _key(trouble, {file: mended.stored.text for file, mended in self.files.items()})


def _weights(troubles: Iterable[tuple[tuple[str, ...], Trouble]]) -> Counter[tuple[str, ...]]:
    """How much there is of each finding: a write over three saved tensors is nearer its end when there are
    two."""
    found: Counter[tuple[str, ...]] = Counter()
    for key, trouble in troubles:
        found[key] += trouble.saves
    return found


def _worse_verdict(state: Trial, trial: Trial) -> str:
    """A parameter that an edit takes the gradient from; "" where there is none."""
    for name, verdict in trial.verdicts.items():
        before = state.verdicts.get(name, "blocked")
        if before != "blocked" and _RANK[verdict] < _RANK[before]:
            return f"`{name}` would be {verdict}"
    return ""


def _new_finding(
    state: Trial, trial: Trial, proposal: Proposal, texts: Mapping[str, str], before: Counter[tuple[str, ...]]
) -> str:
    """An error that an edit brings; "" where there is none.

    A program that raised could not show what comes later; but nothing new may come of the edited line itself.
    """
    raised = "blocked" in state.verdicts.values()
    for trouble in trial.troubles:
        new = trouble.finding
        if new.severity != "error" or _key(trouble, texts) in before:
            continue
        if not raised or _touches(proposal, new.site):
            return f"it brings {new.code}: {new.message}"
    return ""


def _key(trouble: Trouble, texts: Mapping[str, str]) -> tuple[str, ...]:
    """What names a finding although lines have moved: its code, function and the text at its place."""
    finding, site = trouble.finding, trouble.finding.site
    if site is None:
        return finding.code, finding.message
    try:
        text = texts.get(site.file) or read(site.file).text
        page = sheet(site.file, text)
        span = page.span_of_site(site) or (page.offset(site.line, 1), page.offset(site.line + 1, 1) - 1)
        piece = text[span[0] : span[1]].strip()
    except FixError:
        piece = f"{site.line}:{site.column}"
    return finding.code, site.file, site.function, piece


def _touches(proposal: Proposal, site: Site | None) -> bool:
    """Whether the site is on a line that the proposal edits."""
    return site is not None and any(
        edit.site.file == site.file
        and edit.site.line <= site.line <= edit.site.end_line + edit.new.count("\n")
        for edit in proposal.edits
    )


def _place(site: Site | None) -> tuple[str, int, int]:
    return (site.file, site.line, site.column) if site is not None else ("", 0, 0)


def _taken(troubles: tuple[Trouble, ...], gone: Counter[tuple[str, ...]], key: object) -> Iterator[Finding]:
    """The findings that are no longer there."""
    left = Counter(gone)
    for trouble in troubles:
        name = key(trouble)  # type: ignore[operator]
        if left[name] > 0 and trouble.finding.severity != "note":
            left[name] -= 1
            yield trouble.finding
