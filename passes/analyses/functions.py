"""Custom `autograd.Function`s behind recorded steps: forwards called past `apply`, and where in their text a
gradient is given up."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator

import torch

from fxgrad.records import NodeFact, Site
from fxgrad.source import backward_return_site
from fxgrad.source.objects import code_of
from fxgrad.source.parsing import enclosing_function, first_line, functions, load, nodes, site_of


def direct_forward(node: NodeFact) -> Site | None:
    """The line that calls `SomeFunction.forward(...)` itself, if the step ran inside such a call: autograd
    then records no backward.

    Steps inside `apply` are never recorded one by one, so any step with such a frame came in directly.
    """
    for index, site in enumerate(node.stack):
        if site.function.endswith(".forward") and _is_function(site.file, site.function):
            return node.stack[index + 1] if index + 1 < len(node.stack) else site
    return None


@functools.lru_cache(maxsize=1024)
def _is_function(file: str, qualified: str) -> bool:
    for cls in _subclasses(torch.autograd.Function):
        code = code_of(vars(cls).get("forward"))
        if code is not None and code.co_qualname == qualified and os.path.abspath(code.co_filename) == file:
            return True
    return False


def _subclasses(cls: type) -> Iterator[type]:
    derived: list[type] = type.__subclasses__(cls)
    for inner in derived:
        yield inner
        yield from _subclasses(inner)


def raising_backward(site: Site | None) -> str | None:
    """The Function in whose backward the place is, by its class name."""
    if site is None:
        return None
    for cls in _subclasses(torch.autograd.Function):
        for method in ("backward", "vjp"):
            code = code_of(vars(cls).get(method))
            if (
                code is not None
                and code.co_qualname == site.function
                and os.path.abspath(code.co_filename) == site.file
            ):
                return cls.__name__
    return None


def has_backward(cls: type) -> bool:
    """Whether the class or one of its bases below torch's Function defines a backward."""
    return any(
        method in vars(base)
        for base in cls.__mro__
        if base.__module__ != "torch.autograd.function"
        for method in ("backward", "vjp")
    )


def function_of(node: NodeFact) -> type | None:
    """The Function class whose `apply` the step is."""
    cls = node.constants[0] if node.kind == "function" and node.constants else None
    return cls if isinstance(cls, type) else None


def short_name(node: NodeFact) -> str:
    """The class's own name, without the function it is defined in."""
    return node.target.rpartition(".")[2]


def dropping_site(cls: type) -> Site | None:
    """The statement by which its backward gives up a gradient: the `return`, or the `def` of a backward
    without one."""
    found = backward_return_site(cls)
    if found is not None:
        return found
    code = code_of(vars(cls).get("backward")) or code_of(vars(cls).get("vjp"))
    if code is None:
        return None
    source = load(code.co_filename)
    for function in functions(source):
        if function.name == code.co_name and first_line(function) == code.co_firstlineno:
            header = site_of(source, function)
            return Site(header.file, header.line, header.column, function=header.function)
    return None


def marked_site(cls: type) -> Site | None:
    """The line in its forward that declares an output non-differentiable."""
    for method in ("forward", "setup_context"):
        code = code_of(getattr(cls, method, None))
        if code is None:
            continue
        source = load(code.co_filename)
        for call in nodes(source, ast.Call):
            function = enclosing_function(source, call)
            if (
                isinstance(call.func, ast.Attribute)
                and call.func.attr == "mark_non_differentiable"
                and function is not None
                and first_line(function) == code.co_firstlineno
            ):
                return site_of(source, call)
    return None
