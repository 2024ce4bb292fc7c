"""The global state of torch that a model may touch: modes, defaults, flags, random numbers, those of Python
and NumPy among them.

Noted when a run begins and put back when it ends, however it ends; `kept_switches` does so for the process as
well (`fxgrad.world.process`). Not handled: what has no way to be asked for (`set_flush_denormal`), and the
number of threads between operators, which is set once.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd import forward_ad

from fxgrad.torch_api.generators import noted_generators
from fxgrad.torch_api.internals import (
    FLAGS,
    PRINT_OPTIONS,
    default_device_mode,
    dispatch_mode_count,
    dual_levels,
    function_mode_at,
    function_mode_count,
    inference_regions_left,
    pop_dispatch_mode,
    pop_function_mode,
    pop_saved_tensors_hooks,
    set_grad_enabled,
    top_saved_tensors_hooks,
    torch_function_state,
)
from fxgrad.world.process import kept_process

_AUTOCAST_DEVICES = ("cpu", "cuda")


@contextlib.contextmanager
def kept_switches() -> Iterator[None]:
    """All of this module and of the process, around a block."""
    with _random_state(), kept_modes(), _torch_state(), _autocast_state(), _flags(), kept_process():
        yield


@contextlib.contextmanager
def _random_state() -> Iterator[None]:
    python = random.getstate()
    put_back = noted_generators()
    numpy = sys.modules.get("numpy.random")  # numpy loads it at its first use, in 30 ms
    numpy_state = numpy.get_state() if numpy is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        put_back()
        if numpy is not None:
            numpy.set_state(numpy_state)
        elif (numpy := sys.modules.get("numpy.random")) is not None:
            numpy.seed()  # the block was the first to draw from it: as unforeseen as it was


@contextlib.contextmanager
def _torch_state() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    device = default_device_mode()
    anomaly = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
    deterministic = _deterministic()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if default_device_mode() is not device:
            torch.set_default_device(None if device is None else device.device)
        torch.set_anomaly_enabled(*anomaly)
        # the call imports all of torch._inductor, so only where there is something to undo
        if _deterministic() != deterministic:
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
    """What the block enters and does not leave is left for it: function and dispatch modes, hooks on saved
    tensors, regions; gradients are on or off as before."""
    grad = torch.is_grad_enabled()
    functions, depth, hooks = _top_mode(), dispatch_mode_count(), top_saved_tensors_hooks()
    asks, sets = torch_function_state
    asked, levels = asks(), dual_levels()
    try:
        with inference_regions_left():
            yield
    finally:
        set_grad_enabled(grad)
        sets(asked)
        while dual_levels() > levels:
            forward_ad.exit_dual_level()  # type: ignore[no-untyped-call]  # torch's
        while _top_mode() is not functions and _top_mode() is not None:
            pop_function_mode()
        while dispatch_mode_count() > depth:
            pop_dispatch_mode()
        while top_saved_tensors_hooks() not in (hooks, None):
            pop_saved_tensors_hooks()


def _top_mode() -> object:
    """The innermost function mode. A default device is one too, always the outermost, and put back
    otherwise."""
    depth = function_mode_count()
    mode = function_mode_at(depth - 1) if depth else None
    return None if mode is None or mode is default_device_mode() else mode


_FLAGS: tuple[tuple[Callable[[], object], Callable[[Any], object]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_warn_always_enabled, torch.set_warn_always),
    *FLAGS,
)


@contextlib.contextmanager
def _flags() -> Iterator[None]:
    before = [_asked(get) for get, _ in _FLAGS]
    printing: dict[str, object] = vars(PRINT_OPTIONS)
    printed = dict(printing)
    try:
        yield
    finally:
        printing.update(printed)
        for (get, put), held in zip(_FLAGS, before, strict=True):
            if held is not None and _asked(get) != held:
                put(held)


def _asked(get: Callable[[], object]) -> object:
    try:
        return get()
    except RuntimeError:  # the old name of a flag whose new one the user has set
        return None
