"""A plain tensor takes part in the computation like a weight, and `parameters()` does not list it.

What it finds
    A tensor kept on a module, alone or in a list or dict, that is no registered Parameter and
    - requires grad and gets a gradient (an error): `torch.randn(4, requires_grad=True)`, `nn.Parameter(...) *
      0.1`, a plain list of Parameters, a buffer that requires grad, what the constructor computed from a
      registered Parameter; or
    - is drawn at random where it is built and is the operand of a matrix product, a convolution or an
      embedding on a way to the loss (a warning). A mask, a positional table, a constant, an index, random
      frequencies under sine and cosine are none of these.
    Also an `nn.Parameter(...)` made anew in every forward (a warning).

Why it matters
    `model.parameters()` does not list it: no optimizer changes it, `model.to(device)` leaves it behind, the
    state dict forgets it.

Example
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8)) * 0.1  # FXG109: a product is no Parameter

Instead
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8) * 0.1)

When the fix is safe
    Putting the whole expression inside nn.Parameter changes no value. What must not train belongs in
    `register_buffer`. The optimizer must be built after.

Not handled
    Weights drawn by a function of another file, and tensors reached only through globals of other modules.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fxgrad.passes.analyses.made_in_forward import made_in_forward
from fxgrad.passes.analyses.unregistered import (
    by_line,
    holders,
    in_layer,
    is_optimized,
    is_state,
    looks_like_weight,
    qualified,
    tensor_of,
)
from fxgrad.passes.context import Context
from fxgrad.passes.findings import subject
from fxgrad.records import External, Facts, Finding, Fix, Severity, Site, Step
from fxgrad.source import attribute_site, attribute_sites
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import SECOND_TIME, says
from fxgrad.torch_api.internals import storage_key
from fxgrad.world.private import leaves_behind

CODE = "FXG109"
NAME = "unregistered-tensor"
SEVERITY = "error"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per attribute, and one per line that makes a Parameter during the forward."""
    yield from _attributes(facts, context)
    yield from _buffers(facts, context)
    for made in made_in_forward(facts, directly=True):
        yield Finding(
            CODE,
            NAME,
            "warning",
            "a Parameter is made anew in every forward: no optimizer holds it, and nothing it learns would "
            "last",
            made.site,
            (),
            (Step("loss"), Step("Parameter", made.site, True)),
            Fix("make it once, in __init__, as an attribute of the module"),
        )


def _attributes(facts: Facts, context: Context) -> Iterator[Finding]:
    levels: dict[int, Severity] = {}
    for external in facts.externals:
        level = _level(facts, context, external) if _is_asked_of(context, external) else None
        if level is not None:
            levels[external.value] = level
    for site, members in by_line(context, (e for e in facts.externals if e.value in levels)):
        sources = [_registered_behind(context, tensor_of(context, external)) for external in members]
        if all(sources):
            names = tuple(dict.fromkeys(name for group in sources for name in group))
            yield _computed_once(holders(members), qualified(members[0]), site, names)
            continue
        level = "error" if any(levels[e.value] == "error" for e in members) else "warning"
        yield _finding(level, site, members)


def _is_asked_of(context: Context, external: External) -> bool:
    """Whether it is a module's own, could be a weight, and no optimizer holds it."""
    own = external.owner is not None and external.floating and not in_layer(external)
    return own and not is_optimized(context, external)


def _buffers(facts: Facts, context: Context) -> Iterator[Finding]:
    """Registered buffers that require grad: an optimizer is given parameters(), and that lists no buffers."""
    buffers = dict(registry.named_buffers(context.model, remove_duplicate=False))
    groups = getattr(context.optimizer, "param_groups", None) or ()
    held = {id(p) for group in groups for p in group.get("params", ())}
    for node in facts.nodes:
        tensor = buffers.get(node.target) if node.kind == "attribute" else None
        if tensor is None or id(tensor) in held or not tensor.requires_grad:
            continue
        if facts.live.isdisjoint(node.makes):
            continue
        if tensor.is_leaf:
            yield _trained_buffer(context, node.target)
        elif not _is_spent(facts):
            yield from _buffer_computed_once(context, node.target, tensor)


