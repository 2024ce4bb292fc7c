"""The table of errors in `tests/README.md`: torch's words, the program that provokes them, what `fxgrad run` says of it.

`python -m tests.errors` runs every program of `programs.py` under `fxgrad run`, in this process, and writes the table.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from fxgrad.cli.pasted import errors_in
from fxgrad.records import Finding
from fxgrad.torch_api.explanations import EXPLANATIONS, Entry
from fxgrad.watching.script import run_script
from tests import pages
from tests.errors.programs import ELSEWHERE, PRELUDE, PROGRAMS, WARNINGS

README = Path(__file__).parents[1] / "README.md"
LONGEST = 160  # characters of a cell


@dataclass(frozen=True)
class Outcome:
    """What `fxgrad run` said of one program: its findings at error level; what the program itself wrote to stderr."""

    here: tuple[int, ...]
    findings: tuple[Finding, ...]
    written: str

    @property
    def finding(self) -> Finding | None:
        return self.findings[0] if len(self.findings) == 1 else None

    @property
    def is_right(self) -> bool:
        """Whether there is one error, at the line that is marked."""
        return self.finding is not None and self.finding.site is not None and self.finding.site.line in self.here


def outcome(name: str, folder: Path) -> Outcome:
    """Run one program."""
    path = folder / f"{re.sub(r'[ -]', '_', name)}.py"
    text = PRELUDE + PROGRAMS[name]
    path.write_text(text)
    here = tuple(number for number, line in enumerate(text.splitlines(), 1) if "# HERE" in line)
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report, _ = run_script(str(path))
    found = report.findings if report is not None else ()
    return Outcome(here, tuple(f for f in found if f.severity == "error"), written.getvalue())


def entry_of(name: str) -> Entry:
    """The entry that a program is about."""
    return next(entry for entry in EXPLANATIONS if entry.name == name.partition(" ")[0])


def table() -> str:
    """One row a program, in the order of the explanations; then what is provoked by none."""
    rows = ["| torch says | program | `fxgrad run` says |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for entry in EXPLANATIONS:
            for name in [n for n in PROGRAMS if n.partition(" ")[0] == entry.name]:
                got = outcome(name, Path(folder))
                words = _cell(errors_in(got.written)[-1].message)
                rows.append(f"| {words} | `{name}`: `{_line(name)}` | {_said(got)} |")
            if entry.name in WARNINGS:
                rows.append(f"| {_words(entry)} (a warning) | `{entry.name}` | `fxgrad explain` |")
            if entry.name in ELSEWHERE:
                rows.append(
                    f"| {_cell(ELSEWHERE[entry.name])} | not provoked here: it takes a GPU, several processes, compiled code or an extension | `fxgrad explain` |"
                )
    return f"torch {torch.__version__.partition('+')[0]}\n\n" + "\n".join(rows) + "\n"


def _words(entry: Entry) -> str:
    return _cell(entry.kind.phrases[0])


def _line(name: str) -> str:
    line = next(line for line in PROGRAMS[name].splitlines() if "# HERE" in line)
    return _cell(line.partition("# HERE")[0].strip())


def _said(got: Outcome) -> str:
    found = got.finding
    if found is None:
        return "; ".join(f.code for f in got.findings) or "nothing"
    message = found.message.replace(os.path.basename(found.site.file) if found.site else "", "line")
    return f"{found.code}: {_cell(message)}"


def _cell(text: str) -> str:
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return short.replace("|", "\\|")


def renewed(text: str) -> str:
    """The text of a README with the table as it is now."""
    return pages.renewed(text, "errors", table())


def main() -> None:
    """Write the table."""
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{README} written\n")
