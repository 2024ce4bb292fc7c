"""The report: verdicts and findings of one analysis as a record, and the formats it can be written in.

Made by `fxgrad.diagnosis.analyze.analyze`; nothing in it refers to a live tensor or module, so it can be
kept, pickled and compared. Writing it is the work of the modules in `FORMATS`, each with
`render(report, *, verbose) -> str`: one more format is one more file and one more entry. Not handled here:
printing, files, exit codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Protocol

from fxgrad.records.errors import FxgradError
from fxgrad.records.plain_text import without_commands
from fxgrad.records.report import ReportData
from fxgrad.report import as_json, table
from fxgrad.report.printable import as_printable


class Format(Protocol):
    """What a module of a format is."""

    def render(self, report: ReportData, *, verbose: bool = False) -> str:
        """The report in this format, without a newline at the end."""


# By name, the module of `fxgrad.report`: imported as a report is first written so, an analysis needs none.
FORMATS: Mapping[str, str] = {
    "table": "table",
    "json": "as_json",
    "sarif": "sarif",
    "html": "html",
    "github": "github",
    "mermaid": "mermaid",
    "concise": "concise",
    "markdown": "markdown",
    "gitlab": "gitlab",
    "junit": "junit",
}
# every character is kept, in JSON's own escapes; the others are for eyes
_DATA = ("json", "sarif", "gitlab")


@dataclass(frozen=True, slots=True)
class Report(ReportData):
    """What `analyze` found; its attributes are those of `ReportData`."""

    def selected(self, select: Iterable[str] = (), ignore: Iterable[str] = ()) -> Report:
        """The report with only the findings whose code begins with a prefix in `select` (none given: all) and
        with none in `ignore`.

        Of two prefixes that fit, the longer decides, `ignore` where they are equal: `select=["FXG103"],
        ignore=["FXG1"]` keeps FXG103. Verdicts stay as they are.
        """
        chosen, refused = tuple(select), tuple(ignore)
        findings = tuple(f for f in self.findings if is_selected(f.code, chosen, refused))
        notes = tuple(f for f in self.notes if is_selected(f.code, chosen, refused))
        left_out = len(self.findings) + len(self.notes) - len(findings) - len(notes)
        return replace(self, findings=findings, notes=notes, deselected=self.deselected + left_out)

    def render(
        self, format: str = "table", *, verbose: bool = False, width: int | None = None, quiet: bool = False
    ) -> str:
        """The report as text, without a newline at the end. `verbose` adds the notes and shortens nothing. Of
        the table: `width` is the terminal's, `quiet` leaves the findings alone, and may leave nothing.

        Raises:
            FxgradError: there is no such format.
        """
        if format not in FORMATS:
            raise FxgradError(
                f"this version of fxgrad has no report format {format!r}",
                hint=f"the formats are {', '.join(FORMATS)}",
            )
        if format == "table":
            made = table.findings if quiet else table.render
            return without_commands(made(as_printable(self), verbose=verbose, width=width))
        module: Format = import_module(f"fxgrad.report.{FORMATS[format]}")
        text = module.render(self if format in _DATA else as_printable(self), verbose=verbose)
        return text if format in (*_DATA, "github") else without_commands(text)

    def to_dict(self) -> dict[str, object]:
        """The report as JSON types; `fxgrad.report.as_json` says what is in it."""
        return as_json.to_dict(self)

    def __str__(self) -> str:
        return self.render("table")

    def __repr__(self) -> str:
        """The headline."""
        return f"Report({table.headline(as_printable(self))})"

    def _repr_html_(self) -> str:
        from fxgrad.report import html

        return html.output(as_printable(self))

    def _repr_markdown_(self) -> str:
        return self.render("markdown")


def is_selected(code: str, select: tuple[str, ...], ignore: tuple[str, ...]) -> bool:
    """Whether the longer of two prefixes that fit a code is in `select` (none given: all fit)."""
    for_it = max((len(prefix) for prefix in select if code.startswith(prefix)), default=-1 if select else 0)
    against = max((len(prefix) for prefix in ignore if code.startswith(prefix)), default=-1)
    return for_it > against
