"""Gradient errors that end a program: which exceptions they are, and findings for those that no rule on facts explains.

An error is read off the exception and its traceback. Errors that have nothing to do with gradients (shapes, files, names) are left to
Python's own traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch

from fxgrad.passes.findings import source_of
from fxgrad.records import Facts, Finding, Fix, NodeFact, Phase, Raised, Site
from fxgrad.source.sites import is_user_code, site_of, traceback_sites
from fxgrad.torch_api.errors import NO_FLOATS, NO_PARAMETERS, NON_LEAF_OPTIMIZED, NONE, NOT_A_LOSS, NUMPY_OF_HISTORY, says
from fxgrad.torch_api.explanations import OF_GRADIENTS
from fxgrad.torch_api.internals import DisableTorchFunction
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Backward
from fxgrad.trace.observer import Observer

_GRADIENT = re.compile(r"([A-Za-z_][\w.\[\]'\"-]*)\.grad\b")
_WORD = re.compile(r"(\w+)|\[([^\]]*)\]")


def is_gradient_error(error: BaseException) -> bool:
    """Whether the report can explain this error."""
    if says(str(error), NOT_A_LOSS):
        return True
    if isinstance(error, AttributeError | TypeError) and says(str(error), NONE):
        return _missing_gradient(error) is not None
    if not isinstance(error, RuntimeError | ValueError | TypeError | NotImplementedError):
        return False
    return says(str(error), *OF_GRADIENTS)


def number_as_loss(error: BaseException, observer: Observer) -> None:
    """`loss.backward()` of a Python number that was read off a tensor: that number is the loss, for all that lies behind it."""
    frame = _innermost(error.__traceback__)
    if frame is None or not says(str(error), NOT_A_LOSS):
        return
    text = source_of(site_of((frame.tb_frame.f_code, frame.tb_lasti)))
    found = _look_up(text.partition(".backward")[0], {**frame.tb_frame.f_globals, **frame.tb_frame.f_locals})
    value = observer.value_of_number(found)
    if value is None and "'float'" in str(error):
        value = observer.last_number()  # an expression that cannot be looked up: `loss_of(out).backward()`
    if value is not None:
        spots = ((frame.tb_frame.f_code, frame.tb_lasti),)
        observer.backwards.append(Backward(observer.ledger.count, spots, (value,), failed=True))


def raised(error: BaseException, observer: Observer) -> Raised | None:
    """The error as a record; None for a `.grad` that is None: the program went on past every backward, so nothing is blocked."""
    if _missing_gradient(error) is not None:
        return None
    stack = traceback_sites(error.__traceback__)
    failed = bool(observer.backwards and observer.backwards[-1].failed) or says(str(error), NOT_A_LOSS)
    phase: Phase = "backward" if failed else "forward"
    return Raised(phase, type(error).__name__, str(error), _own_line(stack), stack, None)


def explained(error: BaseException, facts: Facts, ledger: Ledger) -> Iterator[Finding]:
    """The findings that only the exception itself can give."""
    missing = _missing_gradient(error)
    site = _own_line(traceback_sites(error.__traceback__))
    text = str(error)
    if missing is not None:
        yield from _none(missing, site, facts, ledger)
    elif says(text, NON_LEAF_OPTIMIZED):
        yield _non_leaf(error, site, facts, ledger)
    elif says(text, NO_PARAMETERS):
        yield _finding(
            ("FXG301", "optimizer-misses-parameter"),
            "the optimizer is given no parameters: the module has none, or a generator (`model.parameters()`) was used up before",
            site,
            "register layers as attributes or in nn.ModuleList, and call `model.parameters()` anew for every use",
        )
    elif says(text, NO_FLOATS):
        yield _finding(
            ("FXG106", "integer-cast"),
            "a tensor of integers is asked for a gradient: it has no direction to go in",
            site,
            "make it of floats: `torch.tensor([1.0, 2.0])`, or `dtype=torch.float32`",
        )
    elif says(text, NUMPY_OF_HISTORY):
        yield _finding(
            ("FXG107", "left-torch"),
            "a tensor with a history is handed to NumPy, which would lose its gradient",
            site,
            "for a log or a plot write `.detach().numpy()`; on the way to the loss stay in torch",
        )


def _own_line(stack: tuple[Site, ...]) -> Site | None:
    """The innermost line of the user's own, before that of a library."""
    return next((s for s in stack if "site-packages" not in s.file), stack[0] if stack else None)


