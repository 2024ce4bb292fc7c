"""Where in the user's code something runs: `Site`s from interpreter frames, with the columns of the very
expression.

From `code.co_positions()` at the frame's last instruction (PEP 657, Python 3.11). Frames of torch, of fxgrad
and of the libraries in `SKIPPED` are passed over: their lines are never the user's mistake. Does not read
source text; `fxgrad.source` does.
"""

from __future__ import annotations

import dis
import functools
import itertools
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import CodeType, FrameType, TracebackType
from typing import Any

import torch

from fxgrad.records import Site

# Array-notation libraries that only pass a call on to torch; a line in them says nothing about the model.
SKIPPED = ("einops", "opt_einsum", "beartype", "jaxtyping", "typeguard")

# Pieces of the standard library for older Pythons: their decorators stand around functions of torch.
BACKPORTS = ("typing_extensions.py", "exceptiongroup.py")

_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_HANDED_ON = os.path.join(_TORCH, "overrides.py")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_FXGRAD = _PACKAGE + os.sep
_PASSES = os.path.join(os.path.dirname(_PACKAGE), "passes") + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep

Spot = tuple[CodeType, int]  # a code object and the instruction it stands at
Position = tuple[int | None, int | None, int | None, int | None]  # line, last line, column, last column
# a frame that waits for those inside it, and the user frames outside it
Anchor = tuple[FrameType, tuple[Spot, ...]]


@functools.lru_cache(4096)  # each generated graph has a file name of its own
def is_user_code(filename: str) -> bool:
    """Whether a line of this file may be blamed: not torch's, fxgrad's, the standard library's, nor generated
    text."""
    if filename.startswith("<"):
        return filename.startswith(("<ipython", "<stdin", "<string>", "<eval_with_key>"))
    path = os.path.abspath(filename)
    if path.startswith((_TORCH, _FXGRAD, _PASSES)):
        return False
    if any(f"{os.sep}{name}{os.sep}" in path for name in SKIPPED):
        return False
    if os.path.basename(path) in BACKPORTS:
        return False
    return not path.startswith(_STDLIB) or "site-packages" in path


class ByCode(dict[int, tuple[Any, Any]]):
    """What is known of code objects, by their ids: the hash of one goes through all its constants, at every
    look-up. An entry goes with its code object: each cell of a notebook and each generated graph makes new
    ones."""

    def note(self, code: CodeType, known: object) -> Any:
        """Remember it; gives it back."""
        key = id(code)
        self[key] = (known, weakref.ref(code, lambda _: self.pop(key, None)))
        return known


_user_codes = ByCode()


def _is_user(code: CodeType) -> bool:
    known = _user_codes.get(id(code))
    return bool(_user_codes.note(code, is_user_code(code.co_filename)) if known is None else known[0])


def user_spots(
    frame: FrameType | None, boundary: CodeType | None = None, anchor: Anchor | None = None
) -> tuple[Spot, ...]:
    """The user frames from `frame` outwards, innermost first, up to the frame that runs `boundary`; what lies
    outside `anchor` is known."""
    spots: list[Spot] = []
    known = _user_codes
    anchored = anchor[0] if anchor is not None else None
    while frame is not None:
        if frame is anchored and anchor is not None:
            return (*spots, *anchor[1])
        code = frame.f_code
        if code is boundary:
            break
        entry = known.get(id(code))
        if entry[0] if entry is not None else _is_user(code):
            spots.append((code, frame.f_lasti))
        frame = frame.f_back
    return tuple(spots)


def is_unpacked(frame: FrameType | None) -> bool:
    """Whether the code that called into fxgrad, from `frame` outwards, takes the result apart at once: `a, b
    = x.shape`."""
    frame = outside(frame)
    if frame is None:
        return False
    known = _unpackings.get(id(frame.f_code))
    places = known[0] if known is not None else _unpackings.note(frame.f_code, _unpacking(frame.f_code))
    return frame.f_lasti in places


_unpackings = ByCode()


def _unpacking(code: CodeType) -> frozenset[int]:
    """The instructions whose result the next one takes apart."""
    found = list(dis.get_instructions(code))
    return frozenset(
        one.offset for one, after in itertools.pairwise(found) if after.opname == "UNPACK_SEQUENCE"
    )


def is_own(code: CodeType) -> bool:
    """Whether the code is fxgrad's."""
    return code.co_filename.startswith(_FXGRAD)


def is_torch(code: CodeType) -> bool:
    """Whether the code is torch's."""
    return code.co_filename.startswith(_TORCH)


def is_made(filename: str) -> bool:
    """Whether a line of this file is fxgrad's, or generated for a graph."""
    return filename.startswith((_FXGRAD, _PASSES, "<eval_with_key>"))


def outside(frame: FrameType | None) -> FrameType | None:
    """The code that called into fxgrad, from `frame` outwards."""
    while frame is not None and is_own(frame.f_code):
        frame = frame.f_back
    return frame


