"""A run that is not written down: the program on the recorder's stand-ins, for what it leaves (gradients, the
loss, the decisions on its way, the error that it raised), not for its graph.

What it does to tensors is what a recorded run does: the same stand-ins in the same order, the same numbers,
the same decisions. It takes a fraction of the time, for no call becomes a node. What a recorder answers in
another way than torch does (numbers that leave torch, custom Functions, checkpoints, transforms, hooks)
ends it with `NotSketched`: then only a recorded run shows what happens. Real values only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import nn

from fxgrad.torch_api import symbols
from fxgrad.torch_api.calls import CAPTURED_WHOLE, DECISIONS, EFFECTS, ESCAPES, Args, Kwargs
from fxgrad.torch_api.engine import ENGINE
from fxgrad.torch_api.internals import set_grad_enabled, transforms_active
from fxgrad.torch_api.module_internals import has_legacy_hooks, is_scripted
from fxgrad.trace.arguments import EXACTLY_PLAIN, SYMBOLIC
from fxgrad.trace.leaf_modules import Leaves
from fxgrad.trace.recorder import Recorder, takes_functions
from fxgrad.trace.slots import Slot

_UNSKETCHED = (frozenset(EFFECTS) - {set_grad_enabled.__name__, "requires_grad_"}).union(
    ESCAPES, CAPTURED_WHOLE, ENGINE
)


class NotSketched(BaseException):
    """Only a recorded run shows what this program does. A BaseException: user code must not catch it."""


def can_be_sketched(recorder: Recorder) -> bool:
    """Whether a recorded run came upon nothing that a sketch does not follow."""
    return not recorder.escapes and all(step.kind not in _KINDS for step in recorder.steps)


_KINDS = ("function", "checkpoint", "transform")


class Sketch(Recorder):
    """Looks on as a recorder does, and writes nothing down but decisions. `refused`: it came upon what it
    does not follow, also where the program has caught that."""

    sketches = True
    refused = False

    def refuse(self, *_: object, **__: object) -> NoReturn:
        """What writes a node asks for the arguments of one, a slot or a step."""
        self.refused = True
        raise NotSketched

    converted = slot_of = add_step = bind = refuse

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        kwargs = kwargs or {}
        if not self.active or threading.get_ident() != self.thread:
            return func(*args, **kwargs)
        if self.reach.ctrl_c.pending is not None:
            self.reach.ctrl_c.deliver()
        swap = self.swap
        run_args, run_kwargs = [swap(arg) for arg in args], {key: swap(kwargs[key]) for key in kwargs}
        if self.quiet or transforms_active():
            return func(*run_args, **run_kwargs)
        name: str = getattr(func, "__name__", "") or str(func)
        if name in _UNSKETCHED or takes_functions(func, name, args, kwargs):
            self.refuse()
        if name in DECISIONS:
            return self.decided(func(*run_args, **run_kwargs), "", self.spots(), ())
        self.quiet += 1
        try:
            return self.handed(func(*run_args, **run_kwargs))
        finally:
            self.quiet -= 1

    def swap(self, item: Any) -> Any:
        """Stand-ins for the user's tensors in an argument tree."""
        kind = type(item)
        if kind in EXACTLY_PLAIN:
            return item
        if isinstance(item, torch.Tensor):
            return self.standin(item) if id(item) in self.reach.tensors else item
        if isinstance(item, SYMBOLIC):
            return symbols.plain(item)
        if kind is tuple or kind is list:
            return kind(map(self.swap, item))
        if kind is dict:
            return {key: self.swap(value) for key, value in item.items()}
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return kind(*map(self.swap, item))
        return item

    def handed(self, item: Any) -> object:
        if isinstance(item, torch.Tensor):
            original = self.standins.stood_for(item)
            return original if original is not None and self.standins.get(original) is item else item
        if type(item) in (tuple, list) and any(self.handed(part) is not part for part in item):
            return type(item)(map(self.handed, item))
        return item

    def ended_with(self, loss: torch.Tensor) -> Slot:
        made = self.swap(loss)
        slot = self.seen.tensors.get(made) or self.seen.tensors.add(made)
        slot.node = self.graph.placeholder("loss")
        return slot

    def module_call(
        self, known: Leaves, original: Callable[..., object], module: nn.Module, args: Args, kwargs: Kwargs
    ) -> object:
        """A call of a module. Inside one that a recorder makes a node of, a truth value is no decision."""
        if is_scripted(module) or has_legacy_hooks(module) or transforms_active():
            self.refuse()
        if self.paths.get(id(module)) and known.is_leaf(module):
            self.quiet += 1
            try:
                return self.handed(original(module, *self.swap(args), **self.swap(kwargs)))
            finally:
                self.quiet -= 1
        return original(module, *args, **kwargs)
