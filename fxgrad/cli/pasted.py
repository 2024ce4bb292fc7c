"""What somebody pastes when a program has died: an error's text, a traceback, a whole log. Which errors are
in it, and the user's own line.

Prefixes that launchers and test runners put before a line (`[rank0]: `, `E   `) are taken off. A frame is the
user's if its file lies in no `site-packages` or `dist-packages` and not in a standard library. Not handled:
tracebacks that are not Python's (C++, a shell's), and text whose lines are broken in the middle of a word.
"""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass

from fxgrad.torch_api.explanations import Entry, explanation_of

_PREFIX = re.compile(r"^(?:\[[\w.-]*rank\d+\]:\s?|E {2,}|\d+: )+")
_FRAME = re.compile(r'^\s*(?:\|\s*)*File "([^"]+)", line (\d+)(?:, in (.+))?\s*$')
_ERROR = re.compile(r"^(?:\|\s*)*((?:\w+\.)*\w*(?:Error|Exception|Warning|Interrupt|Failure))(?::\s*(.*))?$")
_WARNING = re.compile(r"^(\S[^:]*\.py):(\d+): (\w+): (.*)$")
_LIBRARY = re.compile(r"[/\\](?:site|dist)-packages[/\\]|[/\\]lib[/\\]python\d|^<frozen ")


@dataclass(frozen=True, slots=True)
class Frame:
    """A line of a traceback; `text` is its source, as the traceback shows it or as the file has it now, ""
    where neither does."""

    file: str
    line: int
    function: str
    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """One error or warning in a text. `type` is "" where only a message was given; `frames` are those of its
    traceback, outermost first."""

    type: str
    message: str
    frames: tuple[Frame, ...]
    entry: Entry | None

    def own(self) -> Frame | None:
        """The innermost frame in the user's own code."""
        return next((frame for frame in reversed(self.frames) if is_own(frame.file)), None)

    def script(self) -> str:
        """The file that was run: that of the outermost of the user's frames."""
        return next((frame.file for frame in self.frames if is_own(frame.file)), "")


def is_own(file: str) -> bool:
    """Whether a file of a traceback is the user's: no library's, whichever machine the traceback is from."""
    standard = sysconfig.get_paths()["stdlib"] + os.sep
    return not _LIBRARY.search(file) and not file.startswith(standard)


def errors_in(text: str) -> tuple[Said, ...]:
    """The errors and warnings of a text, in its order; of several that are the same the last."""
    lines = [_PREFIX.sub("", line.rstrip()) for line in text.splitlines()]
    found, frames = _all_of(lines)
    if not any(said.entry for said in found):
        entry = explanation_of(_joined(lines))
        if entry is not None:
            found = [Said("", _first_words(lines), frames, entry)]
    last = {(said.entry.name if said.entry else said.message): said for said in found}
    return tuple(said for said in found if any(said is kept for kept in last.values()))


def _all_of(lines: Sequence[str]) -> tuple[list[Said], tuple[Frame, ...]]:
    """The errors and warnings, and the frames that no error has followed."""
    found: list[Said] = []
    frames: list[Frame] = []
    for index, line in enumerate(lines):
        if line.strip().startswith("Traceback (most recent call last)"):
            frames = []
        elif frame := _FRAME.match(line):
            frames.append(_frame(frame, lines[index + 1 : index + 2]))
        elif warning := _WARNING.match(line):
            file, number, kind, message = warning.groups()
            found.append(_said(kind, [message, *_rest(lines, index)], [_frame_at(file, int(number), "", "")]))
        elif error := _ERROR.match(line):
            found.append(_said(error[1], [error[2] or "", *_rest(lines, index)], frames))
            frames = []
    return found, tuple(frames)


def _said(kind: str, message: Sequence[str], frames: Sequence[Frame]) -> Said:
    return Said(kind, message[0].strip(), tuple(frames), explanation_of(_joined(message)))


def _rest(lines: Sequence[str], index: int) -> list[str]:
    """The further lines of a message: up to the next error, frame or traceback."""
    rest: list[str] = []
    for line in lines[index + 1 :]:
        if (
            _FRAME.match(line)
            or _ERROR.match(line)
            or _WARNING.match(line)
            or line.startswith(("Traceback", "During handling", "The above"))
        ):
            break
        rest.append(line)
    return rest


def _joined(lines: Sequence[str]) -> str:
    """One line, whatever wrapped it."""
    return " ".join(" ".join(lines).split())


def _first_words(lines: Sequence[str]) -> str:
    return next((line.strip() for line in lines if line.strip()), "")


def _frame(match: re.Match[str], after: Sequence[str]) -> Frame:
    shown = after[0].strip() if after and not _FRAME.match(after[0]) and not _ERROR.match(after[0]) else ""
    return _frame_at(match[1], int(match[2]), match[3] or "", shown)


def _frame_at(file: str, line: int, function: str, shown: str) -> Frame:
    return Frame(file, line, function, shown or linecache.getline(file, line).strip())
