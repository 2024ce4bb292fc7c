"""One try of a model on inputs: whether it runs, and what the run showed about its inputs.

On fake tensors, which have no data, so a try costs no memory: parameters and buffers are replaced by fake
ones and everything else within reach is put back after, also the random state. Where fake tensors cannot go
on, or values matter, a small model is tried on a deep copy with real tensors. Not handled: tensors reached
only through module-level globals (a fake run could write to them), ScriptModules and uninitialized (lazy)
parameters, which have no fake twin; models that cannot be copied are tried on fake tensors only.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from fxgrad.program.infer.candidates import Candidate
from fxgrad.program.infer.provenance import Provenance
from fxgrad.program.infer.spec import SEED, Group, Spec, build
from fxgrad.records import Inputs
from fxgrad.records.errors import InputError
from fxgrad.torch_api import registry
from fxgrad.torch_api.errors import NO_FAKE, says
from fxgrad.torch_api.internals import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    pytree,
)
from fxgrad.world.reach import preserve
from fxgrad.world.standins import FakeMode

REAL_ELEMENTS = 20_000_000  # parameters and buffers: above this a copy and a real forward are felt

_BEYOND_FAKE = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)
Arrange = Callable[[Mapping[str, object]], Inputs]  # named values -> positional and keyword inputs


@dataclass(frozen=True, slots=True)
class Try:
    """What one run showed. `error` None: it ran; `beyond`: it stopped where no fake tensor can go on, after
    `seen.calls` calls; `nothing`: it returned None."""

    error: Exception | None
    beyond: bool
    seen: Provenance
    nothing: bool = False


class FakeProber:
    """Runs one model again and again on the same fake parameters."""

    def __init__(self, model: Any, arrange: Arrange) -> None:
        self._model = model
        self._arrange = arrange
        self._home = home(model)
        self._fake = FakeMode()
        # Without it each parameter is made a fake one where it is used.
        self._state = self._fake_state(model) if isinstance(model, nn.Module) and not _hides(model) else None

    def _fake_state(self, model: nn.Module) -> dict[str, torch.Tensor]:
        named = [
            *registry.named_parameters(model, remove_duplicate=False),
            *registry.named_buffers(model, remove_duplicate=False),
        ]
        if any(is_lazy(tensor) for _, tensor in named):
            raise InputError(
                "inputs cannot be guessed for lazy modules",
                hint="write them with --input, or run the model once in its file",
            )
        try:
            return {name: self._fake.from_tensor(tensor, static_shapes=True) for name, tensor in named}
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(
                f"inputs cannot be guessed for this model: {reason}", hint="write them with --input"
            ) from error

    def run(self, arguments: Mapping[str, Candidate], given: Mapping[str, object]) -> Try:
        """The model on fake tensors made of the candidates, and of the user's own inputs `given`."""
        with preserve(self._model) as reach, _silent(), self._fake:

            def stand_in(tensor: torch.Tensor) -> torch.Tensor:
                # Only what was there before: torch itself works on real tensors while it makes a fake one of
                # them.
                return (
                    self._fake.from_tensor(tensor, static_shapes=True)
                    if id(tensor) in reach.tensors
                    else tensor
                )

            values = {name: self._value(candidate) for name, candidate in arguments.items()}
            own = pytree.tree_map_only(torch.Tensor, self._fake.from_tensor, dict(given))
            return _tried(self._call, self._arrange, {**own, **values}, stand_in)

    def _call(self, inputs: Inputs) -> object:
        if self._state is None:
            return self._model(*inputs.args, **dict(inputs.kwargs))
        # Of a copy: torch writes into it what the model holds after, of tied names not the same tensor.
        return torch.func.functional_call(self._model, {**self._state}, inputs.args, dict(inputs.kwargs))

    def _value(self, candidate: Candidate) -> object:
        device, _ = self._home
        if candidate.spec is None:
            return candidate.value
        return self._made(candidate.spec, device)

    def _made(self, spec: Spec | Group, device: torch.device) -> object:
        if isinstance(spec, Spec):
            return self._empty(spec, device)
        return tuple(self._made(part, device) for part in spec.parts)

    def _empty(self, spec: Spec, device: torch.device) -> torch.Tensor:
        return torch.empty(spec.shape, dtype=cast(spec.dtype, self._home), device=device)


