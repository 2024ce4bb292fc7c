"""What `fxgrad run` and `fxgrad.analyze` say of a program inside a wrapper, and of the same program without one.

Two sayings are the same if they have the same codes at the same lines about the same parameters. A parameter's name
counts without what the wrapper puts before it. FXG501 is left out: it is about DistributedDataParallel. Where they are not
the same, the script is run twice more, unwatched: does it end, or train, otherwise inside the wrapper?
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import fxgrad
from fxgrad.records.errors import FxgradError
from fxgrad.report import Report
from fxgrad.trace.gradients import state_of
from fxgrad.watching.script import run_script
from tests.passes.test_cases import programs
from tests.wrapped.train import built
from tests.wrapped.wrappers import ONLY_TRAINED, REPLACES, WRAPPERS

TRAIN = str(Path(__file__).with_name("train.py"))
PREFIX = re.compile(r"\b(module|inner|_orig_mod)\.")

Said = frozenset[tuple[str, str, str, int, tuple[str, ...]]] | str


@dataclass(frozen=True)
class Program:
    """One of the programs of `cases/`, by its file and its function."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)[:6]} {self.name}"


@dataclass(frozen=True)
class Outcome:
    """`how`: same, refused (by the wrapper), trains otherwise (inside it), other; `why`: what torch says, or what differs."""

    program: Program
    wrapper: str
    way: str
    how: str
    why: str = ""


ALL = [Program(str(p.values[0]), str(p.values[1])) for p in programs()]
WAYS = ("run", "analyze")


def judged(program: Program) -> Iterator[Outcome]:
    """One outcome for each wrapper and each way in."""
    with kept():
        case = built(program.file, program.name)
    if not isinstance(case["model"], nn.Module) or isinstance(case["model"], torch.fx.GraphModule):
        return
    alone = {"run": watched(program, ""), "analyze": analyzed(program, "")}
    for wrapper in WRAPPERS:
        if wrapper in REPLACES and case.get("optimizer") is not None:
            continue
        refused = refusal(program, wrapper)
        for way in WAYS if wrapper not in ONLY_TRAINED else WAYS[:1]:
            if refused:
                yield Outcome(program, wrapper, way, "refused", refused)
                continue
            said = watched(program, wrapper) if way == "run" else analyzed(program, wrapper)
            if said == alone[way]:
                yield Outcome(program, wrapper, way, "same")
            else:
                trains = way == "analyze" or trained(program, wrapper) == trained(program, "")
                yield Outcome(program, wrapper, way, "other" if trains else "trains otherwise", difference(alone[way], said))


def watched(program: Program, wrapper: str) -> Said:
    """What `fxgrad run` says."""
    with kept(), quiet():
        try:
            report, _ = run_script(TRAIN, [program.file, program.name, *filter(None, [wrapper])])
        except Exception as error:
            return f"crash: {type(error).__name__}: {error}"
    return said_by(report)


def analyzed(program: Program, wrapper: str) -> Said:
    """What `fxgrad.analyze` says."""
    with kept(), quiet():
        torch.manual_seed(11)
        case = built(program.file, program.name)
        model = WRAPPERS[wrapper](case["model"]) if wrapper else case["model"]
        try:
            report = fxgrad.analyze(model, case["inputs"], loss=case.get("loss"), optimizer=case.get("optimizer"))
        except FxgradError as error:
            return f"{type(error).__name__}: {error}"
    return said_by(report)


def said_by(report: Report | None) -> Said:
    if report is None:
        return "no report"
    return frozenset(
        (
            f.code,
            f.severity,
            os.path.basename(f.site.file) if f.site else "",
            f.site.line if f.site else 0,
            tuple(sorted(map(bare, f.parameters))),
        )
        for f in report.findings
        if f.code != "FXG501"
    )


def bare(name: str) -> str:
    return PREFIX.sub("", name)


def difference(alone: Said, wrapped: Said) -> str:
    if isinstance(alone, str) or isinstance(wrapped, str):
        return f"{alone} / {wrapped}"
    missing, more = sorted(alone - wrapped), sorted(wrapped - alone)
    return "; ".join([*(f"-{_short(found)}" for found in missing), *(f"+{_short(found)}" for found in more)])


def _short(found: tuple[str, str, str, int, tuple[str, ...]]) -> str:
    code, severity, file, line, names = found
    return f"{code} {severity} {file}:{line} {','.join(names[:3])}"


def refusal(program: Program, wrapper: str) -> str:
    """What torch raises where the model is given to the wrapper."""
    with kept(), quiet():
        case = built(program.file, program.name)
        try:
            WRAPPERS[wrapper](case["model"])
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


def trained(program: Program, wrapper: str) -> tuple[str, tuple[str, ...]]:
    """How the script ends under Python alone, and what the gradients of its optimizer's parameters are then."""
    argv = sys.argv
    with kept(), quiet():
        sys.argv = [TRAIN, program.file, program.name, *filter(None, [wrapper])]
        try:
            optimizer = runpy.run_path(TRAIN, run_name="__main__")["optimizer"]
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:60]}", ()
        finally:
            sys.argv = argv
    return "well", tuple(state_of(p.grad) for group in optimizer.param_groups for p in group["params"])


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Modes that a program leaves changed are put back."""
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
