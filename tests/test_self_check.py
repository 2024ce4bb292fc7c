"""A torch newer than those tried is checked, and refused where a seam does not match: no wrong verdict in silence."""

from __future__ import annotations

import contextlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.cli import main
from fxgrad.records.errors import TraceError
from fxgrad.torch_api import functions, versions
from fxgrad.trace import leaf_modules, seams, self_check, transforms


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The torch at hand is newer than any that was tried."""
    monkeypatch.setattr(versions, "NEWEST_TRIED", (2, 10))
    self_check.seams.cache_clear()
    yield
    self_check.seams.cache_clear()


def use(name: str) -> Callable[[], Any]:
    model, inputs = nn.Linear(2, 2), (torch.ones(1, 2),)
    if name == "watch":
        return lambda: fxgrad.watch(model).__enter__()
    return lambda: getattr(fxgrad, name)(model, inputs)


def test_every_seam_matches_on_this_torch() -> None:
    self_check.seams.cache_clear()
    assert [seam for seam in self_check.seams() if seam.wrong] == []


@pytest.mark.usefixtures("newer")
def test_a_newer_torch_that_matches_is_used() -> None:
    assert versions.newer_than_tried()
    assert use("analyze")().ok


@contextlib.contextmanager
def _uncaught(*_: Any) -> Iterator[None]:
    yield


# What breaks: (holder, attribute, what it is then), and the seam that the refusal must name.
BROKEN = {
    "autograd.Function.apply": (seams, "replaced_apply", _uncaught),
    "torch.utils.checkpoint, not reentrant": (transforms, "checkpoint_intercepted", _uncaught),
    "a transform of torch.func": (transforms, "interceptions", lambda _: ()),
    "a leaf module": (leaf_modules.Leaves, "is_leaf", lambda *_: False),
}


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("seam", BROKEN)
@pytest.mark.parametrize("what", ["analyze", "fix", "watch"])
def test_a_seam_that_does_not_match_is_named_and_refused(seam: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BROKEN[seam])
    with pytest.raises(TraceError, match=f"does not match: {seam}") as refused:
        use(what)()
    assert f"torch {torch.__version__} is newer than fxgrad knows (torch 2.11 to 2.10)" in refused.value.reason


def test_a_torch_that_was_tried_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BROKEN["a leaf module"])
    self_check.seams.cache_clear()
    assert use("analyze")().ok
    assert self_check.seams.cache_info().currsize == 0


@pytest.mark.usefixtures("newer")
def test_it_is_made_once_a_process() -> None:
    use("analyze")()
    use("analyze")()
    assert self_check.seams.cache_info().misses == 1


@pytest.mark.usefixtures("newer")
def test_a_gradient_that_differs_names_its_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is seen, and its backward is not the Function's own."""
    monkeypatch.setattr(functions, "_C_APPLY", classmethod(lambda cls, x: x * x))
    with pytest.raises(TraceError, match="does not match: autograd.Function.apply: the recorded gradient of `weights.0` is not eager's"):
        use("analyze")()


@pytest.mark.usefixtures("newer")
def test_the_users_modes_neither_disturb_it_nor_are_disturbed() -> None:
    with torch.inference_mode():
        self_check.refuse_unknown_torch()
        assert torch.is_inference_mode_enabled()
    self_check.seams.cache_clear()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            self_check.refuse_unknown_torch()
            assert not torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(before)


def test_it_loads_nothing_that_an_analysis_does_not() -> None:
    """torch.compile and sympy take seconds, and torch's checkpoint loads both when it is first used."""
    program = "import sys, fxgrad.trace.self_check as s; assert not any(x.wrong for x in s.seams()); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"torch._dynamo", "sympy"} & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    ("version", "newer"),
    [("2.11.0", False), ("2.15.3+cu132", False), ("2.16.0", True), ("2.16.0a0+gitabc", True), ("2.9.1", False), ("3.0.0", True)],
)
def test_which_torch_is_newer(version: str, newer: bool) -> None:
    assert versions.newer_than_tried(version) is newer


def test_version_in_full_lists_versions_and_seams(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version", "-v"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"fxgrad {fxgrad.__version__}", f"torch {torch.__version__} (tried: 2.11 to 2.15)"]
    assert lines[2] == "Python " + ".".join(map(str, sys.version_info[:3]))
    assert [line for line in lines if line.startswith("seam: ")] == [f"seam: {probe.name}: as eager" for probe in self_check.PROBES]


def test_version_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    installed = importlib.metadata.version("torch")  # what pip says: a CUDA build from PyPI says less than torch itself
    assert capsys.readouterr().out == f"fxgrad {fxgrad.__version__} (torch {installed})\n"
