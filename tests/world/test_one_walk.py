"""Several runs in one walk over the world: each finds it as it was, and leaves it so."""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.program.program import Program, program
from fxgrad.trace.experiment import Experiment
from fxgrad.trace.run import run
from fxgrad.world.reach import Reach

X = torch.randn(3, 4)
NUMBERS = itertools.count(5)
SEEN: list[Any] = []


class Forgetful(nn.Module):
    """Leaves something behind wherever it can, and says what it met."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.kept: dict[str, Any] = {}
        self.calls, self.window = 0, deque([1, 2], maxlen=2)
        self.jobs: queue.Queue[int] = queue.Queue()
        self.jobs.put(7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        met = self.calls, next(NUMBERS), self.jobs.get(), self.window[0], len(self.kept), len(SEEN)
        os.write(1, f"{met}\n".encode())
        self.calls += 1
        self.window.append(x)
        self.kept["x"] = x
        SEEN.append(x)
        self.jobs.put(8)
        self.jobs.put(9)
        return self.layer(x)


def walks(monkeypatch: pytest.MonkeyPatch) -> list[Reach]:
    """The whole walks from now on. Where tests are run by several processes, theirs are the other threads: the program's would be none."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    found: list[Reach] = []
    original = Reach.note_memoised
    monkeypatch.setattr(Reach, "note_memoised", lambda reach: (found.append(reach), original(reach))[1])
    return found


def three_runs(target: Program) -> None:
    with target.world.open():
        for experiment in (Experiment("real"), Experiment("real", watch_saves=True), Experiment("real", noise=1)):
            run(target, experiment)


def test_each_run_meets_the_world_as_it_was(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    three_runs(program(nn.Linear(4, 4), (X,), None))  # whatever they import
    model, found = Forgetful(), walks(monkeypatch)
    three_runs(program(model, (X,), None))
    assert len(found) == 1
    assert capfd.readouterr().out.splitlines() == ["(0, 5, 7, 1, 0, 0)"] * 3
    assert (model.calls, model.kept, list(model.window), list(model.jobs.queue), SEEN) == (0, {}, [1, 2], [7], [])
    assert "_put" not in vars(model.jobs)
    assert next(copy_of(NUMBERS)) == 5


def copy_of(numbers: Any) -> Any:
    return itertools.count(int(repr(numbers).removeprefix("count(").removesuffix(")")))


def test_outside_of_an_open_world_a_change_between_runs_stays(capfd: pytest.CaptureFixture[str]) -> None:
    model = Forgetful()
    target = program(model, (X,), None)
    for calls in (0, 3):
        model.calls = calls
        run(target, Experiment("real"))
        assert model.calls == calls
    assert [line.partition(",")[0] for line in capfd.readouterr().out.splitlines()] == ["(0", "(3"]


def test_what_is_beside_the_program_may_change_between_runs() -> None:
    target, beside = program(Forgetful(), (X,), None), Forgetful()
    with target.world.open():
        with target.preserved(beside):
            beside.calls = 5
        assert beside.calls == 0
        beside.calls = 7
        run(target, Experiment("real"))
        assert beside.calls == 7


class Importing(nn.Module):
    """Its first call brings a module of the user's within reach, whose counter every call counts up."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import counted_by_the_forward as found  # type: ignore[import-not-found]

        found.CALLS += 1
        return self.layer(x)


def test_what_a_run_imports_is_kept_from_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counted_by_the_forward.py").write_text("CALLS = 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    three_runs(program(Importing(), (X,), None))
    import counted_by_the_forward as found

    assert found.CALLS == 0


def test_other_threads_may_change_things_between_runs() -> None:
    model, on, end = Forgetful(), threading.Event(), threading.Event()
    target = program(model, (X,), None)

    def beside() -> None:
        on.wait()
        model.kept["by the thread"] = 1
        end.set()

    thread = threading.Thread(target=beside)
    thread.start()
    with target.world.open():
        run(target, Experiment("real"))
        on.set()
        end.wait()
        run(target, Experiment("real"))
    thread.join()
    assert model.kept == {"by the thread": 1}


def test_an_analysis_walks_once_for_all_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.experts = nn.Linear(4, 2), nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.experts[int(self.router(x).sum(0).argmax())](x)

    fxgrad.analyze(Experts(), (X,))  # whatever it imports
    found = walks(monkeypatch)
    assert len(set(fxgrad.analyze(Experts(), (X,)).verdicts.values())) > 1
    assert len(found) == 1
