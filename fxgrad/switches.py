"""The global state of torch and Python that a model may touch: modes, defaults, random numbers, interpreter settings.

Noted when a run begins and put back when it ends, however it ends. Device settings (cuDNN flags, thread counts) are left alone.
"""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch

_AUTOCAST_DEVICES = ("cpu", "cuda")


@contextlib.contextmanager
def kept_switches() -> Iterator[None]:
    """All of this module, around a block."""
    with _random_state(), _torch_state(), _autocast_state(), _interpreter_state():
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
    device = _default_device()
    anomaly = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
    deterministic = _deterministic()
    try:
        yield
    finally:
        torch._C._set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if _default_device() is not device:
            torch.set_default_device(None if device is None else device.device)
        torch.set_anomaly_enabled(*anomaly)
        if _deterministic() != deterministic:  # the call imports all of torch._inductor, so only where there is something to undo
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])


def _default_device() -> Any:
    """The mode that `torch.set_default_device` keeps on; None where nobody called it."""
    return getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)


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
def _interpreter_state() -> Iterator[None]:
    limit, path, streams = sys.getrecursionlimit(), list(sys.path), (sys.stdout, sys.stderr)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.setrecursionlimit(limit)
        sys.path[:] = path
        sys.stdout, sys.stderr = streams


@contextlib.contextmanager
def settled_heap() -> Iterator[None]:
    """The objects there are now stay out of garbage collection: a run makes enough new ones to set off passes over all that was imported.

    A user who has frozen objects (`gc.freeze`) keeps them so, and then nothing is done here.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
