"""Stand-ins: the tensors the program runs on instead of the user's own, fake (no data, no memory) or real (a
private copy).

A stand-in has its original's type, shape, strides, dtype, `requires_grad`, hooks and shared storage, so that
autograd does with it what it would do with the original, while the original, its `.grad` and its version
counter are never touched. Not handled: tensor subclasses that neither copy nor fake; those raise TraceError.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, Self

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fxgrad.records.errors import TraceError
from fxgrad.torch_api import tree
from fxgrad.torch_api.calls import Kwargs
from fxgrad.torch_api.fake_kernels import OWN
from fxgrad.torch_api.fake_results import result_of
from fxgrad.torch_api.internals import (
    ASKS_DEVICE,
    FAKE_LOGGER,
    GIVES_ADDRESSES,
    DisableTorchFunction,
    FakeTensor,
    FakeTensorMode,
    as_class,
    base_of,
    conjugated,
    fake_device,
    negated,
    overlaps_itself,
    plain_torchscript,
    schema_of,
    set_version,
    storage_id,
    storage_key,
    version_of,
)

# A small view of a big storage (a batch of a data set) is copied alone: its siblings are not part of the
# step.
SHARED_STORAGE_LIMIT = 64 * 2**20


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """torch prints a traceback for each fake kernel that raises; who records the error says so better."""
    log = logging.getLogger(FAKE_LOGGER)
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


class Listener(Protocol):
    """Who must not take what happens inside a fake kernel for the program's doing."""

    quiet: int

    def refuse_unseen_write(self, written: list[object]) -> None:
        """Raise where one of these, which an operator writes, is the user's own."""


# Without its wrapper, which keeps torch.compile out and imports all of it (a second or more) to do so:
# nothing is compiled in a run.
_DISPATCH: Callable[..., object] = inspect.unwrap(FakeTensorMode.__torch_dispatch__)


class FakeMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """torch's fake tensors; what torch calls and enters to make a fake result happens behind the back of
    `listener`.

    Where torch has no fake kernel it runs the real one on zeros, here on a CPU alone: on a card that takes
    the card's memory, and may fail where the program does not.
    """

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        setattr(self, GIVES_ADDRESSES, False)
        self.listener: Listener | None = None
        self._arguments: object = ()

    def __enter__(self) -> Self:
        # TorchScript folds constants into what it keeps of a program, in the second run of it: run on fake
        # tensors they would be fake ones, and every later call of the user's own would meet them. The flag
        # is put back with those of the process.
        plain_torchscript()
        super().__enter__()
        return self

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[object] = (), kwargs: Kwargs | None = None
    ) -> object:
        # the bulk of what comes here in a backward: the engine asks each tensor
        if func is ASKS_DEVICE:
            return fake_device(args)
        listener = self.listener
        if listener is None:
            return self._computed(func, types, args, kwargs)
        listener.quiet += 1
        try:
            with DisableTorchFunction():
                if written := _written(func, args, kwargs):
                    listener.refuse_unseen_write(written)
                return self._computed(func, types, args, kwargs)
        finally:
            listener.quiet -= 1

    def _computed(self, func: Any, types: object, args: Sequence[object], kwargs: Kwargs | None) -> object:
        self._arguments = args
        own = OWN.get(func)
        try:
            if own is None:
                named = kwargs or {}
                return result_of(self, func, args, named, lambda: _DISPATCH(self, func, types, args, named))
            return own(lambda *a, **k: _DISPATCH(self, func, types, a, k), *args, **(kwargs or {}))
        finally:
            self._arguments = ()  # a mode outlives the run whose tensors these are

    def can_run_unsafe_fallback(self, func: Any) -> bool:
        """Whether torch may run the real kernel on zeros: asked where an operator has no fake kernel."""
        return super().can_run_unsafe_fallback(func) and all(
            t.device.type == "cpu" for t in tree.tensors_in(self._arguments)
        )

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # no wrapper around `__torch_dispatch__`, see _DISPATCH


