"""The report on a watched program: verdicts from the gradients it really had, findings from the same rules
that judge a model.

What should train is what an optimizer holds and could train; where no optimizer was seen, every parameter
that requires grad. Of what no optimizer holds (a target network, an average, a loss network) a module is
accused only where it was plainly written to be trained (`left_out`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from fxgrad.diagnosis.judge import judge
from fxgrad.passes.analyses import causes, cuts, optimizers, second_walk, step_order
from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.analyses.death import optimizers as death_of_optimizers
from fxgrad.passes.analyses.optimizers import held_by
from fxgrad.passes.context import Context
from fxgrad.records import Facts, ParameterFact, Ran, Saved, Verdict
from fxgrad.records.cells import cell_name
from fxgrad.records.plain_text import one_line
from fxgrad.report import Report
from fxgrad.report.as_json import versions
from fxgrad.report.intent import hear, intent_for
from fxgrad.source import definition_site, files_of
from fxgrad.source.sites import own_line, sites_of
from fxgrad.torch_api import registry
from fxgrad.trace.notes import Backward
from fxgrad.trace.observer import Observer
from fxgrad.trace.stale_tensors import overwritten
from fxgrad.trace.watched_facts import Watched, aimed, observe
from fxgrad.watching import gradient_errors, turns
from fxgrad.watching.further import AT_LEAST
from fxgrad.watching.left_out import left_out, loose
from fxgrad.watching.meant import meant
from fxgrad.watching.models import tree
from fxgrad.watching.seen import Seen
from fxgrad.watching.training import built_at, training_of

SHOWN = 3  # backward calls named in the head of the report

STOPPED = "watching ended early by an error of fxgrad's own"


def report_on(seen: Seen, error: BaseException | None = None) -> Report:
    """The report on what was seen, and on the error that ended it."""
    observer = seen.observer
    if error is not None:
        gradient_errors.number_as_loss(error, observer)
    record = gradient_errors.raised(error, observer) if error is not None else None
    root = _root(seen)
    saved = _saved(observer)
    watched = observe(observer, seen.events, root, record, saved, seen.mark, unfinished=seen.unfinished)
    verdicts = _verdicts(watched)
    context = _context(seen, root, watched, verdicts, saved, error)
    late = turns.names_of(seen.late, root)
    facts = watched.facts
    heard = hear(judge(facts, context), intent_for(context.files), context.files)
    return Report(
        verdicts=verdicts,
        findings=heard.findings,
        notes=heard.notes,
        parameters=tuple(
            replace(p, expected=not context.expected.isdisjoint(p.names)) for p in facts.parameters
        ),
        loss_used=_losses(observer.backwards),
        values="real",
        assumptions=(*turns.said(seen.further, late), *_assumptions(seen, error)),
        model=seen.title,
        nodes=len(facts.nodes),
        decisions=facts.decisions,
        error=record,
        suppressed=heard.suppressed,
        versions=versions(),
        model_site=definition_site(*dict.fromkeys(map(type, registry.modules(root)))),
    )


def _root(seen: Seen) -> nn.Module:
    observer = seen.observer
    held = [
        p for optimizer, _ in seen.optimizers for group in optimizer.param_groups for p in group["params"]
    ]
    reached = [t for slot in observer.ledger.tensors.living() if slot.after and (t := slot()) is not None]
    read = _read(observer)
    used = {id(t) for t in reached} | {id(t) for t in held if _is_in(observer, t, read)}
    held += loose(seen) if held else []
    called = seen.events.outermost.values() if seen.optimizers else meant(observer, seen.events)
    return tree(seen.names, given=seen.given, called=called, held=held, reached=reached, used=used)


def _read(observer: Observer) -> frozenset[int]:
    """Values that a step computed something from, and the leaf edges of such values: an update makes a
    parameter a new value.

    Where a second step was seen, by that one: what is read to build a model (`weight_norm` reads the weight
    that it replaces) is not used.
    """
    found: set[int] = set()
    ledger = observer.ledger
    first = observer.taken[0].note if observer.taken else 0
    begun = first if any(backward.note > first for backward in observer.backwards) else 0
    for note in ledger.notes:
        if not note.makes or note.number < begun:
            continue
        for number in note.reads:
            value = ledger.values[number]
            if value is None:
                continue
            found.add(number)
            if value.grad is not None and value.grad < 0 and value.storage not in note.writes:
                found.add(value.grad)
    return frozenset(found)


def _is_in(observer: Observer, tensor: torch.Tensor, read: frozenset[int]) -> bool:
    slot = observer.ledger.tensors.get(tensor)
    return slot is not None and (slot.value in read or -slot.leaf in read)


def _saved(observer: Observer) -> tuple[Saved, ...]:
    last = observer.backwards[-1] if observer.backwards else None
    stale = overwritten(observer.ledger, last.started) if last is not None and last.failed else ()
    return (*stale, *observer.saved)


def _verdicts(watched: Watched) -> dict[str, Verdict]:
    known: dict[str, Verdict] = {"some": "flows", "zero": "zero", "none": "none", "unknown": "blocked"}
    found = {
        name: known[p.gradient] if p.requires_grad else "none"
        for p in watched.facts.parameters
        for name in p.names
    }
    gone = {name for name in watched.cleared if found.get(name) != "zero"}
    return {name: "none" if name in gone else verdict for name, verdict in found.items()}


def _causes(watched: Watched) -> Causes:
    """Ways to the loss that was meant for each parameter: a generator's is not the discriminator's. Where it
    has none there, to any."""
    found = causes.analyse(watched.facts)
    ways = dict(found.frontier.ways)
    starved: dict[range, list[ParameterFact]] = {}
    for parameter in found.starved:
        aim = watched.aims.get(watched.edges.get(parameter.name, 0))
        if aim is not None:
            starved.setdefault(aim, []).append(parameter)
    for aim, mine in starved.items():
        ways.update(cuts.analyse(aimed(watched, aim), mine).ways)
    return replace(found, frontier=replace(found.frontier, ways=ways))


def _without(found: Causes, names: Collection[str]) -> Causes:
    """The causes but of these parameters, whose own is told."""
    return replace(found, starved=tuple(p for p in found.starved if p.name not in names))


def _context(
    seen: Seen,
    root: nn.Module,
    watched: Watched,
    verdicts: Mapping[str, Verdict],
    saved: Sequence[Saved],
    error: BaseException | None,
) -> Context:
    facts = watched.facts
    context = Context(
        model=root,
        loss=None,
        optimizer=_optimizers(seen, root) or None,
        expected=_expected(seen, root, facts, error),
        explicit=False,
        files=tuple(dict.fromkeys([*seen.files, *files_of(root)])),
        verdicts={**verdicts, **dict.fromkeys(watched.accidental, "flows")},
        causes=_causes(watched),
        settled=frozenset(
            name for name, verdict in verdicts.items() if verdict == "zero" and seen.further >= AT_LEAST
        ),
        watched=watched.delivered,
        hazards=facts if saved else None,
    )
    training = training_of(seen, root, watched, error)
    met = second_walk.meeting(facts, training)
    elsewhere = {name for one in training.exchanged for name in one.names}
    return replace(
        context,
        causes=_without(context.causes, elsewhere) if elsewhere else context.causes,
        held=optimizers.compare(facts, context),
        ran=_ran(seen, root, context.causes),
        training=training,
        meeting=met,
        ended=gradient_errors.ended_by(error, seen) if error is not None else None,
        early=step_order.too_early(facts, training) if met is None else (),
    )


def _ran(seen: Seen, root: nn.Module, found: Causes) -> tuple[Ran, ...]:
    """What of the user's functions ran, where a part of a model is used by nothing."""
    if all(end.kind == "derived" for end in found.ends.values()):
        return ()
    return seen.observer.coverage.ran({id(module): name for name, module in registry.named_modules(root)})