def _hides(model: nn.Module) -> bool:
    """Whether torch would not find what is registered: a layer lies under the name of a method, so that
    `model.parameters` is the layer, or a class has a method of its own of that name."""
    return any(
        any(hasattr(type(module), name) for name, _ in module._modules.items())
        or any(getattr(type(module), name) is not getattr(nn.Module, name) for name in _LISTS)
        for module in registry.modules(model)
    )


_LISTS = ("named_parameters", "named_buffers", "named_modules")


class RealProber:
    """Runs a fresh deep copy of a small model for each try, on tensors with data."""

    def __init__(self, model: nn.Module, arrange: Arrange) -> None:
        self._model = model
        self._arrange = arrange
        self._home = home(model)

    def run(self, arguments: Mapping[str, Candidate], given: Mapping[str, object]) -> Try:
        """The model on tensors made of the candidates, and of copies of the user's own inputs `given`."""
        generator = torch.Generator().manual_seed(SEED)
        with preserve(self._model), _silent():
            own = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), dict(given))
            values = {
                name: value_of(candidate, generator, self._home) for name, candidate in arguments.items()
            }
            model = copy.deepcopy(self._model)
            return _tried(
                lambda inputs: model(*inputs.args, **dict(inputs.kwargs)),
                self._arrange,
                {**own, **values},
                lambda tensor: tensor,
            )


def real_prober(model: object, arrange: Arrange) -> RealProber | None:
    """A prober on real tensors; None for a model that is large, has no data, is no module or cannot be
    copied."""
    if not isinstance(model, nn.Module):
        return None
    tensors = [*registry.parameters(model), *registry.buffers(model)]
    if sum(tensor.numel() for tensor in tensors) > REAL_ELEMENTS or any(
        tensor.device.type != "cpu" for tensor in tensors
    ):
        return None
    try:
        with preserve(model), _silent():
            copy.deepcopy(model)
    # whatever `__deepcopy__` of the user's classes raises; tensors with history, locks, open files
    except Exception:
        return None
    return RealProber(model, arrange)


def value_of(
    candidate: Candidate, generator: torch.Generator, place: tuple[torch.device, torch.dtype]
) -> object:
    """The value a candidate stands for, floats in the precision of the model and on its device."""
    if candidate.spec is None:
        return candidate.value
    made = build(candidate.spec, generator)
    return pytree.tree_map_only(torch.Tensor, lambda tensor: _moved(tensor, place), made)


def _moved(tensor: torch.Tensor, place: tuple[torch.device, torch.dtype]) -> torch.Tensor:
    """A leaf there, as the tensor is."""
    made = tensor.detach().to(device=place[0], dtype=cast(tensor.dtype, place))
    return made.requires_grad_(tensor.requires_grad)


def cast(dtype: torch.dtype, place: tuple[torch.device, torch.dtype]) -> torch.dtype:
    """float32 stands for the precision of the model."""
    return place[1] if dtype is torch.float32 else dtype


def home(model: object) -> tuple[torch.device, torch.dtype]:
    """Where the model's first floating parameter is, and its precision."""
    tensors = [*registry.parameters(model), *registry.buffers(model)] if isinstance(model, nn.Module) else []
    floating = next(
        (
            tensor
            for tensor in tensors
            if tensor.dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float32)
        ),
        None,
    )
    return (torch.device("cpu"), torch.float32) if floating is None else (floating.device, floating.dtype)


def _tried(
    call: Callable[[Inputs], object],
    arrange: Arrange,
    named: Mapping[str, object],
    stand_in: Callable[[torch.Tensor], torch.Tensor],
) -> Try:
    seen = Provenance(named, stand_in)
    try:
        with _entering(seen), seen:
            out = call(arrange(named))
    except _BEYOND_FAKE as error:
        return Try(error, True, seen)
    except Exception as error:  # whatever a wrong guess makes the user's code raise
        return Try(error, says(str(error), NO_FAKE), seen)
    return Try(None, False, seen, out is None)


@contextlib.contextmanager
def _entering(seen: Provenance) -> Iterator[None]:
    handle = register_module_forward_pre_hook(seen.entered)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What many tries print, warn and log is nobody's concern: torch logs the traceback of each shape that
    does not fit."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
