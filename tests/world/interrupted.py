"""Run by `test_interrupts.py` in a process of its own: an analysis, interrupted at many moments; prints what was otherwise than it should be."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxgrad
from fxgrad import Options

LOG: list[Any] = []


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return grad * 2 + 0 * ctx.saved_tensors[0]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.register_buffer("mean", torch.zeros(4))
        self.calls: list[int] = []
        self.one.weight.register_hook(lambda grad: grad * 1)  # type: ignore[no-untyped-call]  # torch's

    def forward(self, x: torch.Tensor) -> Any:
        LOG.append(x)
        self.calls.append(random.randint(0, 9))
        self.last = x
        y = Doubled.apply(self.drop(self.norm(self.one(x))))  # type: ignore[no-untyped-call]  # torch's
        with torch.inference_mode():
            self.mean.add_(1)  # type: ignore[operator]  # a buffer
        y = checkpoint(lambda t: torch.relu(self.two(t)), y, use_reentrant=False)
        return torch.vmap(torch.sin)(y).sigmoid().add_(1)


def _picture(model: Model, x: torch.Tensor) -> dict[str, Any]:
    gc.collect()  # Python 3.12 sets its immortal objects apart as frozen ones in a pass, whenever that comes
    tensors = {**model.state_dict(keep_vars=True), "input": x}
    return {
        "tensors": {n: (t.tolist(), t._version, t.data_ptr(), None if t.grad is None else t.grad.tolist()) for n, t in tensors.items()},
        "python": (list(LOG), list(model.calls), sorted(vars(model)), random.getstate()),
        "random": torch.get_rng_state().tolist(),
        "collector": (gc.get_freeze_count(), gc.isenabled(), id(gc.get_objects)),
        "stacks": (
            torch._C._len_torch_function_stack(),
            torch._C._len_torch_dispatch_stack(),
            torch._C._functorch.peek_interpreter_stack(),
        ),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._C._autograd._top_saved_tensors_default_hooks(True)),
        "seams": (nn.Linear._call_impl, torch.manual_seed, torch.vmap, checkpoint, threading.Thread.start, torch._C._InferenceMode),
        "handler": signal.getsignal(signal.SIGINT),
    }


def _interrupted(call: Callable[[], Any], delay: float) -> str:
    """How a call ends that is interrupted after so many seconds."""
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        time.sleep(delay)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    try:
        thread.start()
        call()
        thread.join()
        time.sleep(0.01)
    except KeyboardInterrupt:
        return ""
    except Exception as error:  # whatever else it ends with is told
        return f"{type(error).__name__}: {error}"
    finally:
        thread.join()
    return "the interrupt was lost"


def main(use: str, times: int) -> None:
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    model, x = Model(), torch.randn(3, 4)
    model.two(model.norm(model.one(x))).sum().backward()

    def call() -> None:
        if use == "fix":
            fxgrad.fix(model, (x,))
        else:
            fxgrad.analyze(model, (x,), options=Options(values=use))  # type: ignore[arg-type]  # one of those

    call()
    begun = time.perf_counter()
    call()
    total = time.perf_counter() - begun
    before = _picture(model, x)
    for number in range(times):
        trouble = _interrupted(call, total * (number + 0.5) / times)
        after = _picture(model, x)
        changed = [what for what in before if before[what] != after[what]]
        if trouble or changed:
            print(f"{number}/{times}: {trouble} {changed}")
            return
    call()
    print("as it should be")


main(sys.argv[1], int(sys.argv[2]))
