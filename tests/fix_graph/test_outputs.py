"""What a regenerated module hands out, and tensors that left torch with their memory and came back: those of this call, not of the traced."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.dlpack import from_dlpack, to_dlpack

import fxgrad

Tensor = torch.Tensor
Body = Callable[[Tensor, Tensor], Any]
Named = namedtuple("Named", "y sizes")


@dataclass
class Made:
    y: Tensor
    sizes: Any


class Net(nn.Module):
    def __init__(self, body: Body) -> None:
        super().__init__()
        self.w, self.body = nn.Parameter(torch.rand(3)), body

    def forward(self, x: Tensor) -> Any:
        return self.body(self.w, x)


def plain(item: Any) -> Any:
    """Tensors as lists, everything else with its type."""
    if isinstance(item, Tensor):
        return item.tolist()
    if isinstance(item, Made):
        return "Made", plain(vars(item))
    if isinstance(item, dict):
        return {key: plain(value) for key, value in item.items()}
    if isinstance(item, tuple | list):
        return type(item), [plain(value) for value in item]
    return type(item), item


OUTPUTS: dict[str, Body] = {
    "a size": lambda w, x: (w * x, x.shape),
    "a part of a size": lambda w, x: [w * x, x.shape[1:]],
    "a size in a dict": lambda w, x: {"y": w * x, "sizes": (x * w).size()},
    "a size in a named tuple": lambda w, x: Named(w * x, x.shape),
    "a size in a dataclass": lambda w, x: Made(w * x, x.shape),
    "a size that was computed": lambda w, x: (w * x, torch.Size([x.shape[0] * 2, 3])),
    "numbers": lambda w, x: (w * x, x.numel(), x.shape[0] / 2, list(x.shape)),
    "a number of data's": lambda w, x: (w * x, x.sum().item()),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_python_values_in_an_output_are_those_of_the_call(name: str) -> None:
    net = Net(OUTPUTS[name])
    module = fxgrad.fix(net, (torch.rand(4, 3),), loss=first).module
    for x in (torch.rand(4, 3), torch.rand(6, 3)):
        assert plain(module(x)) == plain(net(x))


def first(output: Any) -> Tensor:
    y: Tensor = output["y"] if isinstance(output, dict) else output.y if isinstance(output, Made) else output[0]
    return y.sum()


def exchanged_slice(w: Tensor, x: Tensor) -> Tensor:
    return from_dlpack((x * 2).t()[1:]) * w[:1]


def exchanged_half(w: Tensor, x: Tensor) -> Tensor:
    whole = x * 2
    capsule, kept = to_dlpack(whole[2:]), whole[:2]
    del whole
    return from_dlpack(capsule) * kept * w


EXCHANGED: dict[str, Body] = {
    "DLPack": lambda w, x: torch.from_dlpack(x * 2) * w,
    "a DLPack capsule": lambda w, x: from_dlpack(to_dlpack(x * 2)) * w,
    "DLPack of a view": exchanged_slice,
    "DLPack through NumPy": lambda w, x: torch.from_numpy(np.from_dlpack(x * 2)) * w,
    "DLPack of one half while the other lives": exchanged_half,
    "DLPack of what a parameter made": lambda w, x: from_dlpack((w * 2).detach()) * w * x,
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_memory_that_left_and_came_back_is_that_of_the_call(name: str) -> None:
    net = Net(EXCHANGED[name])
    module = fxgrad.fix(net, (torch.rand(4, 3),)).module
    assert not [n for n, _ in module.named_buffers()]  # nothing of the traced call is kept
    x = torch.rand(4, 3)
    assert module(x).tolist() == net(x).tolist()
    gradients = []
    for call in (net, module):
        net.w.grad = None
        call(x).sum().backward()
        assert net.w.grad is not None
        gradients.append(net.w.grad.tolist())
    assert gradients[0] == gradients[1]


def test_an_array_of_elements_is_a_guard() -> None:
    """What the program does with them between `.numpy()` and `from_numpy` no graph can know."""
    net = Net(lambda w, x: torch.from_numpy((x * 2).numpy()) * w)
    x = torch.rand(4, 3)
    module = fxgrad.fix(net, (x,)).module
    assert module(x).tolist() == net(x).tolist()
    with pytest.raises(fxgrad.GuardError, match=r"the value of \.numpy\(\) is array"):
        module(x + 1)


def test_memory_that_numpy_writes_meanwhile_is_refused() -> None:
    def body(w: Tensor, x: Tensor) -> Tensor:
        array = (x * 2).numpy()
        array += 1
        return torch.from_numpy(array) * w

    with pytest.raises(fxgrad.FxgradError, match="memory that NumPy shares is written"):
        fxgrad.fix(Net(body), (torch.rand(4, 3),))


class LazyLayers(nn.Module):
    def __init__(self, first: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.last = first(), nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).sigmoid()
        kept = h * h
        h += 1  # overwrites what sigmoid saved
        out: Tensor = self.last((kept * h).flatten(1))
        return out


@pytest.mark.parametrize(
    ("first", "size"),
    [
        (lambda: nn.LazyLinear(4), (5, 3)),
        (lambda: nn.Sequential(nn.LazyConv1d(4, 2), nn.LazyBatchNorm1d()), (5, 2, 6)),
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.LazyInstanceNorm1d(affine=True)), (5, 2, 3)),
    ],
    ids=["linear", "convolution and norm", "norm behind a layer with its shape"],
)
def test_a_lazy_model_stays_lazy_and_its_module_is_that_of_its_first_call(first: Callable[[], nn.Module], size: tuple[int, ...]) -> None:
    model, x = LazyLayers(first), torch.rand(size)
    torch.manual_seed(0)
    module = fxgrad.fix(model, (x,)).module
    assert any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters())
    torch.manual_seed(0)
    model(x)
    assert list(model.state_dict()) == list(module.state_dict())
    model.load_state_dict(module.state_dict())
    outputs = []
    for call in (model, module):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
            out = call(x)
        out.sum().backward()
        outputs.append([out.detach(), *(p.grad for p in call.parameters())])
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b)


def test_a_hint_about_writing_stands_only_where_something_is_written() -> None:
    """A result that the module cannot repeat: nothing is written in place, and the line is the one that leaves torch."""

    def body(w: Tensor, x: Tensor) -> Tensor:
        y = x * 2
        z = y * w
        y.data = x + 1
        return z * y

    with pytest.raises(fxgrad.FxgradError) as caught:
        fxgrad.fix(Net(body), (torch.rand(4, 3),))
    assert "in place" not in f"{caught.value.hint}"
    assert caught.value.site is not None
    assert caught.value.site.line == body.__code__.co_firstlineno + 3


class Marked(Tensor):
    """A subclass that adds nothing."""


def rows(w: Tensor, x: Tensor) -> Tensor:
    return torch.nested.nested_tensor_from_jagged(w * x, torch.tensor([0, 1, 4])).sin().values()  # type: ignore[no-any-return]


def padded(w: Tensor, x: Tensor) -> Tensor:
    parts = torch.nested.as_nested_tensor([w[:2] * x[0, :2], w * x[1]])
    return torch.nested.to_padded_tensor(parts, 0.0)  # type: ignore[no-any-return]


SUBCLASSES: dict[str, Body] = {
    "as_subclass and back": lambda w, x: ((w * x).as_subclass(Marked) * 2).as_subclass(Tensor),
    "as_subclass of an input": lambda w, x: x.as_subclass(Marked).as_subclass(Tensor) * w,
    "a subclass's own constructor": lambda w, x: Marked(x * 2).as_subclass(Tensor) * w,
    "jagged rows": rows,
    "nested parts": padded,
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_results_of_subclasses_are_recorded(name: str) -> None:
    net = Net(SUBCLASSES[name])
    module = fxgrad.fix(net, (torch.rand(4, 3),)).module
    x = torch.rand(4, 3)
    gradients = []
    for call in (net, module):
        net.w.grad = None
        out = call(x)
        out.sum().backward()
        assert net.w.grad is not None
        gradients.append((type(out), out.tolist(), net.w.grad.tolist()))
    assert gradients[0] == gradients[1]


def masked(w: Tensor, x: Tensor) -> Tensor:
    from torch.masked import masked_tensor

    found = masked_tensor(x * 2, x > 0.5)
    return found.to_tensor(0.0) * w  # type: ignore[no-any-return]


def copied_parts(w: Tensor, x: Tensor) -> Tensor:
    parts = torch.nested.nested_tensor([x[0] * 2, x[1, :2]])
    return torch.nested.to_padded_tensor(parts, 0.0) * w  # type: ignore[no-any-return]


def functional(w: Tensor, x: Tensor) -> Tensor:
    wrapped = torch._to_functional_tensor(x * w)
    torch._enable_functionalization(reapply_views=True)
    try:
        made = wrapped.neg()
    finally:
        torch._disable_functionalization()
    torch._sync(made)
    return torch._from_functional_tensor(made) * w


UNSEEN = [(masked, "MaskedTensor", 3), (copied_parts, "nested tensor", 1), (functional, "functional tensor", 4)]


@pytest.mark.parametrize(("body", "what", "line"), UNSEEN)
def test_what_is_put_together_unseen_is_refused_with_its_line(body: Body, what: str, line: int) -> None:
    with pytest.raises(fxgrad.FxgradError, match=f"puts a {what} together") as caught:
        fxgrad.fix(Net(body), (torch.rand(4, 3),))
    assert caught.value.site is not None
    assert caught.value.site.line == body.__code__.co_firstlineno + line  # where it is made


def test_a_gradient_that_is_a_masked_tensor_has_a_verdict() -> None:
    from torch.masked import as_masked_tensor

    net = Net(lambda w, x: as_masked_tensor(w * x[0], x[0] > 0.5).sum().get_data())
    assert fxgrad.analyze(net, (torch.rand(4, 3),)).verdicts == {"w": "flows"}


def test_a_result_prints_in_one_line() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x).sigmoid()
            y += x.shape[0] if x.shape[0] > 1 else 2
            return y

    text = repr(fxgrad.fix(Net(), (torch.randn(2, 4),)))
    assert text.startswith("FixResult(Net: 1 rewritten, 0 left in place, guards: 1; outputs within 0, gradients within 0 of eager")
    assert "\n" not in text
