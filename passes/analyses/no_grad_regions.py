"""Which line switched gradients off where a step ran: the `with` statement, the decorator, the call of a
switch.

From the switches that the run itself went through (`torch._C._set_grad_enabled`, `inference_mode` entered)
and the text around them; where the run went through none, gradients were off before it began, and the files
are searched for the statement. Not handled: which of several such statements ran before the run of `analyze`.
"""

from __future__ import annotations

from fxgrad.records import Facts, NodeFact, Site
from fxgrad.source import grad_off_sites, no_grad_site, region_site
from fxgrad.source.objects import origin
from fxgrad.torch_api.internals import set_grad_enabled


def region_of(facts: Facts, node: NodeFact, files: tuple[str, ...]) -> Site | None:
    """The place to mend; None if nothing is known. Inside an installed package: the user's line that called
    into it."""
    switch = _switch(facts, node)
    found = _written(switch, node) if switch is not None else None
    if found is None:
        found = next((site for site in map(no_grad_site, node.stack) if site is not None), None)
    if found is None:
        found = next(iter(grad_off_sites(files)), None)
    if found is not None and origin(found.file) == "installed":
        return next((site for site in node.stack if origin(site.file) == "user"), found)
    return found


def inside_call(facts: Facts, node: NodeFact) -> bool:
    """Whether gradients were switched off by torch itself within the very call that the user wrote (a
    distribution's `sample`)."""
    if node.kind != "op" or node.inference or node.site is None:
        return False
    if no_grad_site(node.site) is not None:
        return False
    switch = _switch(facts, node)
    if switch is not None:
        return switch.stack == node.stack
    # A watch notes no regions: the function that made the call ran with gradients on before and after.
    switched = any(site.function == node.site.function for site in grad_off_sites([node.site.file]))
    return _is_on_around(facts, node) and not switched


def _is_on_around(facts: Facts, node: NodeFact) -> bool:
    """Whether other steps of the very function ran with gradients on, and none of another line without."""
    steps = [
        n
        for n in facts.nodes
        if n.site and n.stack[1:] == node.stack[1:] and n.site.function == node.stack[0].function
    ]
    off = [n for n in steps if not n.grad_enabled and n.site is not None and n.site != node.site]
    # of another line that stands in a block of its own the text says why
    return any(n.grad_enabled for n in steps) and all(n.site and no_grad_site(n.site) for n in off)


def _switch(facts: Facts, node: NodeFact) -> NodeFact | None:
    """The last step before `node` that found gradients on and left them off; where in inference mode, the
    last that entered it."""
    last = None
    for step in facts.nodes:
        if step is node:
            return last
        if node.inference:
            last = step if step.kind == "region" and step.target == "inference_mode" else last
        elif step.target.endswith(set_grad_enabled.__name__) and step.grad_enabled:
            last = step if step.stack else None  # of a watch: a region, which the text around a step tells
    return None


def _written(switch: NodeFact, node: NodeFact) -> Site | None:
    """Where the text of the program says so: a decorator's own frame is torch's, a context manager's is over
    when the step runs."""
    same = len(node.stack) - len(switch.stack)  # index in the step's stack of the frame that threw the switch
    if same > 0:
        decorated = no_grad_site(node.stack[same - 1])
        if decorated is not None:
            return decorated
    if same >= 0:
        around = region_site(node.stack[same].file, node.stack[same].line)
        if around is not None:
            return around
    thrown = switch.stack[0]
    if any(site.line == thrown.line for site in grad_off_sites((thrown.file,))):
        return thrown
    functions = {(site.file, site.function) for site in node.stack}
    return next((site for site in switch.stack if (site.file, site.function) in functions), thrown)
