"""The program recorded for a graph on real tensors: eager's own run, or, where autograd refuses a write or
finds one done, a run with such writes allowed or with a copy of everything saved.

What raises whatever is rewritten is refused, with the line that stands in the way and what helps there.
"""

from __future__ import annotations

from dataclasses import replace

from fxgrad.fix_graph.proof import SEED
from fxgrad.program.program import Program, tensors_of_program
from fxgrad.records import Site
from fxgrad.records.errors import FixError, TraceError
from fxgrad.source.sites import innermost, site_of
from fxgrad.torch_api.errors import (
    DETACHED_SAVED,
    LEAF,
    MODIFIED_VIEW,
    NO_GRAD_FN,
    OUT_ARGUMENT,
    OVERLAP,
    OVERWRITTEN,
    says,
    without_derivative,
)
from fxgrad.torch_api.saved_hooks import saved_copies
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.observations import Step
from fxgrad.trace.recorder import NeedsValue
from fxgrad.trace.run import Run, run
from fxgrad.world.standins import is_fake

# What autograd says when it refuses an in-place write, or finds one done.
VIEWS = (MODIFIED_VIEW, OUT_ARGUMENT)
_MOST_LEAVES = 64
GRAPH_ONLY = (
    "sizes, threads, compiled functions and state of Python's have no place in a graph; the edits "
    "of the source (`fxgrad fix`) are tried by themselves"
)


def recorded(target: Program, asked: Experiment | None = None) -> tuple[Run, bool, str]:
    """A run with an output and, as far as autograd can give them, gradients; whether writes had to be
    allowed; and what to call it. With open numbers (`OPEN`) where they change nothing and C code asks for
    none: then it takes none unseen in other runs either."""
    asked = asked or STEADY
    eager = recording(target, asked)
    if asked.open_numbers and _may_be_bent(eager):
        return recorded(target)
    if eager.error is None:
        return eager, False, EAGER
    allowed: frozenset[str] | None = None
    if eager.error.phase != "backward":
        eager, allowed = _run_allowing(target, eager)
    error = eager.error
    if error is not None and not error.type:
        raise FixError(
            f"no graph: {error.message}, which the recorder does not see", site=error.site, hint=GRAPH_ONLY
        )
    if error is not None and error.phase == "backward" and says(error.message, NO_GRAD_FN):
        return eager, allowed is not None, "eager, which has no gradients"
    if error is not None:
        if error.phase != "backward" or not says(error.message, OVERWRITTEN, *VIEWS):
            raise _raising(eager)
        with saved_copies():
            eager = recording(target, replace(asked, allow=allowed))
        if eager.error is not None:
            raise _raising(eager)
        return eager, allowed is not None, COPIED
    return eager, True, "eager, with the writes that autograd refuses"


def _may_be_bent(eager: Run) -> bool:
    """Whether open numbers may have led the program elsewhere than plain ones, or have been taken by C
    code."""
    recorder, error = eager.recorder, eager.error
    changed = any(read.changed for read in recorder.reads.values())
    return recorder.taken_by_c > 0 or changed or (error is not None and error.phase != "backward")


EAGER = "eager"
COPIED = "eager, with a copy of everything saved for backward"
HINT = "no rewriting of in-place writes mends this"


def _raising(eager: Run) -> FixError:
    """The refusal of a program that raises, whatever is rewritten."""
    error = eager.error
    assert error is not None
    advice = HINT
    if says(error.message, OVERLAP):
        advice = "write a copy of the expanded tensor: `.clone()` it first"
    elif says(error.message, DETACHED_SAVED):
        advice = "give the result a name of its own: `y = y.detach()`"
    elif says(error.message, OVERWRITTEN) and _written_after_transforms(eager):
        advice = (
            "what torch.func's transforms save cannot be copied: hand them a `.clone()` of what is "
            "written later"
        )
    return FixError(
        f"{error.phase} raises {error.type}: {first_line(error.message)}", site=_blamed(eager), hint=advice
    )


