"""The line that builds one module of an `nn.Sequential`: its own argument, since no user line calls it.

Made from the live container and the source text: a `Sequential(...)` whose arguments build modules of the
same classes with the same settings in the same order; else the only call in the files that builds such a
module in place (`ReLU(inplace=True)`). The files are those that define the model's classes; a model of
torch's classes alone says of none where it was built, and a function of another file may have built a part:
where those files have no such call, the only one in all files of the user's that are loaded counts. Not
handled: modules built by other libraries.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from fxgrad.passes.context import Context
from fxgrad.records import Facts, NodeFact, Site
from fxgrad.source.objects import class_file, loaded_files, module_of, origin
from fxgrad.source.parsing import Source, last_name, load, nodes, site_of
from fxgrad.torch_api import registry


def building_site(facts: Facts, context: Context, node: NodeFact) -> Site | None:
    """Where the module of a step is built, if it stands in a Sequential."""
    path = _called(facts, node)
    if not path:
        return None
    modules = dict(registry.named_modules(context.model))
    outer, _, name = path.rpartition(".")
    container, module = modules.get(outer), modules.get(path)
    if not isinstance(container, nn.Sequential) or module is None:
        return None
    if not module_of(type(module)).startswith("torch.nn."):
        return None
    index = list(container._modules).index(name)
    known = [load(file) for file in context.files]
    found = next(_building(known, container, index), None)
    if found is not None or _is_of_a_library(modules, outer):
        return found
    others = [load(file) for file in loaded_files() if file not in context.files]
    built = list(_building(others, container, index))
    return built[0] if len(built) == 1 else None


def _building(sources: Sequence[Source], container: nn.Sequential, index: int) -> Iterator[Site]:
    """The calls that may have built the container's module, as they stand in it; else the only one in
    place."""
    modules = list(container)
    written = [
        site_of(source, call.args[index])
        for source in sources
        for call in _sequentials(source)
        if len(call.args) == len(modules) and all(map(_may_build, call.args, modules))
    ]
    yield from written
    if not written:
        kind = type(modules[index]).__name__
        found = [(source, call) for source in sources for call in _in_place(source, kind)]
        if len(found) == 1:
            yield site_of(*found[0])


def _is_of_a_library(modules: Mapping[str, nn.Module], path: str) -> bool:
    """Whether the nearest module around that is of no class of torch's is of an installed package: that has
    built its parts itself, and a line of the user's that reads alike is another's."""
    while True:
        module = modules.get(path)
        if module is not None and not module_of(type(module)).startswith("torch."):
            return origin(class_file(type(module))) == "installed"
        if not path:
            return False
        path = path.rpartition(".")[0]


def _may_build(expression: ast.expr, module: nn.Module) -> bool:
    """Whether the call builds a module of this class, and gives it no other settings than it has."""
    if not isinstance(expression, ast.Call) or _built(expression) != type(module).__name__:
        return False
    try:
        names = list(inspect.signature(type(module)).parameters)
    except (TypeError, ValueError):
        names = []
    given: list[tuple[str, ast.expr]] = list(zip(names, expression.args, strict=False))
    given += [(keyword.arg, keyword.value) for keyword in expression.keywords if keyword.arg]
    return all(
        _agrees(vars(module).get(name), value.value)
        for name, value in given
        if isinstance(value, ast.Constant)
    )


def _agrees(has: object, given: object) -> bool:
    """Whether an attribute may have come from the argument of its name: what is no plain number says
    nothing, and a number may stand for each of several (`kernel_size`)."""
    if isinstance(has, tuple):
        return all(_agrees(one, given) for one in has)
    if not isinstance(has, bool | int | float) or not isinstance(given, bool | int | float):
        return True
    return has == given


def module_run(facts: Facts, context: Context, node: NodeFact) -> str:
    """The name and the class of the module of torch's that a step of a container is, where the line of the
    user's is the call of the whole; "" for any other step."""
    path = _called(facts, node)
    modules = dict(registry.named_modules(context.model))
    outer, module = modules.get(path.rpartition(".")[0]), modules.get(path)
    if not path or node.kind != "op" or module is None or not isinstance(outer, nn.Sequential):
        return ""
    own = module_of(type(module)).startswith("torch.nn.")
    return f"`{path}` ({type(module).__name__})" if own else ""


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
    return any(k.arg == "inplace" and not _is_false(k.value) for k in call.keywords) or any(
        isinstance(a, ast.Constant) and a.value is True for a in call.args
    )


def _is_false(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Constant) and expression.value is False
