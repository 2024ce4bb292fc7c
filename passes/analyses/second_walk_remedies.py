"""What to do where a backward meets a graph that another has freed, worded by the kind of the meeting.

No remedy is given that would only move the error or hide it: a detach only of what the loss does not have to
train, `retain_graph=True` only where the second walk is of the same step, with no update between.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from fxgrad.passes.analyses.second_walk import (
    Kind,
    Meeting,
    built_at,
    called,
    in_function_of,
    not_for,
    owners,
    shared_line,
)
from fxgrad.passes.findings import LONGEST, line_of, listed, source_of
from fxgrad.records import Facts, NodeFact, Site
from fxgrad.records.training import Walk
from fxgrad.source.assigned import (
    added_to,
    assigned_names,
    block_around,
    call_on,
    differentiated,
    is_display,
    loop_between,
    names_read,
    receiver,
    with_detached,
)
from fxgrad.source.parsing import load

Remedy = tuple[Site | None, str]  # the line to mend, and how


def remedy(facts: Facts, found: Meeting) -> Remedy:
    """The line to mend, and how, by the kind of the meeting."""
    return REMEDIES[found.kind](facts, found)


def message(found: Meeting, site: Site | None) -> str:
    """What happened, as seen from the line to mend."""
    first, second = _quoted(found.first.site), _quoted(found.second.site)
    made = built_at(found.maker, found.second.stack) or found.here
    what = f"{_named(found)} ({_at(made, site)})"
    if found.first.stack == found.second.stack:
        return (
            f"{first}{line_of(found.first.site, site)} frees the graph of {what}, and goes through it "
            "again the next time it runs"
        )
    reads = found.reader.site if found.reader is not None else None
    through = f", which line {reads.line} takes up" if reads is not None and reads.line != made.line else ""
    return (
        f"{first}{line_of(found.first.site, site)} has freed the graph of {what}, and "
        f"{second}{line_of(found.second.site, site)} goes through it again{through}"
    )


def _closure(facts: Facts, found: Meeting) -> Remedy:
    function = found.second.stack[0].function.rpartition(".")[2]
    again = f"compute {_named(found)} inside `{function}`: the optimizer calls that several times a step"
    return found.here, _as_constant(found, again) or f"{again}, and each backward needs a graph of its own"


def _built(facts: Facts, found: Meeting) -> Remedy:
    made: dict[int, Site] = {}
    for note in (*found.met.spent, found.met.maker):
        node = facts.node_named.get(f"n{note}")
        site = built_at(node, found.second.stack) if node is not None else None
        if site is not None:
            made[site.line] = site
    sites = [made[line] for line in sorted(made)]
    what = listed(name for site in sites for name in assigned_names(site)) or "it"
    advice = (
        f"make {what} anew in forward, from the parameters: move this computation out of `__init__`, so "
        "that every step has a graph of its own"
    )
    return sites[0], f"{advice}; or, if it is a constant for this loss: detach it here" if _as_constant(
        found, ""
    ) else advice


def _as_constant(found: Meeting, otherwise: str) -> str:
    """The remedy where no parameter needs the gradient that comes back through the tensor: it may be meant as
    a constant."""
    if found.reader is None or found.once or not found.met.leaves:
        return ""
    made = _short(found.maker.site)
    cut = f"`{found.name} = {found.name}.detach()`" if found.name else f"`{made}.detach()`"
    return (
        f"if it is a constant for this loss (a target, an old policy): detach it where it is made, {cut}; "
        f"else {otherwise}"
    )


def _state(facts: Facts, found: Meeting) -> Remedy:
    name, reader = found.name, found.reader
    site = reader.site if reader is not None else found.maker.site
    cache = _cache(found)
    if cache is not None:
        return (
            cache,
            f"enter `{_short(cache)}` anew in each step, inside the loop: the weight that it keeps has the "
            "graph of the step that computed it",
        )
    term = added_to(site, name) if site is not None and name else ""
    if term and _reruns(facts, found) > 1:
        after = line_of(found.second.site, site)
        return (
            site,
            f"begin a new sum after every backward: put `{name} = 0.0` behind it{after}, and keep what is "
            "logged as a number",
        )
    if term:
        return (
            site,
            f"go backward on this step's term alone, `{term}.backward()`, and keep the sum as a number: "
            f"`{name} += {term}.item()`",
        )
    initial, loop = _initial(facts, found) if found.once else (None, None)
    if initial is not None:
        return (
            site,
            f"begin every step from the initial value: move `{_short(initial)}`{line_of(initial, site)} into "
            f"the loop{line_of(loop, site)}",
        )
    return site, f"detach what is kept from one step to the next: {_cut(facts, found, site)}"


def _cache(found: Meeting) -> Site | None:
    """The `parametrize.cached()` that keeps what was made, where a parametrization made it."""
    site = found.second.site
    is_computed = "parametrizations" in found.maker.module.split(".")
    return block_around(site, "cached") if is_computed and site is not None else None


def _reruns(facts: Facts, found: Meeting) -> int:
    """How often the line that made it ran between the two walks."""
    first, second = found.first.note, found.second.note
    return sum(first < int(node.name[1:]) < second for node in facts.nodes if node.stack == found.maker.stack)


def _cut(facts: Facts, found: Meeting, site: Site | None) -> str:
    """Where to detach: in the function that goes backward, after it; else where the function that keeps it
    begins; else where it is stored."""
    reads = found.reader.stack if found.reader is not None else ()
    rebound = _is_rebound(facts, found)
    for frame in () if rebound else found.maker.stack[::-1]:
        advice = _cut_in(frame, found, site)
        if advice:
            return advice
    if found.name and (rebound or not any(found.name in names_read(reading) for reading in reads[:1])):
        return f"store `{found.name}.detach()` where `{found.name}` is kept for later steps"
    name = found.name or (receiver(site) if site is not None else "")
    if not name:
        return "this line takes it up: let it take a detached one"
    return f"write `{name}.detach()` for `{name}` here"


def _is_rebound(facts: Facts, found: Meeting) -> bool:
    """Whether the line that made it has run again before it is read: its name is another tensor's by then."""
    if found.reader is None:
        return False
    numbers = [int(node.name[1:]) for node in facts.nodes if node.stack == found.maker.stack]
    return any(found.met.maker < number < int(found.reader.name[1:]) for number in numbers)


