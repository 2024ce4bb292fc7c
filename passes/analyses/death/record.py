"""What a look-up is given: the error that ended a watched script and what was seen up to it; and how an
error's frames are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

from fxgrad.passes.context import Context
from fxgrad.passes.ended import Ended, Known
from fxgrad.passes.findings import source_of
from fxgrad.records import Facts, Finding, NodeFact, Site
from fxgrad.records.training import Walk
from fxgrad.source.sites import is_user_code, line_of_error, site_of
from fxgrad.torch_api import registry
from fxgrad.torch_api.internals import DisableTorchFunction

_WORD = re.compile(r"(\w+)|\[([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Death:
    """The error that ended a program, beside its facts; `found`: what the rules say of these."""

    facts: Facts
    context: Context
    ended: Ended
    found: Sequence[Finding]

    @property
    def error(self) -> BaseException:
        return self.ended.error

    @property
    def message(self) -> str:
        return str(self.error)

    @property
    def model(self) -> nn.Module:
        """The models that took part as one tree, whose names are those of the facts."""
        return self.context.model

    @property
    def walks(self) -> tuple[Walk, ...]:
        return self.context.training.walks if self.context.training is not None else ()

    @property
    def site(self) -> Site | None:
        """The innermost line of the user's own, before that of a library."""
        return line_of_error(self.error)

    def known(self, tensor: torch.Tensor | None) -> Known | None:
        """What was seen of a tensor."""
        return self.ended.tensors.get(id(tensor))

    def parameter_name(self, tensor: torch.Tensor) -> str | None:
        """What a tensor is called in the report, or by the variable that holds it."""
        named = registry.named_parameters(self.model, remove_duplicate=False)
        own = next((name for name, parameter in named if parameter is tensor), None)
        return own or self.ended.name_of(tensor)

    def maker(self, tensor: torch.Tensor | None) -> NodeFact | None:
        """The step that made a tensor, as far as it has a line."""
        known = self.known(tensor)
        node = self.facts.maker_of.get(known.value) if known is not None else None
        return node if node is not None and node.site is not None else None


# ------------------------------------------------------------------------------------------------- variables


def frames(error: BaseException) -> Iterator[FrameType]:
    """The frames of an error's traceback, outermost first."""
    entry = error.__traceback__
    while entry is not None:
        yield entry.tb_frame
        entry = entry.tb_next


def local(error: BaseException, name: str, kind: type | None = None) -> Any:
    """A variable of the innermost frame that has it, and of that kind."""
    found = None
    for frame in frames(error):
        value = frame.f_locals.get(name)
        if value is not None and (kind is None or isinstance(value, kind)):
            found = value
    return found


def user_entries(error: BaseException) -> list[TracebackType]:
    """The entries of a traceback in the user's code, innermost first."""
    entries = []
    entry = error.__traceback__
    while entry is not None:
        if is_user_code(entry.tb_frame.f_code.co_filename):
            entries.append(entry)
        entry = entry.tb_next
    return entries[::-1]


def site_of_entry(entry: TracebackType) -> Site:
    """The line of an entry of a traceback."""
    return site_of((entry.tb_frame.f_code, entry.tb_lasti))


def raising_text(error: BaseException) -> tuple[str, dict[str, object]]:
    """The expression that raised, as it is written in the user's innermost frame, and the variables there."""
    entry = next(iter(user_entries(error)), None)
    if entry is None:
        return "", {}
    frame = entry.tb_frame
    return source_of(site_of_entry(entry)), {**frame.f_globals, **frame.f_locals}


def look_up(expression: str, namespace: dict[str, object]) -> object:
    """A dotted name with constant subscripts, by attributes and plain containers alone: nothing of the user's
    is run."""
    first, *rest = _WORD.findall(expression) or [("", "")]
    found: Any = namespace.get(first[0])
    for name, index in rest:
        key = index.strip("'\"")
        if isinstance(found, nn.Module):
            found = {**found._modules, **found._parameters, **found._buffers, **vars(found)}.get(name or key)
        elif name:
            found = getattr(found, "__dict__", {}).get(name)
        elif (
            type(found) in (list, tuple)
            and key.lstrip("-").isdigit()
            and -len(found) <= int(key) < len(found)
        ):
            found = found[int(key)]
        else:
            found = found.get(key) if type(found) is dict else None
    return found


def gradient_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """`.grad`, without torch's warning at a look at that of a tensor that is no leaf."""
    import warnings

    with DisableTorchFunction(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tensor.grad
