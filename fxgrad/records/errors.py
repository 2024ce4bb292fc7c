"""The errors fxgrad raises for a user's mistake or an unsupported program: reason, place and hint, never a
bare torch traceback."""

from __future__ import annotations

from fxgrad.records.findings import Site
from fxgrad.records.plain_text import one_line, printable


class FxgradError(Exception):
    """Base of all errors of fxgrad. `reason` says what is wrong, `site` where (None if no line is to blame),
    `hint` how to mend it."""

    def __init__(self, reason: str, *, site: Site | None = None, hint: str = "") -> None:
        self.reason = printable(reason)  # it may quote names of any kind
        self.site = site
        self.hint = printable(hint)
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f"{one_line(str(self.site))}: " if self.site else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.reason}{hint}"


class FxgradWarning(UserWarning):
    """What fxgrad warns of where it does not raise: `-W error::fxgrad.FxgradWarning` makes it an error."""


class TraceError(FxgradError):
    """The program cannot be recorded: it needs a value that fake tensors do not have, or does something no
    graph can hold."""


class InputError(FxgradError):
    """The example inputs do not fit the model, or none could be inferred."""


class LoadError(FxgradError):
    """The model file does not import, or the named object is missing, ambiguous or not a model."""


class FixError(FxgradError):
    """A rewrite was asked for and cannot be given; the reason names the node that stands in the way."""


class GuardError(FxgradError):
    """A call of a module that `fix` gave breaks what its graph took for granted; raised before the graph
    answers for another program."""
