"""A write that autograd does not know of (`.data`, `.detach()`, NumPy): backward runs and its gradients are
silently wrong.

What it finds
    An error: memory that a step saved for backward is changed afterwards through an alias that torch's
    version counter does not watch (`.data`, memory shared with NumPy, `t.data = new`, the step of a fused
    optimizer, `torch.kron(a, b, out=t)`), and its elements are others then; or what a custom Function keeps
    on its `ctx` (`ctx.x = x`) is written before its backward reads it, where torch compares no versions. A
    warning: a value is changed behind the graph's back before it is used (`self.weight.data *= mask` in
    forward, `h.detach().mul_(...)`, an intermediate value under `no_grad`), so that its gradient is that of a
    function without the write.

Why it matters
    Nothing raises. The loss may even fall. Through `.data` torch's check against overwritten tensors is
    switched off.

Example
    def forward(self, x):
        self.weight.data *= self.mask
        return F.linear(x, self.weight)

Instead
    def forward(self, x):
        return F.linear(x, self.weight * self.mask)

When the fix is safe
    Out of place and in the graph the gradient becomes that of what was computed: it changes, which is the
    point. A straight-through estimator that relies on the wrong gradient says so clearly as `x + (quantised -
    x).detach()`. A projection of weights (clipping, normalising) belongs after `optimizer.step()`, under
    `no_grad`.

Not handled
    Writes from C++ or Triton code that bump no version; on fake tensors elements cannot be compared, and
    every such write counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.analyses.hidden_writes import HiddenWrite, told
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_at, expression, line_of, severity, starved, subject, text_of
from fxgrad.records import Facts, Finding, Fix, Site, Step
from fxgrad.source.out_of_place import past_autograd
from fxgrad.torch_api.errors import OVERWRITTEN, says

CODE = "FXG203"
NAME = "hidden-write"
SEVERITY = "error"

_THROUGH = {
    "data": "through `.data`",
    "detach": "through `.detach()`, which shares memory but no history",
    "numpy": "through memory that NumPy shares",
    "no_grad": "under no_grad",
    "fused": "in a fused kernel",
    "set": "by replacing its `.data`",
    "uncounted": "in an operator that does not count its writes",
}


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """An error where what backward saved was changed unseen; a warning where the graph misses a change. One
    finding per line."""
    raising = _raising(facts, context)
    for write, site in told(facts, context):
        if write.node.name in raising:
            continue  # FXG201's
        stations = [Step(expression(write.node), write.node.site, site is write.node.site)]
        if site is not write.node.site:
            stations.append(Step(text_of(site) or "write", site, True))
        own = (write.parameter,) if write.parameter is not None else ()
        lost = cut_at(context, facts, (site.file, site.line)) if site is not None and not own else ()
        also = f"; no gradient comes back to {subject(lost)} either: {starved(lost)}" if lost else ""
        yield Finding(
            CODE,
            NAME,
            "error"
            if write.saver is not None or (lost and severity(context, lost) == "error")
            else "warning",
            f"{_message(write, site)}{also}",
            site,
            own or lost,
            (Step("loss"), *stations),
            Fix(_advice(write)),
            kind=write.how,
            step=write.node.name if site is write.node.site else "",
        )


def _raising(facts: Facts, context: Context) -> frozenset[str]:
    """The writes that torch's version counter did see, where backward raised for them."""
    if facts.error is None or context.hazards is None or not says(facts.error.message, OVERWRITTEN):
        return frozenset()
    return frozenset(saved.overwriter for saved in context.hazards.saved if saved.counted)


def _message(write: HiddenWrite, site: Site | None) -> str:
    if site is write.node.site:
        what = (
            f"`{expression(write.node)}`"
            if write.how != "numpy"
            else f"NumPy code that got `{expression(write.node)}`"
        )
    else:
        what = f"`{text_of(site) or 'this'}`"
    if write.saver is not None and write.kept:
        kept = (
            f"what `{expression(write.saver)}`{line_of(write.saver.site, site)} keeps as `ctx.{write.kept}`"
        )
        return (
            f"{what} changes {kept} and reads in backward: torch checks only what `ctx.save_for_backward` "
            "saved, the gradients are silently wrong"
        )
    through = _THROUGH[write.how]
    if write.saver is not None:
        saved = f"what `{expression(write.saver)}`{line_of(write.saver.site, site)} saved for backward"
        return (
            f"{what} changes {saved}, {through}: torch's version counter does not see it, the gradients "
            "are silently wrong"
        )
    if write.parameter is not None:
        changes = f"{what} changes the parameter `{write.parameter}` {through}"
        return f"{changes}: its gradient ignores the write (what the write fixes gets one too)"
    return f"{what} changes a recorded value {through}: the gradient is that of the value before the write"


def _advice(write: HiddenWrite) -> str:
    if write.how == "fused":
        return "call every backward that needs the old weights before the step, or run forward again after it"
    if write.how == "kept":
        return (
            f"compute the new value out of place, or keep a copy "
            f"(`ctx.{write.kept} = t.clone()`); tensors saved "
            "with `ctx.save_for_backward` are checked, and torch raises here"
        )
    if write.how == "numpy":
        return "copy before writing in NumPy: `t.detach().numpy().copy()`"
    if write.parameter is not None:
        return (
            "make it part of the graph (`w = self.weight * self.mask`), or do it after optimizer.step() "
            "under torch.no_grad()"
        )
    written = past_autograd(expression(write.node)) or "h = h * mask"
    return f"compute the new value out of place, as part of the graph: `{written}`"
