"""What compiled code refuses and its Python code allows: a second derivative, a graph that is kept, a
derivative by one of its own results.

While it is watched compiled code runs eagerly, so that lines can be named. A program that differentiates more
than once then runs one step as it is; an error of that step is the program's own, and `torch.compile` is
named. Not handled: errors of compiling that have nothing to do with gradients, which are left to torch's own
words; steps by hand, without an optimizer.
"""

from __future__ import annotations

from fxgrad.records.training import Compiled
from fxgrad.source.sites import Spot, line_of_error, own_line, sites_of
from fxgrad.torch_api.errors import COMPILED_TWICE, DONATED, NOT_USED, says


def is_from_compiling(error: BaseException) -> bool:
    """Whether it is what compiled code raises where the same line ran eagerly before."""
    return says(str(error), COMPILED_TWICE, DONATED, NOT_USED)


def compiled(error: BaseException | None, spots: tuple[Spot, ...]) -> Compiled | None:
    """Such an error as a record; `spots`: the call of `torch.compile`."""
    if error is None or not is_from_compiling(error):
        return None
    raised = line_of_error(error)
    return Compiled(str(error), raised, own_line(sites_of(spots)) or raised)
