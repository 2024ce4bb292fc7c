"""What an argument that nobody gave may be, by what its file has: a setting of the file under that name, an
instance of its annotation, a part or settings class of the file, a value by its name (`values`).

Not handled: arguments that only fit in ways no name tells.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from fxgrad.program.inputs import required
from fxgrad.program.load.definitions import Definitions
from fxgrad.program.load.values import (
    Settings,
    Value,
    annotation_of,
    by_name,
    is_settings,
    settings,
    written,
)
from fxgrad.source.objects import module_of

_CLASS_WANTED = re.compile(r"(\w+_)?(block|layer|cls|class|cell|unit)(_type|_cls|_class|_fn|_layer)?")
_SETTINGS_CLASS = re.compile(
    r"\w*(config|configuration|args|arguments|options|settings|hparams|hyperparameters|params|cfg)",
    re.IGNORECASE,
)
_SETTINGS_MAKER = re.compile(
    r"(get|parse|make|build|load|default|create)_?(\w+_)?(args|arguments|config|cfg|opts?|options"
    r"|hparams|params)"
)


@dataclass(frozen=True, slots=True)
class Built:
    """A class or function to call for an argument."""

    function: Callable[..., Any]


def values_for(known: Definitions, name: str, parameter: inspect.Parameter) -> list[Value]:
    """What a parameter of a call of `name` may be given, the likeliest first."""
    annotation = annotation_of(parameter)
    found = [*_of_the_file(known, parameter.name), *_of_annotation(known, parameter)]
    if annotation in ("", "nn.Module", "Module", "torch.nn.Module"):
        found += _parts(known, parameter.name, name)
    if is_settings(parameter.name) and not annotation:
        found += _settings_classes(known, name)
    plain = annotation if known.value(annotation) is None else ""
    return [*found, *_by_name(known, name, parameter.name, plain)]


def _by_name(known: Definitions, asking: str, name: str, annotation: str) -> list[Value]:
    found = by_name(name, annotation, known.compared(asking, name), known.sequence(asking, name))
    found = [*_told_apart(known, asking, name, found), *found]
    read = () if annotation else known.attributes(asking, name)
    if not read or any(_is_module(value.value) for value in found if not value.unfounded):
        return found
    # what lacks the attributes that are read is tried last
    fits = [
        value
        for value in found
        if value.value is not Settings and all(hasattr(value.value, one) for one in read)
    ]
    return [
        *fits,
        *settings(name),
        *(value for value in found if value not in fits and value.value is not Settings),
    ]


def _told_apart(known: Definitions, asking: str | None, name: str, found: list[Value]) -> list[Value]:
    """The numbers that the program tells apart in an argument of which nothing else is known."""
    if not found or not found[0].unfounded:
        return []
    numbers = known.numbers(asking, name)
    why = f"`{name}` is compared with {', '.join(map(str, numbers))}"
    return [Value(number, str(number), why, choice=True) for number in numbers]


def _is_module(value: object) -> bool:
    return isinstance(value, nn.Module) or (isinstance(value, type) and issubclass(value, nn.Module))


def read_as(known: Definitions, name: str, of: str) -> list[Value]:
    """Values for an attribute of the settings called `of`: what a file beside this one says, else guesses;
    None among them where the file asks whether it is."""
    beside = known.beside(of)
    if name in beside:
        value = beside.values[name]
        return [Value(value, written(value), f"as {beside.file} has it")]
    guesses = by_name(name, texts=known.compared(None, name))
    first, *others = [*_told_apart(known, None, name, guesses), *guesses]
    if first.unfounded and name in known.tested_values:
        why = f"the file tests `{name}`"
        return [Value(flag, str(flag), why, choice=True) for flag in (False, True)]
    asked = (
        [Value(None, "None", f"the file compares `{name}` with None")]
        if name in known.optional_values
        else []
    )
    return [first, *asked, *others]


def _of_the_file(known: Definitions, name: str) -> Iterator[Value]:
    """A setting that the file keeps under the argument's own name: `args = parser.parse_args()`."""
    value = known.value(name)
    if (
        value is not None
        and is_settings(name)
        and not callable(value)
        and not isinstance(value, types.ModuleType)
    ):
        yield Value(value, name, f"the file's own `{name}`")


def _of_annotation(known: Definitions, parameter: inspect.Parameter) -> Iterator[Value]:
    """A class that the argument is annotated with, to be built."""
    kind = parameter.annotation
    if isinstance(kind, str):
        kind = known.value(annotation_of(parameter))
    if isinstance(kind, type) and module_of(kind) not in (
        "builtins",
        "inspect",
        "torch",
        "torch.nn.modules.module",
        "collections.abc",
    ):
        yield Value(Built(kind), f"{kind.__name__}()", f"`{parameter.name}` is annotated {kind.__name__}")


def _parts(known: Definitions, name: str, asking: str) -> Iterator[Value]:
    """Module classes of the file under the argument's name: the class where the name asks for one (`block`),
    else an instance."""
    classes = classes_for(known, name, asking)
    if _CLASS_WANTED.fullmatch(name.lower()):
        for cls in classes:
            yield Value(cls, cls.__name__, f"a class of the file, as `{name}` asks for one")
    for cls in classes:
        yield Value(Built(cls), f"{cls.__name__}(...)", f"a class of the file, by the name `{name}`")


def classes_for(known: Definitions, name: str, asking: str) -> list[type[nn.Module]]:
    """The module classes of the file that an argument of `asking` may be named after, the one of the very
    name alone."""
    values = {key: known.value(key) for key in known.lines if key != asking}
    modules = {
        key: value
        for key, value in values.items()
        if isinstance(value, type) and issubclass(value, nn.Module)
    }
    same = [value for key, value in modules.items() if _plain(key) == _plain(name)]
    long = len(name) > 3  # `fn`, `net`: the end of many names
    return same or [value for key, value in modules.items() if long and _plain(key).endswith(_plain(name))]


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _settings_classes(known: Definitions, asking: str) -> list[Value]:
    """What in the file makes settings: the class named after the one that asks, else the only one; a function
    without arguments."""
    names = {
        **{key: known.value(key) for key in known.lines},
        **{k: v for k, v in known.namespace.items() if isinstance(v, type)},
    }
    classes = [value for name, value in names.items() if _makes_settings(name, value)]
    own = [cls for cls in classes if _plain(cls.__name__).startswith(_plain(asking))]
    chosen = own[:1] or (classes if len(classes) == 1 else [])
    makers = [value for name, value in names.items() if _gives_settings(name, value)]
    return [
        *(Value(Built(cls), f"{cls.__name__}()", "the file's own class of settings") for cls in chosen),
        *(Value(Built(maker), f"{maker.__name__}()", "the file's own settings") for maker in makers),
    ]


def _makes_settings(name: str, value: object) -> bool:
    if not isinstance(value, type) or issubclass(value, nn.Module):
        return False
    own = not module_of(value).startswith(("torch", "typing", "dataclasses", "argparse", "builtins"))
    return own and (dataclasses.is_dataclass(value) or _SETTINGS_CLASS.fullmatch(name) is not None)


def _gives_settings(name: str, value: Any) -> bool:
    is_maker = inspect.isfunction(value) and _SETTINGS_MAKER.fullmatch(name) is not None
    return is_maker and not required(value)
