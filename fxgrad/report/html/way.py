"""The path from the loss to the parameter as a drawing: the gradient comes down a line that breaks off at the
cut.

Inline SVG in the page's own colours. Each step is a row, so that a narrow window shows it whole; what is read
aloud is the path in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from fxgrad.records import Site, Step
from fxgrad.report.html.markup import address, attribute
from fxgrad.report.table import path
from fxgrad.source.excerpt import place

_ROW, _LEFT, _LETTER = 24, 12, 7.5  # pixels


def way(steps: Sequence[Step], others: int, file: str) -> str:
    """The drawing; `others`: how many more parameters are cut off like the last step's; `file`: which need
    not be named again."""
    labels = [step.label for step in steps]
    labels[-1] += f" and {others} more" if others else ""
    places = [_short(step.site, file) for step in steps]
    letters = max(len(f"{label}  {where}") for label, where in zip(labels, places, strict=True))
    width, height = round(_LEFT + 24 + letters * _LETTER), _ROW * len(steps)
    return (
        f'<div class=way><svg role=img aria-label="{attribute(path(steps))}" '
        f'width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(_rows(steps, labels, places))}</svg></div>'
    )


def _rows(steps: Sequence[Step], labels: Sequence[str], places: Sequence[str]) -> Iterator[str]:
    cut = next((number for number, step in enumerate(steps) if step.cut), len(steps))
    for number, (step, label, shown) in enumerate(zip(steps, labels, places, strict=True)):
        y = _ROW * number + _ROW // 2
        kind = "cut" if step.cut else "off" if number > cut else "on"
        if number:
            line = "on" if number <= cut else "off"
            yield f'<path class="{line}" d="M{_LEFT} {y - _ROW + 5}V{y - 5}"/>'
        if step.cut:  # a bar across the line
            yield f'<path class="cut" d="M{_LEFT - 7} {y - 3}h14m-14 6h14"/>'
        elif step.label == "...":
            yield f'<path class="more" d="M{_LEFT} {y - 4}v10"/>'
        else:
            yield f'<circle class="{kind}" cx="{_LEFT}" cy="{y}" r="4"/>'
        where = f" {_place(step.site, shown)}" if step.site is not None else ""
        yield f'<text class="{kind}" x="{_LEFT + 16}" y="{y + 4}">{escape(label)}{where}</text>'


def _short(site: Site | None, file: str) -> str:
    if site is None:
        return ""
    return f"line {site.line}" if site.file == file else place(site)


def _place(site: Site, said: str) -> str:
    """SVG has links of its own, and no `span`."""
    href, shown = address(site), f'<tspan class="at">{escape(said)}</tspan>'
    return f'<a href="{href}">{shown}</a>' if href else shown
