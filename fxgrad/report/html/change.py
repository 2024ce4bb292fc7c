"""The edits of a fix as lines taken out and put in, with the lines around them.

Made from the files as they are now; where a text is no longer what an edit replaces, the edit alone is shown.
Not handled: applying them; that is `fxgrad fix --write`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from html import escape

from fxgrad.records import Edit, Fix
from fxgrad.records.plain_text import printable
from fxgrad.report.html.markup import place_link
from fxgrad.source.parsing import load

_AROUND = 2


def changes(fix: Fix) -> Iterator[str]:
    """One block for each file."""
    for file in dict.fromkeys(edit.site.file for edit in fix.edits):
        edits = [edit for edit in fix.edits if edit.site.file == file]
        lines = "\n".join(map(_line, _diff(file, edits)))
        yield f"<p class=help><b>fix</b> ({fix.safety}) {place_link(edits[0].site)}</p>"
        yield f"<pre class=diff>{lines}</pre>"


def _line(line: str) -> str:
    kind = {"+": "ins", "-": "del"}.get(line[:1])
    text = escape(printable(line))
    return f"<{kind}>{text}</{kind}>" if kind else text


def _diff(file: str, edits: Sequence[Edit]) -> list[str]:
    before = "\n".join(load(file).lines)
    after = _applied(before, edits)
    if after is None:
        pairs = [(edit.old.splitlines(), edit.new.splitlines()) for edit in edits]
        return [line for old, new in pairs for line in [*(f"-{o}" for o in old), *(f"+{n}" for n in new)]]
    found = difflib.unified_diff(before.split("\n"), after.split("\n"), n=_AROUND, lineterm="")
    return list(found)[2:]  # without the names of the files


def _applied(text: str, edits: Sequence[Edit]) -> str | None:
    """The text with the edits made; None where it is not what they replace."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    for edit in sorted(edits, key=lambda e: (e.site.line, e.site.column), reverse=True):
        if not 0 < edit.site.line < len(starts):
            return None
        start = starts[edit.site.line - 1] + max(edit.site.column - 1, 0)
        if text[start : start + len(edit.old)] != edit.old:
            return None
        text = text[:start] + edit.new + text[start + len(edit.old) :]
    return text
