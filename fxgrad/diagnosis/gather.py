"""From a program to a diagnosis: run it, observe, give every parameter its verdict, let every rule speak.

`diagnose` chooses the values (fake or real), explores branches on data, re-runs where an error needs
explaining, and returns verdicts and findings. Verdicts come from backward itself; rules only explain them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fxgrad.diagnosis.branches import Explored, explore, outcomes, without_gradient
from fxgrad.diagnosis.escaped_numbers import confirm_leaks
from fxgrad.diagnosis.hidden_choices import reveal
from fxgrad.diagnosis.judge import judge
from fxgrad.diagnosis.last_word import confirmed, has_data, spoken
from fxgrad.diagnosis.zeros import confirm_zeros, pending, zero_by_the_sum, zero_for_good
from fxgrad.passes.analyses import causes, optimizers, target_networks
from fxgrad.passes.analyses.hidden_writes import has_hidden_writes
from fxgrad.passes.context import Context
from fxgrad.passes.rules import fxg301_optimizer_misses_parameter, fxg303_optimizer_idle_parameter
from fxgrad.program.program import Program, tensors_of_program
from fxgrad.records import Facts, Finding, Options, ParameterFact, Raised, Ran, Verdict
from fxgrad.records.errors import InputError, TraceError
from fxgrad.source import files_of
from fxgrad.source.objects import origin
from fxgrad.source.sites import innermost
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import MISFIT, OVERWRITTEN, says
from fxgrad.trace.coverage import Coverage
from fxgrad.trace.effort import TooCostly
from fxgrad.trace.experiment import Experiment, Values
from fxgrad.trace.lab import Lab
from fxgrad.trace.progress import tell
from fxgrad.trace.recorder import NeedsValue
from fxgrad.trace.run import Run

# Above this many elements (parameters and inputs) one real step costs more than a fake one, and a copy of the
# model is felt.
REAL_ELEMENTS = 50_000_000
# Multiplications of a forward: above this a real step takes seconds on a few cores, and an analysis makes
# several.
EFFORT = 3e10


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found. `run` and `facts` are those of the path that the inputs take; `files` the source files
    of the program; `lab` has made the runs."""

    verdicts: Mapping[str, Verdict]
    findings: tuple[Finding, ...]
    facts: Facts
    lab: Lab
    run: Run
    values: Values
    paths: int
    paths_cut_off: bool
    files: tuple[str, ...]
    assumption: str = ""  # what the verdicts rest on, where it is not the recorded run


def diagnose(
    lab: Lab, *, expect: Iterable[str] | None, options: Options, files: tuple[str, ...]
) -> Diagnosis:
    """Analyse one program; `files` are its `source_files`.

    Raises:
        InputError: the inputs do not fit, or `expect` names no parameter.
        TraceError: a value is needed and there is none.
    """
    expected, explicit = _expected(lab.program, expect)
    lab, explored, values = _explored(lab, options)
    program, main = lab.program, explored.main
    if main.aside is not None:
        return _from_plain_step(lab, main, main.aside, values, (expected, explicit), files)
    seen = lab.seen(main)
    explored = reveal(lab, explored, seen, values, options.max_paths)
    facts = confirm_leaks(lab, explored, confirm_zeros(lab, main, seen, values), values)
    watched, hazards = _watched(lab, main, facts, values), _hazards(lab, main, facts, values)
    settled = _settled(lab, main, facts, watched, values)
    tell("rules")
    verdicts = _verdicts(facts, explored.undecided)
    context = Context(
        model=program.root,
        loss=program.loss,
        optimizer=program.optimizer,
        expected=expected,
        explicit=explicit,
        files=files,
        verdicts=verdicts,
        causes=causes.analyse(
            facts,
            frozenset(n for n, v in verdicts.items() if v == "branch"),
            frozenset(main.recorder.decisions[i].node for i in explored.deciding),
        ),
        watched=_kept_zero(watched, settled) if watched is not None else None,
        settled=settled,
        pending=pending(program, facts, settled),
        summed=zero_by_the_sum(lab, main, facts) if values == "real" else frozenset(),
        hazards=hazards,
        branches=explored.branches,
    )
    context = replace(
        context,
        ran=_ran(lab, main, context, values),
        held=optimizers.compare(facts, context),
        copies=target_networks.analyse(context),
        waiting=optimizers.waiting(context),
    )
    return Diagnosis(
        verdicts, judge(facts, context), facts, lab, main, values, explored.paths, explored.cut_off, files
    )


