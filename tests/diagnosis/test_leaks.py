"""What was analysed can be freed: after a run no tensor of it is alive, whatever autograd, symbols or caches would still refer to.

Autograd's references to Python objects are hidden from the garbage collector: one cycle through them is memory lost for good.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import linecache
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import fxgrad
from fxgrad import Options
from fxgrad.trace.recorder import Recorder
from fxgrad.world import heap


@functools.cache
def scale(n: int) -> float:
    return 1.0 / n


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.kept = x
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        return g * 2


class Program(nn.Module):
    """A layer, then what `body` makes of its output."""

    def __init__(self, body: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, self.layer(x))


def overwritten(self: Any, y: torch.Tensor) -> torch.Tensor:
    y = y.relu()
    y += 1
    return y.sigmoid().mul_(2)


def hooked(self: Any, y: torch.Tensor) -> torch.Tensor:
    y.register_hook(lambda g: g * 2)  # one that closed over `y` would be lost in eager torch too
    return y.exp()


BODIES: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "plain": lambda self, y: y.tanh(),
    "unread": lambda self, y: self.other(y).exp().new_zeros(2) + y.sum(),
    "detached": lambda self, y: self.other(y.exp().detach()),
    "overwritten": overwritten,
    "sizes": lambda self, y: y.view(y.shape[0] * 2, -1) * scale(y.shape[0] * y.shape[1]),
    "branch": lambda self, y: self.other(y) if y.sum() > 0 else y.exp(),
    "number": lambda self, y: y * y.mean().item(),
    "function": lambda self, y: Double.apply(y).exp(),  # type: ignore[no-untyped-call]  # torch's
    "checkpoint": lambda self, y: checkpoint(self.other, y, use_reentrant=False),
    "hooked": hooked,
    "nested": lambda self, y: torch.autograd.grad(y.exp().sum(), self.layer.weight, create_graph=True)[0].sum() + y.sum(),
    "replaced": lambda self, y: torch.func.functional_call(self.other, {"weight": y.mean(0).expand(4, 4)}, (y,)),
    "no loss": lambda self, y: y.detach().exp(),
}


def alive() -> int:
    while gc.collect():  # what other tests left may go in steps
        pass
    return sum(isinstance(item, torch.Tensor) for item in gc.get_objects())


def steps() -> list[torch.fx.Node]:
    """The nodes of all graphs, but for their roots, which refer to themselves and are no steps."""
    return [item for item in gc.get_objects() if isinstance(item, torch.fx.Node) and item.op != "root"]


def analyse(values: Any) -> Callable[[nn.Module, Any], None]:
    return lambda model, inputs: fxgrad.analyze(model, inputs, options=Options(values=values)) and None


def rewrite(mode: Any) -> Callable[[nn.Module, Any], None]:
    return lambda model, inputs: fxgrad.fix(model, inputs, options=Options(rewrite=mode)) and None


def measure(model: nn.Module, inputs: Any) -> None:
    fxgrad.benchmark(model, fxgrad.fix(model, inputs).module, inputs)


USES = {"real": analyse("real"), "fake": analyse("fake"), "needed": rewrite("needed"), "all": rewrite("all")}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("body", BODIES)
def test_no_tensor_outlives_the_run(body: str, use: str) -> None:
    model, inputs = Program(BODIES[body]), (torch.randn(3, 4),)

    def once() -> None:
        with contextlib.suppress(fxgrad.FxgradError):
            USES[use](model, inputs)

    once()  # what torch makes once
    before = alive()
    once()
    assert alive() == before


@pytest.mark.parametrize("body", BODIES)
def test_no_graph_of_an_analysis_waits_for_the_collector(body: str) -> None:
    model, inputs = Program(BODIES[body]), (torch.randn(3, 4),)
    analyse("real")(model, inputs)  # what torch makes once
    alive()
    before = set(steps())  # of graphs that other tests keep
    gc.disable()
    try:
        analyse("real")(model, inputs)
        left = steps()
    finally:
        gc.enable()
    assert [node for node in left if node not in before] == []


def kept_by_make_fx(model: nn.Module, x: torch.Tensor) -> int:
    """Tensors that torch's own make_fx keeps for good of a step of this model: none up to 2.13, its graph from 2.14 on where an operation
    saves what it returns."""

    def once() -> None:
        copies = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
        make_fx(lambda p, t: torch.func.functional_call(model, p, (t,)))(copies, x.clone())

    once()
    before = alive()
    once()
    return alive() - before


def test_benchmark_keeps_nothing_of_its_own() -> None:
    model, inputs = Program(BODIES["plain"]), (torch.randn(3, 4),)
    measure(model, inputs)
    before = alive()
    measure(model, inputs)
    assert alive() - before == kept_by_make_fx(model, inputs[0])


def test_an_analysis_frees_its_runs_as_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their graphs refer to themselves, and after a run Python counts all objects as old, which it seldom goes through."""
    made: list[weakref.ref[Recorder]] = []
    begun = Recorder.__init__

    def noted(self: Recorder, *args: Any, **kwargs: Any) -> None:
        made.append(weakref.ref(self))
        begun(self, *args, **kwargs)

    monkeypatch.setattr(Recorder, "__init__", noted)
    fxgrad.analyze(Program(BODIES["branch"]), (torch.randn(3, 4),))
    assert len(made) > 1
    assert [recorder for ref in made if (recorder := ref()) is not None] == []


