"""A derivative that is not recorded, does not exist or is no number: the line of the operation, not that of
the backward."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import FrameType

from torch import nn

from fxgrad.passes.analyses.death.record import Death, frames, site_of_entry, user_entries
from fxgrad.passes.ended import Cause
from fxgrad.passes.findings import line_of, said
from fxgrad.records import NodeFact, Site
from fxgrad.source import attribute_site, no_grad_site
from fxgrad.source.parsing import load, nodes
from fxgrad.source.sites import is_user_code
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import NEGATIVE_SLOPE, nan_function
from fxgrad.torch_api.explanations import EXPLANATIONS, explanation_of


def nothing_recorded(death: Death) -> Iterator[Cause]:
    """A gradient is asked for where nothing is recorded: in the forward of a Function, or under `no_grad`."""
    function = _function_around(death)
    if function is not None and death.site is not None:
        name, applied = function
        yield Cause(
            f"nothing is recorded here: the forward of `{name}`, an "
            f"autograd.Function{line_of(applied, death.site)}, runs with gradients off",
            death.site,
            "compute what is differentiated inside `with torch.enable_grad():`, from `x = "
            "x.detach().requires_grad_()`",
        )
        return
    request = next((r for r in reversed(death.ended.requests) if not r.missing), None)
    if request is None or request.grad or death.site is None:
        return
    if any(f.code == "FXG104" and f.severity == "error" for f in death.found):
        return  # the same region, found by the parameters that it starves
    sites = map(site_of_entry, user_entries(death.error))
    off = next((around for around in map(no_grad_site, sites) if around is not None), None)
    yield Cause(
        f"a gradient is asked for{line_of(death.site, off)} where gradients are off: nothing of it is "
        "recorded",
        off or death.site,
        "take it out of the block, or write `with torch.enable_grad():` around what is differentiated",
    )


def _function_around(death: Death) -> tuple[str, Site | None] | None:
    """The `autograd.Function` whose forward runs: its class's name, and its line. None where its text
    switches gradients on inside."""
    found: tuple[str, Site | None] | None = None
    outer: FrameType | None = None
    for entry in user_entries(death.error)[::-1]:
        frame, site = entry.tb_frame, site_of_entry(entry)
        if (
            outer is not None
            and frame.f_code.co_name == "forward"
            and _applies(_between(death, outer, frame))
        ):
            found = frame.f_code.co_qualname.rpartition(".")[0].rpartition(".<locals>.")[2], site
        if found is not None and _switched_on(site):
            found = None
        outer = frame
    return found


def _applies(between: list[FrameType]) -> bool:
    return any(
        frame.f_code.co_name == "apply" and not is_user_code(frame.f_code.co_filename) for frame in between
    )


def _switched_on(site: Site) -> bool:
    """Whether a `with torch.enable_grad():` is written around a line."""
    source = load(site.file)
    around = [node for node in nodes(source, ast.With) if node.lineno <= site.line <= (node.end_lineno or 0)]
    return any("enable_grad" in ast.unparse(item.context_expr) for node in around for item in node.items)


def _between(death: Death, outer: FrameType, inner: FrameType) -> list[FrameType]:
    chain = list(frames(death.error))
    return chain[chain.index(outer) + 1 : chain.index(inner)]


def nan(death: Death) -> Iterator[Cause]:
    """Anomaly detection names the autograd node: the call that made it."""
    function, entry = nan_function(death.message), explanation_of(death.message)
    node = _made_by(death, function) if function is not None else None
    if node is None or entry is None:
        return
    yield Cause(
        f"the derivative of {said(node)} is NaN: its argument lies where it has none, or what comes back to "
        "it is infinite",
        node.site,
        entry.remedy,
    )


def detached(death: Death) -> Iterator[Cause]:
    """A saved tensor was detached in place: that call."""
    node = next(
        (
            node
            for node in reversed(death.facts.nodes)
            if node.target == "Tensor.detach_" and node.site is not None
        ),
        None,
    )
    if node is not None:
        yield Cause(
            f"{said(node)} cuts off in place a tensor that an earlier step saved for backward",
            node.site,
            "use `detach()`, which returns a new tensor, instead of `detach_()`",
        )


def negative_slope(death: Death) -> Iterator[Cause]:
    """An activation in place with a negative slope: where the slope is given."""
    for node in reversed(death.facts.nodes):
        if node.writes and not death.facts.live.isdisjoint(node.makes):
            module = dict(registry.named_modules(death.model)).get(node.module)
            given = _negative(node, module)
            if given is not None:
                yield _of_slope(death, node, *given)
                return


def _negative(node: NodeFact, module: nn.Module | None) -> tuple[float, bool] | None:
    """The negative slope of a step, and whether a module that works in place was built with it."""
    slopes = [getattr(module, name, None) for name in ("negative_slope", "alpha", "lower")]
    of_module = [slope for slope in slopes if isinstance(slope, float)]
    in_place = bool(of_module) and getattr(module, "inplace", False)
    numbers = of_module if in_place else [c for c in node.constants if isinstance(c, float)]
    slope = next((number for number in numbers if number < 0), None)
    return (slope, bool(of_module)) if slope is not None else None


def _of_slope(death: Death, node: NodeFact, slope: float, is_built_in: bool) -> Cause:
    entry = next(entry for entry in EXPLANATIONS if entry.kind is NEGATIVE_SLOPE)
    outer, _, name = node.module.rpartition(".")
    holder = dict(registry.named_modules(death.model)).get(outer) if is_built_in and name else None
    built = attribute_site(holder, name, death.context.files) if holder is not None else None
    return Cause(
        f"the slope {slope} is negative, and "
        f"{said(node)}{line_of(node.site, built) if built is not None else ''} overwrites its argument: "
        "backward cannot tell from the result on which side it was",
        built or node.site,
        entry.remedy,
    )


def _made_by(death: Death, function: str) -> NodeFact | None:
    """The last step on the way of the failing backward whose result has that autograd node."""
    values, live = death.facts.values, death.facts.live
    found = None
    for node in death.facts.nodes:
        if node.site is not None and any(values[v].function == function and v in live for v in node.makes):
            found = node
    return found
