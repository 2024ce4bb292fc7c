"""Programs that compute out of the recorder's sight: in threads, and where they switch torch's modes off. Never wrong, nothing touched.

What a thread does is not recorded: the verdicts are those of a plain step, or there is a refusal with the line.
"""

from __future__ import annotations

import _thread
import asyncio
import copy
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import pytest
import torch
from torch import nn
from torch._C import DisableTorchFunction

import fxgrad
from fxgrad import Options

Program = Callable[[Any, torch.Tensor], Any]
HELD = torch.ones(4)


class Workers:
    """Threads that were there before: a pool of futures, one of multiprocessing's, and one that serves a queue of functions."""

    def __init__(self) -> None:
        self.futures = ThreadPoolExecutor(1)
        self.futures.submit(int).result()
        self.pool = ThreadPool(1)
        self.jobs: queue.Queue[Any] = queue.Queue()
        self.done: queue.Queue[Any] = queue.Queue()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        while not self.jobs.not_empty._waiters:  # type: ignore[attr-defined]  # threads that wait, which a condition tells nobody
            time.sleep(0.001)

    def _serve(self) -> None:
        while (job := self.jobs.get()) is not None:
            self.done.put(job())

    def ask(self, job: Callable[[], Any]) -> Any:
        self.jobs.put(job)
        return self.done.get()

    def end(self) -> None:
        self.jobs.put(None)
        self.thread.join()
        self.futures.shutdown()
        self.pool.terminate()


WORKERS: list[Workers] = []


@pytest.fixture(autouse=True)
def workers() -> Iterator[None]:
    WORKERS[:] = [Workers()]
    yield
    WORKERS.pop().end()


class Model(nn.Module):
    def __init__(self, act: Program) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4, affine=False)
        self.register_buffer("seen", torch.zeros(4))
        self.act = act

    def forward(self, x: torch.Tensor) -> Any:
        return self.act(self, x)

    def write(self) -> None:
        with torch.no_grad():
            self.one.weight.mul_(0.5)
            self.seen.add_(1)  # type: ignore[operator]  # a buffer
            HELD.mul_(2)


def _joined(job: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(job()))
    thread.start()
    thread.join()
    return found[0] if found else None


# ---------------------------------------------------------------------------------------------------------------- programs


def a_thread_writes(model: Any, x: torch.Tensor) -> Any:
    _joined(model.write)
    return model.two(model.one(x)) * HELD


def a_thread_writes_the_input(model: Any, x: torch.Tensor) -> Any:
    _joined(lambda: x.mul_(2))
    return model.two(model.one(x))


def threads_compute(model: Any, x: torch.Tensor) -> Any:
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda layer: layer(x), (model.one, model.two))
    return one + two


def a_thread_loses_the_gradient(model: Any, x: torch.Tensor) -> Any:
    return model.two(_joined(lambda: model.one(x).detach()))


def a_thread_that_swallows(model: Any, x: torch.Tensor) -> Any:
    def job() -> torch.Tensor:
        try:
            out: torch.Tensor = model.one(x * model.one.weight.norm().item())
        except BaseException:
            return torch.zeros(3, 4)
        return out

    return model.two(_joined(job))


def a_thread_of_its_own_class(model: Any, x: torch.Tensor) -> Any:
    class Own(threading.Thread):
        def run(self) -> None:
            self.out = model.one(x)

    thread = Own()
    thread.start()
    thread.join()
    return model.two(thread.out)


def a_thread_below_threading(model: Any, x: torch.Tensor) -> Any:
    found: queue.SimpleQueue[torch.Tensor] = queue.SimpleQueue()
    _thread.start_new_thread(lambda: found.put(model.one(x)), ())
    return model.two(found.get())


def an_executor_of_asyncio(model: Any, x: torch.Tensor) -> Any:
    async def forward() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, model.one, x)

    return model.two(asyncio.run(forward()))


def a_thread_reads_numbers(model: Any, x: torch.Tensor) -> Any:
    norm = _joined(lambda: model.one.weight.norm().item())
    return model.two(model.one(x)) * norm


def a_thread_runs_backward(model: Any, x: torch.Tensor) -> Any:
    _joined(lambda: model.one(x).sum().backward())
    return model.two(x)


def an_old_pool_writes(model: Any, x: torch.Tensor) -> Any:
    WORKERS[0].futures.submit(model.write).result()
    return model.two(model.one(x))


def an_old_pool_computes(model: Any, x: torch.Tensor) -> Any:
    return model.two(WORKERS[0].pool.apply(model.one, (x,)))