def test_the_users_garbage_is_looked_for_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cyclic:
        def __init__(self) -> None:
            self.me = self

    garbage = Cyclic()
    gone = weakref.ref(garbage)
    gc.collect()  # it is old now
    del garbage
    model, inputs = Program(BODIES["plain"]), (torch.randn(3, 4),)
    monkeypatch.setattr(heap, "LOOK_AGAIN", float("inf"))
    fxgrad.analyze(model, inputs)
    assert gone() is not None
    monkeypatch.setattr(heap, "LOOK_AGAIN", 0.0)
    fxgrad.analyze(model, inputs)
    assert gone() is None


TYPED_IN = """
import torch

class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2
    @staticmethod
    def backward(ctx, g):
        return g * 2

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.unused = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    def forward(self, x):
        y = Own.apply(self.layer(x)).relu()
        y += 1
        return y
"""


def watched(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    with contextlib.suppress(RuntimeError), fxgrad.watch(model):
        model(*inputs).sum().backward()


@pytest.mark.parametrize("use", [*USES, "watch"])
def test_what_was_typed_in_can_be_freed(use: str) -> None:
    """Each cell of a notebook makes classes and code objects; what is known of them goes with them."""
    scope: dict[str, Any] = {}
    exec(compile(TYPED_IN, "<ipython-input-7>", "exec"), scope)
    gone = [weakref.ref(item) for item in (scope["Net"], scope["Net"].forward.__code__, scope["Own"])]
    model, x = scope["Net"](), torch.randn(3, 4)
    (watched if use == "watch" else USES[use])(model, (x,))
    del model
    scope.clear()
    gc.collect()
    gc.collect()  # what only autograd's nodes referred to, which the first has freed
    assert [item for ref in gone if (item := ref()) is not None] == []


def test_the_text_of_a_graph_goes_with_it() -> None:
    model, inputs = Program(BODIES["overwritten"]), (torch.randn(3, 4),)

    def texts() -> set[str]:
        gc.collect()
        return {name for name in linecache.cache if name.startswith("<eval_with_key>")}

    before = texts()
    module = fxgrad.fix(model, inputs).module
    (kept,) = texts() - before
    assert inspect.unwrap(type(module).forward).__code__.co_filename == kept
    del module
    assert texts() == before


class Sets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.empty(0).set_(x.detach()).as_subclass(torch.Tensor))


@pytest.mark.parametrize("values", ["auto", "real", "fake"])
@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(3, 3), nn.ReLU()), Sets()], ids=["layers", "set_"])
def test_a_run_needs_no_collector_to_go(model: nn.Module, values: Any) -> None:
    """Nothing of the run but fx's nodes, which refer to each other, waits for a pass of the garbage collector, and nothing keeps it."""

    def use() -> None:
        fxgrad.analyze(model, (torch.randn(2, 3),), loss=lambda out: out.sum(), options=fxgrad.Options(values=values))

    use()
    for _ in range(3):  # what only autograd's nodes refer to comes a pass later
        gc.collect()
    before = [item for item in gc.get_objects() if type(item) is Recorder]  # an earlier test's, which its error holds
    debug = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        use()
        gc.collect()
    finally:
        gc.set_debug(debug)
    found = {type(item).__name__ for item in gc.garbage}
    gc.garbage.clear()
    assert found.isdisjoint(("Recorder", "Run", "Tensor", "FakeTensor", "Step", "StandIns"))
    assert [item for item in gc.get_objects() if type(item) is Recorder] == before
