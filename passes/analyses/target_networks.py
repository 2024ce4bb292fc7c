"""Networks that the program keeps as copies of others: target, momentum and teacher networks that no gradient is meant for.

From the user's source and the model's structure. A submodule is such a copy if
 1. the source makes or keeps it one: `self.target = copy.deepcopy(self.online)`, `target.load_state_dict(online.state_dict())`, a loop over
    both networks' parameters that writes those of the one;
 2. another submodule of the model has parameters of the same names and shapes;
 3. none of its parameters gets a gradient, and all that stops them is a `detach` or code without gradients.
Copies that are trained (decoder layers cloned from one) fail the third, forgotten heads the first or the third.
Not handled: a copy that is kept outside the model, names that only exist while the program runs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from torch import nn

from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.context import Context
from fxgrad.source.names import last_word, path_of
from fxgrad.source.objects import origin
from fxgrad.source.parsing import Source, load, nodes

_STOPS = frozenset(["FXG103", "FXG104"])
_WALKS = frozenset(["parameters", "named_parameters", "state_dict", "buffers"])


def analyse(context: Context) -> frozenset[str]:
    """The names of the starved parameters that belong to such a copy."""
    causes: Causes = context.causes
    stopped = {
        name
        for parameter in causes.starved
        for name in parameter.names
        if (way := causes.frontier.ways.get(parameter.name)) is not None and way.cuts and {cut.code for cut in way.cuts} <= _STOPS
    }
    if not stopped:
        return frozenset()
    kept = {name for file in context.files if origin(file) == "user" for name in _kept(load(file))}
    found: set[str] = set()
    for path, module in context.model.named_modules() if kept else ():
        if path.rpartition(".")[2] not in kept:
            continue
        names = {f"{path}.{name}" for name, p in module.named_parameters() if p.requires_grad}
        if names and names <= stopped and _has_twin(context.model, path, module):
            found |= names
    return frozenset(found)


def _has_twin(model: nn.Module, path: str, module: nn.Module) -> bool:
    shapes = [(name, p.shape) for name, p in module.named_parameters()]
    others = (m for other, m in model.named_modules() if other != path and type(m) is type(module))
    return any([(name, p.shape) for name, p in other.named_parameters()] == shapes for other in others)


def _kept(source: Source) -> Iterator[str]:
    """The last words of what the source makes or keeps a copy of something else."""
    for assignment in nodes(source, ast.Assign):
        if isinstance(assignment.value, ast.Call) and last_word(source, assignment.value.func) == "deepcopy" and assignment.value.args:
            yield from (_word(t) for t in assignment.targets if _word(t) != _word(assignment.value.args[0]))
    for call in nodes(source, ast.Call):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "load_state_dict" and call.args:
            given = _walked(call.args[0])
            if given and given != _word(call.func.value):
                yield _word(call.func.value)
    for loop in nodes(source, ast.For):
        yield from _averaged(loop)


def _word(expression: ast.expr) -> str:
    path = path_of(expression)
    return path.words[-1] if path.words else path.root


def _walked(expression: ast.expr) -> str:
    """`net` of `self.net.parameters()`; "" for anything else."""
    match expression:
        case ast.Call(func=ast.Attribute(value=owner, attr=method)) if method in _WALKS:
            return _word(owner)
    return ""


def _averaged(loop: ast.For) -> Iterator[str]:
    """Of a loop over two networks' parameters side by side the network whose parameters the body writes."""
    match loop:
        case ast.For(target=ast.Tuple(elts=variables), iter=ast.Call(func=ast.Name(id="zip"), args=walks)):
            networks = [_walked(walk) for walk in walks]
        case _:
            return
    if len(networks) != len(variables) or len({n for n in networks if n}) < 2:
        return
    written = {name for statement in loop.body for part in ast.walk(statement) for name in _written(part)}
    for variable, network in zip(variables, networks, strict=True):
        if network and isinstance(variable, ast.Name) and variable.id in written:
            yield network


def _written(part: ast.AST) -> Iterator[str]:
    match part:
        case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=name), attr="data")]):
            yield name
        case ast.AugAssign(target=ast.Name(id=name) | ast.Attribute(value=ast.Name(id=name), attr="data")):
            yield name
        case ast.Call(func=ast.Attribute(attr=method, value=owner)) if method.endswith("_") and not method.endswith("__"):
            while isinstance(owner, ast.Call | ast.Attribute):
                owner = owner.func if isinstance(owner, ast.Call) else owner.value
            if isinstance(owner, ast.Name):
                yield owner.id
