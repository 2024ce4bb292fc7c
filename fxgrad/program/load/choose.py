"""Which object of a loaded module is the model: the one that was named, or the only candidate.

A candidate is, in this order, a module instance, a class of modules that can be built without arguments and that no
other class of the file builds on, or a function named like a factory. Made from the module's namespace and the syntax
tree of its file. Not handled: telling two candidates apart by what they are for; the user names one.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxgrad.program.load.execute import call, required
from fxgrad.records import Site
from fxgrad.records.errors import LoadError
from fxgrad.source import parsed
from fxgrad.torch_api.module_internals import Loss

EXTRAS = ("example_inputs", "loss", "optimizer", "expect")

_FACTORY = re.compile(r"(make|build|create|get|load)(_?(\w+_)?(model|net|network|module))?|(model|net|network)(_fn|_factory)?")


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A model and how it came about: `fresh` if it was built here, `extras` what its factory returned beside it."""

    model: Any
    name: str
    said: str
    fresh: bool
    extras: Mapping[str, Any]


def named(module: types.ModuleType, name: str, title: str) -> Built:
    """The model under a (dotted) name.

    Raises:
        LoadError: there is no such name, or it is not a model and cannot be made into one.
    """
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise LoadError(f"{title} has no `{name}`", hint=_close(module, name))
        value = getattr(value, part)
    return build(module, name, value)


def only(module: types.ModuleType, title: str) -> Built:
    """The model of a module that has one candidate.

    Raises:
        LoadError: there is none, or several: they are listed with their lines.
    """
    lines = _lines(module)
    for names in (_instances(module), _classes(module), _factories(module)):
        if len(names) == 1:
            return build(module, names[0], getattr(module, names[0]))
        if names:
            listed = ", ".join(f"{name} (line {lines[name]})" if name in lines else name for name in names)
            raise LoadError(f"{title} has several models: {listed}", hint=f"name one, as in {title}:{names[0]}")
    asking = [cls.__name__ for cls in _defined_classes(module) if required(cls)]
    if asking:
        _refuse_arguments(module, asking[0], getattr(module, asking[0]))
    raise LoadError(f"there is no model in {title}", hint="define an nn.Module, or a function `make_model()` that returns one")


def build(module: types.ModuleType, name: str, value: Any) -> Built:
    """The model that an object is or makes.

    Raises:
        LoadError: it needs arguments, fails, or is no model.
    """
    if isinstance(value, nn.Module):
        return Built(_checked(value, name), name, f"`{name}`, a {type(value).__name__}", False, {})
    if isinstance(value, type) and not issubclass(value, nn.Module):
        raise LoadError(f"`{name}` is a class, but not of an nn.Module", site=_site(module, name), hint="name a model or a factory")
    if isinstance(value, type):
        _refuse_arguments(module, name, value)
        return Built(_checked(call(value, f"building {name}()"), name), name, f"`{name}()`", True, {})
    if not callable(value):
        kind = "a state dict" if _is_state(value) else f"of type {type(value).__name__}"
        hint = "name an nn.Module, a class or a function that returns one"
        raise LoadError(f"`{name}` is {kind}, not a model", site=_site(module, name), hint=hint)
    if required(value):
        if "example_inputs" in vars(module):
            return Built(value, name, f"the function `{name}`", False, {})
        _refuse_arguments(module, name, value)
    return _from_factory(module, name, call(value, f"calling {name}()"))


def _from_factory(module: types.ModuleType, name: str, made: Any) -> Built:
    """A factory returns the model, or a dict with "model" and any of what a file may define beside it."""
    said, extras = f"what `{name}()` returns", {}
    if isinstance(made, Mapping) and "model" in made:
        extras = {key: made[key] for key in EXTRAS if key in made}
        if "inputs" in made:
            extras.setdefault("example_inputs", made["inputs"])
        made, said = made["model"], f"the model that `{name}()` returns"
    if not isinstance(made, nn.Module) and (isinstance(made, type | torch.Tensor) or not callable(made)):
        hint = f"return the nn.Module from `{name}`"
        raise LoadError(f"`{name}()` returns a {type(made).__name__}, not a model", site=_site(module, name), hint=hint)
    return Built(_checked(made, name), name, said, True, extras)