def _trained_buffer(context: Context, buffer: str) -> Finding:
    owner, _, name = buffer.rpartition(".")
    return Finding(
        CODE,
        NAME,
        "error",
        f"`{buffer}` gets a gradient, but is a buffer: parameters() does not list it, so "
        "no optimizer sees it",
        attribute_site(context.model.get_submodule(owner), name, context.files),
        (buffer,),
        (Step("loss"), Step(buffer)),
        Fix("make it an nn.Parameter; a buffer is for what must not train"),
    )


def _buffer_computed_once(context: Context, buffer: str, tensor: torch.Tensor) -> Iterator[Finding]:
    owner, _, name = buffer.rpartition(".")
    sites = attribute_sites(context.model.get_submodule(owner), name, context.files)
    sources = _registered_behind(context, tensor)
    once = sites and all(site.function.endswith("__init__") for site in sites)
    if sources and once and not _is_view_of_registered(context, tensor):
        yield _computed_once(f"`{buffer}`", buffer, sites[0], sources)


def _registered_behind(context: Context, tensor: object) -> tuple[str, ...]:
    """The registered parameters that a tensor was computed from."""
    if not isinstance(tensor, torch.Tensor) or tensor.is_leaf:
        return ()
    behind = {id(leaf) for leaf in leaves_behind([tensor])}
    return tuple(
        n for n, p in registry.named_parameters(context.model, remove_duplicate=False) if id(p) in behind
    )


def _computed_once(holds: str, name: str, site: Site | None, sources: tuple[str, ...]) -> Finding:
    """Of what the constructor computed from parameters and nothing computes again: it keeps their first
    values."""
    return Finding(
        CODE,
        NAME,
        "error",
        f"{holds} was computed once, from {subject(sources)}: a step changes the parameter, and {holds} "
        "keeps what it was made of",
        site,
        sources,
        (Step("loss"), Step(name, site, True), Step(sources[0])),
        Fix("compute it in forward from the parameter; `.detach()` it where it must not follow"),
    )


def _level(facts: Facts, context: Context, external: External) -> Severity | None:
    """An error where it requires grad and reaches the loss; a warning where it only looks like a weight."""
    if external.requires_grad:
        if not external.is_leaf and (is_state(context, external) or _is_spent(facts)):
            return None
        if not external.is_leaf and _is_view_of_registered(context, tensor_of(context, external)):
            return None
        return "error" if external.value in facts.live else None
    return "warning" if looks_like_weight(facts, context, external) else None


def _is_view_of_registered(context: Context, tensor: object) -> bool:
    """Whether it has the memory of a registered parameter (`self.w = self.flat[:16]`): it changes with it."""
    if not isinstance(tensor, torch.Tensor):
        return False
    return storage_key(tensor) in {storage_key(parameter) for parameter in registry.parameters(context.model)}


def _is_spent(facts: Facts) -> bool:
    """Whether backward failed on a graph from before the run: that is FXG201's."""
    return facts.error is not None and says(facts.error.message, SECOND_TIME)


def _finding(level: Severity, site: Site | None, members: list[External]) -> Finding:
    first = members[0]
    names = tuple(dict.fromkeys(qualified(e) for e in members))
    if not first.requires_grad:
        why = "is drawn at random and used like a weight, but is no Parameter: it never changes"
    elif first.is_parameter:
        why = (
            "holds Parameters where nn.Module does not look: parameters() does not list them, so no "
            "optimizer sees them"
        )
    elif first.is_leaf:
        why = "gets a gradient, but is a plain tensor: parameters() does not list it, so no optimizer sees it"
    else:
        why = (
            "was computed from a Parameter: the result is a plain tensor that parameters() does not list, "
            "and no leaf, so it has no .grad"
        )
    return Finding(
        CODE,
        NAME,
        level,
        f"{holders(members)} {why}",
        site,
        names,
        (Step("loss"), Step(names[0])),
        Fix(
            "make an nn.ParameterList or nn.ParameterDict of them"
            if "[" in first.path
            else (
                "put the whole expression inside nn.Parameter(...), or register it with register_buffer if "
                "it must not train"
            )
        ),
    )
