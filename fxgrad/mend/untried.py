"""The source edits of a program that lives in this process: the likeliest one for each write, in texts that nobody has run yet.

For `FixResult.source_edits`: a live model cannot be built anew, so nothing here is tried in a fresh process as `fxgrad.mend.mend` does. Where
a module was built is looked up in the text. Not handled: unsafe fixes, and findings that only a trial could tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fxgrad.errors import FixError
from fxgrad.mend.patch import Mended
from fxgrad.mend.proposals import proposals
from fxgrad.mend.sheet import Sheet, apply, libcst, read, sheet
from fxgrad.mend.trouble import Trouble, troubles
from fxgrad.records import Edit, Finding, Site
from fxgrad.source import attribute_site, files_of
from fxgrad.source.objects import origin
from fxgrad.trace import Program


def source_edits(findings: Iterable[Finding], program: Program, *, values: str = "real") -> tuple[Edit, ...]:
    """Edits of the files as they lie on disk, for the error-level findings that are about a write.

    `findings` are those of `fxgrad.analyze` on the program, `values` what it ran on. What no edit can be proposed for is left out.

    Raises:
        FixError: LibCST is not installed.
    """
    libcst()
    files: dict[str, Mended] = {}

    def page(file: str) -> Sheet:
        if origin(file) != "user":
            raise FixError(f"{file} is not the user's")
        if file not in files:
            files[file] = Mended.unchanged(read(file))
        return sheet(file, files[file].text)

    wanted = [finding for finding in findings if finding.severity == "error"]
    found = [t for t in troubles(wanted, program, values, lambda module: _built(program, module)) if t.is_write]
    # From the end of the text backwards, so that the places of those before it stay true.
    for trouble in sorted(found, key=_place, reverse=True):
        first = next(iter(proposals(page, trouble)), None)
        for file in dict.fromkeys(edit.site.file for edit in first.edits) if first is not None else ():
            assert first is not None
            text = apply(page(file).text, file, first.edits)
            files[file] = files[file].changed(text, trouble.finding.code, "safe")
    return tuple(edit for file in files.values() for edit in file.edits())


def _place(trouble: Trouble) -> tuple[str, int, int]:
    site = trouble.site
    return (site.file, site.line, site.column) if site is not None else ("", 0, 0)


def _built(program: Program, module: Any) -> tuple[Site, ...]:
    """The calls with an `inplace` in the statement that assigns the module to its attribute."""
    cst = libcst()
    path = next((name for name, item in program.root.named_modules() if item is module), "")
    holder, _, attribute = path.rpartition(".")
    while holder and attribute.isdigit():  # an item of a Sequential: the statement assigns the whole
        holder, _, attribute = holder.rpartition(".")
    site = attribute_site(program.root.get_submodule(holder), attribute, files_of(program.model, program.root))
    if site is None or origin(site.file) != "user":
        return ()
    try:
        page = sheet(site.file, read(site.file).text)
    except FixError:
        return ()
    span = page.span_of_site(site) or (page.offset(site.line, 1), page.offset(site.line, 1))
    calls = (node for node in page.ranges if isinstance(node, cst.Call) and span[0] <= page.span(node)[0] < span[1])
    kind = type(module).__name__
    return tuple(page.edit(*page.span(call), "").site for call in calls if page.source(call.func).endswith(kind))
