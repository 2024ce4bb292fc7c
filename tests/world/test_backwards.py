"""What a backward runs of the program's own (hooks, custom backwards, what a checkpoint computes again) changes nothing of the user's,
nor does a backward walk into a graph that the program does not own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fxgrad

LOG: list[Any] = []
SUM = torch.zeros(())
COUNT = 0


def noted(grad: torch.Tensor) -> None:
    global COUNT
    COUNT += 1
    LOG.append(grad)
    SUM.add_(grad.sum())


class Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(w)
        return x * w

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noted(grad)
        (w,) = ctx.saved_tensors
        return grad * w, grad


class Net(nn.Module):
    def __init__(self, run: Callable[[Net, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.run = run
        self.a, self.b, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.w = nn.Parameter(torch.ones(4))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, self.a(x).relu_())


def counted_in_checkpoint(net: Net, x: torch.Tensor) -> torch.Tensor:
    return checkpoint(lambda z: Counted.apply(net.norm(z), net.w), x, use_reentrant=False)


def hooked_in_checkpoint(net: Net, x: torch.Tensor) -> torch.Tensor:
    def inner(z: torch.Tensor) -> torch.Tensor:
        y = net.b(z).exp()
        if y.requires_grad:
            y.register_hook(noted)
        net.seen.add_(1)
        return y

    return checkpoint(inner, x, use_reentrant=False) + checkpoint(inner, x, use_reentrant=True)


def penalized(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = checkpoint(lambda z: net.b(net.norm(z)), x, use_reentrant=False)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y + grad.pow(2)


def on_parameters(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.b(x.mul(net.w))


def of_modules(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.b(net.norm(x))


def distance(net: Net, x: torch.Tensor) -> torch.Tensor:
    def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (net.norm(net.b(one)) - net.b(other)).pow(2).sum(-1)

    return nn.functional.triplet_margin_with_distance_loss(x, x.flip(0), x + 1, distance_function=apart, margin=50.0)


PROGRAMS = {run.__name__: run for run in (counted_in_checkpoint, hooked_in_checkpoint, penalized, on_parameters, of_modules, distance)}


def made(name: str) -> Net:
    net = Net(PROGRAMS[name])
    if name == "on_parameters":
        net.a.weight.register_hook(lambda grad: net.seen.copy_(grad.norm()) and None)
        net.b.weight.register_post_accumulate_grad_hook(noted)
        net.b.bias.register_post_accumulate_grad_hook(lambda p: noted(p.data.mul_(2)))
    if name == "of_modules":
        net.b.register_full_backward_hook(lambda module, given, grads: noted(module.bias.data.add_(1)))
    return net


def picture(net: nn.Module) -> dict[str, Any]:
    tensors = {name: (tensor, tensor._version, tensor.tolist()) for name, tensor in net.state_dict(keep_vars=True).items()}
    gradients = {name: (p.grad, p.grad.tolist()) for name, p in net.named_parameters() if p.grad is not None}
    return {**tensors, **gradients, "python": (COUNT, len(LOG), SUM.item())}


def unlike(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {
        k
        for k in one
        if k not in other
        or any(
            a is not b and not (type(a) is type(b) and not isinstance(a, torch.Tensor) and a == b)
            for a, b in zip(one[k], other[k], strict=True)
        )
    }


@pytest.mark.parametrize("rewrite", ["needed", "all"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_backward_in_fix_changes_nothing(name: str, rewrite: Any) -> None:
    net, x = made(name), torch.randn(3, 4)
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before = picture(net)
    fixed = fxgrad.fix(net, (x,), options=fxgrad.Options(rewrite=rewrite))
    assert fixed.verification.passed
    assert unlike(before, picture(net)) == set()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_backward_in_an_analysis_changes_nothing(name: str) -> None:
    net, x = made(name), torch.randn(3, 4)
    before = picture(net)
    verdicts = fxgrad.analyze(net, (x,)).verdicts
    assert unlike(before, picture(net)) == set()
    net(x).sum().backward()
    assert {n: v != "none" for n, v in verdicts.items()} == {n: p.grad is not None for n, p in net.named_parameters()}


# ------------------------------------------------------------------------------------------------------- histories


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.a(features.relu_()).sigmoid()


def plain(x: torch.Tensor, encoder: nn.Module) -> torch.Tensor:
    return encoder(x)


def checkpointed(x: torch.Tensor, encoder: nn.Module) -> torch.Tensor:
    return checkpoint(encoder, x, use_reentrant=False)


def viewed(x: torch.Tensor, encoder: nn.Module) -> torch.Tensor:
    return encoder(x)[1:]


@pytest.mark.parametrize("encoded", [plain, checkpointed, viewed])
@pytest.mark.parametrize("values", ["real", "fake", "fix"])
def test_the_graph_in_front_of_the_model_is_not_walked(encoded: Callable[..., torch.Tensor], values: str) -> None:
    encoder = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    walked: list[torch.Tensor] = []
    encoder[0].weight.register_hook(walked.append)  # out of reach of the model: nobody would empty it again
    features = encoded(torch.randn(3, 4), encoder)
    before, end = picture(encoder), features.grad_fn
    if values == "fix":
        assert fxgrad.fix(Head(), (features,)).verification.passed
    else:
        assert set(fxgrad.analyze(Head(), (features,), options=fxgrad.Options(values=values)).verdicts.values()) == {"flows"}
    assert (walked, unlike(before, picture(encoder))) == ([], set())
    assert features.grad_fn is end
    assert features._version == 0
    features.sum().backward()
    assert len(walked) == 1


@pytest.mark.parametrize("values", ["real", "auto"])
def test_a_graph_in_front_that_leads_to_the_models_own_parameters_is_walked(values: Any) -> None:
    whole = nn.ModuleDict({"encoder": nn.Linear(4, 4), "head": nn.Linear(4, 4)})
    features = whole["encoder"](torch.randn(3, 4))

    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = whole

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.whole["head"](features)

    assert set(fxgrad.analyze(Second(), (features,), options=fxgrad.Options(values=values)).verdicts.values()) == {"flows"}
    assert all(p.grad is None for p in whole.parameters())
    features.sum().backward()


def test_on_fake_values_a_graph_in_front_that_is_walked_is_refused() -> None:
    head = nn.Linear(4, 4)
    with pytest.raises(fxgrad.TraceError, match="a graph from before"):
        fxgrad.analyze(head, (head(torch.randn(3, 4)),), options=fxgrad.Options(values="fake"))


def test_a_view_on_the_model_that_gets_a_gradient_written_is_a_leaf_again() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.register_buffer("row", torch.zeros(2, 4)[0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.row.copy_(self.a(x)[0])
            return self.row.exp() + x

    net = Rows()
    fxgrad.fix(net, (torch.randn(3, 4),))
    assert net.row.is_leaf
    assert net.row.tolist() == [0.0] * 4


@pytest.mark.parametrize("mode", ["needed", "all"])
def test_a_lazy_module_within_reach_that_was_never_called_is_left_alone(mode: Any) -> None:
    later = nn.LazyLinear(2)
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    net.register_forward_hook(lambda module, args, out: out if later.in_features == 0 else later(out))
    x = torch.randn(2, 3)
    fixed = fxgrad.fix(net, (x,), options=fxgrad.Options(rewrite=mode)).module
    assert torch.equal(fixed(x), net(x))
    assert later.has_uninitialized_params()
