"""What a look-up is given: the error, what was seen up to it, and how a finding is made of that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

from fxgrad.passes import RULES
from fxgrad.passes.analyses import causes
from fxgrad.passes.context import Context
from fxgrad.passes.findings import source_of
from fxgrad.passes.rules import fxg002_program_raises
from fxgrad.records import Facts, Finding, Fix, NodeFact, ParameterFact, Site
from fxgrad.source.sites import is_user_code, line_of_error, site_of
from fxgrad.torch_api.internals import DisableTorchFunction
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Request
from fxgrad.trace.observer import Observer
from fxgrad.trace.slots import Slot

RAISES = (fxg002_program_raises.CODE, fxg002_program_raises.NAME)
_WORD = re.compile(r"(\w+)|\[([^\]]*)\]")


@dataclass(frozen=True)
class Death:
    """The error that ended a program. `model`: the models that took part as one tree, whose names are those
    of the facts."""

    error: BaseException
    facts: Facts
    context: Context
    observer: Observer
    optimizers: tuple[torch.optim.Optimizer, ...]
    name_of: Callable[[torch.Tensor], str | None]  # of a variable that holds a tensor
    found: tuple[Finding, ...] = ()  # by the rules

    @property
    def message(self) -> str:
        return str(self.error)

    @property
    def model(self) -> nn.Module:
        return self.context.model

    @property
    def ledger(self) -> Ledger:
        return self.observer.ledger

    @property
    def site(self) -> Site | None:
        """The innermost line of the user's own, before that of a library."""
        return line_of_error(self.error)

    def parameter_name(self, tensor: torch.Tensor) -> str | None:
        """What a tensor is called in the report, or by the variable that holds it."""
        named = self.model.named_parameters(remove_duplicate=False)
        return next((name for name, parameter in named if parameter is tensor), None) or self.name_of(tensor)

    def maker(self, tensor: torch.Tensor | None) -> NodeFact | None:
        """The step that made a tensor, as far as it has a line."""
        slot = self.ledger.tensors.get(tensor) if tensor is not None else None
        node = self.facts.maker_of.get(slot.value) if slot is not None else None
        return node if node is not None and node.site is not None else None


def finding(
    rule: tuple[str, str], message: str, site: Site | None, advice: str, parameters: tuple[str, ...] = ()
) -> Finding:
    """A finding at error level."""
    return Finding(*rule, "error", message, site, parameters, (), Fix(advice))


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


def raising_text(error: BaseException) -> tuple[str, dict[str, Any]]:
    """The expression that raised, as it is written in the user's innermost frame, and the variables there."""
    entry = next(iter(user_entries(error)), None)
    if entry is None:
        return "", {}
    frame = entry.tb_frame
    return source_of(site_of_entry(entry)), {**frame.f_globals, **frame.f_locals}


def look_up(expression: str, namespace: dict[str, Any]) -> Any:
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


# --------------------------------------------------------------------------------- causes, as for a parameter


def starved_findings(death: Death, slots: dict[str, Slot], request: Request) -> list[Finding]:
    """What the rules say of tensors that get no gradient of one output, as they say it of parameters that get
    none of the loss."""
    alone = _alone(death.facts, slots, request)
    names = frozenset(slots)
    context = replace(
        death.context,
        expected=names,
        explicit=True,
        verdicts=dict.fromkeys(names, "none"),
        causes=causes.analyse(alone),
        optimizer=None,
        held=None,
        watched=None,
        hazards=None,
        training=None,
        meeting=None,
        early=(),
    )
    found = [f for rule in RULES if rule.CODE.startswith("FXG1") for f in rule.check(alone, context)]
    return [f for f in found if f.severity == "error" and names.intersection(f.parameters)]


def _alone(facts: Facts, slots: dict[str, Slot], request: Request) -> Facts:
    """The facts of a program whose loss is the output of the request, and whose parameters are these."""
    known = {name: p for p in facts.parameters for name in p.names}
    # What was computed after the request has no part in its output.
    before = tuple(node for node in facts.nodes if int(node.name[1:]) <= request.note)
    read = {value for node in before for value in node.reads if node.target != "torch.autograd.grad"}
    return replace(
        facts,
        nodes=before,
        parameters=tuple(_starved(facts, name, slot, known.get(name), read) for name, slot in slots.items()),
        error=None,
        loss=request.outputs[0] if request.outputs else None,
        live=request.live | frozenset(request.outputs),
        loss_requires_grad=True,
    )


def _starved(
    facts: Facts, name: str, slot: Slot, known: ParameterFact | None, read: set[int]
) -> ParameterFact:
    if known is not None:
        values = tuple(value for value in known.values if value in read)
        return replace(known, gradient="none", requires_grad=True, values=values)
    values = tuple(value.id for value in facts.values if value.grad == -slot.leaf and value.id in read)
    tensor = slot()
    shape = tuple(tensor.shape) if tensor is not None else ()
    return ParameterFact(name, (name,), shape, True, "", "", True, values, "none")