def _cut_in(frame: Site, found: Meeting, site: Site | None) -> str:
    """Where to detach in one of the functions that the maker ran in; "" where what the function assigns it to
    is not what it reads."""
    reading = in_function_of(found.reader.stack, frame) if found.reader is not None else None
    names = assigned_names(frame)
    kept = [name for name in names if reading is not None and name in names_read(reading)]
    if not kept:
        return ""
    if found.maker.target.endswith("__setitem__"):  # a part of one tensor was written: all of it is kept
        kept = list(dict.fromkeys(one.partition("[")[0] for one in kept))
    name = ", ".join(kept)
    cut = f"`{name} = {', '.join(f'{one}.detach()' for one in kept)}`"
    if is_display(frame) or _is_container(found, names, name):
        cut = f"`{name} = tuple(part.detach() for part in {name})`"
    place = in_function_of(found.second.stack, frame)
    if place is not None and place.line != frame.line:
        return f"put {cut} after the backward{line_of(place, site)}"
    guard = f"`if {name} is not None:` " if _is_none_at_first(frame, name) else ""
    again = _entered_again(frame, site, goes_backward=place is not None)
    return f"put {guard}{cut} at the top of {again}, before it is used"


def _entered_again(frame: Site, site: Site | None, *, goes_backward: bool) -> str:
    """What begins anew before a line reads what it kept: where the line goes forward and backward, it is the
    loop around it; else its function is called again."""
    loop = loop_between(frame, None) if goes_backward else None
    return f"the loop{line_of(loop, site)}" if loop is not None else f"`{frame.function.rpartition('.')[2]}`"


