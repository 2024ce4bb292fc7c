"""`autograd.Function.apply`, replaced for a while, wherever it is called from: `F.apply(x)`, or `f = F.apply`
taken long ago.

Up to torch 2.14 `Function.apply` is Python and ends in `super().apply`, found by name at every call. From
2.15 on it is the C function itself: a program that took `F.apply` holds that C function, which no attribute
replaces. What it asks of Python is the way in, see Note [The C function asks]. Not handled: a metaclass of
the program's own that answers `setup_context` without asking ours.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.autograd.function as autograd_function

from fxgrad.torch_api.internals import transforms_active

Apply = Callable[..., object]
Replacement = Callable[[type, Apply, tuple[object, ...], dict[str, object]], object]

# `Function`'s own base (`_SingleLevelFunction`): where the Python `apply` ends.
_BASE: Any = torch.autograd.Function.__mro__[1]
# The C `apply`, which makes the node, on every torch.
_C_APPLY: Any = vars(torch._C._FunctionBase)["apply"]
# Whether `apply` is the C function: 2.15 and later.
_IN_C = not isinstance(vars(torch.autograd.Function).get("apply"), classmethod)
# Asked for by the C function, by name at every call: the arguments with their defaults, and a call under a
# transform of torch.func.
_bind: Any = getattr(autograd_function, "_bind_default_args", None)
_call_transformed: Any = getattr(autograd_function, "_call_custom_function_call", None)


@contextlib.contextmanager
def replaced_apply(replacement: Replacement) -> Iterator[None]:
    """`replacement(cls, original, args, kwargs)` is called where a Function is applied; `original` is torch's
    own `apply` of `cls`.

    The last replacement alone is asked. The interception is of the process: a replacement tells threads apart
    itself.
    """
    patches = _c_patches(replacement) if _IN_C else (_python_patch(replacement),)
    with contextlib.ExitStack() as stack:
        for holder, name, value in patches:
            stack.enter_context(patched(holder, name, value))
        yield


def _python_patch(replacement: Replacement) -> tuple[object, str, object]:
    def apply(cls: type, /, *args: object, **kwargs: object) -> object:
        return replacement(cls, _C_APPLY.__get__(None, cls), args, kwargs)

    return _BASE, "apply", classmethod(apply)


class _Call(threading.local):
    """Where the C function of this thread is. `plain`: its next call is torch's own; `bound`: that call's
    arguments are bound next; `caught`: a layer is on torch.func's stack so that it calls us."""

    plain = False
    bound = False
    caught = False


_call = _Call()


def _c_patches(replacement: Replacement) -> tuple[tuple[object, str, object], ...]:
    """Note [The C function asks]

    1. It looks `cls.setup_context` up. Where that is not the base's, it has `_bind_default_args` bind the
       arguments. So the answer to the look-up is never the base's very own object, and the arguments come
       back as they were.
    2. Where a transform of torch.func is active it leaves the rest to `_call_custom_function_call`. So the
       binding puts a layer on torch.func's stack, and the call takes it off again before anything else runs.
    3. Torch's own `apply` of the class is that C function once more, answered truthfully.

    `_SingleLevelFunction.setup_context` is always answered truthfully: the C function keeps the first answer
    for good, to compare with.
    """

    def lookup(cls: type, name: str) -> object:
        found = type.__getattribute__(cls, name)
        if name != "setup_context" or not issubclass(cls, torch.autograd.Function) or transforms_active():
            return found
        if _call.plain:
            _call.plain = False
            _call.bound = found is not _BASE.setup_context
            return found
        return functools.partial(found)

    def bind(function: object, args: object, kwargs: Mapping[str, object]) -> object:
        if _call.bound or transforms_active():
            _call.bound = False
            return _bind(function, args, kwargs)
        _call.caught = True
        torch._C._functorch._grad_increment_nesting()
        return args, kwargs

    def call(cls: type, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if not _call.caught:
            return _call_transformed(cls, args, kwargs)
        _call.caught = False
        torch._C._functorch._grad_decrement_nesting()
        return replacement(cls, functools.partial(_plain, cls), args, kwargs or {})

    return (
        (autograd_function.FunctionMeta, "__getattribute__", lookup),
        (autograd_function, "_bind_default_args", bind),
        (autograd_function, "_call_custom_function_call", call),
    )


def _plain(cls: object, *args: object, **kwargs: object) -> object:
    _call.plain = not transforms_active()
    return _C_APPLY.__get__(None, cls)(*args, **kwargs)


class patched:
    """An attribute is replaced while the block runs; one that was inherited is so again after. `own`: it was
    the holder's before, not inherited."""

    def __init__(self, holder: object, name: str, value: object) -> None:
        self.holder, self.name, self.value = holder, name, value
        self.own, self.original = name in vars(holder), vars(holder).get(name)

    def __enter__(self) -> None:
        _patches.append(self)
        self.put()

    def __exit__(self, *exc: object) -> None:
        _patches.remove(self)
        self.take_away()

    def put(self) -> None:
        setattr(self.holder, self.name, self.value)

    def take_away(self) -> None:
        if self.own:
            setattr(self.holder, self.name, self.original)
        elif self.name in vars(self.holder):
            delattr(self.holder, self.name)


_patches: list[patched] = []  # those of the process, in the order in which they were put


@contextlib.contextmanager
def unpatched() -> Iterator[None]:
    """What is replaced now is as it was while the block runs."""
    lifted = list(_patches)
    for patch in reversed(lifted):
        patch.take_away()
    try:
        yield
    finally:
        for patch in lifted:
            # the block may have put another there: that is what ours stands before
            if patch.name in vars(patch.holder):
                patch.own, patch.original = True, vars(patch.holder)[patch.name]
            patch.put()


def checkpointed(variables: Mapping[str, object]) -> object:
    """What a checkpoint computes again: the module or function given to it, from the variables of a frame of
    torch's; None if this is no such frame. The frame is that of the unpack hook, whose `frame` keeps the
    function that runs the part again."""
    again = getattr(variables.get("frame"), "recompute_fn", None)
    code, cells = getattr(again, "__code__", None), getattr(again, "__closure__", None)
    if code is None or cells is None:
        return None
    closed = dict(zip(code.co_freevars, cells, strict=True))
    cell = closed.get("function") or closed.get("fn")
    return cell.cell_contents if cell is not None else None
