"""The tables that commands write into pages, each between `<!-- table: NAME -->` and `<!-- /table -->`."""

from __future__ import annotations

import re
from pathlib import Path


def renewed(text: str, name: str, table: str) -> str:
    """The text of a page with this table in place of the one it has.

    Raises:
        ValueError: the page has no such table.
    """
    between = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- /table -->)", re.DOTALL)
    found, count = between.subn(lambda match: f"{match[1]}{table.rstrip()}\n{match[2]}", text, count=1)
    if not count:
        raise ValueError(f"the page has no table of {name}")
    return found


def write(page: Path, name: str, table: str) -> None:
    """Put the table into the page."""
    page.write_text(renewed(page.read_text(encoding="utf-8"), name, table), encoding="utf-8")
