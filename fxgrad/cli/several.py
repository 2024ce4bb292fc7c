"""Reports as the command line asks for them: without what is known, one or several in a text, or what is
counted over them.

    table, github, mermaid and other text   one below the other
    json, gitlab                            a list
    sarif                                   one run with the results of all: of two runs of one tool in a log
                                            GitHub takes neither

Not handled: formats that are one document (`html`, `junit`): they hold one report.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fxgrad.cli.arguments import FORMATS
from fxgrad.cli.output import is_terminal, width_of, write
from fxgrad.cli.rulebook import entries
from fxgrad.records.errors import InputError

if TYPE_CHECKING:
    from fxgrad.report import Report

_SINGLE = ("html", "junit")


def refuse_single(format: str, models: int) -> None:
    """Raise where so many reports do not fit into one text of this format.

    Raises:
        InputError: as said.
    """
    if models > 1 and format in _SINGLE:
        others = ", ".join(name for name in FORMATS if name not in _SINGLE)
        raise InputError(f"--format {format} holds one report", hint=f"give one MODEL, or one of {others}")


def joined(format: str, texts: Sequence[str]) -> str:
    """One text of the reports' texts."""
    if len(texts) == 1:
        return texts[0]
    if format not in ("json", "gitlab", "sarif"):
        return "\n\n".join(text for text in texts if text)
    held: list[Any] = [json.loads(text) for text in texts]
    whole: object = held
    if format == "sarif":
        whole = _one_run(held)
    elif format == "gitlab":
        whole = [issue for listed in held for issue in listed]
    from fxgrad.report.as_json import dumps

    return dumps(whole)


def _one_run(logs: Sequence[Any]) -> object:
    runs = [run for log in logs for run in log["runs"]]
    whole = {**runs[0], "results": [result for run in runs for result in run["results"]]}
    if invocations := [one for run in runs for one in run.get("invocations", ())]:
        whole["invocations"] = invocations
    return {**logs[0], "runs": [whole]}


def without_known(arguments: argparse.Namespace, reports: Sequence[Report]) -> list[Report]:
    """The reports without what the baseline holds, which is written first where the user says so.

    Raises:
        InputError: the baseline cannot be read or written.
    """
    if not arguments.baseline:
        return list(reports)
    from fxgrad.report.baseline import apply_baseline, write_baseline

    file = Path(arguments.baseline)
    if arguments.update_baseline:
        write_baseline(file, *reports)
    return [apply_baseline(file, report) for report in reports]


def write_reports(arguments: argparse.Namespace, reports: Sequence[Report]) -> None:
    """Write them in the format and to the place that the command line names.

    Raises:
        InputError: the file cannot be written.
    """
    is_table = arguments.format == "table"
    if arguments.statistics:
        write(statistics(reports, arguments.format), arguments.output)
        return
    width = None
    if arguments.output is None and is_terminal(sys.stdout):
        width = width_of(sys.stdout)
    texts = [
        report.render(arguments.format, verbose=arguments.verbose, width=width, quiet=arguments.quiet)
        for report in reports
    ]
    text = joined(arguments.format, texts) if texts else ""
    if text or not (is_table and arguments.quiet):
        write(text, arguments.output, coloured=is_table)


def statistics(reports: Sequence[Report], format: str) -> str:
    """How often each rule speaks, and of how many parameters: as a table, or as JSON where that is the
    format."""
    findings = [finding for report in reports for finding in (*report.findings, *report.notes)]
    rows = []
    for rule in entries():
        own = [finding for finding in findings if finding.code == rule.code]
        if own:
            rows.append((len(own), sum(len(finding.parameters) for finding in own), rule.code, rule.name))
    rows.sort(key=lambda row: -row[0])
    keys = ("findings", "parameters", "code", "name")
    if format == "json":
        return json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2)
    from tabulate import tabulate

    return tabulate(rows, keys) if rows else "No findings."