def _once(facts: Facts, found: Meeting) -> Remedy:
    if found.loop is None:
        return (
            found.maker.site,
            f"compute {_named(found)} in every step: what is kept from the first serves a single backward",
        )
    lines = _outside(facts, found)
    which = (
        f"`{_short(lines[0])}` (line {lines[0].line})"
        if len(lines) == 1
        else f"lines {lines[0].line} to {lines[-1].line}"
    )
    advice = (
        f"move {which} into the loop{line_of(found.loop, lines[0])}, so that every backward has a graph "
        "of its own"
    )
    constant = _as_constant(found, advice)
    if constant:
        return found.here, constant
    if found.stepped is None and found.reader is not None and not found.changed:
        advice += "; or add the losses in the loop and go backward once, after it"
    return lines[0], advice


def _looked_at(facts: Facts, found: Meeting) -> Remedy:
    keep = "create_graph=True" if _is_used(facts, found) else "retain_graph=True"
    why = (
        "its result is a part of the loss"
        if keep.startswith("create")
        else "the loss has yet to go through the same graph"
    )
    return found.first.site, f"pass {keep} to this call: {why}"


def _same(facts: Facts, found: Meeting) -> Remedy:
    first, second = found.first, found.second
    name = _named(found)
    if found.changed:
        between = (
            f"the step{line_of(found.stepped, second.site)}" if found.stepped is not None else "the update"
        )
        return (
            second.site,
            f"compute {name} again, from the parameters as {between} left them, before this backward",
        )
    if second.partial:
        return (
            second.site,
            f"move this above{line_of(first.site, second.site)} and pass retain_graph=True: that backward "
            "then comes last",
        )
    if found.met.reader < 0:
        return (
            second.site,
            f"drop this backward: what it would add is in `.grad` already; for a second step compute {name} "
            "again first",
        )
    return (
        first.site,
        f"drop this backward: the one{line_of(second.site, first.site)} goes through {name} as well",
    )


def _together(facts: Facts, found: Meeting) -> Remedy:
    first, second = (differentiated(walk.stack[0]) for walk in (found.first, found.second))
    site = (
        found.reader.site
        if found.reader is not None and int(found.reader.name[1:]) > found.first.note
        else found.second.site
    )
    if found.first.stack == found.second.stack:
        return (
            site,
            "add the losses and go backward once, `sum(losses).backward()`, in place of one backward for "
            "each",
        )
    added = f": `({first} + {second}).backward()`" if first and second and "," not in first + second else ""
    if found.first.partial or found.second.partial:
        return site, f"compute {_named(found)} again for the second loss"
    if found.stepped is None:
        return site, f"add the two losses and go backward once{added}"
    after = line_of(found.stepped, site)
    return (
        site,
        f"compute {_named(found)} again after the step{after}, or add the two losses and go backward once, "
        f"before that step{added}",
    )


def _apart(facts: Facts, found: Meeting) -> Remedy:
    reads = found.reader.site if found.reader is not None else found.second.site
    if len(owners(found.met.leaves, found.held)) > 1:
        history = _behind(facts, found)
        call = call_on(found.here, history)
        if call is None:
            return (
                reads,
                f"give each loss its own pass: compute {_named(found)} a second time for this one, and "
                "detach what the first loss is not to train",
            )
        network = ast.unparse(call.func)
        return reads, (
            f"give each loss its own pass: `{with_detached(call, history)}` for the loss that trains "
            f"`{network}`, "
            f"and `{ast.unparse(call)}` anew for the other, where that loss is computed"
        )
    own = found.held[next(iter(owners(found.met.leaves, found.held)))]
    spared = not_for(own, found.first, found.second)
    if spared is None:
        return reads, f"hand {_named(found)} detached to the loss that is not to train it"
    taken = _reader(facts, found, spared)
    site = shared_line(taken.stack, spared.stack) if taken is not None else reads
    call = call_on(site, (found.name,)) if site is not None else None
    written = f"`{with_detached(call, (found.name,))}`" if call is not None else f"`{found.name}.detach()`"
    return (
        site,
        f"this loss{line_of(spared.site, site)} is not to train what made `{found.name}`: write {written}",
    )