def _from_plain_step(
    lab: Lab,
    main: Run,
    aside: Raised,
    values: Values,
    wanted: tuple[frozenset[str], bool],
    files: tuple[str, ...],
) -> Diagnosis:
    """The verdicts where only the recorder raised: those of the plain step, as far as they need no cause.

    Raises:
        TraceError: a parameter gets no gradient, or zeros: why is in the part that could not be recorded.
    """
    program, (expected, explicit) = lab.program, wanted
    facts = lab.seen(main)
    verdicts = _verdicts(facts, frozenset())
    starved = sorted(name for name in expected if verdicts[name] != "flows")
    where = f"{aside.site}: " if aside.site is not None else ""
    if starved:
        named = ", ".join(f"`{name}` {_STARVED[verdicts[name]]}" for name in starved[:3]) + (
            ", ..." if len(starved) > 3 else ""
        )
        raise TraceError(
            f"a plain step of the program runs, and {named}; the cause is not known, for the recorder cannot "
            f"follow it ({spoken(aside)})",
            site=aside.site,
            hint="analyse the model without this line, or with its result given as an input",
        )
    context = Context(program.root, program.loss, program.optimizer, expected, explicit, files, verdicts)
    context = replace(context, held=optimizers.compare(facts, context))
    # no others speak of parameters alone
    found = judge(facts, context, (fxg301_optimizer_misses_parameter, fxg303_optimizer_idle_parameter))
    assumption = (
        "the verdicts are those of one plain step, for the recorder cannot follow the program "
        f"({where}{spoken(aside)}): "
        "no other outcome of a branch was tried, no hidden write looked for"
    )
    return Diagnosis(verdicts, found, facts, lab, main, values, 1, False, files, assumption)


_STARVED = {"zero": "gets a gradient of zeros", "none": "gets no gradient"}


def _opened(lab: Lab, main: Run, values: Values) -> tuple[Lab, Run]:
    """The program with its checkpoints opened, where that changes no gradient: then lines inside them can be
    named."""
    if not any(step.kind == "checkpoint" for step in main.recorder.steps):
        return lab, main
    opened = lab.beside(replace(lab.program, open_checkpoints=True))
    try:
        other = opened.run(Experiment(values))
    except NeedsValue:
        return lab, main
    same = other.gradients == main.gradients and (other.error is None) is (main.error is None)
    return (opened, other) if same else (lab, main)


def _watched(lab: Lab, main: Run, facts: Facts, values: Values) -> Facts | None:
    """A second run with backward watched, where a gradient was lost although autograd recorded the way.

    There a gradient is "zero" only if no other weights would make it something.
    """
    lost = any(
        p.requires_grad
        and (p.gradient == "zero" or (p.gradient == "none" and any(v in facts.live for v in p.values)))
        for p in facts.parameters
    )
    if not lost or facts.error is not None:
        return None
    watched = lab.shown(Experiment(values, forced=outcomes(main), watch_gradients=True)).facts
    return confirm_zeros(lab, main, watched, values, unsettle=True)


def _ran(lab: Lab, main: Run, context: Context, values: Values) -> tuple[Ran, ...]:
    """What of the user's functions runs, from a second run that is looked at, where a part of the model is
    used by nothing."""
    found: causes.Causes = context.causes
    if all(end.kind == "derived" for end in found.ends.values()) or not any(
        origin(file) == "user" for file in context.files
    ):
        return ()
    coverage = Coverage()
    with coverage.looking():
        lab.left(Experiment(values, forced=outcomes(main), backward=False))
    return coverage.ran({id(module): name for name, module in registry.named_modules(lab.program.root)})


def _settled(lab: Lab, main: Run, facts: Facts, watched: Facts | None, values: Values) -> frozenset[str]:
    """The parameters whose gradient is zero for other numbers too, and stays so whatever steps do to the
    others."""
    if watched is None or values != "real":
        return frozenset()
    always = {name for p in watched.parameters if p.gradient == "zero" for name in p.names}
    return frozenset(always) | zero_for_good(lab, main, facts)


def _kept_zero(watched: Facts, settled: frozenset[str]) -> Facts:
    """What only other weights would make something, and no step makes other, is zero."""
    return replace(
        watched,
        parameters=tuple(
            replace(p, gradient="zero") if settled.intersection(p.names) else p for p in watched.parameters
        ),
    )


def _hazards(lab: Lab, main: Run, facts: Facts, values: Values) -> Facts | None:
    """A second run with saved tensors watched, where one was or may have been overwritten."""
    broken = facts.error is not None and says(facts.error.message, OVERWRITTEN)
    if not broken and not has_hidden_writes(facts):
        return None
    return lab.shown(saving(main, values)).facts


def saving(main: Run, values: Values) -> Experiment:
    """The run on the path of `main` that notes what is saved for backward."""
    return Experiment(values, forced=outcomes(main), backward=False, watch_saves=True)


def source_files(program: Program, caller: str | None) -> tuple[str, ...]:
    """The user's files that define the model, the loss and the call of the analysis."""
    found = files_of(program.model, program.root, *([program.loss] if program.loss is not None else []))
    return tuple(dict.fromkeys([*found, *([caller] if caller else [])]))


