"""`fxgrad report MODEL`: which parameters of a model get no gradient, and why, in one of the formats."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fxgrad.cli.arguments import STATUS, model_arguments, report_arguments, step
from fxgrad.cli.output import in_one_line, tell
from fxgrad.cli.progress_line import showing
from fxgrad.cli.project import models_of
from fxgrad.cli.several import refuse_single, without_known, write_reports
from fxgrad.records import Options
from fxgrad.records.errors import FxgradError, InputError

# What imports torch is imported where it is used: `--help` does without.
if TYPE_CHECKING:
    from fxgrad.program.step import Step
    from fxgrad.report import Report

EXAMPLES = f"""Without MODEL the models are checked that pyproject.toml lists (`fxgrad help settings`).
MODEL names a module, a class, or a function that returns a module; the name may be left out where the file \
has one candidate.
Arguments and inputs that nobody gives are guessed, and the report says how to write others. \
`example_inputs`, `loss`, `optimizer` and
`expect` are used where the file defines them.

examples:
  fxgrad report model.py                                      the file's only model, inputs inferred
  fxgrad report model.py:Net --input x=2x3x224x224:float32    one input by name
  fxgrad report model.py --input ids=2x16:int64[0,1000)       integers from 0 to 999
  fxgrad report model.py --arg width=64 --arg config.layers=2 an argument that the model is built with
  fxgrad report src/a.py src/b.py --statistics                several models; how often each rule speaks
  fxgrad report model.py -- --data here                       what a file that parses arguments asks for
  fxgrad report package.models:build --loss losses.py:total   loss = total(output)
  fxgrad report model.py --loss '.logits'                     a part of the output, summed
  fxgrad report model.py --expect 'head.*' --ignore FXG3      only the head must train; no optimizer rules
  fxgrad report model.py --format sarif -o fxgrad.sarif       for code scanning, with the safe fixes

{STATUS}
"""


def add(command: argparse.ArgumentParser) -> None:
    """What to analyse, and how to write it."""
    model_arguments(command, several=True)
    report_arguments(command)
    command.add_argument(
        "--fixes",
        action=argparse.BooleanOptionalAction,
        help="put the safe fixes of `fxgrad fix` into the findings; where a write is to blame this "
        "takes as long as `fix` does (default: with --format sarif)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the reports; exit status 1 where one is not ok, 2 where a model has none."""
    from fxgrad.cli.codes import codes

    if arguments.update_baseline and not arguments.baseline:
        raise InputError("--update-baseline needs a file", hint="add --baseline FILE")
    models = models_of(arguments)
    refuse_single(arguments.format, len(models))
    rules = [(codes(one.select), codes(one.ignore)) for one in models]
    found = []
    for one, rule in zip(models, rules, strict=True):
        report = _told(one, models)
        if report is not None:
            found.append((one, rule, report))
    whole = [replace(report, command=arguments.command) for _, _, report in found]
    chosen = [report.selected(*rule) for report, (_, rule, _) in zip(whole, found, strict=True)]
    chosen = without_known(arguments, chosen)
    if arguments.fixes or (arguments.fixes is None and arguments.format == "sarif"):
        chosen = [_with_fixes(one, report) for (one, _, _), report in zip(found, chosen, strict=True)]
    write_reports(arguments, chosen)
    status = max(map(_status, whole, chosen), default=0)
    if len(found) < len(models):
        return 2
    return 0 if status == 1 and arguments.exit_zero else status


def _told(one: argparse.Namespace, models: Sequence[argparse.Namespace]) -> Report | None:
    """The report on a model; None where it has none, which is told of where it is one of several."""
    try:
        return _analysed(one)
    except FxgradError as error:
        if len(models) == 1:
            raise
        tell(f"fxgrad: error: {one.model}: {in_one_line(error)}", error=True)
        return None


def _status(whole: Report, shown: Report) -> int:
    from fxgrad.report.table import raised

    if whole.ok and whole.error is not None:
        said = f"{raised(whole.error)} (no finding explains it: the program itself may be at fault)"
        tell(f"fxgrad: error: {said}", error=True)
        return 2
    return 0 if shown.ok else 1


def _with_fixes(arguments: argparse.Namespace, report: Report) -> Report:
    """The report with edits that were tried in fresh processes; nothing is tried where no finding is of a
    kind that a safe edit mends."""
    from fxgrad.cli.codes import codes
    from fxgrad.cli.fix import subject
    from fxgrad.fix_source import mend
    from fxgrad.fix_source.per_finding import may_be_mended, with_fixes

    if not may_be_mended(report):
        return report
    options = Options(values=arguments.values, max_paths=arguments.max_paths)
    try:
        with showing(sys.stderr):
            result = mend(
                subject(arguments),
                options=options,
                select=codes(arguments.select),
                ignore=codes(arguments.ignore),
            )
    except FxgradError as error:
        tell(f"fxgrad: the report has no fixes: {error.reason}")
        return report
    return with_fixes(report, result)


def _analysed(arguments: argparse.Namespace) -> Report:
    """The report on the model that the arguments name; where it asks for CUDA and there is none, on the same
    on the CPU."""
    from fxgrad.program.no_cuda import CudaOnCpu, lacks_cuda

    try:
        report = _once(arguments)
    except FxgradError as error:
        if not lacks_cuda(error):
            raise
        failed: FxgradError | None = error
    else:
        if report.error is None or not lacks_cuda(report.error.message):
            return report
        failed = None
    on_cpu = CudaOnCpu()
    try:
        with on_cpu:
            report = _once(arguments)
    except FxgradError:
        if failed is not None and on_cpu.site is None:  # it asks for no CUDA
            raise failed from None
        raise
    return replace(report, assumptions=(on_cpu.said, *report.assumptions))


def _once(arguments: argparse.Namespace) -> Report:
    """What the user's program prints goes to stderr."""
    from fxgrad.cli.doubts import of_any_length, refuse_doubtful
    from fxgrad.diagnosis import analyze

    options = Options(values=arguments.values, max_paths=arguments.max_paths)

    def analysed(asked: Step) -> Report:
        return analyze.analyze(
            asked.model,
            asked.inputs,
            loss=asked.loss,
            optimizer=asked.optimizer,
            expect=asked.expect,
            options=options,
        )

    with contextlib.redirect_stdout(sys.stderr), step(arguments) as found, showing(sys.stderr):
        found, report = of_any_length(found, analysed(found), analysed)
        refuse_doubtful(found, report, analysed)
        return replace(report, assumptions=(*found.assumed, *report.assumptions))
