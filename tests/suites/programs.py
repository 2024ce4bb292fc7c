"""The programs: torch's databases of modules, of operators and of what export meets, each entry as a module with parameters and inputs.

- `module_db`: each module, all its sample inputs in training mode.
- `op_db`: each differentiable operator on its first sample inputs, (`on`) applied to parameters; (`view`) in place, through a view of what
  was saved for backward; (`out`) with `out=` and a parameter among its inputs, which autograd refuses; (`over`) with `out=` over a tensor
  that was saved before.
- `export_db`: each example of torch.export's documentation, with a parameter added to each of its inputs.

Every program has a parameter `scale` whose gradient is there whatever the operator does, so that a loss always has one. Not handled: operators
without a sample in a floating dtype, outputs that are no tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from fxgrad import Inputs

Built = tuple[nn.Module, Inputs]
Entry = tuple[str, Callable[[], Built]]
DTYPES = (torch.float64, torch.float32, torch.complex128)
SAMPLES = 2  # of an operator, in each of its forms


def module_db() -> Iterator[Entry]:
    """torch.nn, all samples."""
    from torch.testing._internal.common_modules import module_db as infos

    for info in infos:
        torch.manual_seed(0)
        for number in range(len(_module_samples(info))):
            yield f"module_db/{info.name}/{number}", lambda info=info, number=number: _module(info, number)  # type: ignore[misc]


def _module_samples(info: Any) -> list[Any]:
    return list(info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=True))


def _module(info: Any, number: int) -> Built:
    torch.manual_seed(0)
    sample = _module_samples(info)[number]
    built = sample.constructor_input
    model = info.module_cls(*built.args, **built.kwargs).train()
    given = sample.forward_input
    return Learned(model, given.args, given.kwargs), Inputs(tuple(given.args), dict(given.kwargs))


def export_db() -> Iterator[Entry]:
    """torch.export's examples."""
    from torch._export.db.examples import all_examples

    for name, case in sorted(all_examples().items()):
        yield f"export_db/{name}", lambda case=case: _example(case)  # type: ignore[misc]


def _example(case: Any) -> Built:
    torch.manual_seed(0)
    args, kwargs = mapped(lambda t: t.clone(), (case.example_args, case.example_kwargs))
    return Learned(case.model, args, kwargs), Inputs(tuple(args), dict(kwargs))


def op_db() -> Iterator[Entry]:
    """torch's differentiable operators, in four forms."""
    from torch.testing._internal.common_methods_invocations import op_db as infos

    for info in infos:
        if not info.supports_autograd or _dtype(info) is None:
            continue
        name = f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name
        for form, cls in FORMS.items():
            if cls.needs(info):
                for number in range(SAMPLES):
                    yield f"op_db/{name}/{form}/{number}", lambda info=info, cls=cls, number=number: _operator(info, cls, number)  # type: ignore[misc]


def _dtype(info: Any) -> torch.dtype | None:
    return next((dtype for dtype in DTYPES if dtype in info.dtypes), None)


def _operator(info: Any, cls: type[Form], number: int) -> Built:
    torch.manual_seed(0)
    samples = info.sample_inputs("cpu", _dtype(info), requires_grad=False)
    sample = next(itertools.islice(filter(cls.takes, samples), number, None), None)
    if sample is None:
        raise NotASample
    model = cls(info, sample)
    return model, Inputs(model.inputs)


class NotASample(Exception):
    """The operator has fewer samples that the form takes."""


