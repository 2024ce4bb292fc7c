"""Gradient errors that end a program: which exceptions they are, and findings for those that no rule on facts explains.

An error is read off the exception and its traceback. Errors that have nothing to do with gradients (shapes, files, names) are left to
Python's own traceback.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import Any

import torch

from fxgrad.passes.findings import line_of, source_of
from fxgrad.records import Facts, Finding, Fix, NodeFact, Phase, Raised, Site
from fxgrad.source.assigned import assigned_names, names_read, next_backward
from fxgrad.source.sites import is_user_code, site_of, traceback_sites
from fxgrad.torch_api.errors import NO_FLOATS, NO_PARAMETERS, NON_LEAF_FLAG, NON_LEAF_OPTIMIZED, NUMPY_OF_HISTORY, OF_GRADIENTS, says
from fxgrad.torch_api.internals import DisableTorchFunction
from fxgrad.trace.ledger import Ledger
from fxgrad.trace.notes import Backward
from fxgrad.trace.observer import Observer

_OF_NONE = re.compile(r"'NoneType' object (?:has no attribute|is not|does not)|unsupported operand type.*'NoneType'")
_NO_BACKWARD = re.compile(r"'([\w.]+)' object has no attribute 'backward'")
_GRADIENT = re.compile(r"([A-Za-z_][\w.\[\]'\"-]*)\.grad\b")
_ZEROING = re.compile(r"\.grad(\.data)?\.(zero_|fill_)\b")
# How torch names what a parameter is computed from: weight_norm, spectral_norm and pruning of old, parametrizations.
_PARTS = ("{}_g", "{}_v", "{}_orig", "parametrizations.{}.")
_FLAG = re.compile(r"([\w.\[\]'\"]+)\.requires_grad(?:_\b|\b)")
FROZEN = ("FXG102", "frozen-parameter")
_WORD = re.compile(r"(\w+)|\[([^\]]*)\]")


def is_gradient_error(error: BaseException) -> bool:
    """Whether the report can explain this error."""
    if _NO_BACKWARD.search(str(error)):
        return True
    if isinstance(error, AttributeError | TypeError) and _OF_NONE.search(str(error)):
        return _missing_gradient(error) is not None
    if not isinstance(error, RuntimeError | ValueError | TypeError | NotImplementedError):
        return False
    return says(str(error), *OF_GRADIENTS)


def number_as_loss(error: BaseException, observer: Observer) -> None:
    """`loss.backward()` of a Python number that was read off a tensor: that number is the loss, for all that lies behind it."""
    frame = _innermost(error.__traceback__)
    if frame is None or not _NO_BACKWARD.search(str(error)):
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
    failed = bool(observer.backwards and observer.backwards[-1].failed) or _NO_BACKWARD.search(str(error)) is not None
    phase: Phase = "backward" if failed else "forward"
    return Raised(phase, type(error).__name__, str(error), _own_line(stack), stack, None)


def explained(error: BaseException, facts: Facts, observer: Observer, told: Collection[int] = ()) -> Iterator[Finding]:
    """The findings that only the exception itself can give. `told`: ids of parameters whose missing gradient is explained already."""
    missing = _missing_gradient(error)
    site = _own_line(traceback_sites(error.__traceback__))
    text = str(error)
    if missing is not None:
        if id(missing[1]) not in told:
            yield from _none(missing, site, facts, observer)
    elif says(text, NON_LEAF_FLAG):
        yield _flagged(error, site)
    elif says(text, NON_LEAF_OPTIMIZED):
        yield _non_leaf(error, site, facts, observer.ledger)
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


def _none(missing: tuple[str, Any], site: Site | None, facts: Facts, observer: Observer) -> Iterator[Finding]:
    """`w.grad` is None, for one of five reasons."""
    name, tensor = missing
    if not isinstance(tensor, torch.Tensor):
        return
    slot = observer.ledger.tensors.get(tensor)
    if tensor.requires_grad and not tensor.is_leaf:
        yield _no_leaf(name, slot.value if slot is not None else -1, site, facts)
    elif not tensor.requires_grad:
        yield _finding(
            ("FXG102", "frozen-parameter"),
            f"`{name}.grad` is None: `{name}` does not require grad",
            site,
            f"make it a leaf that does: `{name}.requires_grad_()`",
        )
    elif not observer.backwards:
        yield _finding(
            ("FXG205", "step-before-backward"),
            f"`{name}.grad` is None: no backward has run yet",
            site,
            _after_backward(name, site),
        )
    elif slot is not None and not slot.after:
        yield _finding(
            ("FXG101", "unused-parameter"),
            f"`{name}.grad` is None: no backward so far went through `{name}`",
            site,
            "mend what keeps it from the loss (named beside this finding, if it was seen), or skip parameters without a gradient",
            (name,),
        )
    elif observer.cleared:
        cleared = site_of(observer.cleared[0])
        yield _finding(
            ("FXG205", "step-before-backward"),
            f"`{name}.grad` is None: it was dropped{line_of(cleared, site)} after the last backward",
            site,
            f"use the gradient before it is cleared: move this above{line_of(cleared, site)}",
        )


def _after_backward(name: str, site: Site | None) -> str:
    """What to do about a gradient that is asked for before the first backward."""
    if _ZEROING.search(source_of(site)):
        return f"guard the first time: `if {name}.grad is not None:`, or let an optimizer's `zero_grad()` do it"
    later = next_backward(site) if site is not None else None
    below = f"below `{source_of(later)}`{line_of(later, site)}" if later is not None else "below the backward of this step"
    return f"move this {below}: only then is there a gradient, and `zero_grad()` drops it again before the next"


def _no_leaf(name: str, value: int, site: Site | None, facts: Facts) -> Finding:
    """Of a tensor that an operation made, which never had a `.grad`: an update that lost the leaf, or a leaf made too early."""
    maker = facts.maker_of.get(value)
    made = maker.site if maker is not None else None
    text = source_of(made)
    what = f"`{text}` made" if text else "an operation made"
    if made is not None and any(read.endswith(".grad") or read == f"{name}.grad" for read in names_read(made)):
        return _finding(
            ("FXG111", "reassigned-parameter"),
            f"`{name}` is no leaf any more: {what} a new tensor, and backward leaves its gradient on the old one",
            made,
            f"update in place, with gradients off: `with torch.no_grad(): {name} -= lr * {name}.grad`; "
            f"or make a leaf of it again: `{name} = {name}.detach().requires_grad_()`",
        )
    leaf = _leaf_behind(facts, value)
    other = f"read `{leaf}.grad`, " if leaf and leaf != name else ""
    return _finding(
        ("FXG111", "reassigned-parameter"),
        f"`{name}` is no leaf: {what} it, and backward leaves gradients on leaves alone" + (f", here on `{leaf}`" if other else ""),
        made or site,
        f"{other}{'or ' if other else ''}make the leaf last, `{name} = {name}.detach().requires_grad_()` behind this line, "
        f"or call `{name}.retain_grad()` before the backward",
    )


def _leaf_behind(facts: Facts, value: int) -> str:
    """What the user calls the one leaf that a value was computed from, where a line of a script or function made it and nothing else was."""
    pending, seen, leaves = [value], {value}, set()
    while pending:
        current = pending.pop()
        node = facts.maker_of.get(current)
        if facts.values[current].is_leaf:
            leaves.add(current)
        for flow in node.flows if node is not None else ():
            if flow.open and flow.target == current and flow.source not in seen:
                seen.add(flow.source)
                pending.append(flow.source)
    makers = [facts.maker_of.get(leaf) for leaf in leaves]
    names = [names[0] for node in makers if node is not None and node.site is not None and (names := assigned_names(node.site))]
    return names[0] if len(leaves) == len(names) == 1 else ""


def _flagged(error: BaseException, site: Site | None) -> Finding:
    """`t.requires_grad = False` of a tensor that was computed: the flag of a result follows from what it was computed of."""
    frame = _innermost(error.__traceback__)
    text = source_of(site)
    match = _FLAG.search(text)
    name = match.group(1) if match is not None else text
    namespace = {**frame.tb_frame.f_globals, **frame.tb_frame.f_locals} if frame is not None else {}
    owner, _, attribute = name.rpartition(".")
    module = _look_up(owner, namespace) if owner else None
    prefixes = tuple(part.format(attribute) for part in _PARTS)
    parts = [part for part, _ in module.named_parameters() if part.startswith(prefixes)] if isinstance(module, torch.nn.Module) else []
    if parts:
        listed = " and ".join(f"`{owner}.{part}`" for part in parts)
        advice = "; ".join(f"`{owner}.{part}.requires_grad_(False)`" for part in parts)
        return _finding(
            FROZEN, f"`{name}` is computed anew in every forward, from {listed}: only those have the flag", site, f"freeze them: {advice}"
        )
    return _finding(
        FROZEN,
        f"`{name}` was computed from tensors that require grad, and so it does: only a leaf has a flag of its own",
        site,
        f"use `{name}.detach()` where no gradient is to go on, or freeze the parameters it is computed from",
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
    if not isinstance(error, AttributeError | TypeError) or not _OF_NONE.search(str(error)):
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
