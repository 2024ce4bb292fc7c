"""Models from files that are not Python: programs saved by `torch.export.save` (.pt2), and pickles where the
user trusts them.

Unpickling runs code. Without trust a .pt2 is read with torch's restricted unpickler only, and one that holds
anything that torch would run as code is refused (`untrusted`). Not handled: state dicts and other weights
without a model, TorchScript, AOTInductor packages; each is refused with a reason.
"""

from __future__ import annotations

import contextlib
import linecache
import logging
import os
import re
import zipfile
from collections.abc import Iterator

import torch
from torch import nn

from fxgrad.program.load.execute import failing_as_load_error
from fxgrad.program.load.untrusted import PICKLE, not_plain
from fxgrad.records import Inputs, Site
from fxgrad.records.errors import LoadError
from fxgrad.source import line_text
from fxgrad.source.sites import is_user_code, stands_for
from fxgrad.torch_api.errors import PICKLED, says

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n(.*)')
_FORCE, _NEVER = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def load_exported(file: str, *, trust_pickle: bool) -> tuple[nn.Module, Inputs | None]:
    """The module of an exported program, and the example inputs it was exported with if they were saved.

    Raises:
        LoadError: not such a file, or it holds pickled objects and `trust_pickle` is off.
    """
    name = os.path.basename(file)
    if not zipfile.is_zipfile(file):
        raise LoadError(f"{name} is not a file of torch.export.save", hint="write it with torch.export.save")
    if not trust_pickle:
        _check_plain(file, name)
    with _quiet(), _restricted(not trust_pickle), failing_as_load_error(f"torch.export.load({name!r})"):
        try:
            program = torch.export.load(file)
        except Exception as error:
            if says(str(error), PICKLED, any_case=True):
                raise _untrusted(name) from error
            raise
        # Guards are source text of the archive, made with keys of its inputs. Without them torch checks sizes
        # by a hook.
        module = program.module(check_guards=False)
    _name_lines(module)
    return module, _example_inputs(program)


def _name_lines(module: nn.Module) -> None:
    """Let each line of the generated forward stand for the user's line that its node was exported from, where
    that is still there."""
    if not isinstance(module, torch.fx.GraphModule):
        return
    code = module.forward.__code__
    written = {node.name: _written(node.stack_trace or "") for node in module.graph.nodes}
    lines = linecache.getlines(code.co_filename)
    found = {
        number: written.get(text.partition("=")[0].partition(":")[0].strip())
        for number, text in enumerate(lines, 1)
    }
    stands_for(code.co_filename, {number: site for number, site in found.items() if site is not None})


def _written(stack_trace: str) -> Site | None:
    """The innermost line of the user's in a node's stack; None also where the file is there and has another
    text by now."""
    for file, line, function, text in reversed(_FRAME.findall(stack_trace)):
        if is_user_code(file):
            now = line_text(file, int(line)).strip()
            return Site(file, int(line), function=function) if now in ("", text.strip()) else None
    return None


def _check_plain(file: str, name: str) -> None:
    try:
        found = not_plain(file)
    except RecursionError:
        raise LoadError(
            f"{name} is nested too deeply to be read", hint="write it with torch.export.save"
        ) from None
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise LoadError(
            f"{name} is not a file of torch.export.save: {error}", hint="write it with torch.export.save"
        ) from error
    if found == PICKLE:
        raise _untrusted(name)
    if found is not None:
        reason = f"{name} holds {found}, and torch.export.load would run it as code"
        raise LoadError(reason, hint="pass --trust-pickle if you trust its origin")


def load_pickle(file: str, *, trust_pickle: bool) -> nn.Module:
    """The module in a file of `torch.save(model, ...)`.

    Raises:
        LoadError: `trust_pickle` is off, or the file holds something else.
    """
    name = os.path.basename(file)
    if _is_torchscript(file):
        raise LoadError(
            f"{name} is a TorchScript program, which has no Python lines to name",
            hint="give the model before scripting",
        )
    if not trust_pickle:
        raise _untrusted(name)
    with failing_as_load_error(f"torch.load({name!r})"):
        value = torch.load(file, map_location="cpu", weights_only=False)
    if isinstance(value, nn.Module) and not isinstance(value, torch.jit.ScriptModule):
        return value
    hint = "write a Python file whose function builds the model and loads these weights, and give that"
    raise LoadError(f"{name} holds a {type(value).__name__}, not a model", hint=hint)


def _is_torchscript(file: str) -> bool:
    """Whether it is an archive of `torch.jit.save`: the only ones with code in them."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.partition("/")[2].startswith("code/") for name in archive.namelist())


def _untrusted(name: str) -> LoadError:
    return LoadError(
        f"{name} is a pickle, and loading one runs the code in it",
        hint="pass --trust-pickle if you trust its origin",
    )


def _example_inputs(program: torch.export.ExportedProgram) -> Inputs | None:
    inputs = program.example_inputs
    return Inputs(tuple(inputs[0]), dict(inputs[1])) if inputs else None


@contextlib.contextmanager
def _restricted(on: bool) -> Iterator[None]:
    """torch.export falls back to the full unpickler when the restricted one refuses; one variable takes that
    away, and its opposite hinders."""
    before = {name: os.environ.get(name) for name in (_FORCE, _NEVER)}
    if on:
        os.environ[_FORCE] = "1"
        os.environ.pop(_NEVER, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.export logs whole tracebacks of what it then raises again."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