def _optimizers(seen: Seen, root: nn.Module) -> list[object]:
    """The optimizers, for the rules that compare parameter groups with the model, and the line that built
    each.

    Of models that are not reported on only what nothing uses any more is left in: it may have been this
    one's.
    """
    own, read, found = {id(p) for p in registry.parameters(root)}, _read(seen.observer), []
    for optimizer, _ in seen.optimizers:
        # Rules look the class's name up in the source where it is not known which line built it.
        made = type(type(optimizer).__name__, (), {})()
        made.defaults, made.built = optimizer.defaults, built_at(seen, optimizer)
        made.param_groups = []
        for group in optimizer.param_groups:
            kept = [p for p in group["params"] if id(p) in own or not _is_in(seen.observer, p, read)]
            if kept or not group["params"]:
                made.param_groups.append({**group, "params": kept})
        found.append(made)
    return found


def _expected(seen: Seen, root: nn.Module, facts: Facts, error: BaseException | None) -> frozenset[str]:
    """What should train, by name: held by an optimizer that steps, or that the script died stepping; and what
    lies beside such parameters and gets a gradient."""
    named = dict(registry.named_parameters(root, remove_duplicate=False))
    if not seen.optimizers:
        return frozenset(name for name, parameter in named.items() if parameter.requires_grad)
    died = death_of_optimizers.unchecked_in(error) if error is not None else None
    stepping = [optimizer for optimizer, stepped in seen.optimizers if stepped or optimizer is died]
    judged = _ids(stepping or [optimizer for optimizer, _ in seen.optimizers])
    trained = {name for name, parameter in named.items() if id(parameter) in judged}
    trainable = {name for p in facts.parameters if p.requires_grad for name in p.names}
    return frozenset(trainable & trained | _beside(seen, named, facts, trained) | left_out(seen, root, facts))


