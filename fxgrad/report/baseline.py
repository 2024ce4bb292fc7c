"""A baseline: findings that are known, so that only new ones fail. Keyed by code, parameters and the text of
the line, not its number.

A JSON file `{"fxgrad_baseline": 1, "findings": {fingerprint: "where and what"}}`. Not handled: merging two
baselines.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from fxgrad.records.errors import InputError
from fxgrad.report.fingerprint import fingerprints
from fxgrad.report.report import Report
from fxgrad.source.excerpt import place
from fxgrad.source.files import replace_file


def write_baseline(path: Path, *reports: Report) -> None:
    """Write the reports' findings to `path`.

    Raises:
        InputError: the file cannot be written.
    """
    shown = {
        mark: f"{f.code} {place(f.site) if f.site else ''} {f.message}".strip()
        for report in reports
        for mark, f in zip(fingerprints(report.findings), report.findings, strict=True)
    }
    try:
        replace_file(path, f"{json.dumps({'fxgrad_baseline': 1, 'findings': shown}, indent=1)}\n".encode())
    except OSError as error:
        raise InputError(f"the baseline {path} cannot be written: {error.strerror}") from None


def apply_baseline(path: Path, report: Report) -> Report:
    """The report without the findings that the baseline at `path` holds.

    Raises:
        InputError: there is no such file, or it is no baseline.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = set(content["findings"].keys())
    except OSError as error:
        raise InputError(
            f"the baseline {path} cannot be read: {error.strerror}", hint="write it with --update-baseline"
        ) from None
    # the last: nested by the thousand
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path} is no fxgrad baseline", hint="write it with --update-baseline") from None
    marks = fingerprints(report.findings)
    left = tuple(f for mark, f in zip(marks, report.findings, strict=True) if mark not in known)
    silenced = tuple(f for mark, f in zip(marks, report.findings, strict=True) if mark in known)
    return replace(
        report,
        findings=left,
        deselected=report.deselected + len(silenced),
        suppressed=(*report.suppressed, *silenced),
    )
