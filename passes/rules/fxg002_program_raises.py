"""The program raises, and no rule about gradients names the cause.

What it finds
    An error of the forward, the loss or the backward that no other rule explains. Where torch's words are
    known, the finding says what they mean and what mends it; else it has the error's own words and line.
    `fxgrad explain TEXT` says more of the words. In a watched script also a derivative that is NaN, a
    checkpoint whose second run differs from its first, gradients of a kind that the optimizer does not take,
    a loss that a scaler was not given, a copy of a tensor with a history.

Why it matters
    Until the step runs, nothing gets a gradient.

Example
    optimizer = torch.optim.Adam(nn.Embedding(1000, 8, sparse=True).parameters())
    ...
    optimizer.step()  # FXG002: Adam does not support sparse gradients

Instead
    optimizer = torch.optim.SparseAdam(nn.Embedding(1000, 8, sparse=True).parameters())

When the fix is safe
    Never applied by itself.

Not handled
    Errors that have nothing to do with gradients, in a script that is watched: its own traceback says all
    there is.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.context import Context
from fxgrad.records import Facts, Finding, Fix, Site
from fxgrad.torch_api.explanations import explanation_of

CODE = "FXG002"
NAME = "program-raises"
SEVERITY = "error"

ADVICE = "mend this error first: until the step runs, nothing gets a gradient"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """Nothing by itself: that no rule names the cause is known when every rule has spoken (`unexplained`)."""
    return iter(())


def unexplained(facts: Facts, context: Context) -> Iterator[Finding]:
    """The program raised and no rule says why: its words, what they mean, its line, so that the report is
    never silent about it."""
    error = context.ended.raised if context.ended is not None else facts.error
    if error is None:
        return
    entry = explanation_of(error.message)
    if entry is not None:
        yield in_words(f"{error.type}: {entry.means}", error.site, entry.remedy)
    else:
        words = error.message.splitlines()[0] if error.message else ""
        yield in_words(f"{error.phase} raises {error.type}: {words}", error.site)


def in_words(words: str, site: Site | None, advice: str = ADVICE) -> Finding:
    """The finding of an error that is said so."""
    return Finding(CODE, NAME, "error", words, site, fix=Fix(advice))