def _beside(seen: Seen, named: Mapping[str, nn.Parameter], facts: Facts, trained: set[str]) -> set[str]:
    """What gets a gradient and no optimizer holds, in a model that is trained, or that was given; where what
    steps holds nothing of any model (they were all replaced since, or it was given none), in each."""
    held = _ids(optimizer for optimizer, _ in seen.optimizers)
    flowing = {name for p in facts.parameters if p.gradient == "some" for name in p.names}
    free = {name for name in flowing.intersection(named) if id(named[name]) not in held}
    if seen.given or (not trained and any(_is_beside_them(o, stepped) for o, stepped in seen.optimizers)):
        return free
    models = {_model(name) for name in trained}
    return {name for name in free if _model(name) in models}


def _is_beside_them(optimizer: torch.optim.Optimizer, stepped: bool) -> bool:
    """Whether an optimizer was meant for a model: it holds Parameters, or steps and was given nothing. Data
    of the model's says no such thing: it may be given its gradients by hand."""
    held = list(held_by(optimizer))
    return any(isinstance(tensor, nn.Parameter) for tensor in held) or (stepped and not held)


def _ids(optimizers: Iterable[torch.optim.Optimizer]) -> set[int]:
    """Of the tensors that they hold."""
    return {id(tensor) for optimizer in optimizers for tensor in held_by(optimizer)}


def _model(parameter: str) -> str:
    return parameter.partition(".")[0]


def _losses(backwards: Sequence[Backward]) -> str:
    lines: dict[str, None] = {}
    for backward in backwards:
        site = own_line(sites_of(backward.spots))  # before a trainer's
        if site is not None:
            file = cell_name(site.file) or os.path.basename(site.file)
            lines[f"backward at {file}:{site.line}"] = None
    shown = list(lines)
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more if shown else "no backward ran"


def _ran_eagerly(seen: Seen) -> str:
    """Of compiled code whose gradients are those of its Python, and of what the program does as it is."""
    if seen.compiled_error is not None:
        return (
            "the compiled code ran eagerly in the steps that were watched: gradients are those of the Python "
            f"code. Compiled, the next step raised {_first_words(seen.compiled_error)}"
        )
    said = "the compiled code ran eagerly while it was watched: gradients are those of the Python code"
    if seen.events.whole:
        said += ", and whether it is captured whole (fullgraph=True) was not tried"
    return said


def _first_words(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


def _assumptions(seen: Seen, error: BaseException | None) -> tuple[str, ...]:
    said = seen.assumptions if error is None else ()
    observer = seen.observer
    if seen.beside and seen.compiled_error is None:
        said = (
            *said,
            "the compiled code ran eagerly in the steps that were watched, and compiled in the one after "
            "them",
        )
    elif seen.events.compiles:
        said = (*said, _ran_eagerly(seen))
    if observer.trouble is not None:
        said = (*said, f"{STOPPED}: {observer.trouble!r}")
    if observer.ledger.full:
        said = (*said, "there were more calls than are kept: gradients are exact, lines may be missing")
    return said
