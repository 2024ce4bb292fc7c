"""The line that shows how far a long analysis is: when there is one, what it says, and that nothing of it stays."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.cli import main
from fxgrad.cli import progress_line as shown
from fxgrad.cli.progress_line import _Plain, showing
from fxgrad.trace import progress

X = (torch.randn(2, 4),)
layer = nn.Linear(4, 4)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Long(nn.Module):
    def __init__(self, steps: int = 200) -> None:
        super().__init__()
        self.layer, self.steps = nn.Linear(4, 4), steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        for _ in range(self.steps):
            y = y + 1
        return y


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is read."""
    times: Iterator[int] = iter(range(10**9))
    return lambda: next(times) * seconds


def test_a_listener_hears_phase_path_and_nodes() -> None:
    heard: list[tuple[str, int, int]] = []
    with progress.heard_by(lambda *said: heard.append(said)):
        fxgrad.analyze(Long(), X)
    assert heard[:3] == [("forward", 1, 64), ("forward", 1, 128), ("forward", 1, 192)]
    assert [phase for phase, _, _ in heard][-2:] == ["backward", "rules"]


def test_each_path_of_a_branch_is_counted() -> None:
    class Branch(Long):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            return y * 2 if y.sum() > 0 else y

    heard: list[int] = []
    with progress.heard_by(lambda phase, path, nodes: heard.append(path)):
        fxgrad.analyze(Branch(), X)
    assert {1, 2} <= set(heard)


def test_nobody_hears_outside_the_block() -> None:
    heard: list[str] = []
    with progress.heard_by(lambda phase, path, nodes: heard.append(phase)):
        pass
    fxgrad.analyze(Long(), X)
    assert heard == []


def test_the_line_has_path_nodes_and_seconds_and_is_erased() -> None:
    stream = Terminal()
    with showing(stream, clock=ticking(1.0), line=_Plain):
        fxgrad.analyze(Long(), X)
    text = stream.getvalue()
    assert "\rpath 1: forward, 128 nodes (2 s)" in text
    assert "\n" not in text
    last = text.rstrip("\r").rpartition("\r")[2]
    assert text.endswith("\r")
    assert last.strip() == ""


def test_the_line_moves_while_nothing_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            deadline = time.monotonic() + 5.0
            while stream.getvalue().count(": backward, ") < 3 and time.monotonic() < deadline:
                time.sleep(0.005)
            return grad

    stream = Terminal()
    for name in ("PATIENCE", "PAUSE", "BEAT"):
        monkeypatch.setattr(shown, name, 0.01)
    before = threading.active_count()
    with showing(stream, line=_Plain):
        fxgrad.analyze(lambda x: Slow.apply(layer(x)), X, options=fxgrad.Options(values="real"))
    assert stream.getvalue().count("path 1: backward, ") >= 3
    deadline = time.monotonic() + 5.0
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert threading.active_count() == before


def test_a_short_analysis_shows_nothing() -> None:
    stream = Terminal()
    with showing(stream, clock=ticking(0.0001), line=_Plain):
        fxgrad.analyze(Long(), X)
    assert stream.getvalue() == ""


def test_no_terminal_no_line() -> None:
    stream = io.StringIO()
    with showing(stream, clock=ticking(10.0), line=_Plain):
        assert progress.begin_run() is None
        fxgrad.analyze(Long(), X)
    assert stream.getvalue() == ""


def test_the_line_goes_on_ctrl_c() -> None:
    class Interrupted(Long):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise KeyboardInterrupt

    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), showing(stream, clock=ticking(1.0), line=_Plain):
        fxgrad.analyze(Interrupted(), X)
    assert "path 1" in stream.getvalue()
    assert stream.getvalue().endswith(" \r")
    assert progress.begin_run() is None


def test_a_terminal_that_goes_away_stops_nothing() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with showing(Gone(), clock=ticking(1.0), line=_Plain):
        assert fxgrad.analyze(Long(), X).ok


def test_with_rich_the_cursor_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    with showing(stream, clock=ticking(1.0)):
        fxgrad.analyze(Long(), X)
    text = stream.getvalue()
    assert "path 1: forward, 128 nodes" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_python_callers_see_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(shown, "PATIENCE", 0.0)
    fxgrad.analyze(Long(), X)
    assert stream.getvalue() == ""


def test_the_command_line_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(*(nn.Linear(4, 4) for _ in range(100)))\n\nmodel = Net()\nexample_inputs = (torch.randn(2, 4),)\n"
    )
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(shown, "PATIENCE", 0.0)
    monkeypatch.setattr(shown, "PAUSE", 0.0)
    assert main(["report", str(file)]) == 0
    assert "path 1: forward, " in stream.getvalue()
    assert "path 1" not in capsys.readouterr().out


def test_the_bench_command_says_which_run_it_is_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.py"
    file.write_text("import torch\nmodel = torch.nn.Linear(2, 2)\nexample_inputs = (torch.ones(1, 2),)\n")
    heard: list[str] = []

    def hearing(stream: object) -> AbstractContextManager[None]:
        return progress.heard_by(lambda phase, path, nodes: heard.append(phase))

    monkeypatch.setattr("fxgrad.cli.bench.showing", hearing)
    assert main(["bench", str(file), "--runs", "2"]) == 0
    capsys.readouterr()
    assert [phase for phase in heard if phase.startswith("run ")] == ["run 1 of 2 of each form", "run 2 of 2 of each form"]
    assert "warming up: original" in heard


def test_the_run_command_shows_that_the_report_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.py"
    file.write_text(
        "import torch\nmodel = torch.nn.Linear(2, 2)\noptimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "for _ in range(3):\n    model(torch.ones(1, 2)).sum().backward()\n    optimizer.step()\n    optimizer.zero_grad()\n"
    )
    entered: list[str] = []

    @contextmanager
    def noted(stream: object) -> Iterator[None]:
        entered.append("made")
        yield

    monkeypatch.setattr("fxgrad.cli.run.showing", noted)
    assert main(["run", str(file)]) == 0
    capsys.readouterr()
    assert entered == ["made"]
