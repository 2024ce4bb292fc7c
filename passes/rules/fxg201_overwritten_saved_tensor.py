"""An in-place operation overwrites a tensor that backward needs, or backward meets a graph that was already
freed.

What it finds
    A tensor that an operation saved for its backward (its input, its output, a weight) and that a later step
    changes in place: by an in-place method or operator, `x[...] = ...`, an `inplace=True` module, `out=`, a
    `_foreach_` call, through a view of it, or by updating a buffer. Torch compares version counters and
    refuses in backward, naming neither line; both are named here. Also a tensor kept from an earlier step
    with its graph, and an inner `backward()` that frees what the loss needs ("backward through the graph a
    second time"). In a watched script both backwards and the tensor where they met are named; and `detach_()`
    of a saved tensor, and an activation in place with a negative slope.

Why it matters
    Backward raises, often far from the line that must change.

Example
    h = torch.sigmoid(self.fc(x))
    h += x

Instead
    h = torch.sigmoid(self.fc(x))
    h = h + x

When the fix is safe
    Writing out of place is safe where nobody else relies on the changed tensor: views of it, a buffer, the
    caller's variable. Of a buffer that is updated in forward, use a copy (`self.codes.clone()`) or update it
    after backward.

Not handled
    Writes inside a checkpointed function, and saves that the user's own saved-tensor hooks replace. Where
    several writes follow one save, the first is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from fxgrad.passes.analyses.building_lines import building_site, module_run
from fxgrad.passes.analyses.cuts import GRAD
from fxgrad.passes.analyses.freed_graphs import Kept, Spender, computed_once, kept, needed, spender
from fxgrad.passes.analyses.overwrites import Overwrite, Save, overwrites
from fxgrad.passes.analyses.second_walk import Meeting
from fxgrad.passes.analyses.second_walk_remedies import message, remedy
from fxgrad.passes.context import Context
from fxgrad.passes.findings import expression, line_of, listed, shape, source_of, text_of
from fxgrad.records import Facts, Finding, Fix, NodeFact, Raised, Site, Step
from fxgrad.source.assigned import assigned_names, names_read
from fxgrad.source.objects import module_of
from fxgrad.source.out_of_place import augmented
from fxgrad.torch_api import registry
from fxgrad.torch_api.calls import ADDED_TO_GRAD
from fxgrad.torch_api.errors import OVERWRITTEN, SECOND_TIME, says

CODE = "FXG201"
NAME = "overwritten-saved-tensor"
SEVERITY = "error"
# Kinds of this rule's findings: a step of the run overwrites; what is kept from before the run still has its
# graph.
OVERWRITTEN_HERE, OLD_GRAPH = "overwritten", "old graph"

_ZEROES_GRADIENTS = re.compile(r"\.zero_grad\(|\.grad\.(data\.)?zero_\(")

LISTED = 4  # saves named in one message


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per overwriting line, naming both lines; else the tensor or the call that brought an old
    graph in."""
    error = facts.error
    if error is None:
        return
    if context.meeting is not None:
        yield _met_again(facts, context.meeting)
        return
    if says(error.message, SECOND_TIME):
        yield _second_time(facts, context, error)
        return
    if not says(error.message, OVERWRITTEN):
        return
    found = overwrites(context.hazards) if context.hazards is not None else ()
    for overwrite in found:
        if not overwrite.parameters:
            assert context.hazards is not None
            facts_then, saver = context.hazards, overwrite.saves[0].saver
            built = building_site(facts_then, context, overwrite.writer)
            # Of a watched operation inside a Sequential the line of the user's is the call of the whole: the
            # module's own says more, and where it is not found, its name.
            alone = saver.kind == "op" and len(overwrite.saves) == 1
            saver_built = building_site(facts_then, context, saver) if alone else None
            run = "" if built is not None else module_run(facts_then, context, overwrite.writer)
            saver_run = module_run(facts_then, context, saver) if alone and saver_built is None else ""
            layer = _writing_layer(context, overwrite.writer)
            yield _overwritten(overwrite, built, saver_built, run, saver_run, layer)
    if not found:
        yield _unseen(facts, context, error)