def _checked(model: Any, name: str) -> Any:
    if isinstance(model, torch.jit.ScriptModule):
        raise LoadError(f"`{name}` is TorchScript, which has no Python lines to name", hint="give the model before scripting")
    return model


def _refuse_arguments(module: types.ModuleType, name: str, value: Any) -> None:
    needed = required(value)
    if needed:
        hint = f"write a function that builds it, `def make_model(): return {name}(...)`, and name that"
        raise LoadError(f"`{name}` needs arguments: {', '.join(needed)}", site=_site(module, name), hint=hint)


def _instances(module: types.ModuleType) -> list[str]:
    """Names of module instances that are no loss and no part of another; of those with parameters if any has some."""
    found = {name: value for name, value in _public(module) if isinstance(value, nn.Module) and not isinstance(value, Loss)}
    by_object = {id(value): name for name, value in reversed(found.items())}  # the first name of each
    names = [name for name, value in found.items() if by_object[id(value)] == name]
    parts = {id(part) for name in names for part in found[name].modules() if part is not found[name]}
    whole = [name for name in names if id(found[name]) not in parts]
    return [name for name in whole if next(found[name].parameters(), None) is not None] or whole


def _classes(module: types.ModuleType) -> list[str]:
    """Names of module classes to build without arguments, without those that another class of the file builds on."""
    classes = _defined_classes(module)
    return [cls.__name__ for cls in classes if not required(cls)]


def _defined_classes(module: types.ModuleType) -> list[type[nn.Module]]:
    """Classes of modules with a forward, defined in the module, that no other such class names in its body or bases."""
    values = [value for _, value in _public(module) if isinstance(value, type) and issubclass(value, nn.Module)]
    own = [cls for cls in dict.fromkeys(values) if cls.__module__ == module.__name__ and not issubclass(cls, Loss)]
    own = [cls for cls in own if cls.forward is not nn.Module.forward and not inspect.isabstract(cls)]
    names = {cls.__name__ for cls in own}
    tree = _tree(module)
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name in names] if tree else []
    used = {part.id for body in bodies for part in ast.walk(body) if isinstance(part, ast.Name) and part.id != body.name}
    return [cls for cls in own if cls.__name__ not in used] or own


def _factories(module: types.ModuleType) -> list[str]:
    own = [(name, value) for name, value in _public(module) if inspect.isfunction(value) and value.__module__ == module.__name__]
    return [name for name, value in own if _FACTORY.fullmatch(name) and not required(value)]


def _public(module: types.ModuleType) -> Iterable[tuple[str, Any]]:
    return [(name, value) for name, value in vars(module).items() if not name.startswith("_") and name not in EXTRAS]


def _close(module: types.ModuleType, name: str) -> str:
    public = [key for key, value in _public(module) if callable(value) and not isinstance(value, types.ModuleType)]
    close = difflib.get_close_matches(name, public, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(f'`{key}`' for key in close)}?"
    own = [*_instances(module), *_classes(module), *_factories(module)]
    return f"it has {', '.join(own)}" if own else "it defines no model"


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, torch.Tensor) for item in value.values())


def _tree(module: types.ModuleType) -> ast.Module | None:
    return parsed(module.__file__) if module.__file__ else None


def _lines(module: types.ModuleType) -> dict[str, int]:
    """The line that last binds each top-level name by assignment, `class` or `def`."""
    tree = _tree(module)
    lines: dict[str, int] = {}
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node in tree.body:  # type: ignore[union-attr]
            lines[node.name] = node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines.setdefault(node.id, node.lineno)
    return lines


def _site(module: types.ModuleType, name: str) -> Site | None:
    line = _lines(module).get(name.partition(".")[0])
    return Site(module.__file__, line) if line and module.__file__ else None
