"""Hooks that may have taken a gradient away: the tensor hooks of parameters and activations, and the backward
hooks of modules.

From the live objects and the recorded `register_hook` calls; a hook is never called here. Whether it was the
hook follows from where the gradient got lost: at the very value it was registered on.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CellType, CodeType

import torch

from fxgrad.passes.analyses.index import once
from fxgrad.passes.analyses.lost_gradients import Loss
from fxgrad.passes.context import Context
from fxgrad.records import Facts, NodeFact, ParameterFact, Site
from fxgrad.source import clearing_site, return_sites
from fxgrad.source.sites import is_user_code, site_of
from fxgrad.torch_api import registry

_EMPTY = CellType()


def hook_site(facts: Facts, context: Context, parameter: ParameterFact, loss: Loss | None) -> Site | None:
    """The line of the hook that stands where the gradient of `parameter` got lost."""
    if loss is None or loss.flow is None or loss.flow.source in parameter.values:
        found = _of_parameter(context, parameter)
        if found is not None:
            return found
    if loss is None or loss.flow is None:
        return None
    site = site_of_registration(facts, loss.flow.source)
    if site is not None:
        return site
    if is_of_module(loss.node):
        return _of_module(context, loss.node.module)
    return None


def site_of_registration(facts: Facts, value: int) -> Site | None:
    """The line that put a hook on this value; in a watch one that has made zeros of its gradient."""
    edge = facts.values[value].grad
    for node in once(facts, _registrations):
        if any(facts.values[v].grad == edge for v in node.reads):
            return node.site
    return None


def is_of_module(node: NodeFact) -> bool:
    """Whether the step is what torch puts around a module for the sake of its backward hooks."""
    return node.target in ("backward hook", "BackwardHookFunction")


def _registrations(facts: Facts) -> list[NodeFact]:
    return [node for node in facts.nodes if word_of(node.target) == "register_hook"]


def word_of(target: str) -> str:
    """The last word of a target."""
    return target.rpartition(".")[2]


def _of_parameter(context: Context, parameter: ParameterFact) -> Site | None:
    for name in parameter.names:
        try:
            tensor = context.model.get_parameter(name)
        except AttributeError:  # taken away since
            continue
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            for hook in (getattr(tensor, kind, None) or {}).values():
                site = function_site(hook)
                if site is not None:
                    return site
    return None


def taking_hook(context: Context, name: str) -> Site | None:
    """Of the hooks that run once a parameter's gradient is there, the line that clears it; else the last
    hook."""
    try:
        parameter = context.model.get_parameter(name)
    except AttributeError:  # taken away since
        return None
    last: Site | None = None
    for hook in (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values():
        code = next(_codes(hook), None)
        if code is None or not is_user_code(code.co_filename):
            continue
        cleared = clearing_site(code.co_filename, code.co_firstlineno)
        if cleared is not None:
            return cleared
        last = function_site(hook) or last
    return last


def lets_some_through(context: Context, parameter: ParameterFact) -> bool:
    """Whether a hook of the parameter has a mask in reach that is neither all zeros nor without any: other
    rows may pass."""
    for name in parameter.names:
        try:
            hooks = getattr(context.model.get_parameter(name), "_backward_hooks", None) or {}
        except AttributeError:  # taken away since
            continue
        if any(_is_mixed(tensor) for hook in hooks.values() for tensor in _in_reach(hook)):
            return True
    return False


def _in_reach(hook: object) -> Iterator[torch.Tensor]:
    """The tensors of its closure, of a partial's arguments and of the objects among these that it may read
    attributes of."""
    held = [cell.cell_contents for cell in getattr(hook, "__closure__", None) or () if cell != _EMPTY]
    held += [*getattr(hook, "args", ()), getattr(hook, "__self__", None)]
    for item in held:
        attributes = [item, *getattr(item, "__dict__", {}).values()]
        attributes += [*item._buffers.values()] if isinstance(item, torch.nn.Module) else []
        yield from (value for value in attributes if type(value) is torch.Tensor)


def _is_mixed(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and bool(tensor.any()) and not bool(tensor.all())


def _of_module(context: Context, path: str) -> Site | None:
    module = dict(registry.named_modules(context.model)).get(path)
    for kind in ("_backward_hooks", "_backward_pre_hooks"):
        for hook in (getattr(module, kind, None) or {}).values():
            site = function_site(hook)
            if site is not None:
                return site
    return None


def function_site(hook: object) -> Site | None:
    """The last thing the hook returns; its first line where it returns nothing."""
    code = next((c for c in _codes(hook)), None)
    if code is None or not is_user_code(code.co_filename):
        return None
    first = site_of((code, 0))
    returned = return_sites(first.file, code.co_firstlineno)
    return returned[-1] if returned else Site(first.file, code.co_firstlineno, function=code.co_qualname)


def _codes(hook: object) -> Iterator[CodeType]:
    """The code behind a function, a bound method, a partial or an object that is called."""
    called = getattr(type(hook), "__call__", None)  # noqa: B004  its code is wanted, not whether it has one
    for item in (hook, getattr(hook, "__func__", None), getattr(hook, "func", None), called):
        code = getattr(item, "__code__", None)
        if code is not None:
            yield code
