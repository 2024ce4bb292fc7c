"""The Python API: `analyze`, `assert_gradients_flow`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fxgrad.diagnosis.gather import Diagnosis, diagnose, saving, source_files
from fxgrad.passes.analyses.optimizers import optimizers_in
from fxgrad.program.lazy import shaped
from fxgrad.program.mistakes import refuse_arrays
from fxgrad.program.program import Program, placement, program
from fxgrad.records import Options
from fxgrad.records.errors import InputError
from fxgrad.report import Report
from fxgrad.report.as_json import versions
from fxgrad.report.intent import hear, intent_for
from fxgrad.source import definition_site
from fxgrad.source.sites import caller_file
from fxgrad.torch_api import registry
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.lab import Lab
from fxgrad.trace.self_check import refuse_unknown_torch
from fxgrad.world.one_call import one_call


def analyze(
    model: object,
    inputs: object,
    *,
    loss: Callable[..., object] | None = None,
    optimizer: object = None,
    expect: Iterable[str] | None = None,
    options: Options | None = None,
) -> Report:
    """Which parameters get no gradient from `loss(model(*inputs))`, and which line is to blame.

    Args:
        model: an `nn.Module`, a `torch.fx.GraphModule`, or a callable over tensors that closes over modules.
        inputs: positional inputs as a tuple, keyword inputs as a dict, or both as `Inputs`; real, fake or
        meta tensors, any pytree. Meta
            tensors beside others are taken to be on the others' device (and a meta model on that of its
            inputs).
        loss: from the model's output to a scalar tensor; None: the output's `.loss` or `["loss"]`, the output
        itself if it is
            a scalar, else the sum of its floating outputs.
        optimizer: its parameter groups are compared with the model's parameters.
        expect: names or glob patterns of the parameters that must train; None: all that require grad.
        options: see `Options`.

    Returns:
        The report. The verdict of a name is that of the Parameter registered under it as the analysis began
        (the one that an optimizer holds), also where forward puts another in its place. The model, its
        gradients, buffers and the random state are as before.

    Raises:
        InputError: the inputs do not fit the model, `expect` names no parameter, or `optimizer` is none.
        TraceError: the program needs a value that the inputs do not have, or cannot be recorded; or this
        torch is newer than those known
            and its seams do not match (`fxgrad.trace.self_check`).
    """
    return examine(model, inputs, loss=loss, optimizer=optimizer, expect=expect, options=options).report


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """A report, and what stands behind it: the lab that made its runs, and the experiments `main`, on whose
    path the findings are, and `saving`, the same with what is saved for backward noted, which was made where
    a finding asked for it."""

    report: Report
    lab: Lab
    main: Experiment
    saving: Experiment


def examine(
    model: object,
    inputs: object,
    *,
    loss: Callable[..., object] | None = None,
    optimizer: object = None,
    expect: Iterable[str] | None = None,
    options: Options | None = None,
) -> Examined:
    """`analyze`, with the evidence at hand."""
    with one_call():
        return _examine(model, inputs, loss, optimizer, expect, options or Options())


def _examine(
    model: object,
    inputs: object,
    loss: Callable[..., object] | None,
    optimizer: object,
    expect: Iterable[str] | None,
    options: Options,
) -> Examined:
    """All that a run made is dropped as this returns."""
    refuse_unknown_torch()
    model, optimizer, called = shaped(model, inputs, optimizer)
    target = program(model, inputs, loss, optimizer)
    if optimizer is not None and not any(optimizers_in(optimizer)):
        raise InputError(
            f"optimizer={optimizer!r:.60} holds no parameter groups",
            hint="pass a torch.optim.Optimizer, or a list or dict of them",
        )
    files = source_files(target, caller_file())
    intent = intent_for(files)
    wanted = expect if expect is not None else (intent.expect or None)
    lab = Lab(target)
    with lab.open():
        diagnosis = diagnose(lab, expect=wanted, options=options, files=files)
    refuse_arrays(target.inputs, diagnosis.facts.error.message if diagnosis.facts.error is not None else "")
    heard = hear(diagnosis.findings, intent, diagnosis.files)
    run = diagnosis.run
    report = Report(
        verdicts=diagnosis.verdicts,
        findings=heard.findings,
        notes=heard.notes,
        parameters=diagnosis.facts.parameters,
        loss_used=run.loss_used,
        values=diagnosis.values,
        model=_title(target),
        nodes=len(run.recorder.steps),
        paths=diagnosis.paths,
        paths_cut_off=diagnosis.paths_cut_off,
        decisions=diagnosis.facts.decisions,
        error=diagnosis.facts.error,
        assumptions=tuple(_assumptions(target, diagnosis, called)),
        suppressed=heard.suppressed,
        versions=versions(),
        model_site=definition_site(target.model, *dict.fromkeys(map(type, registry.modules(target.root)))),
    )
    assert run.experiment is not None
    return Examined(report, diagnosis.lab, run.experiment, saving(run, diagnosis.values))


def _title(target: Program) -> str:
    kind = type(target.model).__name__
    return kind if target.model is target.root else getattr(target.model, "__name__", kind)


def _assumptions(target: Program, diagnosis: Diagnosis, called: bool) -> Iterator[str]:
    place = placement(target)
    if place is not None and diagnosis.values == "fake":
        yield f"tensors on the meta device are taken to be on {place}"
    if diagnosis.assumption:
        yield diagnosis.assumption
    if called:
        yield "lazy modules got their parameters from one call of a copy"


def assert_gradients_flow(
    model: object,
    inputs: object,
    *,
    loss: Callable[..., object] | None = None,
    optimizer: object = None,
    expect: Iterable[str] | None = None,
    options: Options | None = None,
) -> None:
    """For test suites: `analyze`, and raise with the report as text if it is not ok.

    Raises:
        AssertionError: a parameter that should train gets no gradient.
    """
    report = analyze(model, inputs, loss=loss, optimizer=optimizer, expect=expect, options=options)
    if not report.ok:
        raise AssertionError(str(report))
