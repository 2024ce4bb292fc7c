"""The lines of the user's own code that a call runs, from line events of the interpreter. Not those of
libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from fxgrad.source.sites import is_user_code

LONGEST = 200_000  # lines that are noted

Lines = tuple[tuple[CodeType, int], ...]


def lines_of(call: Callable[[], object]) -> Lines:
    """The lines that a call runs, in order, as far as `LONGEST` goes."""
    found: list[tuple[CodeType, int]] = []

    def local(frame: FrameType, event: str, arg: object) -> Any:
        if event == "line" and len(found) < LONGEST:
            found.append((frame.f_code, frame.f_lineno))
        return local

    def enter(frame: FrameType, event: str, arg: object) -> Any:
        file = frame.f_code.co_filename
        # "<string>" is what dataclasses and named tuples generate, fxgrad's own among them.
        return local if is_user_code(file) and file != "<string>" and "site-packages" not in file else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)
    return tuple(found)