REMEDIES: dict[Kind, Callable[[Facts, Meeting], Remedy]] = {
    "closure": _closure,
    "built": _built,
    "state": _state,
    "once": _once,
    "looked at": _looked_at,
    "same": _same,
    "apart": _apart,
    "together": _together,
}

# ---------------------------------------------------------------------------------------------- what is asked


def _at(site: Site, seen_from: Site | None) -> str:
    """ "made at line 7", "made at nets.py:7" """
    return "made at " + line_of(site, seen_from).strip(" ()")


def _named(found: Meeting) -> str:
    return f"`{found.name or _short(found.maker.site)}`"


def _quoted(site: Site | None) -> str:
    return f"`{_short(site)}`"


def _short(site: Site | None) -> str:
    text = source_of(site)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _behind(facts: Facts, found: Meeting) -> set[str]:
    """The names of what the tensor was computed from, as far as it has a history."""
    pending, seen, names = list(found.maker.makes), set(found.maker.makes), set()
    while pending:
        value = pending.pop()
        node = facts.maker_of.get(value)
        for flow in node.flows if node is not None else ():
            if (
                flow.open
                and flow.target == value
                and flow.source not in seen
                and not facts.values[flow.source].is_leaf
            ):
                seen.add(flow.source)
                pending.append(flow.source)
                made = facts.maker_of.get(flow.source)
                names.add(called(made, made.makes.index(flow.source)) if made is not None else "")
    return names - {found.name, ""}


def _outside(facts: Facts, found: Meeting) -> list[Site]:
    """The statements before the loop that made what was freed, in the function of the loop, in their
    order."""
    lines: dict[int, Site] = {}
    for note in (*found.met.spent, found.met.maker):
        node = facts.node_named.get(f"n{note}")
        site = in_function_of(node.stack, found.here) if node is not None else None
        if node is None or site is None or built_at(node, found.second.stack) is not None:
            continue
        if _is_outside(found, site):
            lines[site.line] = site
    return [lines[line] for line in sorted(lines)] or [found.here]


def _is_outside(found: Meeting, site: Site) -> bool:
    place = in_function_of(found.second.stack, site)
    return place is not None and loop_between(place, site) == found.loop


def _is_container(found: Meeting, names: tuple[str, ...], name: str) -> bool:
    """Whether the name holds several of the results: `state` of `out, state = lstm(x, state)`."""
    return (
        1 < len(names) < len(found.maker.makes) and found.met.output >= len(names) - 1 and name == names[-1]
    )


def _is_none_at_first(frame: Site, name: str) -> bool:
    """Whether the user's file sets the name to None anywhere, alone or in a tuple."""
    assigned = re.compile(r"=.*\bNone\s*(#.*)?$")
    return any(name in line.partition("=")[0] and assigned.search(line) for line in load(frame.file).lines)


def _initial(facts: Facts, found: Meeting) -> tuple[Site | None, Site | None]:
    """The line before the loop that made the first state, and the loop; else nothing."""
    here = found.here
    place = in_function_of(found.second.stack, here)
    for note in found.met.spent:
        node = facts.node_named.get(f"n{note}")
        for site in node.stack if node is not None else ():
            loop = (
                loop_between(place, site)
                if place is not None and site.function == here.function and site.file == here.file
                else None
            )
            if loop is not None:
                return site, loop
    return None, None


def _is_used(facts: Facts, found: Meeting) -> bool:
    """Whether what `autograd.grad` gave is a part of the second loss."""
    reached: set[int] = set()
    for node in facts.nodes:
        if node.target == "torch.autograd.grad" and node.stack == found.first.stack:
            reached.update(node.makes)
        for flow in node.flows:
            if flow.source in reached:
                reached.add(flow.target)
    return not reached.isdisjoint(found.second.losses)


def _reader(facts: Facts, found: Meeting, walk: Walk) -> NodeFact | None:
    """The call that took the tensor up for a loss."""
    if walk is found.second:
        return found.reader
    for node in facts.nodes:
        if (
            int(node.name[1:]) < walk.note
            and found.met.value in node.reads
            and not walk.live.isdisjoint(node.makes)
        ):
            return node
    return None
