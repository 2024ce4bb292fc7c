"""The settings of the Python process that a model may change: the interpreter's, of modules of the standard
library, of the system.

Noted when a run begins and put back when it ends, however it ends. What can be asked for is put back only
where it changed. Not handled: what has no way to be asked for (the file of `faulthandler`, functions
registered with `atexit`), `sys.modules`, the import system's finders, resource limits, and what a logger of
an installed package was set to.
"""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import gc
import locale
import logging
import operator
import os
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from fxgrad.world.heap import undo_freezing
from fxgrad.world.scopes import is_own
from fxgrad.world.undo import Act, undo_handler, undo_list, undo_logger

# Modules whose globals are settings, given by assignment: `sys.stdout`, `threading.excepthook`,
# `warnings.formatwarning`, `logging.lastResort`.
_SETTINGS = (sys, builtins, threading, warnings, logging)


@contextlib.contextmanager
def kept_process() -> Iterator[None]:
    """All of this module, around a block."""
    lists = undo_list(sys.path), undo_list(sys.argv)
    acts = (
        *lists,
        *map(_undo_globals, _SETTINGS),
        *_loggers(),
        *map(_undo_asked, _ASKED),
        undo_freezing(),
        _undo_environment(),
    )
    # first of all: an alarm of the program's must not come when its handler is gone
    alarms = _undo_timers(), _undo_handlers()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for act in (*alarms, *acts):
            act()


def _undo_globals(module: types.ModuleType) -> Act:
    before = dict(vars(module))

    def act() -> None:
        now = vars(module)
        if len(now) == len(before) and all(map(operator.is_, now.values(), before.values())):
            return
        for name in [*before, *(name for name in list(now) if name not in before)]:
            if name not in before:
                del now[name]
            elif now.get(name, act) is not before[name]:
                now[name] = before[name]

    return act


def _undo_asked(pair: tuple[Callable[[], object], Callable[[Any], Any]]) -> Act:
    get, put = pair
    before = get()
    return lambda: put(before) if get() != before else None


# -------------------------------------------------------------------------------------- what can be asked for


def _umask() -> int:
    before = os.umask(0o077)
    os.umask(before)
    return before


def _place() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def _go(place: str | None) -> None:
    if place is not None:
        os.chdir(place)


_DECIMALS = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _decimals() -> dict[str, object]:
    decimal = sys.modules.get("decimal")
    return {} if decimal is None else {name: getattr(decimal.getcontext(), name) for name in _DECIMALS}


def _put_decimals(before: dict[str, object]) -> None:
    for name, value in before.items():
        setattr(sys.modules["decimal"].getcontext(), name, value)


def _socket_timeout() -> object:
    socket = sys.modules.get("socket")
    return None if socket is None else socket.getdefaulttimeout()


_ASKED: tuple[tuple[Callable[[], object], Callable[[Any], object]], ...] = (
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.getswitchinterval, sys.setswitchinterval),
    (sys.gettrace, sys.settrace),
    (sys.getprofile, sys.setprofile),
    (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    (sys.get_asyncgen_hooks, lambda hooks: sys.set_asyncgen_hooks(*hooks)),
    (threading.stack_size, threading.stack_size),
    (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    (gc.get_threshold, lambda thresholds: gc.set_threshold(*thresholds)),
    (gc.get_debug, gc.set_debug),
    (faulthandler.is_enabled, lambda on: faulthandler.enable() if on else faulthandler.disable()),
    (lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    (lambda: logging.root.manager.disable, logging.disable),
    (_socket_timeout, lambda seconds: sys.modules["socket"].setdefaulttimeout(seconds)),
    (_umask, os.umask),
    (_place, _go),
    (_decimals, _put_decimals),
)


# --------------------------------------------------------------------------------------- environment, loggers


def _undo_environment() -> Act:
    before = _environment().copy()

    def act() -> None:
        if _environment() != before:
            _put_environment(before)
            if hasattr(time, "tzset"):
                time.tzset()  # `TZ` may be among what changed

    return act


def _environment() -> dict[Any, object]:
    """What `os.environ` keeps, encoded as the system has it; to decode all of it takes longer than to note
    the rest of this module."""
    found: dict[Any, Any] | None = getattr(os.environ, "_data", None)
    return found if found is not None else dict(os.environ)


def _put_environment(before: dict[object, object]) -> None:
    now = _environment()
    decode: Callable[[object], str] = getattr(os.environ, "decodekey", str)
    for key in [*before, *(key for key in now if key not in before)]:
        if key not in before:
            del os.environ[decode(key)]
        elif now.get(key) != before[key]:
            os.environ[decode(key)] = decode(before[key])


def _loggers() -> Iterator[Act]:
    """Of the root logger, through which all goes, and its handlers, and of those that are named like no
    installed package."""
    yield undo_logger(logging.root)
    yield from map(undo_handler, logging.root.handlers)
    known = logging.root.manager.loggerDict
    for name in known.keys() - _of_libraries:
        logger = known[name]
        if not is_own(name.partition(".")[0]):
            _of_libraries.add(name)  # a big program has hundreds
        elif isinstance(logger, logging.Logger):
            yield undo_logger(logger)


_of_libraries: set[str] = set()


# ---------------------------------------------------------------------------------------------------- signals


_SIGNALS = tuple(map(int, signal.valid_signals()))
# The C function: `signal.getsignal` makes a member of an enumeration of every number.
_handler: Callable[[int], Any] = getattr(signal, "_signal", signal).getsignal


def _undo_handlers() -> Act:
    """Only the main thread may set a handler; one that was not set from Python cannot be set again."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = list(map(_handler, _SIGNALS))

    def act() -> None:
        for number, held in zip(_SIGNALS, before, strict=True):
            if held is not None and _handler(number) is not held:
                signal.signal(number, held)

    return act


_TIMERS = tuple(
    getattr(signal, name)
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")
    if hasattr(signal, name)
)


def _undo_timers() -> Act:
    """A timer that the program set is stopped; one from before goes on as if the program had not
    touched it."""
    before = [(timer, *signal.getitimer(timer)) for timer in _TIMERS]
    begun = time.monotonic()

    def act() -> None:
        passed = time.monotonic() - begun
        for timer, left, interval in before:
            now, now_interval = signal.getitimer(timer)
            if not left:
                if now:
                    signal.setitimer(timer, 0)
                continue
            due = left - passed
            # The others count the time of the processor, of which less has passed.
            latest = due + _NEAR if timer == _TIMERS[0] else left
            if now_interval != interval or (due > 0 and not due - _NEAR <= now <= latest):
                signal.setitimer(timer, due if due > 0 else interval, interval)

    return act


_NEAR = 0.05  # seconds by which two clocks may differ
