"""A report as the formats that are read by people take it: every text in it printable, names in one line.

Made once, before a format sees the report, so that no format has to think of it. The report itself keeps the
names as they are: they are its keys. Not handled: two names that differ in nothing but how a character is
written (`\\x1b` as one character and as four).
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fxgrad.records.plain_text import one_line, printable
from fxgrad.records.report import ReportData

_Data = TypeVar("_Data", bound=ReportData)

_WITHOUT_TEXT = frozenset({type(None), bool, int, float})
# Fields that may have several lines.
_LINES = frozenset({"message", "advice", "old", "new"})


def as_printable(report: _Data) -> _Data:
    """The report with every text escaped where it holds what is not seen."""
    made: _Data = _printable(report, "")
    return made


def _printable(value: object, field: str) -> Any:
    if isinstance(value, str):
        if value.isprintable():  # as nearly all are
            return value
        return printable(value) if field in _LINES else one_line(value)
    if isinstance(value, tuple):
        if not value:
            return value
        parts = tuple([_printable(item, field) for item in value])
        return value if all(map(operator.is_, parts, value)) else parts
    fields = getattr(type(value), "__dataclass_fields__", None)  # `dataclasses.fields` takes twice as long
    if fields is not None:
        return _record(value, fields)
    if isinstance(value, Mapping):
        return {_printable(key, field): _printable(item, field) for key, item in value.items()}
    return value


def _record(value: Any, names: Iterable[str]) -> Any:
    changes = {}
    for name in names:
        held = getattr(value, name)
        # most hold a name, a flag or nothing: a call for each of them would be half of the time
        kind = type(held)
        if (kind is str and held.isprintable()) or kind in _WITHOUT_TEXT:
            continue
        made = _printable(held, name)
        if made is not held:
            changes[name] = made
    return dataclasses.replace(value, **changes) if changes else value
