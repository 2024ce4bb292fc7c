"""Which object of a loaded module is the model: the one that was named, or the only candidate.

A candidate is a module instance; where there is none, a class of modules that no other candidate of the file
is made of, or a function that returns such a module. One that needs arguments gets guessed ones
(`construct`). Made from the module's namespace and the syntax tree of its file. Not handled: telling two
candidates apart by what they are for; the user names one.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxgrad.program.inputs import required
from fxgrad.program.load.construct import Construction, constructions
from fxgrad.program.load.definitions import Definitions
from fxgrad.program.load.execute import call
from fxgrad.program.load.parts import classes_for
from fxgrad.records import Site
from fxgrad.records.errors import LoadError
from fxgrad.torch_api import registry
from fxgrad.torch_api.module_internals import Loss, is_scripted

_SHOWN = 3  # arguments that a hint writes out

EXTRAS = ("example_inputs", "loss", "optimizer", "expect")

_FACTORY = re.compile(
    r"(make|build|create|get|load)(_?(\w+_)?(model|net|network|module))?|(model|net|network)(_fn|_factory)?"
)


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A model and how it came about: `fresh` if it was built here, `extras` what its factory returned beside
    it; `guessed`: the call with guessed arguments that made it, `others` what other guesses make."""

    model: Any
    name: str
    said: str
    fresh: bool
    extras: Mapping[str, object]
    guessed: Construction | None = None
    others: Iterator[Built] = iter(())


def named(module: types.ModuleType, name: str, title: str, given: Mapping[str, object]) -> Built:
    """The model under a (dotted) name. `given`: arguments to build it with.

    Raises:
        LoadError: there is no such name, or it is not a model and cannot be made into one.
    """
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise LoadError(f"{title} has no `{name}`", hint=_close(module, name))
        value = getattr(value, part)
    return build(module, name, value, given)


def only(module: types.ModuleType, title: str, given: Mapping[str, object]) -> Built:
    """The model of a module that has one candidate. `given`: arguments to build it with.

    Raises:
        LoadError: there is none, or several: they are listed with their lines.
    """
    known = Definitions(module)
    names = _instances(module) or _made(module, known)
    if len(names) > 1:
        names = _with_parameters(module, names)
    if len(names) == 1:
        return build(module, names[0], getattr(module, names[0]), given)
    if names:
        listed = ", ".join(
            f"{name} (line {known.lines[name]})" if name in known.lines else name for name in names
        )
        largest = max(names, key=lambda name: len(known.reached(name)))  # of like ones the first
        raise LoadError(f"{title} has several models: {listed}", hint=f"name one, as in {title}:{largest}")
    for name, value in _public(module):
        if _is_exported(value):
            return build(module, name, value, given)  # which says what to write
    raise LoadError(
        f"there is no model in {title}",
        hint="define an nn.Module, or a function `make_model()` that returns one",
    )


def build(module: types.ModuleType, name: str, value: Any, given: Mapping[str, object]) -> Built:
    """The model that an object is or makes.

    Raises:
        LoadError: its arguments cannot be guessed, it fails, or is no model.
    """
    if isinstance(value, nn.Module):
        if given:
            raise LoadError(
                f"`{name}` is not built here, so it takes no --arg",
                hint="name the class or function that builds it",
            )
        return Built(_checked(value, name), name, f"`{name}`, a {type(value).__name__}", False, {})
    if isinstance(value, type):
        return _from_class(module, name, value, given)
    _refuse_uncallable(module, name, value)
    if required(value) and "example_inputs" in vars(module):
        return Built(value, name, f"the function `{name}`", False, {})
    if given or required(value):
        return _guessed(module, name, value, given)
    return _from_factory(module, name, call(value, f"calling {name}()"))


def _from_class(module: types.ModuleType, name: str, cls: type, given: Mapping[str, object]) -> Built:
    if not issubclass(cls, nn.Module):
        raise LoadError(
            f"`{name}` is a class, but not of an nn.Module",
            site=_site(module, name),
            hint="name a model or a factory",
        )
    if given or required(cls):
        return _guessed(module, name, cls, given)
    try:
        made = call(cls, f"building {name}()")
    except LoadError as error:
        if _hands_on(cls) and isinstance(error.__cause__, TypeError):  # what its base asks for
            return _guessed(module, name, cls, given)
        left_out = _left_out(cls)
        if not (left_out and _of_what_is_left_out(error.__cause__)):
            raise
        with contextlib.suppress(LoadError):
            return _guessed(module, name, cls, given, fills=True)
        raise LoadError(error.reason, site=error.site, hint=_write(cls, name, left_out)) from error.__cause__
    return Built(_checked(made, name), name, f"`{name}()`", True, {})