def _expected(program: Program, expect: Iterable[str] | None) -> tuple[frozenset[str], bool]:
    names = [name for name, _ in registry.named_parameters(program.root, remove_duplicate=False)]
    if expect is None:
        trainable = {
            n for n, p in registry.named_parameters(program.root, remove_duplicate=False) if p.requires_grad
        }
        return frozenset(trainable), False
    patterns = [expect] if isinstance(expect, str) else list(expect)
    chosen = set()
    for pattern in patterns:
        matched = [n for n in names if n == pattern or fnmatch.fnmatchcase(n, pattern)]
        if not matched:
            raise InputError(
                f"expect={pattern!r} matches no parameter", hint=f"there are {', '.join(names[:3])}, ..."
            )
        chosen.update(matched)
    return frozenset(chosen), True


def _explored(lab: Lab, options: Options) -> tuple[Lab, Explored, Values]:
    """Every path, on the values that the options and the program ask for; the program with its checkpoints
    opened where they can be."""
    program = lab.program
    if options.values == "auto":
        values: Values = "real" if _cheap_and_real(program) else "fake"
    else:
        values = options.values
    affordable = None
    if values == "real" and options.values == "auto":
        try:
            affordable = lab.run(Experiment("real", effort=EFFORT))
        except TooCostly:
            values = "fake"
    at_will = values == "fake" and options.values == "auto" and has_data(program)
    try:
        opened, explored = _paths(lab, values, options.max_paths, affordable)
        error = explored.main.error
        # the program's error, or that of a stand-in: real values tell
        if error is not None and error.phase != "backward" and at_will:
            return (*_paths(lab, "real", options.max_paths), "real")
        if values == "fake":
            explored = replace(explored, main=confirmed(lab, explored.main))
        return opened, explored, values
    except NeedsValue as need:
        if at_will:
            return (*_paths(lab, "real", options.max_paths), "real")
        site = innermost(need.spots)
        if has_data(program):
            raise TraceError(
                f"{need.what}, and fake tensors have none",
                site=site,
                hint='use values="real" (--values real)',
            ) from None
        raise TraceError(
            f"{need.what}, and the model or its inputs have none",
            site=site,
            hint="pass real tensors (not fake or meta ones)",
        ) from None


def _paths(lab: Lab, values: Values, limit: int, begun: Run | None = None) -> tuple[Lab, Explored]:
    """`begun`: the run on the path that the inputs take, where it was made already."""
    main = begun if begun is not None else lab.run(Experiment(values))
    if values == "real":  # before other paths are tried: a decision on known data is the program's own
        main = confirmed(lab, main)
    _refuse_misfit(main)
    if main.aside is not None:
        return lab, Explored(main, (), frozenset(), 1, False)
    lab, main = _opened(lab, main, values)
    explored = explore(lab, main, values=values, limit=limit)
    if explored.unseen is not None and _may_hide_the_truth(lab.program, explored.main):
        raise explored.unseen
    return lab, explored


def _may_hide_the_truth(program: Program, main: Run) -> bool:
    """Whether an outcome that could not be followed may be the one that trains. Where nothing has data, what
    was seen is all there is."""
    if main.error is not None and main.error.phase == "forward":
        return True
    return has_data(program) and (main.error is not None or bool(without_gradient(main)))


def _cheap_and_real(program: Program) -> bool:
    total = 0
    for tensor in tensors_of_program(program):
        if tensor.device.type != "cpu":
            return False
        total += tensor.numel()
    return total <= REAL_ELEMENTS and has_data(program)


def _verdicts(facts: Facts, undecided: frozenset[str]) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    for parameter in facts.parameters:
        verdict = _verdict(facts, parameter)
        if verdict != "blocked" and undecided.intersection(parameter.names):
            verdict = "branch"
        verdicts.update(dict.fromkeys(parameter.names, verdict))
    return verdicts


def _verdict(facts: Facts, parameter: ParameterFact) -> Verdict:
    if not parameter.requires_grad:
        return "none"
    if facts.error is not None:
        return "blocked"
    known: dict[str, Verdict] = {"some": "flows", "zero": "zero", "none": "none", "unknown": "blocked"}
    return known[parameter.gradient]


def _refuse_misfit(result: Run) -> None:
    """An error that has nothing to do with gradients is the inputs' or the model's: say so, do not diagnose
    it."""
    error = result.error
    if error is None or error.phase == "backward":
        return
    if result.refusal is not None:
        raise result.refusal
    text = error.message
    if error.phase == "forward" and says(text, MISFIT):
        raise InputError(
            f"the model does not run on these inputs: {error.type}: {text.splitlines()[0] if text else ''}",
            site=error.site,
            hint="pass inputs that a plain call of the model accepts",
        )