def _overwritten(
    overwrite: Overwrite, built: Site | None, saver_built: Site | None, run: str, saver_run: str, layer: str
) -> Finding:
    """`built`, `saver_built`: the lines that build the modules, where no line of the user's calls them by
    themselves; `run`, `saver_run`: what they are, where such a line is not found; `layer`: the name of the
    layer that writes, where one does."""
    writer, saves = overwrite.writer, overwrite.saves
    write = text_of(built) or expression(writer)
    by = run or f"`{write}`"
    site = built or writer.site
    if len(saves) == 1:
        saved = saves[0].saved
        message = (
            f"{by} overwrites the {shape(saved.shape)} tensor that "
            f"{saver_run or _saver(saves[0], site, saver_built)} saved for backward "
            f"(saved at version {saved.saved_version}, now {saved.found_version})"
        )
    else:
        named = "; ".join(
            (
                f"{shape(s.saved.shape)} by {_saver(s, site)}, version {s.saved.saved_version} then, "
                f"{s.saved.found_version} now"
            )
            for s in saves[:LISTED]
        )
        more = f"; and {len(saves) - LISTED} more" if len(saves) > LISTED else ""
        message = f"{by} overwrites {len(saves)} tensors saved for backward: {named}{more}"
    stations = tuple(Step(save.saver.target.rpartition(".")[2], save.saver.site) for save in saves[:LISTED])
    advice = "build this module with inplace=False" if built is not None or run else _advice(writer, layer)
    return replace(
        _finding(message, site, advice, (*stations, Step(write, site, True))),
        kind=OVERWRITTEN_HERE,
        step=writer.name,
    )


def _saver(save: Save, seen_from: Site | None, built: Site | None = None) -> str:
    node = save.saver
    if text_of(built):
        return f"`{text_of(built)}`{line_of(built, seen_from)}"
    kind = f" [{node.target}]" if node.kind == "module" else ""
    return f"`{expression(node)}`{kind}{line_of(node.site, seen_from)}"


def _writing_layer(context: Context, writer: NodeFact) -> str:
    """The name of the layer of torch's that was built to write in place, and did; "" for any other step."""
    module = dict(registry.named_modules(context.model)).get(writer.module) if writer.module else None
    own = module is not None and module_of(type(module)).startswith("torch.nn.modules.")
    return writer.module if own and getattr(module, "inplace", False) is True else ""


def _advice(writer: NodeFact, layer: str) -> str:
    if layer:
        return f"build `{layer}` with inplace=False"
    if writer.target == ADDED_TO_GRAD:
        return (
            "a backward adds to `.grad` in place: compute with a copy of it (`.grad.clone()`), or with what "
            "`torch.autograd.grad` returns"
        )
    text = source_of(writer.site)
    if _ZEROES_GRADIENTS.search(text):
        return "zero it after the backward that needs it, or compute with a copy (`.clone()`)"
    written = augmented(text)
    if written:
        return f"write out of place: `{written}`"
    if writer.kind == "module":
        return "build this module with inplace=False"
    if "inplace=True" in text.replace(" ", ""):
        return "drop `inplace=True`"
    name = text.partition("[")[0] if writer.target.endswith("__setitem__") else ""
    if name.isidentifier() and writer.grad_enabled:
        return f"write into a copy: `{name} = {name}.clone()` before this line"
    if not writer.grad_enabled:
        return "update after backward, or let the step before use a copy (`.clone()`)"
    return "write out of place: make a new tensor instead of changing this one"


def _met_again(facts: Facts, found: Meeting) -> Finding:
    """A watch knows both backwards and the tensor where they met."""
    site, advice = remedy(facts, found)
    taken_up = (found.reader,) if found.reader is not None else ()
    stations = (
        Step("loss", found.second.site),
        *(Step(node.target.rpartition(".")[2], node.site, True) for node in taken_up),
        Step(found.maker.target.rpartition(".")[2], found.maker.site),
    )
    return Finding(CODE, NAME, "error", message(found, site), site, (), stations, Fix(advice))


