"""The program meets the tensors that it knows: what a call hands back, what hooks are handed, what autograd's graph ends in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import fxgrad


class Choosing(nn.Module):
    """Goes through `a` where what it asks is so, else through `b`: a wrong answer is a wrong verdict."""

    def __init__(self, asks: Callable[[Choosing, torch.Tensor], Any]) -> None:
        super().__init__()
        self.asks = asks
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("kept", torch.ones(3, 4))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) if self.asks(self, x) else self.b(x)


class Passing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2


def packs_its_own(net: Choosing, x: torch.Tensor) -> bool:
    met: list[bool] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        met.append(tensor is net.b.weight)
        return tensor

    with saved_tensors_hooks(pack, lambda packed: packed):
        net.b.weight * net.b.bias
    return any(met)


ASKS: dict[str, Callable[[Choosing, torch.Tensor], Any]] = {
    "x.add_()": lambda net, x: x.add_(1) is x,
    "x.float()": lambda net, x: x.float() is x and x.to("cpu") is x,
    "x.contiguous()": lambda net, x: x.contiguous() is x,
    "another dtype": lambda net, x: x.double() is not x,
    "a buffer": lambda net, x: net.kept.mul_(2) is net.kept,
    "out=": lambda net, x: torch.mul(x, 2, out=net.kept) is net.kept,
    "a parameter": lambda net, x: nn.init.zeros_(net.b.weight) is net.b.weight,
    "a list of them": lambda net, x: {id(t) for t in torch.atleast_1d(x, net.kept)} == {id(x), id(net.kept)},
    "a leaf module": lambda net, x: net.relu(x) is x,
    "a function": lambda net, x: Passing.apply(x) is x,
    "a base": lambda net, x: net.kept[0]._base is net.kept,
    "a pack hook": packs_its_own,
}


def truth(net: nn.Module, x: torch.Tensor) -> dict[str, str]:
    net(x.clone()).sum().backward()
    return {name: "none" if p.grad is None else "flows" for name, p in net.named_parameters()}


@pytest.mark.parametrize("values", ["real", "fake"])
@pytest.mark.parametrize("name", ASKS)
def test_what_a_call_hands_back_is_the_tensor_itself(name: str, values: Any) -> None:
    net, x = Choosing(ASKS[name]), torch.randn(3, 4)
    verdicts = fxgrad.analyze(net, (x,), options=fxgrad.Options(values=values)).verdicts
    assert verdicts["a.weight"] == "flows"
    assert verdicts == truth(net, x)


@pytest.mark.parametrize("name", ASKS)
def test_the_graph_takes_the_same_way(name: str) -> None:
    net, x = Choosing(ASKS[name]), torch.randn(3, 4)
    assert fxgrad.fix(net, (x,)).verification.gradients["a.weight"] == 0


def test_a_look_at_autograds_leaves_is_refused_where_it_changes_the_way() -> None:
    def own_bias(net: Choosing, x: torch.Tensor) -> bool:
        end: Any = net.b(x).grad_fn
        return any(getattr(node, "variable", None) is net.b.bias for node, _ in end.next_functions)

    net, x = Choosing(own_bias), torch.randn(3, 4)
    assert truth(net, x)["a.weight"] == "flows"
    with pytest.raises(fxgrad.TraceError, match="grad_fn") as refused:
        fxgrad.analyze(net, (x,))
    assert refused.value.site is not None
    assert refused.value.site.file == __file__


def test_a_look_at_autograds_graph_that_changes_nothing_is_no_matter() -> None:
    net = Choosing(lambda net, x: "Addmm" in net.b(x).grad_fn.name())
    assert fxgrad.analyze(net, (torch.randn(3, 4),)).verdicts["a.weight"] == "flows"


# ---------------------------------------------------------------------------------------- an optimizer in backward


def steps(net: nn.Module, optimizers: dict[nn.Parameter, torch.optim.Optimizer]) -> None:
    def step(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(step)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x).sigmoid())


class Registering(TwoLayers):
    """Its first forward puts the hooks there."""

    def __init__(self) -> None:
        super().__init__()
        self.optimizers = {p: torch.optim.SGD([p], 0.1, momentum=0.9) for p in self.parameters()}
        self.hooked = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.hooked:
            steps(self, self.optimizers)
            self.hooked = True
        return super().forward(x)


KINDS = [(kind, values) for kind in (torch.optim.SGD, torch.optim.AdamW) for values in ("real", "fake", "fix")]


@pytest.mark.parametrize(("kind", "values"), [*KINDS, (None, "real"), (None, "fake")])
def test_an_optimizer_steps_in_a_hook_of_its_parameter(kind: Any, values: Any) -> None:
    net: TwoLayers = TwoLayers() if kind is not None else Registering()
    optimizers: dict[Any, Any] = {p: kind([p], lr=0.1) for p in net.parameters()} if kind is not None else net.optimizers
    if kind is not None:
        steps(net, optimizers)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = torch.randn(3, 4)
    if values == "fix":
        assert fxgrad.fix(net, (x,)).verification.passed
    else:
        report = fxgrad.analyze(net, (x,), options=fxgrad.Options(values=values))
        assert (set(report.verdicts.values()), report.findings) == ({"flows"}, ())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(optimizer.state for optimizer in optimizers.values())
    assert all(p.grad is None for p in net.parameters())


class Weighing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.learned = isinstance(weight, nn.Parameter)
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        return grad * weight, (grad * x).sum(0) if ctx.learned else None


class Handed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def scaled(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return x * weight if isinstance(weight, nn.Parameter) else x

        y = torch.utils.checkpoint.checkpoint(scaled, x, self.first, use_reentrant=False)
        return Weighing.apply(y, self.second)  # type: ignore[no-untyped-call, no-any-return]


@pytest.mark.parametrize("values", ["real", "fake"])
def test_what_is_handed_a_parameter_is_asked_about_a_parameter(values: Any) -> None:
    report = fxgrad.analyze(Handed(), (torch.randn(2, 3),), options=fxgrad.Options(values=values))
    assert dict(report.verdicts) == {"first": "flows", "second": "flows"}
