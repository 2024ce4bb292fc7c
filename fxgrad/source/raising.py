"""Guards: a truth value whose one outcome ends in the program's own `raise` or `assert`, read off the code
that takes it.

Said only where nothing can come between: the way to the `raise` has no branch, no frame outwards stands in a
`try` or a `with`, and the error is none that C code catches (a missing attribute, key or item, the end of an
iteration). Not handled: outcomes that go through other calls (`if any(...)`, `if a == b` on Python 3.13, a
function that returns one).
"""

from __future__ import annotations

import bisect
import builtins
import dis
from collections.abc import Iterable, Mapping
from types import CodeType, FrameType

from fxgrad.source.sites import ByCode, is_own, outside

_TAKEN_FOR_AN_ANSWER = (
    AttributeError,
    LookupError,
    NotImplementedError,
    StopAsyncIteration,
    StopIteration,
    TypeError,  # of a `__len__` that `list` asks
)
_RAISE = "RAISE_VARARGS"
_NO_CHANGE = frozenset(("NOT_TAKEN", "CACHE", "EXTENDED_ARG"))
_ENDS = frozenset(dis.opname[op] for op in (*dis.hasjrel, *dis.hasjabs)) | {
    "RETURN_VALUE",
    "RETURN_CONST",
    "RETURN_GENERATOR",
    "YIELD_VALUE",
    "RERAISE",
}
_ASSERTION = "AssertionError"

_Guards = Mapping[int, tuple[bool, str]]  # by the instruction that takes a truth value
_guards = ByCode()
_shields = ByCode()


def raising_outcome(frame: FrameType | None, boundary: CodeType) -> bool | None:
    """Of the truth value that the code which called into fxgrad, from `frame` outwards, is taking: the
    outcome that ends the program up to `boundary`. None where there is none, or it is not known."""
    frame = outside(frame)
    if frame is None:
        return None
    code = frame.f_code
    known = _guards.get(id(code))
    guards: _Guards = known[0] if known is not None else _guards.note(code, _guards_of(code))
    guard = guards.get(frame.f_lasti)
    if guard is None or not _ends_a_program(guard[1], frame) or _is_shielded(frame, boundary):
        return None
    return guard[0]


def _guards_of(code: CodeType) -> dict[int, tuple[bool, str]]:
    """The truth values of which one outcome leads straight to a `raise`: that outcome, and the name of what
    is raised."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in _NO_CHANGE]
    offsets = [step.offset for step in steps]
    found: dict[int, tuple[bool, str]] = {}
    for number, step in enumerate(steps):
        if "JUMP" not in step.opname or not step.opname.endswith(("_IF_TRUE", "_IF_FALSE")):
            continue
        jumps_on = step.opname.endswith("_IF_TRUE")
        target = bisect.bisect_left(offsets, step.argval)  # it may be what only widens the next argument
        ways = {jumps_on: _raised(steps[target:]), not jumps_on: _raised(steps[number + 1 :])}
        raising = [(outcome, name) for outcome, name in ways.items() if name]
        if len(raising) != 1:
            continue
        outcome, name = raising[0]
        found[step.offset] = outcome, name
        before = steps[number - 1].opname if number else ""
        if before in ("TO_BOOL", "UNARY_NOT"):
            found[steps[number - 1].offset] = (outcome is (before == "TO_BOOL")), name
    return found


def _raised(steps: Iterable[dis.Instruction]) -> str:
    """The name of what is raised at the end of these instructions, "" where they do not just raise."""
    name = ""
    for step in steps:
        if step.opname == _RAISE:
            return name
        if step.opname in _ENDS:
            return ""
        if not name and step.opname.startswith("LOAD_"):
            name = _loaded(step)
            if not name:
                return ""
    return ""


def _loaded(step: dis.Instruction) -> str:
    """The global that an instruction loads; of a constant the assertion's."""
    if step.opname == "LOAD_GLOBAL":
        return str(step.argval)
    is_assertion = step.opname == "LOAD_ASSERTION_ERROR" or step.argrepr == _ASSERTION
    return _ASSERTION if is_assertion else ""


def _ends_a_program(name: str, frame: FrameType) -> bool:
    kind = frame.f_globals.get(name, getattr(builtins, name, None))
    return (
        isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _TAKEN_FOR_AN_ANSWER)
    )


def _is_shielded(frame: FrameType | None, boundary: CodeType) -> bool:
    """Whether a `try` or a `with` stands around the call, in the program's frames up to `boundary`."""
    while frame is not None and frame.f_code is not boundary:
        code = frame.f_code
        if not is_own(code):
            known = _shields.get(id(code))
            shields = known[0] if known is not None else _shields.note(code, _shields_of(code))
            if any(start <= frame.f_lasti < end for start, end in shields):
                return True
        frame = frame.f_back
    return frame is None


def _shields_of(code: CodeType) -> tuple[tuple[int, int], ...]:
    """The instructions whose errors are handled in the code itself."""
    entries = vars(dis.Bytecode(code))["exception_entries"]  # the type stubs do not know of it
    return tuple((entry.start, entry.end) for entry in entries)