def _second_time(facts: Facts, context: Context, error: Raised) -> Finding:
    old = kept(facts)
    if old is not None:
        return _kept(facts, context, old, "that step's backward has freed it")
    spent = spender(facts)
    if spent is not None and spent.call.site != error.site:
        call, shared = spent.call, spent.shared
        again = (
            f"a second backward{line_of(error.site, call.site)}" if error.phase != "backward" else "the loss"
        )
        return _finding(
            f"`{expression(call)}` frees the graph of "
            f"`{expression(shared)}`{line_of(shared.site, call.site)}, which {again} goes through again",
            call.site,
            _spent_once(spent),
        )
    found = _finding(
        "backward goes a second time through a graph that it has freed",
        error.site,
        "compute the loss anew for every backward: a graph serves one",
    )
    return replace(found, kind=OLD_GRAPH)


def _spent_once(spent: Spender) -> str:
    """What mends it without stopping a parameter."""
    if spent.call.target == GRAD:
        keep = "create_graph=True" if spent.result_used else "retain_graph=True"
        why = (
            "its result is a part of the loss"
            if spent.result_used
            else "the loss has yet to go through the same graph"
        )
        return f"pass {keep} to this call: {why}"
    return (
        "add the two losses and go backward once; or detach, for this first loss alone, what the two "
        "share: the second one trains it"
    )


def _unseen(facts: Facts, context: Context, error: Raised) -> Finding:
    """No write of this run explains it: the saved tensor is older than the run, or torch's own words
    must do."""
    old = kept(facts)
    if old is not None:
        return _kept(facts, context, old, "what that graph saved (weights, mostly) has changed since")
    return _finding(
        "backward finds a tensor overwritten that it had saved: "
        f"{error.message.splitlines()[0].partition(': ')[2].partition('. Hint')[0]}",
        error.site,
        "look for an in-place operation (`+=`, `x[...] =`, a method ending in `_`) between forward and "
        "backward, and write out of place",
    )


def _kept(facts: Facts, context: Context, old: Kept, then: str) -> Finding:
    once = computed_once(context, old)
    if once is not None:
        found = _finding(
            f"{_held(old.name)} is computed once, in __init__, and its graph serves a single backward: "
            f"{then}",
            once,
            "compute it anew in every forward, from the parameters it comes from",
        )
    else:
        found = _finding(
            f"{_held(old.name)} still carries the graph of an earlier step, and {then}",
            old.reader.site,
            _kept_advice(facts, old),
        )
    return replace(found, kind=OLD_GRAPH)


def _kept_advice(facts: Facts, old: Kept) -> str:
    """A state is detached; what was computed for good is computed anew, where a parameter is trained through
    it alone or no module keeps it."""
    starving = needed(facts)
    if starving:
        return f"compute it anew in every step: {listed(starving)} can get a gradient through it alone"
    name = old.name or "h"
    line = old.reader.site
    carried = [one for one in assigned_names(line) if one in names_read(line)] if line is not None else []
    if carried and not old.name:
        return (
            f"detach what is kept between steps: `{carried[0]} = {carried[0]}.detach()` before this line, "
            "where it is a tensor"
        )
    if old.outside or not old.name:
        return (
            "compute it anew in every step, where it is used; only a state or a target is detached, "
            f"`{name} = {name}.detach()`"
        )
    return f"detach what is kept between steps, before it is used: `{name}.detach()` in place of `{name}`"


def _held(name: str) -> str:
    return f"`{name}`" if name else "a tensor kept from before"


def _finding(message: str, site: Site | None, advice: str, stations: tuple[Step, ...] = ()) -> Finding:
    return Finding(
        CODE, NAME, "error", message, site, (), (Step("loss"), *stations) if stations else (), Fix(advice)
    )