def _written(func: object, args: Sequence[object], kwargs: Kwargs | None) -> list[object]:
    """What an operator writes that is no fake tensor: a real one is handed to it only past the function
    modes."""
    schema = schema_of(func)
    if not schema.is_mutable:
        return []
    given = zip(schema.arguments, args, strict=False)
    named = (
        (argument, kwargs[argument.name])
        for argument in schema.arguments
        if kwargs and argument.name in kwargs
    )
    written = [value for argument, value in (*given, *named) if argument.is_write]
    return [tensor for tensor in tree.tensors_in(written) if not is_fake(tensor)]


class StandIns:
    """Makes and remembers one stand-in per original tensor. `fake` is the FakeTensorMode, or None for real
    values.

    `noise`: a seed; every real floating parameter and input (`inputs`, by id) that is not constant is
    disturbed, as another random draw would have it. A buffer or another tensor is data of the program (a
    mask, a filter kernel) and stays; a constant one (a zero-initialised gate, a mask of ones) is constant by
    construction and stays, unless `unsettle` and it requires grad: "moved" (disturbed as well) or "drawn"
    (every trained parameter is drawn anew). `place`: the device on which fake stand-ins of meta tensors are;
    None: the meta device.
    """

    def __init__(
        self,
        fake: Any | None,
        noise: int | None = None,
        unsettle: Literal["", "moved", "drawn"] = "",
        place: torch.device | None = None,
    ) -> None:
        self.fake = fake
        self.place = place
        self.unsettle = unsettle
        self.noise = None if noise is None else torch.Generator().manual_seed(noise)
        self.inputs: frozenset[int] = frozenset()
        # ids of originals that stay as they are, whatever `noise` does to the others
        self.held: frozenset[int] = frozenset()
        # ids of originals whose history is cut: it leads to nothing of the program's
        self.foreign: frozenset[int] = frozenset()
        # ids of originals whose gradient, from a backward before the run, is set aside
        self.had_gradients: frozenset[int] = frozenset()
        self._made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._storages: dict[int, tuple[object, torch.UntypedStorage]] = {}
        # one original and copy of each counter
        self._counters: dict[tuple[int, torch.dtype], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._originals: dict[int, torch.Tensor] = {}  # by the ids of their stand-ins
        self.arrives: Callable[[torch.Tensor, torch.Tensor], None] | None = (
            None  # told of an original and its stand-in before hooks of it run
        )
        self.historied: list[torch.Tensor] = []  # originals whose autograd history began before the run
        self.all_have_data = True  # no original so far is fake or on the meta device

    def get(self, original: torch.Tensor) -> torch.Tensor | None:
        """The stand-in made for `original`, if one was."""
        pair = self._made.get(id(original))
        return None if pair is None else pair[1]

    def original(self, key: int) -> torch.Tensor | None:
        """The original whose id is `key`, if it has a stand-in."""
        pair = self._made.get(key)
        return None if pair is None else pair[0]

    def stood_for(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The original that `tensor` is the stand-in of."""
        return self._originals.get(id(tensor))

    def had_gradient(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` stands for one that had a gradient before the run."""
        original = self.stood_for(tensor)
        return original is not None and id(original) in self.had_gradients

    def make(self, original: torch.Tensor) -> torch.Tensor:
        """The stand-in for `original`, made at the first call.

        Raises:
            TraceError: a tensor subclass that cannot be copied or faked.
        """
        pair = self._made.get(id(original))
        if pair is not None:
            return pair[1]
        if is_lazy(original):
            raise TraceError(
                "a parameter of the model has no shape yet: a lazy module gets its parameters from the first "
                "call",
                hint="call the model once on the inputs, then analyse it",
            )
        with DisableTorchFunction(), _recording():
            if original.grad_fn is not None and id(original) not in self.foreign:
                self.historied.append(original)
            if original.is_meta or is_fake(original):
                self.all_have_data = False
            try:
                made = self._real(original) if self.fake is None else self._fake(original)
                if self.noise is not None and self._is_movable(original):
                    _disturb(made, self.noise, self.unsettle if original.requires_grad else "")
            except (RuntimeError, NotImplementedError, TypeError) as error:
                raise TraceError(
                    f"no stand-in can be made for a {type(original).__name__} of shape "
                    f"{tuple(original.shape)}: {error}",
                    hint="pass an ordinary dense tensor, or detach and densify it first",
                ) from error
            self._made[id(original)] = (original, made)
            self._originals[id(made)] = original
            grad = original.grad if original.is_leaf else None
            if grad is not None:
                made.grad = self.make(grad)
            self._copy_hooks(original, made)
        return made

    def _is_movable(self, original: torch.Tensor) -> bool:
        """Whether its numbers may be others: those of a parameter or an input, unless they are held."""
        return (original.requires_grad or id(original) in self.inputs) and id(original) not in self.held

    def _copy_hooks(self, original: torch.Tensor, made: torch.Tensor) -> None:
        """The tensor hooks of a leaf belong to its gradient: the stand-in's gradient must pass through the
        same ones."""
        if not original.requires_grad or original.grad_fn is not None:
            return
        for hook in (getattr(original, "_backward_hooks", None) or {}).values():
            made.register_hook(hook)  # type: ignore[no-untyped-call]
        for hook in (getattr(original, "_post_accumulate_grad_hooks", None) or {}).values():
            made.register_post_accumulate_grad_hook(self.hook_of(original, hook))  # type: ignore[no-untyped-call]
        for name, value in getattr(original, "__dict__", {}).items():
            if name not in made.__dict__ and not name.startswith("_"):
                # an attribute the user hung on the tensor; a copy that fails is left out
                with contextlib.suppress(Exception):
                    setattr(made, name, copy.copy(value))

    def hook_of(
        self, original: torch.Tensor, hook: Callable[[torch.Tensor], None]
    ) -> Callable[[torch.Tensor], None]:
        """A hook that is called once a leaf has its gradient, for the leaf's stand-in: it is handed the
        user's own (`optimizers[p].step()`) and may take the gradient away."""

        def handed(made: torch.Tensor) -> None:
            if self.arrives is not None:
                self.arrives(original, made)
            return hook(original)

        return handed

    def _fake(self, original: torch.Tensor) -> torch.Tensor:
        assert self.fake is not None
        if self.place is not None and original.device.type == "meta":
            return self._placed(original, self.place)
        if original.grad_fn is not None:  # torch's own fake of one cannot be walked back from
            begun: torch.Tensor = self.fake.from_tensor(original.detach(), static_shapes=True)
            return begun.requires_grad_().clone()
        fake: torch.Tensor = self.fake.from_tensor(original, static_shapes=True)
        return fake

    def _placed(self, original: torch.Tensor, place: torch.device) -> torch.Tensor:
        with self.fake or contextlib.nullcontext():
            data = torch.empty_strided(original.size(), original.stride(), dtype=original.dtype, device=place)
            if isinstance(original, nn.Parameter):
                made: torch.Tensor = _parameter_like(original, data)
                return made
            return data.requires_grad_(original.requires_grad)

    def _real(self, original: torch.Tensor) -> torch.Tensor:
        if id(original) in self.foreign:
            return self.copied(original).requires_grad_().clone()
        if original.grad_fn is not None:
            # keeps the history: backward walks into it as it would in the user's step
            return original.clone()
        if original.is_inference():
            return self._inferred(original)
        data = self._counted(original)
        if isinstance(original, nn.Parameter):
            made: torch.Tensor = _parameter_like(original, data)
        else:
            made = data if data is not original else data.detach()
            if original.requires_grad:
                made.requires_grad_(True)
        return made

    def _inferred(self, original: torch.Tensor) -> torch.Tensor:
        """Autograd saves no inference tensor: the stand-in of one is one."""
        with torch.inference_mode():
            data = original.clone()
            return nn.Parameter(data, original.requires_grad) if isinstance(original, nn.Parameter) else data

    def _counted(self, original: torch.Tensor) -> torch.Tensor:
        """A copy that shares its version counter with the copies of what the original shares its own with: a
        write through one view of a base is a write of them all to autograd. `x.data` has the memory of x and
        another counter."""
        data = self.copied(original)
        if type(data) is not torch.Tensor or data.layout is not torch.strided or original.dtype != data.dtype:
            return data
        base = base_of(original)
        if base is not None and self._views_as_original(original, base, data):
            return self.make(base).as_strided(data.size(), data.stride(), data.storage_offset())
        same_memory = self._counters.setdefault((storage_id(data.untyped_storage()), data.dtype), [])
        for other, made in same_memory:
            if _one_counter(original, other):
                with torch.no_grad():
                    return made.as_strided(data.size(), data.stride(), data.storage_offset()).detach()
        same_memory.append((original, data))
        return data

    def _views_as_original(self, original: torch.Tensor, base: torch.Tensor, data: torch.Tensor) -> bool:
        """Whether the stand-in is to be a view of its base's: then both get one history when a part is
        written. Not of a big base."""
        if base.requires_grad or original.requires_grad or base.dtype != original.dtype:
            return False
        if storage_key(original) != storage_key(base):
            return False  # `x.data = other`: a view of its base to autograd, and elsewhere in memory
        copied = self._storages.get(storage_id(original.untyped_storage()))
        return (
            copied is not None
            and storage_id(copied[1]) == storage_id(data.untyped_storage())
            and not (data.is_conj() or data.is_neg())
        )

    def copied(self, original: torch.Tensor) -> torch.Tensor:
        data = original.detach()
        if type(data) is not torch.Tensor or data.layout is not torch.strided or data.is_quantized:
            return data.clone()
        storage = data.untyped_storage()
        nbytes = data.numel() * data.element_size()
        key = storage_id(storage)
        if storage.nbytes() != nbytes and storage.nbytes() > max(SHARED_STORAGE_LIMIT, 4 * nbytes):
            return data.clone()
        if key not in self._storages:
            if storage.nbytes() == nbytes and data.is_contiguous() and not (data.is_conj() or data.is_neg()):
                made = data.clone()  # all there is: nothing has to be laid over the copy
                self._storages[key] = (storage, made.untyped_storage())
                return made
            self._storages[key] = (storage, storage.clone())  # type: ignore[no-untyped-call]
        copied = self._storages[key][1]
        made = torch.empty(0, dtype=data.dtype, device=data.device)
        made.set_(copied, data.storage_offset(), data.size(), data.stride())
        if data.is_conj():
            made = conjugated(made)
        if data.is_neg():
            made = negated(made)
        return made


def _recording() -> contextlib.AbstractContextManager[object]:
    """Outside of every region without gradients: stand-ins record as the user's own do."""
    if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
        return _NOTHING
    stack = contextlib.ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    return stack


_NOTHING = contextlib.nullcontext()


def _one_counter(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors count their writes together, seen by moving the counter of one for a moment."""
    before, mark = version_of(one), max(version_of(one), version_of(other)) + 1
    set_version(one, mark)
    try:
        return version_of(other) == mark
    finally:
        set_version(one, before)


def is_fake(tensor: torch.Tensor) -> bool:
    """Whether a tensor has no data because it is torch's fake one."""
    return isinstance(tensor, FakeTensor)


def _disturb(made: torch.Tensor, generator: torch.Generator, unsettle: str) -> None:
    if (
        not made.is_floating_point()
        or made.numel() == 0
        or made.device.type != "cpu"
        or made.layout is not torch.strided
    ):
        return
    with torch.no_grad():
        data = each_element_once(made.detach())
        level = data.flatten()[0]
        if not bool((data == level).all()):
            spread = data.double().std().to(data.dtype)
        elif unsettle:
            spread = level.abs().clamp(min=1) / 4  # a scale of ones stays positive, a zero becomes something
        else:
            return
        if unsettle == "drawn":
            spread = torch.maximum(4 * spread, data.abs().mean())
            data.zero_()
        data.add_(torch.randn(data.shape, generator=generator, dtype=torch.float32).to(data.dtype) * spread)


def each_element_once(data: torch.Tensor) -> torch.Tensor:
    """A tensor of the same memory that may be written: an expanded one has elements that share theirs."""
    if not overlaps_itself(data):
        return data
    span = 1 + sum((size - 1) * stride for size, stride in zip(data.shape, data.stride(), strict=True))
    return data.as_strided((span,), (1,))


def _parameter_like(original: nn.Parameter, data: torch.Tensor) -> torch.Tensor:
    if type(original) is nn.Parameter:
        if type(data) is torch.Tensor:  # what the constructor comes to, which may be a program's for now
            return as_class(nn.Parameter, data, original.requires_grad)
        return nn.Parameter(data, requires_grad=original.requires_grad)
    made = as_class(type(original), data, original.requires_grad)
    made.__dict__.update(original.__dict__)
    return made
