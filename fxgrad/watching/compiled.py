"""What compiled code refuses and its Python code allows: a second derivative, a graph that is kept, a
derivative by one of its own results.

While it is watched compiled code runs eagerly, so that lines can be named. A program that differentiates more
than once then runs one step as it is; an error of that step is the program's own, and `torch.compile` is
named. Not handled: errors of compiling that have nothing to do with gradients, which are left to torch's own
words; steps by hand, without an optimizer.
"""

from __future__ import annotations

from fxgrad.passes.findings import line_of
from fxgrad.records import Finding, Fix, Step
from fxgrad.source.sites import Spot, line_of_error, own_line, sites_of
from fxgrad.torch_api.errors import COMPILED_TWICE, DONATED, NOT_USED, says


def is_from_compiling(error: BaseException) -> bool:
    """Whether it is what compiled code raises where the same line ran eagerly before."""
    return says(str(error), COMPILED_TWICE, DONATED, NOT_USED)


def finding(error: BaseException, spots: tuple[Spot, ...]) -> Finding:
    """The finding at the call of `torch.compile`."""
    raised = line_of_error(error)
    site = own_line(sites_of(spots)) or raised
    text = str(error)
    if says(text, COMPILED_TWICE):
        what = "compiled, this has no second derivative"
        advice = (
            "do not compile what is differentiated twice (a gradient penalty, an energy whose forces "
            "are a loss)"
        )
    elif says(text, DONATED):
        what = (
            "compiled, this frees what its backward needs as that runs: the graph cannot be kept for another"
        )
        advice = (
            "do not compile what is differentiated more than once, or add the losses and call backward once"
        )
    else:
        what = "compiled, its results do not depend on each other: one cannot be differentiated by another"
        advice = "do not compile what is differentiated by its own intermediate results"
    return Finding(
        "FXG113",
        "op-without-autograd",
        "error",
        f"{what}: torch raises{line_of(raised, site)} although the same code runs eagerly",
        site,
        (),
        (Step("derivative", raised), Step("torch.compile", site, True)),
        Fix(advice),
    )
