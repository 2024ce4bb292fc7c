"""A `FixResult` as a notebook shows it: what was rewritten, what was left, what its guards check, and where
the same is had as edits of the source. Asks for no edits itself: finding them is another analysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from fxgrad.records import Frozen, Site
from fxgrad.records.cells import cell_name
from fxgrad.records.plain_text import one_line
from fxgrad.report.html.markup import prose
from fxgrad.source.excerpt import place, short_path


class Result(Protocol):
    """What of a `FixResult` is shown."""

    @property
    def applied(self) -> Sequence[Any]: ...
    @property
    def refused(self) -> Sequence[Any]: ...
    @property
    def frozen(self) -> Sequence[Frozen]: ...
    @property
    def source(self) -> object: ...


def as_html(result: Result) -> str:
    """Plain elements, which look as the notebook has them."""
    items = "".join(f"<li>{prose(item)}</li>" for item in _items(result))
    return f"<p><b>{prose(repr(result))}</b></p><ul>{items}</ul><p>{prose(_source(result))}</p>"


def as_markdown(result: Result) -> str:
    """The same as Markdown."""
    items = "\n".join(f"- {item}" for item in _items(result))
    return "\n\n".join(filter(None, [f"**{result!r}**", items, _source(result)]))


def _items(result: Result) -> Iterator[str]:
    for done in result.applied:
        yield f"{_at(done.site)}`{done.operator}` out of place ({done.form}): {one_line(done.reason)}"
    for left in result.refused:
        yield f"{_at(left.site)}`{left.operator}` stays in place: {one_line(left.reason)}"
    for value in result.frozen:
        yield f"{_at(value.site)}a guard checks {one_line(value.what)}"


def _at(site: Site | None) -> str:
    return f"{one_line(place(site))}: " if site is not None else ""


def _source(result: Result) -> str:
    """Where the source is, in a sentence; "" where nothing is known of it."""
    files = list(dict.fromkeys(done.site.file for done in result.applied if done.site is not None))
    if not files or result.source is None:
        return ""
    names = ", ".join(one_line(short_path(file)) for file in files)
    if any(map(cell_name, files)):
        return f"The source is in {names}: there is no file to edit; `source_diff()` shows the change."
    return f"`source_diff()` shows the same as a change of {names}; `write_source()` makes it."