class Learned(nn.Module):
    """A program whose floating inputs have a parameter added each, where it has none of its own."""

    def __init__(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        super().__init__()
        self.model = model
        self.scale = nn.Parameter(torch.ones(()))
        leaves = tensors((args, kwargs)) if not any(p.requires_grad for p in model.parameters()) else []
        self.shifts = nn.ParameterList([torch.zeros_like(leaf) for leaf in leaves if _is_plain(leaf)])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        shifts = iter(self.shifts)
        if len(self.shifts):
            args, kwargs = mapped(lambda leaf: leaf + next(shifts) if _is_plain(leaf) else leaf, (args, kwargs))
        return _floating(self.model(*args, **kwargs)), self.scale * 2


def _is_plain(leaf: torch.Tensor) -> bool:
    return leaf.is_floating_point() and leaf.layout is torch.strided and not leaf.is_nested


def _is_learned(leaf: torch.Tensor) -> bool:
    return leaf.is_floating_point() or leaf.is_complex()


def tensors(structure: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(structure) if isinstance(leaf, torch.Tensor)]


def mapped(function: Callable[[torch.Tensor], torch.Tensor], structure: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, function, structure)


def _floating(output: Any) -> list[torch.Tensor]:
    """What of the output a gradient can come from; a complex one as its parts."""
    leaves = tensors(output)
    return [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in leaves if leaf.is_floating_point() or leaf.is_complex()]


class Form(nn.Module):
    """An operator in a program. Its tensors of a floating type are parameters, the others its inputs."""

    def __init__(self, info: Any, sample: Any) -> None:
        super().__init__()
        self.info = info
        self.leaves, self.structure = pytree.tree_flatten((sample.input, tuple(sample.args), dict(sample.kwargs)))
        self.learned = [isinstance(leaf, torch.Tensor) and _is_learned(leaf) for leaf in self.leaves]
        self.given = [isinstance(leaf, torch.Tensor) and not _is_learned(leaf) for leaf in self.leaves]
        self.values = nn.ParameterList(itertools.compress(self.leaves, self.learned))
        self.inputs = tuple(itertools.compress(self.leaves, self.given))
        self.leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        self.scale = nn.Parameter(torch.ones(()))

    @staticmethod
    def needs(info: Any) -> bool:
        return True

    @staticmethod
    def takes(sample: Any) -> bool:
        return True

    def arguments(self, inputs: tuple[torch.Tensor, ...]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """The operator's input, further arguments and keywords."""
        values, given = iter(self.values), iter(inputs)
        leaves = []
        for leaf, learned, is_input in zip(self.leaves, self.learned, self.given, strict=True):
            leaves.append(next(values) if learned else next(given) if is_input else leaf)
        found: tuple[Any, tuple[Any, ...], dict[str, Any]] = pytree.tree_unflatten(leaves, self.structure)
        return found


class On(Form):
    """Applied to parameters."""

    def forward(self, *inputs: torch.Tensor) -> Any:
        first, args, kwargs = self.arguments(inputs)
        return _floating(self.info.op(first, *args, **kwargs)), self.scale * 2


class View(Form):
    """In place, through a view of what a product has saved."""

    @staticmethod
    def needs(info: Any) -> bool:
        return info.inplace_variant is not None and info.supports_inplace_autograd

    @staticmethod
    def takes(sample: Any) -> bool:
        return isinstance(sample.input, torch.Tensor) and not sample.broadcasts_input

    def forward(self, *inputs: torch.Tensor) -> Any:
        first, args, kwargs = self.arguments(inputs)
        base = first * 1
        product = base * base
        view = base.view_as(base)
        self.info.inplace_variant(view, *args, **kwargs)
        return _floating([product, base, view]), self.scale * 2


class Out(Form):
    """With `out=`, and parameters among what it reads."""

    @staticmethod
    def needs(info: Any) -> bool:
        return bool(info.supports_out)

    @staticmethod
    def takes(sample: Any) -> bool:
        return isinstance(sample.input, torch.Tensor)

    def forward(self, *inputs: torch.Tensor) -> Any:
        first, args, kwargs = self.arguments(inputs)
        with torch.no_grad():
            room = mapped(torch.empty_like, self.info.op(first, *args, **kwargs))
        self.info.op(first, *args, **kwargs, out=room)
        return _floating(room), self.scale * 2


class Over(Out):
    """With `out=`, over a tensor that was saved for backward, reading no parameter."""

    def forward(self, *inputs: torch.Tensor) -> Any:
        first, args, kwargs = mapped(lambda leaf: leaf.detach(), self.arguments(inputs))
        room = self.info.op(first, *args, **kwargs)
        room = mapped(torch.ones_like, room)
        saved = mapped(lambda leaf: self.scale * leaf, room)
        self.info.op(first, *args, **kwargs, out=room)
        return _floating([saved, room]), self.scale * 2


FORMS: dict[str, type[Form]] = {"on": On, "view": View, "out": Out, "over": Over}
SUITES: dict[str, Callable[[], Iterator[Entry]]] = {"module_db": module_db, "op_db": op_db, "export_db": export_db}
