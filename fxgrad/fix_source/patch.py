"""Mended files: what changed, as a unified diff that `git apply` takes, as edits, and written to disk.

A `Mended` holds one file before and after, and which finding asked for which line; made by
`fxgrad.fix_source.loop`. Writing replaces the whole file in one step, so that a crash leaves the old one. Not
handled: undoing; that is what version control is for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from fxgrad.fix_source.sheet import Stored, sheet
from fxgrad.records import Edit, Safety, Site
from fxgrad.records.cells import cell_name
from fxgrad.records.errors import FixError
from fxgrad.source.files import replacing

Labels = tuple[tuple[str, ...], ...]  # per line the fixes that changed it: `FXG201 safe`
_CONTEXT = 3


@dataclass(frozen=True, slots=True)
class Mended:
    """One file: as it lies on disk, and the text it should have. `labels` has one entry for each line of
    `text`."""

    stored: Stored
    text: str
    labels: Labels

    @classmethod
    def unchanged(cls, stored: Stored) -> Mended:
        """The file before any edit."""
        return cls(stored, stored.text, ((),) * len(lines_of(stored.text)))

    def changed(self, text: str, code: str, safety: Safety) -> Mended:
        """The file after one more fix."""
        label = f"{code} {safety}"
        return replace(
            self, text=text, labels=_relabelled(self.labels, lines_of(self.text), lines_of(text), label)
        )

    def diff(self, root: str) -> str:
        """The change as a unified diff, file names relative to `root`, each hunk labelled with its codes and
        their safety."""
        before, after = lines_of(self.stored.text), lines_of(self.text)
        name = cell_name(self.stored.file) or os.path.relpath(self.stored.file, root).replace(os.sep, "/")
        if name.startswith("../"):
            name = self.stored.file.lstrip("/")
        made = [f"--- {_named(f'a/{name}')}\n", f"+++ {_named(f'b/{name}')}\n"]
        for group in SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(_CONTEXT):
            made.append(self._header(group))
            for tag, i1, i2, j1, j2 in group:
                if tag == "equal":
                    made += [_marked(" ", line) for line in before[i1:i2]]
                else:
                    made += [_marked("-", line) for line in before[i1:i2]]
                    made += [_marked("+", line) for line in after[j1:j2]]
        return "".join(made) if len(made) > 2 else ""

    def _header(self, group: Sequence[tuple[str, int, int, int, int]]) -> str:
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        found: dict[str, None] = {}
        for tag, _, _, start, stop in group:
            if tag != "equal":
                found.update(
                    dict.fromkeys(
                        label for line in self.labels[start : max(stop, start + 1)] for label in line
                    )
                )
        return f"@@ -{_counted(i1, i2)} +{_counted(j1, j2)} @@ {', '.join(found)}\n"

    def edits(self) -> tuple[Edit, ...]:
        """The change as edits of the stored text, whole lines at a time."""
        before, after = lines_of(self.stored.text), lines_of(self.text)
        page = sheet(self.stored.file, self.stored.text)
        starts = [0]
        for line in before:
            starts.append(starts[-1] + len(line))
        return tuple(
            page.edit(starts[i1], starts[i2], "".join(after[j1:j2]))
            for tag, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
            if tag != "equal"
        )


def _named(name: str) -> str:
    """The name as git reads it: up to a tab where it holds spaces, quoted as in C where it holds what would
    end the line or the quotes."""
    if name.isprintable() and '"' not in name and "\\" not in name:
        return f"{name}\t" if " " in name else name
    written = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in os.fsencode(name)
    )
    return f'"{"".join(written)}"'


def lines_of(text: str) -> list[str]:
    """The lines as git counts them, each with its end."""
    lines = [line + "\n" for line in text.split("\n")]
    last = lines.pop().removesuffix("\n")
    return [*lines, last] if last else lines


def _marked(mark: str, line: str) -> str:
    return f"{mark}{line}" if line.endswith("\n") else f"{mark}{line}\n\\ No newline at end of file\n"


def _counted(start: int, stop: int) -> str:
    length = stop - start
    return f"{start + 1 if length else start},{length}"


def _relabelled(labels: Labels, before: list[str], after: list[str], label: str) -> Labels:
    made: list[tuple[str, ...]] = []
    pending: tuple[str, ...] = ()
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        old = tuple(dict.fromkeys(item for line in labels[i1:i2] for item in line))
        if tag == "equal":
            kept = list(labels[i1:i2])
            kept[0] = tuple(dict.fromkeys((*pending, *kept[0])))
            made += kept
            pending = ()
        elif tag == "delete":
            pending = tuple(dict.fromkeys((*old, label)))  # the line after stands for those that are gone
        else:
            made += [tuple(dict.fromkeys((*pending, *old, label)))] * (j2 - j1)
            pending = ()
    if pending and made:
        made[-1] = tuple(dict.fromkeys((*made[-1], *pending)))
    return tuple(made)


def diff(files: Iterable[Mended], root: str | None = None) -> str:
    """The diffs of several files, `root` being the working directory where it is None."""
    return "".join(file.diff(root or os.getcwd()) for file in files)


def write(files: Iterable[Mended]) -> tuple[str, ...]:
    """Write every changed file, each in one step, and return their names. Permissions, encoding and line ends
    stay.

    Raises:
        FixError: a file is not what it was when it was analysed, or is a notebook's cell (then none is
        written); or it cannot be written.
    """
    files = [file for file in files if file.text != file.stored.text]
    cells = [name for file in files if (name := cell_name(file.stored.file))]
    if cells:
        raise FixError(
            f"there is no file to edit: the source is in {', '.join(cells)} of the notebook",
            hint="make the change of `source_diff()` in the cell",
        )
    contents = [file.stored.encoded(file.text) for file in files]
    for file in files:
        _check_unchanged(file.stored)
    for file, content in zip(files, contents, strict=True):
        _replace(file.stored, content)
    return tuple(file.stored.file for file in files)


def _check_unchanged(stored: Stored) -> None:
    try:
        with open(stored.file, "rb") as stream:
            now = stream.read()
    except OSError as error:
        raise FixError(f"cannot read {stored.file} again: {error.strerror}") from error
    if now != stored.raw:
        reason = "the file changed while it was being mended; nothing was written to it"
        raise FixError(reason, site=Site(stored.file, 1), hint="run the same command again")


def _replace(stored: Stored, content: bytes) -> None:
    """In one step, if the file is still what was analysed."""
    try:
        with replacing(stored.file) as stream:
            stream.write(content)
            _check_unchanged(stored)
    except OSError as error:
        raise FixError(f"cannot write {stored.file}: {error.strerror}") from error
