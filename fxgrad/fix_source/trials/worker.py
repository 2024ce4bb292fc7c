"""A fresh process for each trial: loads the program with edited files in place of the user's, analyses it,
compares its numbers.

`python -m fxgrad.fix_source.trials.worker` reads names of job files from standard input, one a line with a
limit in seconds and `fork` or `spawn`, runs each job in a forked child (in a new interpreter where that is
asked for, or the system cannot fork) and answers with the name and how the child ended. Writes nothing but
the outcome's file, and the reference's numbers where asked to. Not handled: programs that fork or open
devices at import.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

from fxgrad.diagnosis.analyze import examine
from fxgrad.fix_source.trials.copies import Redirected, with_copies
from fxgrad.fix_source.trials.job import Job, Trial
from fxgrad.fix_source.trials.numbers import Numbers, Step, as_double, difference, forward_only, measure, seed
from fxgrad.fix_source.trouble import every_write, troubles

# here: an import that draws random numbers must not come after the seed
from fxgrad.program.step import step_of
from fxgrad.records import Site
from fxgrad.source.sites import sites_of, user_spots
from fxgrad.torch_api import registry
from fxgrad.torch_api.comparison import EDIT_AS_IT_IS, EDIT_IN_DOUBLE
from fxgrad.torch_api.internals import DYNAMO

_NATIVE_NAME = "as it is"
_MODES = (("float64, training mode", True), ("float64, evaluation mode", False))
_BOTH_MODES = 5_000_000  # elements up to which training and evaluation mode are both compared
_COMPARED = 50_000_000  # elements beyond which no numbers are compared
_ONE_THREAD = 1_000_000  # elements up to which one thread is the fastest
# What every trial comes to import; in the parent it is imported once. None of it starts a thread, which a
# fork would lose.
_PRELOADED = ("fxgrad.program.load", DYNAMO)
_PRELOADED_WHERE_THERE = "numpy"
_built: dict[int, tuple[Any, tuple[Any, ...]]] = {}


def can_fork(platform: str = sys.platform) -> bool:
    """Whether a child may go on from this process. Not on macOS: its own libraries (Accelerate, which torch
    computes with, Metal) start threads and then break, or abort, in a forked child. Windows has no fork."""
    return hasattr(os, "fork") and platform != "darwin"


# ------------------------------------------------------------------------------------------------ the process


def serve() -> None:
    """Answer jobs until standard input ends."""
    if can_fork():
        for name in _PRELOADED:
            importlib.import_module(name)
        with contextlib.suppress(ImportError):  # torch does without
            importlib.import_module(_PRELOADED_WHERE_THERE)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        name, limit, how = line.strip().split("\t")
        ended = (_forked if how == "fork" and can_fork() else _spawned)(name, int(limit))
        answers.write(f"{name}\t{ended}\n")


def _forked(name: str, limit: int) -> str:
    child = os.fork()
    if child:
        return _ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    try:
        signal.alarm(limit)
        os.dup2(1, 2)  # what the user's program writes belongs to none of this
        run_job(name)
    finally:
        os._exit(0)


def _spawned(name: str, limit: int) -> str:
    command = [sys.executable, "-m", "fxgrad.fix_source.trials.worker", name]
    try:
        done = subprocess.run(
            command, timeout=limit, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return "time"
    return _ended(done.returncode)


def _ended(status: int) -> str:
    """How a child ended, in a word: "" by itself, "time" by its alarm, else the name of the signal."""
    if status >= 0:
        return ""
    with contextlib.suppress(ValueError, AttributeError):
        return "time" if -status == signal.SIGALRM else signal.Signals(-status).name
    return f"signal {-status}"


def run_job(name: str) -> None:
    """The job in the file `name`; its outcome goes to `name` + ".out"."""
    with open(name, "rb") as stream:
        job: Job = pickle.load(stream)
    try:
        trial = _trial(job)
    except BaseException as error:
        trial = Trial(error="".join(traceback.format_exception_only(error)).strip())
    # Only the drive of Windows: elsewhere "". The mirror repeats paths without it.
    drive = next((os.path.splitdrive(os.path.abspath(file))[0] for file, _ in job.texts), "")
    outcome = pickle.dumps(_mapped_back(trial, job.root, drive))
    with open(name + ".part", "wb") as stream:
        stream.write(outcome)
    os.replace(name + ".part", name + ".out")


def _mapped_back(item: object, root: str, drive: str) -> object:
    """The user's own file names again, in sites and in messages."""
    if isinstance(item, str):
        return item.replace(root + os.sep, drive + os.sep)
    if is_dataclass(item) and not isinstance(item, type):
        return replace(
            item, **{part.name: _mapped_back(getattr(item, part.name), root, drive) for part in fields(item)}
        )
    if isinstance(item, tuple):
        return tuple(_mapped_back(part, root, drive) for part in item)
    if isinstance(item, dict | MappingProxyType):
        return {key: _mapped_back(value, root, drive) for key, value in item.items()}
    return item