def _blamed(eager: Run) -> Site | None:
    """Where the error came from; for one of backward the last call of the operator it names, or the write
    into what a transform saved."""
    error = eager.error
    assert error is not None
    if error.site is not None:
        return error.site
    named = (
        "detach_"
        if says(error.message, DETACHED_SAVED)
        else (without_derivative(error.message) or "").removeprefix("aten::")
    )
    calls = [s for s in eager.recorder.steps if s.spots and named and s.target.rpartition(".")[2] == named]
    if says(error.message, OVERWRITTEN):
        calls = _written_after_transforms(eager)[:1]
    return site_of(calls[-1].spots[0]) if calls else None


def _written_after_transforms(eager: Run) -> list[Step]:
    """The steps that write memory which a transform has read before."""
    storages = {value.id: value.storage for value in eager.recorder.values}
    read: set[int] = set()
    found = []
    for step in eager.recorder.steps:
        if step.spots and read.intersection(step.writes):
            found.append(step)
        if step.kind == "transform":
            read.update(storages[value] for value in step.reads)
    return found


def writes_nothing(eager: Run) -> bool:
    """Whether no step of a recorded run writes memory that was there before it, as far as anybody can see: by
    its version, by an `out=`, by what moves no version (a fused optimizer), or by way of NumPy. Of such a
    graph nothing needs rewriting.
    """
    return not any(
        step.writes
        or step.kind in ("escape", "entry")
        or "._fused_" in step.target
        or any(key == "out" for key, _ in step.operands)
        for step in eager.recorder.steps
    )


def first_line(message: str) -> str:
    return message.splitlines()[0] if message else ""


def refuse_without_data(target: Program) -> None:
    if any(tensor.device.type == "meta" or is_fake(tensor) for tensor in tensors_of_program(target)):
        raise FixError(_NO_DATA, hint=_GIVE_DATA)


_NO_DATA = "a fix is verified on real tensors, and the model or its inputs have no data"
_GIVE_DATA = "pass a model and inputs that are neither fake nor on the meta device"


# what a graph is made from: its numbers compare with those of other steps
STEADY = Experiment("real", steady=SEED, assumptions=True)
OPEN = replace(STEADY, open_numbers=True)


def recording(target: Program, asked: Experiment = STEADY) -> Run:
    """`run`, whose refusals are those of a fix."""
    try:
        return run(target, asked)
    except NeedsValue as need:
        raise FixError(_NO_DATA, site=innermost(need.spots), hint=_GIVE_DATA) from need
    except TraceError as error:
        raise FixError(error.reason, site=error.site, hint=error.hint) from error


def _run_allowing(target: Program, first: Run) -> tuple[Run, frozenset[str]]:
    """The program once more, and again for each leaf it writes, with the writes that autograd refuses."""
    eager, allowed = first, frozenset[str]()
    for _ in range(_MOST_LEAVES):
        error = eager.error
        if error is None or error.phase == "backward":
            break
        if error.phase == "forward" and says(error.message, LEAF):
            leaf = _written_leaf(eager, error.node)
            if leaf is None or leaf in allowed:
                break
            allowed |= {leaf}
        elif eager is not first or not says(error.message, *VIEWS):
            break
        eager = recording(target, replace(STEADY, allow=allowed))
    return eager, allowed


def _written_leaf(eager: Run, node: str | None) -> str | None:
    """The input or attribute whose memory the step at `node`, which raised, was to write."""
    step = next((step for step in eager.recorder.steps if step.node.name == node), None)
    if step is None:
        return None
    values = {v.id: v for v in eager.recorder.values}
    written = {values[r].storage for r in step.reads[:1]}
    for earlier in eager.recorder.steps:
        if earlier.kind in ("input", "attribute") and any(
            values[m].storage in written for m in earlier.makes
        ):
            return earlier.target
    return None