def an_old_worker_writes(model: Any, x: torch.Tensor) -> Any:
    WORKERS[0].ask(model.write)
    return model.two(model.one(x))


def an_old_worker_computes(model: Any, x: torch.Tensor) -> Any:
    return model.two(WORKERS[0].ask(lambda: model.one(x)))


def an_old_worker_loses_the_gradient(model: Any, x: torch.Tensor) -> Any:
    return model.two(WORKERS[0].ask(lambda: model.one(x).detach()))


def modes_off(model: Any, x: torch.Tensor) -> Any:
    with torch._C.DisableTorchFunction():
        model.write()
        return model.two(model.norm(model.one(x)))


def modes_off_by_name(model: Any, x: torch.Tensor) -> Any:
    with DisableTorchFunction():
        model.write()
        y = model.norm(model.one(x))
    return model.two(y) * HELD


PROGRAMS = [value for value in list(globals().values()) if getattr(value, "__annotations__", {}).get("model") == "Any"]
# Those that a graph can stand for: what is not recorded has no part in them.
FIXED = (modes_off,)


def _truth(model: Model, x: torch.Tensor) -> dict[str, str]:
    made, held = copy.deepcopy(model), HELD.clone()
    made(x.clone()).sum().backward()
    HELD.copy_(held)
    return {n: "none" if p.grad is None else "flows" if p.grad.any() else "zero" for n, p in made.named_parameters()}


def _picture(model: Model, x: torch.Tensor) -> Any:
    tensors = {**model.state_dict(keep_vars=True), "input": x, "held": HELD}
    return {n: (t.tolist(), t._version, t.grad, t.data_ptr()) for n, t in tensors.items()}, list(WORKERS[0].done.queue)


@pytest.mark.parametrize("use", ["real", "fake", "fix"])
@pytest.mark.parametrize("act", PROGRAMS)
def test_right_or_refused_and_nothing_touched(act: Program, use: Any) -> None:
    torch.manual_seed(0)
    model, x = Model(act), torch.randn(3, 4)
    truth, before = _truth(model, x), _picture(model, x)
    threads = set(threading.enumerate())
    try:
        if use == "fix":
            fxgrad.fix(model, (x,))
            assert act in FIXED
        else:
            assert dict(fxgrad.analyze(model, (x,), options=Options(values=use)).verdicts) == truth
    except fxgrad.FxgradError:
        assert use == "fake" or act not in FIXED
    assert _picture(model, x) == before
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("act", [threads_compute, a_thread_below_threading, an_old_worker_computes, a_thread_that_swallows])
def test_what_trains_is_said_to_train(act: Program) -> None:
    report = fxgrad.analyze(Model(act), (torch.randn(3, 4),))
    assert set(report.verdicts.values()) == {"flows"}
    assert any("plain step" in text for text in report.assumptions)


@pytest.mark.parametrize("act", [a_thread_loses_the_gradient, an_old_worker_loses_the_gradient])
def test_what_does_not_train_is_refused_with_the_line(act: Program) -> None:
    with pytest.raises(fxgrad.TraceError, match="gets no gradient; the cause is not known") as caught:
        fxgrad.analyze(Model(act), (torch.randn(3, 4),))
    assert caught.value.site is not None
    assert caught.value.site.file == __file__


def test_a_thread_that_outlives_the_run_ends_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, ended = threading.Event(), threading.Event()
    printed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)

    def late(model: Model) -> None:
        try:
            begin.wait()
            model.write()
        finally:
            ended.set()

    def forward(x: torch.Tensor) -> torch.Tensor:
        threading.Thread(target=late, args=(model,), daemon=True).start()
        out: torch.Tensor = model.one(x)
        return out

    model = Model(lambda model, x: x)
    fxgrad.analyze(forward, (torch.randn(3, 4),), options=Options(values="real"))
    begin.set()
    ended.wait()
    assert model.get_buffer("seen").tolist() == [0.0] * 4
    assert printed == []


def test_a_pool_of_the_users_goes_on_working() -> None:
    """One that gets its first worker in the analysis."""
    pool = ThreadPoolExecutor(1)
    model = Model(lambda model, x: pool.submit(model.one, x).result())
    with pytest.raises(fxgrad.TraceError):
        fxgrad.analyze(model, (torch.randn(3, 4),), expect=["two.*"])
    assert pool.submit(lambda: torch.ones(2).add_(model.one.bias[0].detach() * 0).tolist()).result() == [1.0, 1.0]
    pool.shutdown()
