"""Which instructions of the user's functions ran, how often, and on which module: so that which way a branch
went is seen, not guessed.

From the interpreter: `sys.monitoring` where there is one (Python 3.12), else `sys.settrace` with events of
opcodes. A method of a module is counted for each module by itself, also the functions inside it; any other
function once for all its calls. Only functions of the user's own files are looked at, and each only so long
as it stays small: of a loop over a million numbers nothing is said.

While a function for `sys.settrace` is set, Python asks it about every call there is and goes through every
instruction the slow way. Whoever runs much code that is not the user's lets it rest meanwhile (`rest`).

Not handled: frames that ran before the look began, and a program that is being traced by somebody else: there
nothing is known.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any

from torch import nn

from fxgrad.records import Ran, Span
from fxgrad.source.objects import origin
from fxgrad.source.sites import ByCode

MOST = 100_000  # instructions of one function on one module that are counted
MOST_WATCHED = 30_000  # the same in a program that trains meanwhile: settrace costs a microsecond each

_TOOLS = (3, 4)  # of sys.monitoring's six the ones that are nobody's


class Record:
    """One function on one module: how often each instruction ran. `left`: how many more are counted; at 0 the
    counts are worth nothing."""

    __slots__ = ("code", "counts", "left", "module")

    def __init__(self, code: CodeType, module: nn.Module | None, most: int) -> None:
        self.code = code
        self.module = weakref.ref(module) if module is not None else None
        self.counts: dict[int, int] = {}
        self.left = most


class Coverage:
    """What ran while `looking`; of each function `most` instructions. `in_part`: more has run meanwhile."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.in_part = False
        # by the ids of code and module: the hash of a code object is slow
        self.records: dict[tuple[int, int], Record] = {}
        self._begun: dict[int, CodeType] = {}
        self._kinds: dict[int, tuple[bool, CodeType]] = {}
        self._frames: dict[int, Record] = {}
        self._tracer: Callable[..., Any] | None = None
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Look from now on; does nothing where somebody else traces the program."""
        if self._end is None:
            self._end = self._monitored() if sys.version_info >= (3, 12) else self._traced()
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and self._end is not None:  # these began before
            # Not for which module: until Python 3.13 a frame keeps the locals that it was asked for, and what
            # they hold, until it ends.
            self._begun[id(frame.f_code)] = frame.f_code
            frame = frame.f_back

    def stop(self) -> None:
        """Look no further."""
        if self._end is not None:
            end, self._end = self._end, None
            end()
        self._frames.clear()

    def rest(self, *, leaving_out: bool = False) -> bool:
        """Nothing of the user's runs until `resume`, to be called where this is True. `leaving_out`: it
        does."""
        if self._tracer is None or sys.gettrace() is not self._tracer:
            return False
        self.in_part = self.in_part or leaving_out
        sys.settrace(None)
        return True

    def resume(self) -> None:
        """Look again, unless that has ended meanwhile."""
        if self._tracer is not None:
            sys.settrace(self._tracer)

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Between `start` and `stop`."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def ran(self, paths: Mapping[int, str]) -> tuple[Ran, ...]:
        """The counts, by the paths of modules: `paths` has them by id. Methods of other modules are
        left out."""
        found = []
        for record in self.records.values():
            module = record.module() if record.module is not None else None
            if record.module is not None and id(module) not in paths:
                continue
            path = paths[id(module)] if module is not None else None
            code = record.code
            counts, whole = _spans(code, record.counts), record.left > 0
            found.append(Ran(code.co_filename, code.co_qualname, path, counts, whole, self.in_part))
        return tuple(found)

    # ------------------------------------------------------------------ the two ways of looking

    def _is_user(self, code: CodeType) -> bool:
        known = self._kinds.get(id(code))
        if known is None:
            known = self._kinds[id(code)] = origin(code.co_filename) == "user", code
        return known[0]

    def _record(self, frame: FrameType) -> Record:
        module = _module_of(frame)
        key = id(frame.f_code), id(module)
        record = self.records.get(key)
        if record is None or (record.module is not None and record.module() is not module):
            most = 0 if id(frame.f_code) in self._begun else self.most
            record = self.records[key] = Record(frame.f_code, module, most)
        return record

    def _traced(self) -> Callable[[], None] | None:
        if sys.gettrace() is not None:
            return None

        kinds = self._kinds

        def enter(frame: FrameType, event: str, arg: object) -> Any:
            known = kinds.get(id(frame.f_code))
            if not (self._is_user(frame.f_code) if known is None else known[0]):
                return None
            record = self._record(frame)
            if record.left <= 0:
                return None
            counts = record.counts

            def inside(frame: FrameType, event: str, arg: object) -> object:
                if event == "opcode":
                    offset = frame.f_lasti
                    counts[offset] = counts.get(offset, 0) + 1
                    record.left -= 1
                    if record.left <= 0:  # what this returns does not end it: a main loop runs on for long
                        frame.f_trace = None
                return inside

            frame.f_trace_lines = False
            frame.f_trace_opcodes = True
            return inside

        def end() -> None:
            self._tracer = None
            if sys.gettrace() is enter:
                sys.settrace(None)

        self._tracer = enter
        sys.settrace(enter)
        return end

    def _monitored(self) -> Callable[[], None] | None:
        # Looked up by name: the type checker knows the Python that it runs on, or an older one.
        monitoring: Any = vars(sys).get("monitoring")
        tool = next((number for number in _TOOLS if monitoring.get_tool(number) is None), None)
        if tool is None:
            return None
        events = monitoring.events
        local: set[CodeType] = set()

        def enter(code: CodeType, offset: int) -> object:
            if not self._is_user(code):
                return monitoring.DISABLE
            frame = sys._getframe(1)
            self._frames[id(frame)] = self._record(frame)
            if code not in local:
                local.add(code)
                monitoring.set_local_events(tool, code, events.INSTRUCTION)
            return None

        def inside(code: CodeType, offset: int) -> object:
            record = self._frames.get(id(sys._getframe(1)))
            if record is None or record.code is not code:
                return None
            if record.left <= 0:
                return monitoring.DISABLE
            record.counts[offset] = record.counts.get(offset, 0) + 1
            record.left -= 1
            return None

        def end() -> None:
            monitoring.set_events(tool, events.NO_EVENTS)
            for code in local:
                monitoring.set_local_events(tool, code, events.NO_EVENTS)
            monitoring.register_callback(tool, events.PY_START, None)
            monitoring.register_callback(tool, events.INSTRUCTION, None)
            monitoring.free_tool_id(tool)

        monitoring.use_tool_id(tool, "fxgrad")
        monitoring.register_callback(tool, events.PY_START, enter)
        monitoring.register_callback(tool, events.INSTRUCTION, inside)
        monitoring.set_events(tool, events.PY_START)
        return end


def _module_of(frame: FrameType) -> nn.Module | None:
    """The module whose method runs, or around whose method's inner function (a comprehension) it is; None for
    any other function."""
    code = frame.f_code
    first = code.co_varnames[: min(code.co_argcount, 1)]
    for name in (*first, *(name for name in code.co_freevars if name == "self")):
        held = frame.f_locals.get(name)
        if isinstance(held, nn.Module):
            return held
    return None


_texts = ByCode()


def _text_of(code: CodeType) -> tuple[dict[int, Span], dict[Span, int]]:
    """The span of each instruction of a function, and 0 for every span of its text: read once, for one
    function may have run on thousands of modules."""
    known = _texts.get(id(code))
    if known is not None:
        text: tuple[dict[int, Span], dict[Span, int]] = known[0]
        return text
    spans: dict[int, Span] = {}
    for index, (line, end_line, column, end_column) in enumerate(code.co_positions()):
        if line is None or end_line is None or column is None or end_column is None or end_column == 0:
            continue
        spans[2 * index] = line, column, end_line, end_column
    never = dict.fromkeys(spans.values(), 0)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            for span in _text_of(inner)[1]:
                never.setdefault(span, 0)
    _texts.note(code, (spans, never))
    return spans, never


def _spans(code: CodeType, counts: Mapping[int, int]) -> dict[Span, int]:
    """How often each span of the function's text ran, 0 for those that did not; of the functions inside it
    too, which count by themselves."""
    spans, never = _text_of(code)
    found = dict(never)
    for offset, count in counts.items():
        span = spans.get(offset)
        if span is not None and count > found[span]:
            found[span] = count
    return found