def _left_out(cls: type) -> list[str]:
    """The arguments that may be left out by a default of None: a constructor may still ask for some."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.default is None]


def _of_what_is_left_out(error: BaseException | None) -> bool:
    """Whether a constructor raised it for what it was not given: no misspelt name, no file that is not
    there."""
    return isinstance(error, AssertionError | ValueError | TypeError) or "NoneType" in str(error)


def _write(cls: type, name: str, left_out: Sequence[str]) -> str:
    """What to write where a class refuses to be built of its defaults."""
    written = " ".join(f"--arg {key}=..." for key in left_out[:_SHOWN])
    makers = [key for key, item in vars(cls).items() if isinstance(item, classmethod) and key[0] != "_"]
    made = f", as `{name}.{makers[0]}(...)` does" if makers else ""
    return (
        f"its defaults are no model: write what it asks for, as in {written}, or write a function that "
        f"builds it{made}, and name that"
    )


def _hands_on(cls: type) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())


def _refuse_uncallable(module: types.ModuleType, name: str, value: object) -> None:
    if _is_exported(value):
        hint = f"write `model = {name}.module()` and name that"
        raise LoadError(
            f"`{name}` is an ExportedProgram, which cannot be called", site=_site(module, name), hint=hint
        )
    if not callable(value):
        kind = "a state dict" if _is_state(value) else f"of type {type(value).__name__}"
        hint = "name an nn.Module, a class or a function that returns one"
        raise LoadError(f"`{name}` is {kind}, not a model", site=_site(module, name), hint=hint)


def _guessed(
    module: types.ModuleType,
    name: str,
    function: Callable[..., object],
    given: Mapping[str, object],
    *,
    fills: bool = False,
) -> Built:
    """What the first call that comes to its end makes; `others` are those of the calls after it."""
    _refuse_unknown(module, name, function, given)
    known = Definitions(module)
    needed = [key for key in required(function) if key not in given]
    written = " ".join(f"--arg {key}=..." for key in needed)
    hint = (
        f"write them as in {written}, or write a function that builds it and name that"
        if written
        else "write what it asks for with --arg, or write a function that builds it and name that"
    )
    if not isinstance(function, type) and known.gives(name) is None and not given:
        raise LoadError(f"`{name}` needs arguments: {', '.join(needed)}", site=_site(module, name), hint=hint)

    def all_of_them() -> Iterator[Built]:
        bare: list[Built] = []
        for made in constructions(function, name, known, given, fills=fills):
            if isinstance(function, type):
                one = Built(_checked(made.value, name), name, f"`{made.text}`", True, {}, made, others)
            else:
                built = _from_factory(module, name, made.value)
                one = Built(
                    built.model, name, f"what `{made.text}` returns", True, built.extras, made, others
                )
            if _has_none(one.model) and not fills:
                bare.append(one)
            else:
                yield one
        yield from bare  # a guess that leaves a model without parameters is the last to be meant

    others = all_of_them()
    try:
        return next(others)
    except LoadError as error:
        reason = (
            f"`{name}` needs arguments: {', '.join(needed)}; {error.reason}"
            if needed
            else f"building {name}: {error.reason}"
        )
        raise LoadError(reason, site=error.site or _site(module, name), hint=error.hint or hint) from error


def _refuse_unknown(
    module: types.ModuleType, name: str, function: Callable[..., object], given: Mapping[str, object]
) -> None:
    """Raise for an `--arg` that the call does not take."""
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    taken = [parameter.name for parameter in parameters]
    for key in given:
        if key.partition(".")[0] not in taken:
            takes = f"it takes {', '.join(taken)}" if taken else "it takes none"
            raise LoadError(f"`{name}` has no argument `{key}`", site=_site(module, name), hint=takes)


def _from_factory(module: types.ModuleType, name: str, made: object) -> Built:
    """A factory returns the model, or a dict with "model" and any of what a file may define beside it."""
    said, extras = f"what `{name}()` returns", {}
    if isinstance(made, Mapping) and "model" in made:
        extras = {key: made[key] for key in EXTRAS if key in made}
        if "inputs" in made:
            extras.setdefault("example_inputs", made["inputs"])
        made, said = made["model"], f"the model that `{name}()` returns"
    if not isinstance(made, nn.Module) and (isinstance(made, type | torch.Tensor) or not callable(made)):
        hint = f"return the nn.Module from `{name}`"
        raise LoadError(
            f"`{name}()` returns a {type(made).__name__}, not a model", site=_site(module, name), hint=hint
        )
    return Built(_checked(made, name), name, said, True, extras)


def _checked(model: object, name: str) -> object:
    if is_scripted(model):
        raise LoadError(
            f"`{name}` is TorchScript, which has no Python lines to name",
            hint="give the model before scripting, or set PYTORCH_JIT=0",
        )
    return model


def _instances(module: types.ModuleType) -> list[str]:
    """Names of module instances that are no loss and no part of another; of those with parameters if any has
    some."""
    found = {
        name: value
        for name, value in _public(module)
        if isinstance(value, nn.Module) and not isinstance(value, Loss)
    }
    by_object = {id(value): name for name, value in reversed(found.items())}  # the first name of each
    names = [name for name, value in found.items() if by_object[id(value)] == name]
    parts = {id(part) for name in names for part in registry.modules(found[name]) if part is not found[name]}
    whole = [name for name in names if id(found[name]) not in parts]
    return [name for name in whole if next(registry.parameters(found[name]), None) is not None] or whole


def _made(module: types.ModuleType, known: Definitions) -> list[str]:
    """Names of what makes a model: classes that are no part of another, and functions that return a module of
    another kind.

    A function without arguments stands for the class that needs some; a class without any for the functions
    that only fill in others.
    """
    classes = {cls.__name__: cls for cls in _defined_classes(module)}
    functions = _defined_functions(module)
    gives = _gives(known, functions)
    parts = _parts(known, classes, gives)
    whole = [name for name in classes if name not in parts]
    makers = {name: made for name, made in gives.items() if name not in parts}
    found = (
        _ready(module, {name: classes[name] for name in whole}, makers)
        or [name for name in functions if _FACTORY.fullmatch(name) and _asks_nothing(module, name)]
        or [name for name, made in makers.items() if made not in whole]
    )
    return sorted(found, key=lambda name: known.lines.get(name, 0))


def _defined_functions(module: types.ModuleType) -> list[str]:
    """Names of functions defined in the module."""
    functions = [(name, value) for name, value in _public(module) if inspect.isfunction(value)]
    return [name for name, value in functions if value.__module__ == module.__name__]


def _gives(known: Definitions, functions: Iterable[str]) -> dict[str, str]:
    """What each function builds, of those that build a module."""
    made = {name: known.gives(name) for name in functions}
    return {name: kind for name, kind in made.items() if kind is not None}


def _parts(known: Definitions, classes: Mapping[str, type[nn.Module]], gives: Mapping[str, str]) -> set[str]:
    """The names of classes and functions that others are made of."""
    names = (*classes, *gives)
    parts = {part for name in names for part in known.reached(name) if part != gives.get(name)}
    for name, cls in classes.items():
        parts |= {part.__name__ for key in required(cls) for part in classes_for(known, key, name)}
    # where they name each other, each is a part
    return parts if any(name not in parts for name in names) else set()


def _ready(
    module: types.ModuleType, classes: Mapping[str, type[nn.Module]], makers: Mapping[str, str]
) -> list[str]:
    """Classes without arguments, the functions that fill in those of the others, and the classes left."""
    free = [name for name, cls in classes.items() if not required(cls)]
    ready = [name for name, made in makers.items() if _asks_nothing(module, name) and made not in free]
    filled = {makers[name] for name in ready}
    return [*free, *ready, *(name for name in classes if name not in free and name not in filled)]


def _asks_nothing(module: types.ModuleType, function: str) -> bool:
    return not required(getattr(module, function))


def _with_parameters(module: types.ModuleType, names: list[str]) -> list[str]:
    """Those that have parameters or cannot be built to see, if there are some: a loss and an activation are
    modules too."""
    return [name for name in names if not _is_bare(module, name)] or names


def _is_bare(module: types.ModuleType, name: str) -> bool:
    value = getattr(module, name)
    if isinstance(value, type) and not issubclass(value, nn.Module):
        return False
    try:
        made = build(module, name, value, {}).model
    except LoadError:
        return False
    return _has_none(made)


def _has_none(made: object) -> bool:
    """Whether it is a module without parameters."""
    return isinstance(made, nn.Module) and next(registry.parameters(made), None) is None


def _defined_classes(module: types.ModuleType) -> list[type[nn.Module]]:
    """Classes of modules with a forward, defined in the module, that are no loss."""
    values = [
        value for _, value in _public(module) if isinstance(value, type) and issubclass(value, nn.Module)
    ]
    own = [
        cls
        for cls in dict.fromkeys(values)
        if cls.__module__ == module.__name__ and not issubclass(cls, Loss)
    ]
    # Looked up without calling anything: a ScriptModule's forward is there for instances only.
    forwards = {cls: inspect.getattr_static(cls, "forward", None) for cls in own}
    return [cls for cls in own if forwards[cls] is not nn.Module.forward and not inspect.isabstract(cls)]


def _public(module: types.ModuleType) -> Iterable[tuple[str, object]]:
    return [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in EXTRAS
    ]


def _close(module: types.ModuleType, name: str) -> str:
    public = [
        (key, item)
        for key, item in _public(module)
        if callable(item) and not isinstance(item, types.ModuleType)
    ]
    close = difflib.get_close_matches(name, [key for key, _ in public], n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(f'`{key}`' for key in close)}?"
    named_so = [key for key, item in public if inspect.isfunction(item) and _FACTORY.fullmatch(key)]
    own = dict.fromkeys([*_instances(module), *_made(module, Definitions(module)), *named_so])
    return f"it has {', '.join(own)}" if own else "it defines no model"


def _is_exported(value: object) -> bool:
    """Whether it is an `ExportedProgram`, by name: its module takes long to import."""
    return type(value).__name__ == "ExportedProgram"


def _is_state(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(item, torch.Tensor) for item in value.values())
    )


def _site(module: types.ModuleType, name: str) -> Site | None:
    line = Definitions(module).lines.get(name.partition(".")[0])
    return Site(module.__file__, line) if line and module.__file__ else None
