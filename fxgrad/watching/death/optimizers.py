"""An optimizer or a gradient scaler that refuses the gradients it finds: which parameters, and the line that
made them so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from fxgrad.passes.analyses.optimizer_lines import construction_site, replacing_site
from fxgrad.passes.findings import line_of, listed
from fxgrad.records import Finding, Site
from fxgrad.source import attribute_site
from fxgrad.source.names import is_literal, last_word
from fxgrad.source.parsing import load, nodes, site_of
from fxgrad.source.sites import site_of as site_at
from fxgrad.watching.death.record import RAISES, Death, finding, gradient_of, local
from fxgrad.watching.steps import held_by


def sparse(death: Death) -> Iterator[Finding]:
    """Sparse gradients where dense ones are wanted: the table that makes them."""
    optimizer = _raising(death)
    if optimizer is None:
        return
    tensors = [
        p for p in held_by(optimizer) if (g := gradient_of(p)) is not None and g.layout is not torch.strided
    ]
    names = tuple(name for tensor in tensors if (name := death.parameter_name(tensor)) is not None)
    if not names:
        return
    site = _sparse_site(death, names[0])
    kind = type(optimizer).__name__
    yield finding(
        RAISES,
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
    modules = dict(death.model.named_modules())
    module = modules.get(owner)
    if getattr(module, "sparse", False):
        said = [
            site for site, attribute in _said_sparse(death) if attribute in ("", owner.rpartition(".")[2])
        ]
        holder = modules.get(owner.rpartition(".")[0])
        built = (
            attribute_site(holder, owner.rpartition(".")[2], death.context.files)
            if isinstance(holder, nn.Module)
            else None
        )
        inside = [
            site
            for site in said
            if built is not None and built.file == site.file and built.line <= site.line <= built.end_line
        ]
        return next(iter(inside or said), built)
    parameter = next((p for p in death.facts.parameters if name in p.names), None)
    if parameter is None:
        return None
    node = next(
        (n for n in death.facts.nodes if "embedding" in n.target and set(n.reads) & set(parameter.values)),
        None,
    )
    return node.site if node is not None else None


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


def dense(death: Death) -> Iterator[Finding]:
    """Dense gradients where sparse ones are wanted."""
    optimizer = _raising(death)
    if optimizer is None:
        return
    tensors = [
        p for p in held_by(optimizer) if (g := gradient_of(p)) is not None and g.layout is torch.strided
    ]
    names = tuple(name for tensor in tensors if (name := death.parameter_name(tensor)) is not None)
    built = _built(death, optimizer)
    yield finding(
        RAISES,
        f"{type(optimizer).__name__} holds {listed(names)}, whose gradient is dense",
        built or death.site,
        f"give it the tables made with sparse=True alone, and {listed(names)} to another optimizer",
        names,
    )


def no_inf_checks(death: Death) -> Iterator[Finding]:
    """A scaler finds no gradient in what the optimizer holds: it holds others than those that have one."""
    optimizer = local(death.error, "optimizer", Optimizer)
    if optimizer is None:
        return
    held = list(held_by(optimizer))
    stepped = {id(parameter) for one in (optimizer, *death.optimizers) for parameter in held_by(one)}
    trained = [
        tensor
        for slot in death.ledger.tensors.living()
        if slot.after in ("some", "zero") and (tensor := slot()) is not None and id(tensor) not in stepped
    ]
    built = _built(death, optimizer)
    kind = type(optimizer).__name__
    if not death.observer.backwards:
        said = "no backward has run: there is no gradient to step with"
        yield finding(
            ("FXG205", "step-before-backward"),
            said,
            death.site,
            "call `scaler.scale(loss).backward()` before `scaler.step`",
        )
        return
    gone = [p for p in held if (slot := death.ledger.tensors.get(p)) is not None and slot.after]
    if gone and death.observer.cleared:
        site = site_at(death.observer.cleared[0])
        said = (
            "the gradients are cleared here, after backward and before the scaler's "
            f"step{line_of(death.site, site)}"
        )
        yield finding(
            ("FXG303", "optimizer-idle-parameter"),
            said,
            site,
            "call zero_grad() before backward, or after the step",
        )
        return
    others = [
        name
        for tensor in trained
        if isinstance(tensor, nn.Parameter) and (name := death.parameter_name(tensor)) is not None
    ]
    names = tuple(name for parameter in held if (name := death.parameter_name(parameter)) is not None)
    if not any(parameter.requires_grad for parameter in held):
        frozen = next((f for f in death.found if f.code == "FXG102" and set(f.parameters) & set(names)), None)
        if frozen is not None:
            yield replace(
                frozen, severity="error", message=f"{frozen.message}; {kind} has no gradient to step with"
            )
            return
    if not others and any(f.severity == "error" and f.parameters and f.site is not None for f in death.found):
        return  # what keeps the gradients from them is found
    beside = f"; the backward left gradients on {listed(others)}, which no optimizer holds" if others else ""
    yield finding(
        ("FXG302", "optimizer-stale-parameter"),
        f"none of the {len(held)} parameters that {kind} holds has a gradient{beside}",
        replacing_site(death.context, built, others) or built or death.site,
        "build the optimizer from the model that is trained, after it is copied or replaced, and step it "
        "after a backward that reaches it",
        names,
    )


def unscaled_loss(death: Death) -> Iterator[Finding]:
    """A scaler that has scaled nothing: the backward of the plain loss."""
    last = next((b for b in reversed(death.observer.backwards) if not b.partial and b.spots), None)
    if last is not None:
        yield finding(
            RAISES,
            "the loss is not scaled here, and the scaler is asked to "
            f"step{line_of(death.site, site_at(last.spots[0]))}",
            site_at(last.spots[0]),
            "write `scaler.scale(loss).backward()`",
        )


def _raising(death: Death) -> Optimizer | None:
    optimizer: Any = local(death.error, "self", Optimizer)
    return optimizer if optimizer is not None else next(iter(death.optimizers), None)


def _built(death: Death, optimizer: Optimizer) -> Site | None:
    return construction_site(death.context, optimizer)
