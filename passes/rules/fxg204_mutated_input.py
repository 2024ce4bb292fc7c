"""The forward changes a tensor of its caller.

What it finds
    In-place steps of the forward (`x += ...`, `x[...] = ...`, a first layer with `inplace=True`) that write
    into the memory of an input, directly or through what only looks like a copy: `x.float()` of a float
    tensor, `x.view(...)`, `x.detach()`, `x.contiguous()`.

Why it matters
    The second call on the same batch sees other data: evaluation after training, gradient accumulation,
    `gradcheck`, retries and checkpointing give other results, and a data set kept in memory decays.

Example
    def forward(self, image):
        image -= self.mean
        return self.conv(image)

Instead
    def forward(self, image):
        image = image - self.mean
        return self.conv(image)

When the fix is safe
    Where the caller does not count on the change. A cache that the caller passes in to be filled is meant to
    be written: ignore the rule on that line.

Not handled
    Inputs changed through NumPy, and by the loss function.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.context import Context
from fxgrad.passes.findings import expression
from fxgrad.records import Facts, Finding, Fix, NodeFact, Step

CODE = "FXG204"
NAME = "mutated-input"
SEVERITY = "warning"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that writes into an input's storage."""
    inputs = {facts.values[v].storage: n.target for n in facts.nodes if n.kind == "input" for v in n.makes}
    seen = set()
    for node in facts.nodes:
        hit = [inputs[s] for s in _written(facts, node) if s in inputs]
        if not hit or (node.site or node.name) in seen or node.phase != "forward":
            continue
        seen.add(node.site or node.name)
        kind = f" ({node.target}, inplace)" if node.kind == "module" else ""
        yield Finding(
            CODE,
            NAME,
            "warning",
            f"`{expression(node)}`{kind} writes into the caller's `{hit[0]}`: a second call on it sees other "
            "data",
            node.site,
            (),
            (Step(hit[0]), Step(expression(node), node.site, True)),
            Fix("write out of place (`x = x - mean`), or `x = x.clone()` first"),
            step=node.name,
        )


def _written(facts: Facts, node: NodeFact) -> tuple[int, ...]:
    """The storages whose content changed; for `x.data = new` the one that `x` had. `x.requires_grad = ...`
    writes none."""
    if node.target != "Tensor.__set__":
        return node.writes
    old = facts.values[node.reads[0]].storage if node.reads else -1
    return () if old in node.writes else (old,)