def _none(missing: tuple[str, Any], site: Site | None, facts: Facts, ledger: Ledger) -> Iterator[Finding]:
    """`w.grad` is None, for one of four reasons."""
    name, tensor = missing
    backward = [node for node in facts.nodes if node.target == "Tensor.backward"]
    if not isinstance(tensor, torch.Tensor):
        return
    slot = ledger.tensors.get(tensor)
    if tensor.requires_grad and not tensor.is_leaf:
        made = _made(facts, slot.value, None) if slot is not None else None
        text = source_of(made)
        yield _finding(
            ("FXG111", "reassigned-parameter"),
            f"`{name}` is no leaf any more: {f'`{text}` made' if text else 'an operation made'} a new tensor, and backward leaves "
            "its gradient on the old one",
            made or site,
            f"update in place, with gradients off: `with torch.no_grad(): {name} -= lr * {name}.grad`",
        )
    elif not tensor.requires_grad:
        yield _finding(
            ("FXG102", "frozen-parameter"),
            f"`{name}.grad` is None: `{name}` does not require grad",
            site,
            f"make it a leaf that does: `{name}.requires_grad_()`",
        )
    elif not backward:
        yield _finding(
            ("FXG205", "step-before-backward"),
            f"`{name}.grad` is None: no backward has run yet",
            site,
            f"guard the first time: `if {name}.grad is not None:`, or let an optimizer's `zero_grad()` do it",
        )
    elif slot is not None and not slot.after:
        yield _finding(
            ("FXG101", "unused-parameter"),
            f"`{name}.grad` is None: no backward so far went through `{name}`",
            site,
            "mend what keeps it from the loss (named beside this finding, if it was seen), or skip parameters without a gradient",
            (name,),
        )


def _non_leaf(error: BaseException, site: Site | None, facts: Facts, ledger: Ledger) -> Finding:
    tensor = _local(error, "param")
    slot = ledger.tensors.get(tensor) if isinstance(tensor, torch.Tensor) else None
    made = _made(facts, slot.value, None) if slot is not None else None
    text = source_of(made)
    return _finding(
        ("FXG302", "optimizer-stale-parameter"),
        f"the optimizer is given what {f'`{text}`' if text else 'an operation'} computed, no leaf: the gradient goes to what it came from",
        made or site,
        "compute first, then make the leaf: `(0.1 * torch.randn(3)).requires_grad_()`",
    )


def _made(facts: Facts, value: int, otherwise: Site | None) -> Site | None:
    node: NodeFact | None = next((n for n in facts.nodes if value in n.makes and n.site is not None), None)
    return node.site if node is not None else otherwise


def _missing_gradient(error: BaseException) -> tuple[str, Any] | None:
    """The expression `t` and the tensor of a `t.grad` that was None where this error was raised."""
    if not isinstance(error, AttributeError | TypeError) or not says(str(error), NONE):
        return None
    frame = _innermost(error.__traceback__)
    if frame is None:
        return None
    text = source_of(site_of((frame.tb_frame.f_code, frame.tb_lasti)))
    for match in _GRADIENT.finditer(text):
        found = _look_up(match.group(1), {**frame.tb_frame.f_globals, **frame.tb_frame.f_locals})
        if isinstance(found, torch.Tensor) and _grad_of(found) is None:
            return match.group(1), found
    return None


def _grad_of(tensor: torch.Tensor) -> torch.Tensor | None:
    import warnings

    with DisableTorchFunction(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns at a look at the gradient of a tensor that is no leaf
        return tensor.grad


def _look_up(expression: str, namespace: dict[str, Any]) -> Any:
    """A dotted name with constant subscripts, by attributes and plain containers alone: nothing of the user's is run."""
    first, *rest = _WORD.findall(expression) or [("", "")]
    found: Any = namespace.get(first[0])
    for name, index in rest:
        key = index.strip("'\"")
        if isinstance(found, torch.nn.Module):
            found = {**found._modules, **found._parameters, **found._buffers, **vars(found)}.get(name or key)
        elif name:
            found = getattr(found, "__dict__", {}).get(name)
        elif type(found) in (list, tuple) and key.lstrip("-").isdigit() and -len(found) <= int(key) < len(found):
            found = found[int(key)]
        else:
            found = found.get(key) if type(found) is dict else None
    return found


def _innermost(traceback: TracebackType | None) -> TracebackType | None:
    last = None
    while traceback is not None:
        if is_user_code(traceback.tb_frame.f_code.co_filename):
            last = traceback
        traceback = traceback.tb_next
    return last


def _local(error: BaseException, name: str) -> Any:
    """A variable of the innermost frame that has it."""
    traceback, found = error.__traceback__, None
    while traceback is not None:
        found = traceback.tb_frame.f_locals.get(name, found)
        traceback = traceback.tb_next
    return found


def _finding(rule: tuple[str, str], message: str, site: Site | None, advice: str, parameters: tuple[str, ...] = ()) -> Finding:
    return Finding(*rule, "error", message, site, parameters, (), Fix(advice))
