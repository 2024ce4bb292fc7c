"""Ctrl-C at many moments of an analysis: it ends the call, leaves the world as it was, and is lost nowhere."""

from __future__ import annotations

import contextlib
import gc
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad


@pytest.mark.parametrize("use", ["real", "fake", "fix"])
def test_at_many_moments(use: str) -> None:
    """In a process of its own: an exception in the wrong place of torch's C++ ends the process."""
    script = Path(__file__).with_name("interrupted.py")
    done = subprocess.run([sys.executable, str(script), use, "25"], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "as it should be\n"), done.stderr[-2000:]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _press() -> None:
    signal.raise_signal(signal.SIGINT)


class Ending:
    def __del__(self) -> None:
        _press()


def _in_a_finalizer(x: torch.Tensor) -> torch.Tensor:
    Ending()
    return x * 2


def _in_a_callback(x: torch.Tensor) -> torch.Tensor:
    layer = nn.Linear(2, 2)
    weakref.finalize(layer, _press)
    kept = weakref.ref(layer, lambda _: _press())
    del layer
    assert kept() is None
    return x * 2


def _in_a_pass_of_the_collector(x: torch.Tensor) -> torch.Tensor:
    def press(phase: str, info: Any) -> None:
        if phase == "stop":
            gc.callbacks.remove(press)
            _press()

    gc.callbacks.append(press)
    gc.collect()
    return x * 2


def _under_a_bare_except(x: torch.Tensor) -> torch.Tensor:
    with contextlib.suppress(BaseException):
        _press()
    return x * 2


def _by_another_error(x: torch.Tensor) -> torch.Tensor:
    try:
        _press()
    except KeyboardInterrupt:
        raise ValueError("what the program makes of it") from None
    return x * 2


def _in_a_gradient_hook(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.register_hook(lambda grad: _press())  # type: ignore[no-untyped-call]  # torch's
    return y


def _where_something_is_packed(x: torch.Tensor) -> torch.Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda t: _press() or t, lambda t: t):  # type: ignore[func-returns-value]  # on purpose
        return x.exp()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("use", [fxgrad.analyze, fxgrad.fix])
@pytest.mark.parametrize(
    "forward",
    [
        _in_a_finalizer,
        _in_a_callback,
        _in_a_pass_of_the_collector,
        _under_a_bare_except,
        _by_another_error,
        _in_a_gradient_hook,
        _where_something_is_packed,
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_raised_where_it_would_be_lost(forward: Callable[[torch.Tensor], torch.Tensor], use: Callable[..., Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        use(forward, (torch.randn(3, 4, requires_grad=True),))


@pytest.mark.usefixtures("ctrl_c")
def test_a_handler_that_does_not_raise_ends_nothing() -> None:
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    report = fxgrad.analyze(_in_a_finalizer, (torch.randn(3, 4, requires_grad=True),))
    assert report.ok
    assert pressed
