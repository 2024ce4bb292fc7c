"""A hook gave backward something else than the gradient it stands for: another size or type, no tensor,
another number of gradients.

torch names the hook by its function alone. A tensor's hook is told by that name among those that the script
registered, a module's (torch calls all of them `hook`) among those that modules have; where several could be
it, the line stays where backward was called, and theirs are said. Not handled: hooks on autograd's nodes
(`t.grad_fn.register_hook`).
"""

from __future__ import annotations

from collections.abc import Iterator

from fxgrad.passes.analyses.death.record import Death
from fxgrad.passes.analyses.gradient_hooks import function_site
from fxgrad.passes.ended import Cause
from fxgrad.records import Site
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import hook_named, hook_resized, hook_returned, hook_types

ADVICE = (
    "return None to leave the gradient as it is, or a tensor of the gradient's own shape, type and device "
    "(a module's hook: a tuple of them, one for each input)"
)
_OF_MODULES = "hook"  # what torch calls its own hook, which runs those of a module


def changed(death: Death) -> Iterator[Cause]:
    """The hook that returned it, or those that may have."""
    name = hook_named(death.message)
    of_tensors = {site for hook, site in death.ended.hooks if name in (hook, None)}
    found = of_tensors or (set(_of_modules(death)) if name in (_OF_MODULES, None) else set())
    if not found:
        return
    what = _what(death.message, returns=bool(of_tensors))
    if len(found) == 1:
        one = "this hook of a tensor" if of_tensors else "what this hook of a module returns"
        yield Cause(f"{one} {what}", found.pop(), ADVICE)
        return
    lines = sorted({site.line for site in found})
    one = "one of the hooks" if of_tensors else "what one of the hooks returns, those"
    yield Cause(f"{one} at lines {', '.join(map(str, lines))} {what}", death.site, ADVICE)


def _what(message: str, *, returns: bool) -> str:
    types, returned = hook_types(message), hook_returned(message)
    verb = "returns" if returns else "is"
    if types is not None:
        return f"{verb} a {types[1]} where the gradient is a {types[0]}"
    if returned is not None:
        return f"{verb} a `{returned}` where a gradient is expected"
    if hook_resized(message):
        return f"{verb} {'a tensor ' if returns else ''}of another size than the gradient"
    return f"{verb} something else than the gradient"


def _of_modules(death: Death) -> Iterator[Site]:
    for _, module in registry.named_modules(death.model):
        for kind in ("_backward_hooks", "_backward_pre_hooks"):
            for hook in getattr(module, kind).values():
                site = function_site(hook)
                if site is not None:
                    yield site
