"""The functions that our graphs call: by them a graph refers to Python functions, `autograd.Function`s and
backward hooks of the user.

Made by the recorder, in the place of what generated code could not find by name. Not handled: saving them to
a file.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils.hooks import BackwardHook

from fxgrad.torch_api.module_internals import HookFunction, backward_hooks
from fxgrad.world.swap import Swap


class Closure:
    """A Python function of the program in the graph. `captured`: the tensors of the recorded run that it
    closes over. `copied`: in a copy of the graph's module, tensors that the function reaches by itself (a
    parameter of the model that it is a method of), each with the one that the copy has for it."""

    def __init__(self, function: Callable[..., object], captured: tuple[torch.Tensor, ...] = ()) -> None:
        self.function = function
        self.captured = captured
        self.copied: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Closure:
        """Python copies no function: this one goes on to reach the tensors of the model that was copied. The
        parameters and layers of a module are copied before: they are in `memo`, which keeps the originals."""
        originals = (item for item in memo.get(id(memo), ()) if isinstance(item, torch.Tensor))
        made = Closure(self.function, self.captured)
        made.copied = (
            *((old, memo.get(id(new), new)) for old, new in self.copied),
            *((old, memo[id(old)]) for old in originals if memo.get(id(old), old) is not old),
        )
        return made

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._with({})(*args, **kwargs)

    def bind(self, *values: torch.Tensor) -> Callable[..., object]:
        """The function with this run's values for `captured`."""
        return self._with({id(old): new for old, new in zip(self.captured, values, strict=True)})

    def _with(self, values: dict[int, torch.Tensor]) -> Callable[..., object]:
        by_id = {**{id(old): new for old, new in self.copied}, **values}
        if not by_id:
            return self.function

        def bound(*args: object, **kwargs: object) -> object:
            with Swap(by_id):
                return self.function(*args, **kwargs)

        return bound


_applies: weakref.WeakValueDictionary[type, Callable[..., object]] = weakref.WeakValueDictionary()


class GeneratorState:
    """A random generator of the recorded run as it is now; a call makes another that goes on from there."""

    def __init__(self, generator: torch.Generator) -> None:
        self.device, self.state = generator.device, generator.get_state()

    def __call__(self) -> torch.Generator:
        generator = torch.Generator(self.device)
        generator.set_state(self.state)
        return generator


def function_apply(cls: type[torch.autograd.Function]) -> Callable[..., object]:
    """`cls.apply` as a graph target with a name of its own, the same one as long as a graph has it."""
    known = _applies.get(cls)
    if known is not None:
        return known

    def apply(*args: object, **kwargs: object) -> object:
        return cls.apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    apply.__name__ = apply.__qualname__ = f"{cls.__name__}_apply"
    apply.__module__ = "fxgrad.trace.targets"
    apply.function = cls  # type: ignore[attr-defined]
    _applies[cls] = apply
    return apply


def call_object(target: Callable[..., object], *args: object, **kwargs: object) -> object:
    """Call a Python object that the graph holds: a compiled TorchScript function, a script module."""
    return target(*args, **kwargs)


def leave_dual_level(level: int) -> None:
    """Leave a level of forward-mode differentiation."""
    forward_ad.exit_dual_level(level=level)  # type: ignore[no-untyped-call]


def backward_hook(module: nn.Module) -> BackwardHook:
    """The full backward hooks of a module as they are now, for one call of it."""
    return backward_hooks(module)


def hooked_inputs(hook: BackwardHook, args: tuple[object, ...]) -> object:
    """A module's arguments, marked so that the hook gets their gradients."""
    return hook.setup_input_hook(args)  # type: ignore[no-untyped-call]


def hooked_outputs(hook: BackwardHook, result: object) -> object:
    """A module's result, marked so that the hook gets its gradient."""
    return hook.setup_output_hook(result)  # type: ignore[no-untyped-call]


# What they return are views from a custom Function, as those of the user's own are.
hooked_inputs.function = hooked_outputs.function = HookFunction  # type: ignore[attr-defined]


def put_legacy_hooks(module: nn.Module, result: Any) -> None:
    """What `nn.Module.__call__` does for hooks of the deprecated `register_backward_hook`."""
    while not isinstance(result, torch.Tensor):
        result = next(iter(result.values())) if isinstance(result, dict) else result[0]
    if result.grad_fn is not None:
        for hook in module._backward_hooks.values():
            result.grad_fn.register_hook(functools.partial(hook, module))


def new_leaf_view(
    source: torch.Tensor, size: tuple[int, ...], stride: tuple[int, ...], offset: int, requires_grad: bool
) -> torch.Tensor:
    """A detached view of `source`'s storage, a new leaf: a tensor that torch made of it outside its function
    interface."""
    return source.detach().as_strided(size, stride, offset).requires_grad_(requires_grad)


def new_leaf(source: torch.Tensor, requires_grad: bool) -> torch.Tensor:
    """What `Variable(t)` and `nn.Parameter(t)` make: a new leaf over the same data."""
    return source.detach().requires_grad_(requires_grad)


def numel(tensor: torch.Tensor) -> int:
    """`Tensor.numel` as a graph target."""
    return tensor.numel()