# -------------------------------------------------------------------------------------------------- one trial


def _trial(job: Job) -> Trial:
    sys.path[:] = job.path
    sys.dont_write_bytecode = True
    os.chdir(job.folder)
    copies = {os.path.realpath(file): copy for file, copy in job.texts}
    sys.meta_path.insert(0, Redirected(copies))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with _noting_constructors():
        return _analysed(job, threads)


def _analysed(job: Job, threads: int) -> Trial:
    seed(0)
    with _loaded(job) as step:
        if _elements(step) > _ONE_THREAD:
            torch.set_num_threads(threads)
        examined = examine(
            step.model,
            step.inputs,
            loss=step.loss,
            optimizer=step.optimizer,
            expect=step.expect,
            options=job.options,
        )
        report = examined.report
        found = troubles((*report.findings, *report.notes), examined, _built_at)
        if job.options.rewrite == "all":
            found += every_write(found, examined, _built_at)
        trial = Trial(verdicts=dict(report.verdicts), troubles=found, files=_files(examined.lab.program))
        if not job.prove or not _is_measurable(step):
            return replace(trial, unproved="the model is too large, or has no values, to be run for a proof")
        native = _best(step, trial, None, double=False)
    return _compared(job, trial, native)


def _files(target: Any) -> tuple[str, ...]:
    from fxgrad.source import files_of

    return files_of(target.model, target.root, *([target.loss] if target.loss is not None else []))


def load_step(model: str, **named: Any) -> contextlib.AbstractContextManager[object]:
    """The step that the command line names: MODEL and what `Subject.of` has of it; what is neither given nor
    in the file is guessed."""
    return step_of(model, **named)


@contextlib.contextmanager
def _loaded(job: Job) -> Iterator[Step]:
    module, _, function = job.subject.loader.partition(":")
    loader = getattr(importlib.import_module(module), function)
    made = loader(**with_copies(dict(job.subject.arguments), dict(job.texts)))
    with made if hasattr(made, "__enter__") else contextlib.nullcontext(made) as found:
        yield Step(found.model, found.inputs, found.loss, found.optimizer, found.expect)


# ------------------------------------------------------------------------------------ where modules are built


@contextlib.contextmanager
def _noting_constructors() -> Iterator[None]:
    """Notes the user's frames around every constructor of torch's that takes `inplace`."""
    kinds = {
        base: None for kind in vars(torch.nn).values() if isinstance(kind, type) for base in kind.__mro__
    }
    changed: list[tuple[Any, object]] = []
    for kind in kinds:
        constructor = vars(kind).get("__init__")
        if "inplace" in getattr(constructor, "__code__", _noting.__code__).co_varnames:
            changed.append((kind, constructor))
            setattr(kind, "__init__", _noting(constructor))  # noqa: B010 - an assignment would be the same, but mypy forbids it
    try:
        yield
    finally:
        for kind, original in changed:
            setattr(kind, "__init__", original)  # noqa: B010


def _noting(original: Any) -> object:
    @functools.wraps(original)
    def constructor(self: object, *args: object, **kwargs: object) -> None:
        if id(self) not in _built:
            _built[id(self)] = (self, user_spots(sys._getframe(1)))
        original(self, *args, **kwargs)

    return constructor


def _built_at(module: Any) -> tuple[Site, ...]:
    """The user's frames around a module's constructor; those of a module of the same kind for a copy of
    one."""
    if id(module) in _built:
        return sites_of(_built[id(module)][1])
    same = (spots for other, spots in _built.values() if type(other) is type(module) and other.inplace)
    return sites_of(next(same, ()))


