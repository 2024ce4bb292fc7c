"""The line that builds one module of an `nn.Sequential`: its own argument, since no user line calls it.

Made from the live container and the source text: a `Sequential(...)` whose arguments build modules of the
same classes in the same order; else the only call in the files that builds such a module in place
(`ReLU(inplace=True)`). Not handled: modules built by other libraries.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import nn

from fxgrad.passes.context import Context
from fxgrad.records import Facts, NodeFact, Site
from fxgrad.source.objects import module_of
from fxgrad.source.parsing import Source, last_name, load, nodes, site_of


def building_site(facts: Facts, context: Context, node: NodeFact) -> Site | None:
    """Where the module of a step is built, if it stands in a Sequential."""
    path = _called(facts, node)
    if not path:
        return None
    modules = dict(context.model.named_modules())
    outer, _, name = path.rpartition(".")
    container, module = modules.get(outer), modules.get(path)
    if not isinstance(container, nn.Sequential) or module is None:
        return None
    if not module_of(type(module)).startswith("torch.nn."):
        return None
    kinds = [type(m).__name__ for m in container]
    index = list(container._modules).index(name)
    sources = [load(file) for file in context.files]
    for source in sources:
        for call in _sequentials(source):
            if [_built(argument) for argument in call.args] == kinds:
                return site_of(source, call.args[index])
    found = [(source, call) for source in sources for call in _in_place(source, kinds[index])]
    return site_of(*found[0]) if len(found) == 1 else None


def _called(facts: Facts, node: NodeFact) -> str:
    """The qualified name of the module that the step is; "" if it is none."""
    if node.kind == "op" and any(call.path == node.module and call.site == node.site for call in facts.calls):
        # watched: the operation that the module ran, on the line that called the container (not in a hook's)
        return node.module
    of_type = (call for call in facts.calls if call.type == node.target)
    return next((call.path for call in of_type if not set(call.values).isdisjoint(node.makes)), "")


def _sequentials(source: Source) -> Iterator[ast.Call]:
    return (call for call in nodes(source, ast.Call) if _built(call) == "Sequential")


def _in_place(source: Source, kind: str) -> Iterator[ast.Call]:
    return (call for call in nodes(source, ast.Call) if _built(call) == kind and _is_inplace(call))


def _built(expression: ast.expr) -> str:
    """The last name of the callable: `ReLU` of `nn.ReLU(inplace=True)`."""
    return last_name(expression.func) if isinstance(expression, ast.Call) else ""


def _is_inplace(call: ast.Call) -> bool:
    return any(k.arg == "inplace" for k in call.keywords) or any(
        isinstance(a, ast.Constant) and a.value is True for a in call.args
    )
