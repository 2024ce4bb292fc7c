"""The numbers of a step, for comparing two versions of a program: outputs, loss, gradients and state after
two steps, in float64.

A step runs as it is, or under the *oracle*: what eager PyTorch would compute if it kept what it saved. Its
parts:
 1. Everything saved for backward is copied when it is saved.
    (`torch.autograd.graph.allow_mutation_on_saved_tensors` copies less and means the same, but in torch 2.13
    it does not see a write through a view that begins at another address: `queue[4:] = keys`.)
 2. Views that torch refuses to write through (several views of one call, views from a custom Function or made
    under no_grad, expanded tensors, leaves made in forward) are clones. That is only right where nothing
    reads the base afterwards; a forward under no_grad, where torch allows the write, must give the same
    output.
 3. A `.data` read on a line whose write goes unseen gives an alias that autograd follows.
 4. `f(..., out=y)` writes its result into y by `copy_`, which autograd follows.
The oracle of graphs (`fxgrad.torch_api.allowed_writes`) gives each of several views one of its own, which its
base sees written; here the clone is what shows, by the forward under no_grad, that others read what is
written: no edit of the one line can be right then. Not handled: steps that give other numbers each time
although every generator is seeded; they cannot be compared.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fxgrad.program.inputs import inputs_of
from fxgrad.program.loss import loss_of
from fxgrad.program.program import program
from fxgrad.records import Site
from fxgrad.source.sites import innermost, user_spots
from fxgrad.torch_api import registry, tree
from fxgrad.torch_api.calls import Args, Function, Kwargs
from fxgrad.torch_api.comparison import Tolerances, compare_tensors
from fxgrad.torch_api.functions import Apply, replaced_apply
from fxgrad.torch_api.internals import base_of, storage_key
from fxgrad.torch_api.saved_hooks import saved_copies

RATE = 1e-3  # of the plain gradient step between the two forwards
SEED = 7

_SEVERAL = frozenset(
    [
        "unbind",
        "split",
        "chunk",
        "tensor_split",
        "hsplit",
        "vsplit",
        "dsplit",
        "split_with_sizes",
        "unsafe_split",
        "unsafe_chunk",
        "__iter__",
    ]
)
_SHARING = frozenset(["expand", "expand_as", "broadcast_to", "broadcast_tensors"])


@dataclass(slots=True, eq=False)
class Numbers:
    """Tensors by name, and which state tensors shared memory. `error`: what the step raised, "" if it ran
    through."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    shared: tuple[tuple[str, ...], ...] = ()
    error: str = ""


@dataclass(slots=True, eq=False)
class Step:
    """What is trained, and on what: `model(*inputs)`, then `loss`; `optimizer` and `expect` as
    `fxgrad.analyze` takes them."""

    model: Any
    inputs: Any
    loss: Callable[..., Any] | None = None
    optimizer: Any = None
    expect: tuple[str, ...] | None = None

    @property
    def root(self) -> torch.nn.Module:
        """The model, or a module of what a plain callable closes over."""
        return program(self.model, self.inputs, self.loss, self.optimizer).root


def measure(
    step: Step,
    *,
    oracle: bool,
    double: bool,
    hidden: tuple[Site, ...] = (),
    views: bool = False,
    train: bool | None = None,
) -> Numbers:
    """Two steps' numbers. `hidden`: sites of part 3; `views`: whether part 2 applies; `double`: what the
    program makes in float32 is float64; `train`: the mode, None for the model's own."""
    numbers = Numbers()
    root = step.root
    if train is not None:
        root.train(train)
    given = inputs_of(step.inputs)
    try:
        for number in range(2):
            with (
                _oracle(hidden, views) if oracle else contextlib.nullcontext(),
                _Double() if double else contextlib.nullcontext(),
            ):
                seed(SEED + number)
                _one(
                    step,
                    root,
                    (given.args, dict(given.kwargs)),
                    numbers,
                    f"step {number}: ",
                    cut=oracle and views,
                )
    except Exception as error:
        numbers.error = f"{type(error).__name__}: {error}"
    numbers.shared = _shared(root)
    return numbers


