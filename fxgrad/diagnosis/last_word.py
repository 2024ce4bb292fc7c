"""Eager has the last word on an error: `confirmed` gives a run whose error the plain program has as well, or
one without.

A recorder bends what it records (stand-ins, patched calls, more frames on the stack), so a run that raised is
no proof that the program does. One plain step is (`fxgrad.trace.plain`). Without data, or where a step costs
too much, none can be made: there an error counts as the program's own unless it names what only the recorder
has, and then nothing is known.
"""

from __future__ import annotations

from fxgrad.program.program import Program, tensors_of_program
from fxgrad.records import Raised
from fxgrad.records.errors import TraceError
from fxgrad.source.sites import site_of
from fxgrad.torch_api.internals import FakeTensor
from fxgrad.trace.lab import Lab
from fxgrad.trace.run import Run

# Parameters and inputs above this many elements are not copied, and not computed with, only to look at an
# error: 2 GB in float32.
PLAIN_ELEMENTS = 500_000_000


def has_data(program: Program) -> bool:
    """Whether no tensor of the program is fake or on the meta device."""
    return not any(t.device.type == "meta" or isinstance(t, FakeTensor) for t in tensors_of_program(program))


def confirmed(lab: Lab, main: Run) -> Run:
    """`main`, its error as the plain program has it; where that has none, with the plain step's gradients,
    and what the recorder ran into as `aside`.

    Raises:
        TraceError: whether the program raises cannot be known.
    """
    error, program = main.error, lab.program
    if error is None:
        return _seen_through(lab, main)
    if not has_data(program) or sum(t.numel() for t in tensors_of_program(program)) > PLAIN_ELEMENTS:
        if not _of_a_stand_in(error):
            return main
        raise TraceError(
            f"{spoken(error)}: {_NOT_KNOWN if error.type else _NOT_SEEN}",
            site=error.site,
            hint='pass real tensors, and values="real" (--values real)',
        )
    found = lab.truth()
    if found is None:
        return main
    if found.error is None:
        main.error, main.aside, main.gradients = None, error, found.gradients
        main.refusal = None
    elif main.refusal is None and (found.error.type, found.error.phase) != (error.type, error.phase):
        main.error = found.error
    return main


def _seen_through(lab: Lab, main: Run) -> Run:
    """`main`, once a plain step agrees with it where the program looked at autograd's graph: the leaves in
    there are stand-ins.

    Raises:
        TraceError: it does not agree, so the program took another way.
    """
    program = lab.program
    if (
        not main.recorder.looks
        or not has_data(program)
        or sum(t.numel() for t in tensors_of_program(program)) > PLAIN_ELEMENTS
    ):
        return main
    found = lab.truth()
    if found is None or found.error is not None or not found.gradients or found.gradients == main.gradients:
        return main
    raise TraceError(
        "the program looks at autograd's graph (`grad_fn`) and goes another way in the analysis, where "
        "stand-ins are in the place of its tensors",
        site=site_of(main.recorder.looks[0]),
        hint="decide by something else than which tensor a node of autograd's belongs to",
    )


_NOT_KNOWN = (
    "an error of the analysis, which runs on tensors without data; whether the program raises is not known"
)
_NOT_SEEN = "the analysis does not see what, and without data no plain step can tell"


def _of_a_stand_in(error: Raised) -> bool:
    """An error that says what the program's own tensors are not, that stands for the depth of the stack, or
    that is none of the program's."""
    return not error.type or "FakeTensor" in error.message or error.type == "RecursionError"


def spoken(error: Raised) -> str:
    """The error in a few words; one without a type is what keeps a run from being a record of the program."""
    if not error.type:
        return error.message
    first = error.message.splitlines()[0] if error.message else ""
    return f"{error.phase} raises {error.type}: {first}" if first else f"{error.phase} raises {error.type}"
