"""Every path from a parameter to the loss is cast to an integer or bool type.

What it finds
    A trainable parameter whose every way to the loss goes through a cast to integers: `.long()`, `.int()`,
    `.byte()`, `.bool()`, `.to(torch.int64)`, `.type(...)`, `.type_as(labels)`, and a write of floating values
    into a tensor of integers. In a watched script also a tensor of integers that is asked to require grad.

Why it matters
    Integers carry no gradient: autograd records nothing for the cast, also if the next line casts back to
    float.

Example
    x = (self.encode(x) * 255).to(torch.uint8)  # FXG106: the encoder never trains
    return self.decode(x.float() / 255)

Instead
    y = self.encode(x) * 255
    y = y + (y.round() - y).detach()  # rounded in the forward pass, the identity in the backward pass
    return self.decode(y / 255)

When the fix is safe
    Never applied: leaving the cast out changes the numbers.

Not handled
    Casts between floating types, which are differentiable. Rounding without a cast: FXG401.
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.analyses.cuts import CASTS
from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, said, starved, subject
from fxgrad.records import Facts, Finding

CODE = "FXG106"
NAME = "integer-cast"
SEVERITY = "error"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per line that cuts."""
    for group in cut_groups(context, facts, CODE):
        node, parameters, way = group
        cut = next(cut for cut in way.cuts if cut.node == node.name)
        dtype = str(facts.values[cut.flow.target].dtype).removeprefix("torch.")
        does, where = (
            ("casts", f"to {dtype}") if node.target in CASTS else ("writes", f"into a tensor of {dtype}")
        )
        yield finding(
            context,
            facts,
            (CODE, NAME),
            group,
            f"{said(node)} {does} what {subject(parameters)} computed {where}, which carries no gradient: "
            f"{starved(parameters)}",
            "keep the tensor floating; where whole numbers are needed, round with a straight-through "
            "estimator",
        )
