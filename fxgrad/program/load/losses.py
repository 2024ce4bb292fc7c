"""The loss that a command line names: a function somewhere, or a part of the model's output.

`package.module:name` and `path/to/file.py:name` are callables from output to scalar; `.loss`, `["logits"]`,
`[0]` and chains of them pick a part of the output, which is summed if it is no scalar. Not handled:
expressions, and losses that need a target (write a function).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from fxgrad.program.load.execute import import_module, run_file
from fxgrad.program.load.extras import one_argument_loss
from fxgrad.records.errors import InputError, LoadError

_STEP = re.compile(
    r"""\.(?P<attribute>[^\W\d]\w*)|\[(?P<index>-?\d+)\]|\[(?P<quote>["']?)(?P<key>[^\[\]"']+)(?P=quote)\]"""
)
_HINT = 'write package.module:name, file.py:name, or a part of the output such as .loss, ["logits"] or [0]'


def loss_from(spec: str, modules: dict[str, object]) -> Callable[..., object]:
    """The loss of that SPEC. `modules` holds, by absolute file name, what is already loaded: the model's file
    must not run twice.

    Raises:
        LoadError: it cannot be found, or needs more than the output.
        InputError: (when called) the output has no such part.
    """
    spec = spec.strip()
    if spec[:1] in (".", "["):
        return _part(spec)
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name:
        raise LoadError(f"no loss can be made from {spec!r}", hint=_HINT)
    if where.endswith(".py"):
        file = os.path.abspath(where)
        value: Any = modules[file] if file in modules else run_file(file)
    else:
        value = import_module(where)
    for part in name.split("."):
        if not hasattr(value, part):
            raise LoadError(f"{where} has no `{name}`", hint=_HINT)
        value = getattr(value, part)
    if not callable(value):
        raise LoadError(
            f"`{name}` is of type {type(value).__name__}, not a function from output to loss", hint=_HINT
        )
    return one_argument_loss(value, name)


def _part(spec: str) -> Callable[..., object]:
    steps, position = [], 0
    while position < len(spec):
        step = _STEP.match(spec, position)
        if step is None:
            raise LoadError(f"no part of the output is named {spec!r}", hint=_HINT)
        steps.append(step)
        position = step.end()

    def part_of_output(output: Any) -> object:
        value = output
        for step in steps:
            value = _taken(value, step, spec)
        return value if getattr(value, "ndim", 0) == 0 else value.sum()

    # The report says which loss was used by its name.
    part_of_output.__name__ = part_of_output.__qualname__ = f"output{spec}"
    return part_of_output


def _taken(value: Any, step: re.Match[str], spec: str) -> object:
    try:
        if step["attribute"]:
            return getattr(value, step["attribute"])
        return value[step["key"]] if step["index"] is None else value[int(step["index"])]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        reason = f"the model's output has no {spec}: a {type(value).__name__} has no {step[0]}"
        raise InputError(reason, hint="give --loss a part that is there") from error
