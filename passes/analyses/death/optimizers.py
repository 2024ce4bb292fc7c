"""An optimizer or a gradient scaler that refuses the gradients it finds: which parameters, and the line that
made them so."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from fxgrad.passes.analyses.death.record import Death, gradient_of, local
from fxgrad.passes.analyses.optimizer_lines import construction_site, replacing_site
from fxgrad.passes.analyses.optimizers import held_by
from fxgrad.passes.ended import Cause
from fxgrad.passes.findings import line_of, listed
from fxgrad.records import Site
from fxgrad.source import attribute_site
from fxgrad.source.names import is_literal, last_word
from fxgrad.source.parsing import load, nodes, site_of
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import NO_INF_CHECKS, says


def sparse(death: Death) -> Iterator[Cause]:
    """Sparse gradients where dense ones are wanted: the table that makes them."""
    optimizer = _raising(death)
    if optimizer is None:
        return
    tensors = [
        p for p in held_by(optimizer) if (g := gradient_of(p)) is not None and g.layout is not torch.strided
    ]
    names = _names(death, tensors)
    if not names:
        return
    site = _sparse_site(death, names[0])
    kind = type(optimizer).__name__
    yield Cause(
        f"{listed(names)} {'get' if len(names) > 1 else 'gets'} a sparse gradient (`sparse=True`), and "
        f"{kind}{line_of(_built(death, optimizer), site)} "
        "takes dense ones only",
        site or death.site,
        f"step {listed(names)} with `torch.optim.SparseAdam` or plain SGD, or say sparse=False here",
        names,
    )


def _sparse_site(death: Death, name: str) -> Site | None:
    """Where a table was told to give sparse gradients: where its module is built, or the call of
    `F.embedding`."""
    owner, _, _ = name.rpartition(".")
    modules = dict(registry.named_modules(death.model))
    if getattr(modules.get(owner), "sparse", False):
        return _built_sparse(death, modules, owner)
    parameter = next((p for p in death.facts.parameters if name in p.names), None)
    if parameter is None:
        return None
    lookups = (node for node in death.facts.nodes if "embedding" in node.target)
    return next((node.site for node in lookups if set(node.reads) & set(parameter.values)), None)


def _built_sparse(death: Death, modules: Mapping[str, nn.Module], path: str) -> Site | None:
    """The call that builds a module with sparse=True."""
    outer, _, name = path.rpartition(".")
    said = [site for site, attribute in _said_sparse(death) if attribute in ("", name)]
    holder = modules.get(outer)
    built = attribute_site(holder, name, death.context.files) if holder is not None else None
    if built is None:
        return next(iter(said), None)
    inside = [s for s in said if s.file == built.file and built.line <= s.line <= built.end_line]
    return next(iter(inside or said), built)


def _said_sparse(death: Death) -> list[tuple[Site, str]]:
    """The calls `...(..., sparse=True)` in the user's files, each with the last word of the name that it is
    assigned to, "" for none."""
    found = []
    for source in map(load, death.context.files):
        for call in nodes(source, ast.Call):
            if any(keyword.arg == "sparse" and is_literal(keyword.value, True) for keyword in call.keywords):
                statement = source.parents.get(call)
                target = statement.targets[0] if isinstance(statement, ast.Assign) else None
                found.append((site_of(source, call), last_word(source, target) if target is not None else ""))
    return found


def dense(death: Death) -> Iterator[Cause]:
    """Dense gradients where sparse ones are wanted."""
    optimizer = _raising(death)
    if optimizer is None:
        return
    tensors = [
        p for p in held_by(optimizer) if (g := gradient_of(p)) is not None and g.layout is torch.strided
    ]
    names = _names(death, tensors)
    built = _built(death, optimizer)
    yield Cause(
        f"{type(optimizer).__name__} holds {listed(names)}, whose gradient is dense",
        built or death.site,
        f"give it the tables made with sparse=True alone, and {listed(names)} to another optimizer",
        names,
    )


def unchecked(death: Death) -> Optimizer | None:
    """The optimizer that a scaler found no gradient for."""
    return unchecked_in(death.error)


def unchecked_in(error: BaseException) -> Optimizer | None:
    """The same, of an error; None of any other error."""
    if not says(str(error), NO_INF_CHECKS):
        return None
    found: Optimizer | None = local(error, "optimizer", Optimizer)
    return found


def no_backward(death: Death) -> Iterator[Cause]:
    """A scaler steps before any backward."""
    if not death.walks and unchecked(death) is not None:
        yield Cause(
            "no backward has run: there is no gradient to step with",
            death.site,
            "call `scaler.scale(loss).backward()` before `scaler.step`",
        )


def cleared(death: Death) -> Iterator[Cause]:
    """They had gradients, and the program has cleared them."""
    optimizer, site = unchecked(death), death.ended.cleared
    if optimizer is None or not death.walks or site is None:
        return
    if any(known.after for known in map(death.known, held_by(optimizer)) if known is not None):
        yield Cause(
            "the gradients are cleared here, after backward and before the scaler's "
            f"step{line_of(death.site, site)}",
            site,
            "call zero_grad() before backward, or after the step",
        )


def frozen(death: Death) -> Iterator[Cause]:
    """None of them is to get one: what froze them, as it was found."""
    optimizer = unchecked(death)
    if optimizer is None or not death.walks or any(cleared(death)):
        return
    if any(parameter.requires_grad for parameter in held_by(optimizer)):
        return
    names = set(_names(death, held_by(optimizer)))
    of_them = (f for f in death.found if f.code == "FXG102" and names.intersection(f.parameters))
    found = next(of_them, None)
    if found is not None and found.fix is not None:
        message = f"{found.message}; {type(optimizer).__name__} has no gradient to step with"
        yield Cause(message, found.site, found.fix.advice, found.parameters, found.path)


def others_held(death: Death) -> Iterator[Cause]:
    """A scaler finds no gradient in what the optimizer holds: it holds others than those that have one."""
    optimizer = unchecked(death)
    if optimizer is None or not death.walks or any(cleared(death)) or any(frozen(death)):
        return
    held, others = list(held_by(optimizer)), _names(death, _unheld(death, optimizer))
    if not others and any(f.severity == "error" and f.parameters and f.site is not None for f in death.found):
        return  # what keeps the gradients from them is found
    beside = f"; the backward left gradients on {listed(others)}, which no optimizer holds" if others else ""
    built = _built(death, optimizer)
    yield Cause(
        f"none of the {len(held)} parameters that {type(optimizer).__name__} holds has a gradient{beside}",
        replacing_site(death.context, built, others) or built or death.site,
        "build the optimizer from the model that is trained, after it is copied or replaced, and step it "
        "after a backward that reaches it",
        _names(death, held),
    )


def _unheld(death: Death, optimizer: Optimizer) -> list[nn.Parameter]:
    """The parameters that a backward left a gradient on and no optimizer holds."""
    stepped = {id(parameter) for one in (optimizer, *death.ended.optimizers) for parameter in held_by(one)}
    tensors = [known.tensor for known in death.ended.tensors.values() if known.after in ("some", "zero")]
    return [tensor for tensor in tensors if isinstance(tensor, nn.Parameter) and id(tensor) not in stepped]


def _names(death: Death, tensors: Iterable[torch.Tensor]) -> tuple[str, ...]:
    """What they are called, those without a name left out."""
    return tuple(name for name in map(death.parameter_name, tensors) if name is not None)


def unscaled_loss(death: Death) -> Iterator[Cause]:
    """A scaler that has scaled nothing: the backward of the plain loss."""
    last = next((b for b in reversed(death.walks) if not b.partial and b.stack), None)
    if last is not None:
        yield Cause(
            f"the loss is not scaled here, and the scaler is asked to step{line_of(death.site, last.site)}",
            last.site,
            "write `scaler.scale(loss).backward()`",
        )


def _raising(death: Death) -> Optimizer | None:
    optimizer: Optimizer | None = local(death.error, "self", Optimizer)
    return optimizer if optimizer is not None else next(iter(death.ended.optimizers), None)


def _built(death: Death, optimizer: Optimizer) -> Site | None:
    return construction_site(death.context, optimizer)