def forward_only(step: Step) -> Numbers:
    """The first step's output in float64, every write done as written: with gradients off, or, if that fails,
    off for the writes."""
    numbers = Numbers()
    given = inputs_of(step.inputs)
    args, kwargs = _copied((given.args, dict(given.kwargs)), False)
    for quiet in (torch.no_grad(), _QuietWrites()):
        numbers = Numbers()
        try:
            seed(SEED)
            with quiet, _Double():
                _keep(numbers, "step 0: output", step.model(*args, **kwargs))
            break
        except Exception as error:
            numbers.error = f"{type(error).__name__}: {error}"
    return numbers


def seed(number: int) -> None:
    """Python's, NumPy's and torch's generators."""
    random.seed(number)
    torch.manual_seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number)


def as_double(step: Step) -> Step:
    """The step in float64: module and inputs; what it made at import was made under that default already.

    Parameters that begin as a constant (a zero-initialised last layer, a scale of one) are disturbed: what
    they hide would go unseen.
    """
    root = step.root.double()
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in registry.parameters(root):
            if (
                parameter.numel() > 1
                and parameter.layout is torch.strided
                and bool((parameter == parameter.flatten()[0]).all())
            ):
                parameter.add_(
                    0.01
                    * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype).to(
                        parameter.device
                    )
                )
    leaves, structure = tree.flatten(step.inputs)
    made = [
        t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t for t in leaves
    ]
    return Step(step.model, tree.unflatten(structure, made), step.loss, step.optimizer, step.expect)


def difference(one: Numbers, other: Numbers, *, tolerances: Tolerances) -> str:
    """What differs, in words; "" where nothing does."""
    if one.error or other.error:
        return "" if one.error == other.error else f"raises {(other.error or one.error).splitlines()[0]}"
    if one.tensors.keys() != other.tensors.keys():
        return f"{sorted(one.tensors.keys() ^ other.tensors.keys())[0]} is there in one version only"
    apart: dict[str, str] = {}
    for name, want in one.tensors.items():
        compare_tensors(name, want, other.tensors[name], tolerances, apart)
        if apart:
            return next(f"{what} {how}" for what, how in apart.items())
    if one.shared != other.shared:
        return "other tensors of the model share memory"
    return ""


def _one(step: Step, root: torch.nn.Module, inputs: Any, numbers: Numbers, prefix: str, *, cut: bool) -> None:
    for parameter in registry.parameters(root):
        parameter.grad = None
    given = _copied(inputs, cut)
    output = step.model(*given[0], **given[1])
    loss = loss_of(step.loss, output)
    _keep(numbers, f"{prefix}output", output)
    _keep(numbers, f"{prefix}loss", loss)
    loss.backward()
    _keep(numbers, f"{prefix}inputs", given)
    with torch.no_grad():
        for name, parameter in registry.named_parameters(root):
            if parameter.grad is not None:
                _keep(numbers, f"{prefix}gradient of {name}", parameter.grad)
                parameter.sub_(RATE * parameter.grad.to_dense())
    for name, tensor in _state(root):
        _keep(numbers, f"{prefix}{name} afterwards", tensor)


def _copied(given: object, cut: bool) -> Any:
    """Inputs of their own for each step; `cut`: no leaves, so that a write into one that requires grad is
    allowed."""
    leaves, structure = tree.flatten(given)
    made = []
    for leaf in leaves:
        copy = leaf.detach().clone().requires_grad_(leaf.requires_grad)
        made.append(copy.clone() if cut else copy)
    return tree.unflatten(structure, made)


def _keep(numbers: Numbers, name: str, item: Any) -> None:
    with torch.no_grad():
        for index, leaf in enumerate(tree.flatten(item)[0]):
            dense = leaf.detach().to_dense() if leaf.layout is not torch.strided else leaf.detach()
            numbers.tensors[f"{name} {index}" if index else name] = dense.clone()


