"""A reentrant checkpoint is given no tensor that requires grad, so nothing inside it gets a gradient.

What it finds
    `checkpoint(f, x, use_reentrant=True)` (also by default, through `checkpoint_sequential`, and switched on
    in a library) where none of the tensors given to it requires grad, while parameters or captured tensors
    inside do: the first block of a network, adapters behind a frozen embedding, inputs in a dict.

Why it matters
    The reentrant form runs the block under no_grad and lets only its tensor arguments carry the gradient.
    torch warns once, in text that is easily lost, and the block's parameters never train.

Example
    h = checkpoint(self.block, self.frozen_embedding(ids), use_reentrant=True)  # FXG114: the block never
    trains

Instead
    h = checkpoint(self.block, self.frozen_embedding(ids), use_reentrant=False)

When the fix is safe
    Never applied by itself. `use_reentrant=False` gives the same values and gradients where both work; with
    the reentrant form kept, an input that requires grad (`model.enable_input_require_grads()` in
    transformers) opens the way.

Not handled
    What else cuts inside a checkpointed function is named by the rule for it, unless opening the checkpoint
    would change a gradient.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator

from fxgrad.passes.context import Context
from fxgrad.passes.findings import cut_groups, finding, plural
from fxgrad.records import Facts, Finding, NodeFact, Site
from fxgrad.source.parsing import load, nodes, site_of

CODE = "FXG114"
NAME = "reentrant-checkpoint"
SEVERITY = "error"


def check(facts: Facts, context: Context) -> Iterator[Finding]:
    """One finding per checkpoint call that cuts."""
    for group in cut_groups(context, facts, CODE):
        node, parameters, _ = group
        if _is_reentrant(node):
            message = (
                "none of the tensors given to this reentrant checkpoint requires grad: "
                f"{plural(parameters)} inside get no gradient"
            )
            advice = (
                "pass use_reentrant=False, or make an input require grad "
                "(model.enable_input_require_grads() in transformers)"
            )
        else:
            message = f"the way of {plural(parameters)} to the loss ends inside this checkpointed function"
            advice = "run the function without the checkpoint to see which line cuts"
        made = finding(context, facts, (CODE, NAME), group, message, advice)
        yield dataclasses.replace(made, site=_switched_on(node, context.files) or made.site)


def _is_reentrant(node: NodeFact) -> bool:
    options = node.constants[1] if len(node.constants) > 1 and isinstance(node.constants[1], dict) else {}
    return options.get("use_reentrant") is not False


def _switched_on(node: NodeFact, files: tuple[str, ...]) -> Site | None:
    """Where a library makes the call: the user's line that asked it to."""
    if any("site-packages" not in site.file for site in node.stack[:1]):
        return None
    for file in files:
        if "site-packages" in file:
            continue
        source = load(file)
        for call in nodes(source, ast.Call):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "gradient_checkpointing_enable":
                return site_of(source, call)
    return None
