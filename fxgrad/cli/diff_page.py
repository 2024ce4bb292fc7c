"""`fxgrad diff --format html`: the two reports side by side.

The files of a revision lie in a folder that is gone when the page is written. They go by the revision's name there,
`<main>/model.py`, and their lines are kept for the page. Not handled: opening those in an editor.
"""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from typing import Any

from fxgrad.cli.revisions import Tree
from fxgrad.report.comparison import Comparison
from fxgrad.report.html import side_by_side
from fxgrad.report.printable import as_printable
from fxgrad.report.read_back import read


def page(found: Comparison, old: Any, new: Any) -> str:
    """The page of a comparison and the reports, as JSON, that it was made of."""
    reports = as_printable(read(old)), as_printable(read(new))
    return side_by_side(*reports, found.changes, (found.old.title, found.new.title))


def kept(report: Any, tree: Tree, revision: str) -> Any:
    """A report whose files are named by their revision, their lines read while they are there."""
    if isinstance(report, Mapping):
        return {key: kept(value, tree, revision) for key, value in report.items()}
    if isinstance(report, list):
        return [kept(value, tree, revision) for value in report]
    if not isinstance(report, str) or tree.root not in report:
        return report
    named = report.replace(tree.root, f"<{revision}>")
    if (
        report.startswith(tree.root)
        and named not in linecache.cache
        and (lines := linecache.getlines(report))
    ):
        linecache.cache[named] = (sum(map(len, lines)), None, lines, named)
    return named