def _state(root: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Buffers, parameters, and tensors that modules keep as plain attributes."""
    yield from registry.named_parameters(root, remove_duplicate=False)
    yield from registry.named_buffers(root, remove_duplicate=False)
    for path, module in registry.named_modules(root):
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers", "_modules"):
                continue
            for index, leaf in enumerate(tree.flatten(value)[0]):
                yield f"{path}.{key}.{index}", leaf


def _shared(root: torch.nn.Module) -> tuple[tuple[str, ...], ...]:
    groups: dict[int, list[str]] = {}
    for name, tensor in _state(root):
        key = storage_key(tensor)
        if key is not None:
            groups.setdefault(key, []).append(name)
    return tuple(sorted(tuple(sorted(names)) for names in groups.values() if len(names) > 1))


# ------------------------------------------------------------------------------------------------- the oracle


class _Emulation(TorchFunctionMode):
    """Parts 2 to 4 of the oracle."""

    def __init__(self, hidden: tuple[Site, ...], views: bool) -> None:
        super().__init__()
        self.lines = {(site.file, site.line) for site in hidden}
        self.views = views

    def __torch_function__(self, func: Function, types: object, args: Any = (), kwargs: Any = None) -> object:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.lines and name in ("__get__", "__set__") and self._is_hidden(func, args[0]):
            # `h.data *= m` reads, writes, and assigns the alias back: the write has happened by then.
            return args[0].view_as(args[0]) if name == "__get__" else None
        if isinstance(kwargs.get("out"), torch.Tensor) and torch.is_grad_enabled():
            return self._written(kwargs["out"], func, args, kwargs)
        made = func(*args, **kwargs)
        return self._separate(name, made) if self.views else made

    @staticmethod
    def _written(out: torch.Tensor, func: Any, args: Args, kwargs: Kwargs) -> torch.Tensor:
        made = func(*args, **{key: value for key, value in kwargs.items() if key != "out"})
        if out.requires_grad and base_of(out) is None:
            out.detach_()  # all of it is written: its own history ends here
        return out.copy_(made)

    def _is_hidden(self, func: Any, tensor: torch.Tensor) -> bool:
        """Whether this is a `.data` on a line whose write goes unseen."""
        if getattr(func.__self__, "__name__", "") != "data" or (tensor.is_leaf and tensor.requires_grad):
            return False
        spots = user_spots(sys._getframe(2))
        site = innermost(spots)
        return site is not None and (site.file, site.line) in self.lines

    @staticmethod
    def _separate(name: str, made: Any) -> object:
        if name in _SEVERAL:
            return (
                iter([item.clone() for item in made])
                if name == "__iter__"
                else type(made)(item.clone() for item in made)
            )
        if name in _SHARING and isinstance(made, torch.Tensor):
            return made.clone()
        if not isinstance(made, torch.Tensor) or isinstance(made, torch.nn.Parameter):
            return made
        of_a_region = base_of(made) is not None and not torch.is_grad_enabled()
        leaf = made.is_leaf and made.requires_grad and torch.is_grad_enabled()
        return made.clone() if of_a_region or leaf else made


class _QuietWrites(TorchFunctionMode):
    """Writes run with gradients off, where torch allows them through any view."""

    def __torch_function__(
        self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        name = getattr(func, "__name__", "")
        writes = name == "__setitem__" or (
            name.endswith("_") and not name.startswith("_") and name != "requires_grad_"
        )
        with torch.no_grad() if writes else contextlib.nullcontext():
            return func(*args, **(kwargs or {}))


class _Double(TorchFunctionMode):
    """`.float()`, `dtype=torch.float32` and their kind give float64, so that a step in float64 stays
    there."""

    def __torch_function__(
        self, func: Function, types: object, args: Any = (), kwargs: Kwargs | None = None
    ) -> object:
        kwargs = kwargs or {}
        if func is torch.Tensor.float:
            return args[0].double()
        kwargs = {key: torch.float64 if value is torch.float32 else value for key, value in kwargs.items()}
        return func(*(torch.float64 if item is torch.float32 else item for item in args), **kwargs)


@contextlib.contextmanager
def _oracle(hidden: tuple[Site, ...], views: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(saved_copies())
        if views:
            stack.enter_context(_cloned_functions())
        stack.enter_context(_Emulation(hidden, views))
        yield


@contextlib.contextmanager
def _cloned_functions() -> Iterator[None]:
    """`autograd.Function.apply` gives clones of what it returns as views."""

    def apply(cls: object, original: Apply, args: Args, kwargs: Kwargs) -> object:
        leaves, structure = tree.flatten(original(*args, **kwargs))
        return tree.unflatten(
            structure, [leaf.clone() if base_of(leaf) is not None else leaf for leaf in leaves]
        )

    with replaced_apply(apply):
        yield
