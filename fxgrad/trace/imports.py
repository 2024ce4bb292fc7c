"""Modules that a program is the first to import, while it is recorded.

A module's code runs once in a process, and what it makes stays: on stand-ins its tensors would be fake for
good, and what it takes from torch by name would be our replacement. So an import runs as it would without a
recorder, and what it brought is within reach from then on.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import _bootstrap
from types import ModuleType
from typing import Any

from fxgrad.torch_api.functions import unpatched
from fxgrad.torch_api.internals import DisableTorchFunction, unset_fake_temporarily
from fxgrad.trace.recorder import Recorder

# its `_find_and_load` is what every import of a module that is not loaded goes through
_IMPORT_SYSTEM: Any = _bootstrap


def interceptions(recorder: Recorder) -> Iterator[tuple[object, str, object]]:
    """(module, attribute, replacement) for `fxgrad.trace.seams`."""
    yield _IMPORT_SYSTEM, "_find_and_load", _find_and_load(recorder, _IMPORT_SYSTEM._find_and_load)


def _find_and_load(recorder: Recorder, original: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(original)
    def find_and_load(*args: object, **kwargs: object) -> object:
        if not recorder.active or threading.get_ident() != recorder.thread:
            return original(*args, **kwargs)
        loaded = set(sys.modules)
        try:
            with _aside(recorder):
                return original(*args, **kwargs)
        finally:
            new = [
                module
                for name, module in list(sys.modules.items())
                if name not in loaded and isinstance(module, ModuleType)
            ]
            with DisableTorchFunction():
                recorder.reach.note_imported(new, recorder.root)

    return find_and_load


@contextlib.contextmanager
def _aside(recorder: Recorder) -> Iterator[None]:
    """The block runs as if there were no recorder."""
    recorder.active = False
    try:
        with unpatched(), unset_fake_temporarily():
            yield
    finally:
        recorder.active = True
