"""The global state of torch and Python that a model may touch: modes, defaults, flags, random numbers, environment, interpreter settings.

Noted when a run begins and put back when it ends, however it ends. Not handled: what has no way to be asked for (`set_flush_denormal`),
`sys.modules`, locales, limits and signal handlers other than Ctrl-C's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fxgrad.torch_api.internals import (
    FLAGS,
    PRINT_OPTIONS,
    default_device_mode,
    dispatch_mode_count,
    function_mode_at,
    function_mode_count,
    pop_dispatch_mode,
    pop_function_mode,
    pop_saved_tensors_hooks,
    set_grad_enabled,
    top_saved_tensors_hooks,
)

_AUTOCAST_DEVICES = ("cpu", "cuda")


@contextlib.contextmanager
def kept_switches() -> Iterator[None]:
    """All of this module, around a block."""
    with _random_state(), kept_modes(), _torch_state(), _autocast_state(), _flags(), _interpreter_state():
        yield


@contextlib.contextmanager
def _random_state() -> Iterator[None]:
    python = random.getstate()
    cpu = torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        if numpy is not None and numpy_state is not None:
            numpy.random.set_state(numpy_state)


@contextlib.contextmanager
def _torch_state() -> Iterator[None]:
    grad = torch.is_grad_enabled()
    dtype = torch.get_default_dtype()
    device = default_device_mode()
    anomaly = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
    deterministic = _deterministic()
    try:
        yield
    finally:
        set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if default_device_mode() is not device:
            torch.set_default_device(None if device is None else device.device)
        torch.set_anomaly_enabled(*anomaly)
        if _deterministic() != deterministic:  # the call imports all of torch._inductor, so only where there is something to undo
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


@contextlib.contextmanager
def _autocast_state() -> Iterator[None]:
    states = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _AUTOCAST_DEVICES]
    cache = torch.is_autocast_cache_enabled()
    depth = _autocast_depth()
    try:
        yield
    finally:
        for device, enabled, dtype in states:
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(cache)
        for _ in range(_autocast_depth() - depth):
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()


def _autocast_depth() -> int:
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return depth


@contextlib.contextmanager
def kept_modes() -> Iterator[None]:
    """What the block enters and does not leave is left for it: function and dispatch modes, hooks on saved tensors."""
    functions, depth, hooks = _top_mode(), dispatch_mode_count(), top_saved_tensors_hooks()
    try:
        yield
    finally:
        while _top_mode() is not functions and _top_mode() is not None:
            pop_function_mode()
        while dispatch_mode_count() > depth:
            pop_dispatch_mode()
        while top_saved_tensors_hooks() not in (hooks, None):
            pop_saved_tensors_hooks()


def _top_mode() -> Any:
    """The innermost function mode. A default device is one too, always the outermost, and put back otherwise."""
    depth = function_mode_count()
    mode = function_mode_at(depth - 1) if depth else None
    return None if mode is None or mode is default_device_mode() else mode


_FLAGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_warn_always_enabled, torch.set_warn_always),
    *FLAGS,
)


@contextlib.contextmanager
def _flags() -> Iterator[None]:
    before = [_asked(get) for get, _ in _FLAGS]
    printing: dict[str, Any] = vars(PRINT_OPTIONS)
    printed = dict(printing)
    try:
        yield
    finally:
        printing.update(printed)
        for (get, put), held in zip(_FLAGS, before, strict=True):
            if held is not None and _asked(get) != held:
                put(held)


def _asked(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except RuntimeError:  # the old name of a flag whose new one the user has set
        return None


@contextlib.contextmanager
def _interpreter_state() -> Iterator[None]:
    limit, lists, streams = sys.getrecursionlimit(), (list(sys.path), list(sys.argv)), (sys.stdout, sys.stderr)
    seen, hooks = (sys.gettrace(), sys.getprofile()), (sys.excepthook, sys.displayhook)
    collected, thresholds, interval = gc.isenabled(), gc.get_threshold(), sys.getswitchinterval()
    environment, place, decimals = _environment().copy(), _place(), _decimals()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.setrecursionlimit(limit)
        sys.path[:], sys.argv[:] = lists
        sys.stdout, sys.stderr = streams
        sys.excepthook, sys.displayhook = hooks
        if (sys.gettrace(), sys.getprofile()) != seen:
            sys.settrace(seen[0])
            sys.setprofile(seen[1])
        if gc.isenabled() is not collected:
            (gc.enable if collected else gc.disable)()
        if gc.get_threshold() != thresholds:
            gc.set_threshold(*thresholds)
        if sys.getswitchinterval() != interval:
            sys.setswitchinterval(interval)
        if _environment() != environment:
            _put_environment(environment)
        if place is not None and _place() != place:
            os.chdir(place)
        if decimals != _decimals():
            _put_decimals(decimals)


def _environment() -> dict[Any, Any]:
    """What `os.environ` keeps, encoded as the system has it; to decode all of it takes longer than to note the rest of this module."""
    found: dict[Any, Any] | None = getattr(os.environ, "_data", None)
    return found if found is not None else dict(os.environ)


def _put_environment(before: dict[Any, Any]) -> None:
    now = _environment()
    decode: Callable[[Any], str] = getattr(os.environ, "decodekey", str)
    for key in [*before, *(key for key in now if key not in before)]:
        if key not in before:
            del os.environ[decode(key)]
        elif now.get(key) != before[key]:
            os.environ[decode(key)] = decode(before[key])


def _place() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


_DECIMALS = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _decimals() -> dict[str, Any]:
    decimal = sys.modules.get("decimal")
    return {} if decimal is None else {name: getattr(decimal.getcontext(), name) for name in _DECIMALS}


def _put_decimals(before: dict[str, Any]) -> None:
    for name, value in before.items():
        setattr(sys.modules["decimal"].getcontext(), name, value)