# -------------------------------------------------------------------------------------------------- the proof


def _is_measurable(step: Step) -> bool:
    """Whether the step has values and is small enough to be run again and again."""
    return _elements(step) <= _COMPARED and not any(
        p.device.type == "meta" for p in registry.parameters(step.root)
    )


def _elements(step: Step) -> int:
    return sum(parameter.numel() for parameter in registry.parameters(step.root))


def _best(step: Step, trial: Trial, train: bool | None, *, double: bool = True) -> Numbers:
    """The numbers of plain eager where it is right, else those of the oracle."""
    hidden = tuple(t.site for t in trial.troubles if t.hidden and t.site is not None)
    if "blocked" not in trial.verdicts.values() and not hidden:
        return measure(step, oracle=False, double=double, train=train)
    views = any(t.refused for t in trial.troubles)
    return measure(step, oracle=True, double=double, hidden=hidden, views=views, train=train)


def _compared(job: Job, trial: Trial, native: Numbers) -> Trial:
    """The trial with its numbers held against the reference's, or, for the first, saved as the reference."""
    numbers = {_NATIVE_NAME: native, **_doubles(job, trial)}
    if job.make_reference:
        torch.save({name: (n.tensors, n.shared, n.error) for name, n in numbers.items()}, job.reference)
        return replace(trial, unproved=_unusable(job, numbers, trial), untrue=_untrue(job, numbers, trial))
    held = []
    for name, (tensors, shared, error) in torch.load(job.reference, weights_only=True).items():
        if not error:
            want = Numbers(tensors, shared)
            allowed = EDIT_AS_IT_IS if name == _NATIVE_NAME else EDIT_IN_DOUBLE
            held.append((name, difference(want, numbers[name], tolerances=allowed)))
    text = next((f"{text} ({name})" for name, text in held if text), "")
    return replace(trial, difference=text, proof=", ".join(name for name, _ in held))


def _doubles(job: Job, trial: Trial) -> dict[str, Numbers]:
    made = {}
    for name, train in _MODES:
        with _in_double(job) as step:
            made[name] = _best(step, trial, train)
            if _elements(step) > _BOTH_MODES:
                break
    return made


@contextlib.contextmanager
def _in_double(job: Job) -> Iterator[Step]:
    """The step loaded again under a float64 default, so that what its file makes is float64 from the
    start."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        seed(0)
        with _loaded(job) as step:
            yield as_double(step)
    finally:
        torch.set_default_dtype(before)


def _unusable(job: Job, numbers: dict[str, Numbers], trial: Trial) -> str:
    """Why these numbers prove nothing about an edit; "" if they do."""
    name, train = _MODES[0]
    first = numbers[name]
    if not first.error and not bool(torch.isfinite(first.tensors["step 0: loss"])):
        return "the loss is not finite on these inputs"
    with _in_double(job) as step:
        again = _best(step, trial, train)
    return (
        "the step gives other numbers each time it is run"
        if difference(first, again, tolerances=EDIT_IN_DOUBLE)
        else ""
    )


def _untrue(job: Job, numbers: dict[str, Numbers], trial: Trial) -> str:
    """Why no out-of-place edit can be right, as far as numbers tell.

    Where torch refuses a write through a view, the oracle clones the view: a forward that does write must
    come to the same.
    """
    oracle = numbers[_MODES[0][0]]
    if oracle.error and numbers[_NATIVE_NAME].error:
        return oracle.error.partition(": ")[2].splitlines()[0]
    refused = [t for t in trial.troubles if t.refused]
    if not refused or oracle.error:
        return ""
    with _in_double(job) as step:
        step.root.train(True)
        plain = forward_only(step)
    if "single memory location" in plain.error:
        return ""  # torch never allows it: nothing else could be meant
    if plain.error:
        return plain.error.splitlines()[0]
    want = Numbers({name: tensor for name, tensor in oracle.tensors.items() if name in plain.tensors})
    text = difference(want, plain, tolerances=EDIT_IN_DOUBLE)
    return f"others read what this write changes: {text}" if text else ""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_job(sys.argv[1])
    else:
        serve()
