"""`fxgrad fix MODEL`: repair the user's own source, shown as a diff or written."""

from __future__ import annotations

import argparse
import sys

from fxgrad.mend import MendResult, Subject, mend
from fxgrad.records import Finding, Options
from fxgrad.report.excerpt import place

EXAMPLES = """examples:
  fxgrad fix model.py                       print what would be changed; exit 1 if there is a diff
  fxgrad fix model.py | git apply           the same as --write, through git
  fxgrad fix model.py --write               change the files
  fxgrad fix model.py --unsafe-fixes        also what changes numbers or intent: drop a detach, register a layer
"""


def add(command: argparse.ArgumentParser) -> None:
    """What to do with the repair."""
    how = command.add_mutually_exclusive_group()
    how.add_argument("--diff", action="store_true", help="print a unified diff and change nothing (the default); exit 1 if there is one")
    how.add_argument("--write", action="store_true", help="write the mended files")
    command.add_argument("--unsafe-fixes", action="store_true", help="also fixes that change numbers or intent")


def run(arguments: argparse.Namespace) -> int:
    """Mend. The diff goes to stdout, what was mended and what was not to stderr."""
    subject = Subject.of(
        arguments.model, inputs=arguments.input, loss=arguments.loss, expect=arguments.expect, trust_pickle=arguments.trust_pickle
    )
    options = Options(values=arguments.values, max_paths=arguments.max_paths, unsafe=arguments.unsafe_fixes)
    result = mend(subject, options=options)
    _tell(result)
    left = any(finding.severity == "error" for finding in result.remaining)
    if arguments.write:
        for file in result.write():
            _say(f"wrote {file}")
        return int(left)
    text = result.diff()
    print(text, end="")
    return int(bool(text) or left)


def _tell(result: MendResult) -> None:
    for repair in result.repairs:
        proof = f"; equal to the oracle ({repair.proof})" if repair.proof else ""
        _say(f"{_where(repair.finding)}{repair.finding.code} [{repair.safety}] {repair.how}{proof}")
    for refusal in result.refused:
        more = " (--unsafe-fixes would)" if refusal.unsafe_would_help else ""
        _say(f"{_where(refusal.finding)}{refusal.finding.code} not fixed{more}: {refusal.reason}")
    for name, (before, after) in result.changes.items():
        _say(f"  {name}: {before} -> {after}")
    _say(f"Fixed {len(result.fixed)}, remaining {len(result.remaining)}.")


def _where(finding: Finding) -> str:
    return f"{place(finding.site)}: " if finding.site else ""


def _say(line: str) -> None:
    print(line, file=sys.stderr)
