"""Networks that the program keeps as copies of others: target, momentum and teacher networks that no gradient
is meant for.

From the user's source and the model's structure. A submodule is such a copy if
 1. the source makes or keeps it one (`fxgrad.source.network_copies`), or it is what torch's `AveragedModel`
    averages;
 2. another submodule of the model has parameters of the same names and shapes;
 3. none of its parameters gets a gradient, and what stops them all takes their values on: a `detach`, code
    without gradients, an `argmax`; a copy that the source averages again and again may also not be called at
    all (weights that are only evaluated).
Copies that are trained (decoder layers cloned from one) fail the third, forgotten heads the first or the
third. Not handled: a copy that is kept outside the model, names that only exist while the program runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim.swa_utils import AveragedModel

from fxgrad.passes.analyses.causes import Causes
from fxgrad.passes.context import Context
from fxgrad.source.names import fits, is_unknown
from fxgrad.source.network_copies import copied_networks
from fxgrad.source.objects import origin
from fxgrad.source.parsing import load
from fxgrad.torch_api import registry

# The rules of cuts that take values on without their history: targets and labels are made so. A hard label
# needs no detach.
_STOPS = frozenset(["FXG103", "FXG104", "FXG105", "FXG106", "FXG107", "FXG108"])


def analyse(context: Context) -> frozenset[str]:
    """The names of the starved parameters that belong to such a copy."""
    stopped, idle = _stopped(context.causes), _idle(context.causes)
    if not stopped and not idle:
        return frozenset()
    kept = copied_networks(load(file) for file in context.files if origin(file) == "user")
    averages = _averages(context.model)
    if not kept and not averages:
        return frozenset()
    found: set[str] = set()
    for path, module in registry.named_modules(context.model):
        grades = _grades(kept, averages, path)
        if not grades:
            continue
        names = {f"{path}.{name}" for name, p in registry.named_parameters(module) if p.requires_grad}
        excused = stopped | idle if any(grades) else stopped
        if names and names <= excused and _has_twin(context.model, path, module):
            found |= names
    return frozenset(found)


def _averages(model: nn.Module) -> set[str]:
    """What torch's own `AveragedModel` averages into."""
    return {
        f"{path}.module"
        for path, module in registry.named_modules(model)
        if isinstance(module, AveragedModel)
    }


def _grades(kept: Mapping[str, bool], averages: set[str], path: str) -> list[bool]:
    """For each way in which it is kept as a copy, whether it is averaged again and again."""
    name = path.rpartition(".")[2]
    grades = [again for copy, again in kept.items() if not is_unknown(copy) and fits(copy, name)]
    return [*grades, True] if path in averages else grades


def _stopped(causes: Causes) -> set[str]:
    """The starved parameters whose values are taken on."""
    found: set[str] = set()
    for parameter in causes.starved:
        way = causes.frontier.ways.get(parameter.name)
        if way is not None and way.cuts and {cut.code for cut in way.cuts} <= _STOPS:
            found.update(parameter.names)
    return found


def _idle(causes: Causes) -> set[str]:
    """The parameters of modules that are never called."""
    ends = causes.ends
    return {
        name
        for p in causes.starved
        if p.name in ends and ends[p.name].kind == "never called"
        for name in p.names
    }


def _has_twin(model: nn.Module, path: str, module: nn.Module) -> bool:
    shapes = [(name, p.shape) for name, p in registry.named_parameters(module)]
    others = (m for other, m in registry.named_modules(model) if other != path and type(m) is type(module))
    return any(
        [(name, p.shape) for name, p in registry.named_parameters(other)] == shapes for other in others
    )
