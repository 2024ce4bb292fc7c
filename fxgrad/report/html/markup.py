"""Other people's text as HTML: escaped, and a place as a link that opens it in an editor."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from fxgrad.records import Site
from fxgrad.records.cells import cell_name
from fxgrad.source.excerpt import place


def attribute(text: str) -> str:
    """For use between double quotes."""
    return escape(text, quote=True)


def prose(text: str) -> str:
    """A sentence; what stands in backticks is code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def place_link(site: Site | None) -> str:
    """`model.py:13:9`; of a file on disk a link for VS Code, which the page's script makes one for another
    editor."""
    if site is None:
        return ""
    href, shown = address(site), escape(place(site))
    return f'<a class=at href="{href}">{shown}</a>' if href else f"<span class=at>{shown}</span>"


def address(site: Site) -> str:
    """What opens the place in an editor; "" for what is no file on disk."""
    if site.file.startswith("<") or cell_name(site.file):
        return ""
    path = quote(site.file.replace("\\", "/").lstrip("/"), safe="/:")
    return f"vscode://file/{path}:{site.line}:{site.column or 1}"


def badge(verdict: str, text: str) -> str:
    """A verdict, or a count in its colour."""
    return f'<span class="v {verdict}">{text}</span>'