def place_outside(frame: FrameType | None, file: str, line: int) -> tuple[str, int]:
    """The place of whoever called into fxgrad, where `file` and `line` are on the stack of `frame` and of
    fxgrad, or of torch's function that hands a call on to a mode; else that place itself."""
    if not (file.startswith(_FXGRAD) or file == _HANDED_ON):
        return file, line
    while frame is not None and (frame.f_code.co_filename, frame.f_lineno) != (file, line):
        frame = frame.f_back
    caller = outside(frame)
    while caller is not None and caller.f_code.co_filename == _HANDED_ON:
        public = caller.f_back  # it runs once more inside, without the mode
        caller = outside(public.f_back) if public is not None else None
    return (file, line) if caller is None else (caller.f_code.co_filename, caller.f_lineno)


def is_asked_by_user(frame: FrameType | None) -> bool:
    """Whether the code that called into fxgrad, from `frame` outwards, is the user's own."""
    frame = outside(frame)
    return frame is not None and _is_user(frame.f_code)


def asked_by_torch(frame: FrameType | None) -> bool:
    """Whether the code that called into fxgrad, from `frame` outwards, is torch's."""
    frame = outside(frame)
    return frame is not None and frame.f_code.co_filename.startswith(_TORCH)


def user_frames(frame: FrameType | None, boundary: CodeType | None = None) -> Iterator[FrameType]:
    """The frames that `user_spots` names."""
    while frame is not None and frame.f_code is not boundary:
        if _is_user(frame.f_code):
            yield frame
        frame = frame.f_back


@functools.lru_cache(maxsize=65536)
def _line_text(filename: str, line: int) -> str:
    import linecache

    return linecache.getline(filename, line)


def _character(filename: str, line: int, byte: int) -> int:
    """A 1-based character column from the interpreter's 0-based UTF-8 byte column."""
    text = _line_text(filename, line)
    if text.isascii():
        return byte + 1
    return len(text.encode()[:byte].decode(errors="replace")) + 1


def stands_for(filename: str, lines: Mapping[int, Site]) -> None:
    """Say where the lines of a generated file were written first: those of an exported program. A copy of it
    has the same text."""
    _written_at[_generated(filename)] = lines


_written_at: dict[str, Mapping[int, Site]] = {}


@functools.lru_cache(256)
def _generated(filename: str) -> str:
    import linecache

    return "".join(linecache.getlines(filename))


_sites = ByCode()  # the positions of a code object, and its sites by instruction


def site_of(spot: Spot) -> Site:
    """The Site of one instruction."""
    code, lasti = spot
    known = _sites.get(id(code))
    positions, sites = known[0] if known is not None else _sites.note(code, (_positions(code), {}))
    site: Site | None = sites.get(lasti)
    if site is None:
        site = sites[lasti] = _site(code, lasti, positions)
    return site


def _positions(code: CodeType) -> tuple[Position, ...]:
    """That of each instruction; equal ones are one object, for a call alone has six."""
    known: dict[Position, Position] = {}
    return tuple([known.setdefault(position, position) for position in code.co_positions()])


def _site(code: CodeType, lasti: int, positions: tuple[Position, ...]) -> Site:
    index = max(lasti, 0) // 2
    if dis.opname[code.co_code[2 * index]] == "BEFORE_WITH":
        # Python before 3.13 gives `__enter__` the whole `with` block: the expression before it is what is
        # entered
        index -= 1
    line, end_line, column, end_column = (
        positions[index] if index < len(positions) else (None, None, None, None)
    )
    if line is not None and code.co_filename.startswith("<eval_with_key>"):
        written = _written_at.get(_generated(code.co_filename), {}).get(line)
        if written is not None:
            return written
    filename = os.path.abspath(code.co_filename) if not code.co_filename.startswith("<") else code.co_filename
    if line is None:
        return Site(filename, code.co_firstlineno, function=code.co_qualname)
    if column is None or end_column is None or end_line is None:
        return Site(filename, line, function=code.co_qualname)
    return Site(
        filename,
        line,
        _character(filename, line, column),
        end_line,
        _character(filename, end_line, end_column),
        code.co_qualname,
    )


def sites_of(spots: tuple[Spot, ...]) -> tuple[Site, ...]:
    """`site_of` for a whole stack, innermost first."""
    return tuple([site_of(spot) for spot in spots])


def traceback_sites(traceback: TracebackType | None) -> tuple[Site, ...]:
    """The user frames of a traceback, innermost first."""
    spots = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_user_code(code.co_filename):
            spots.append((code, traceback.tb_lasti))
        traceback = traceback.tb_next
    return tuple(site_of(spot) for spot in reversed(spots))


def innermost(spots: Sequence[Spot]) -> Site | None:
    """The line that a stack ends at; None of an empty one."""
    return site_of(spots[0]) if spots else None


def own_line(stack: Sequence[Site]) -> Site | None:
    """The innermost line of the user's own, before that of a library."""
    return next((s for s in stack if "site-packages" not in s.file), stack[0] if stack else None)


def line_of_error(error: BaseException) -> Site | None:
    """The innermost line of the user's own that an error came through, before that of a library."""
    return own_line(traceback_sites(error.__traceback__))


def caller_file() -> str | None:
    """The file of the nearest user frame that called into fxgrad; None from a bare interpreter."""
    for frame in user_frames(sys._getframe(1)):
        return frame.f_code.co_filename
    return None
