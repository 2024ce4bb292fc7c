"""FXG112: autograd Functions that hand on no gradient, and Functions that rightly return None."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def guilty_none_for_the_weight() -> dict[str, Any]:
    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, weight)
            return x @ weight.t()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            _, weight = ctx.saved_tensors
            return grad @ weight, None  # FXG112

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Linear.apply(x, self.weight)

    return dict(model=nn.Sequential(nn.Linear(4, 4), Layer()), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_forward_called_on_the_class() -> dict[str, Any]:
    class Clip(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.detach().clamp(-1, 1)  # or FXG112

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.dec = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dec(Clip.forward(None, self.enc(x)))  # FXG112

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_one_of_two_inputs_by_a_condition() -> dict[str, Any]:
    class Blend(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
            ctx.share = share
            return share * a + (1 - share) * b

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            left = right = None
            if ctx.share > 0.5:
                left = grad * ctx.share
            return left, right, None  # FXG112

    class TwoTower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.towers = nn.ModuleDict({"image": nn.Linear(3, 2), "text": nn.Linear(4, 2)})

        def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
            return Blend.apply(self.towers["image"](image), self.towers["text"](text), 0.7)

    return dict(model=TwoTower(), inputs=(torch.randn(2, 3), torch.randn(2, 4)), loss=lambda out: out.square().mean())


def guilty_too_few_gradients() -> dict[str, Any]:
    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
            ctx.factor = factor
            return x * factor

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * ctx.factor  # FXG112

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Scale.apply(self.net(x), 0.5)

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_wrong_shape() -> dict[str, Any]:
    class Bias(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            return x + bias

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            return grad, grad.mean(1)  # FXG112

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Bias.apply(x, self.bias)

    return dict(model=nn.Sequential(nn.Linear(4, 3), Layer()), inputs=(torch.randn(5, 4),), loss=lambda out: out.square().mean())


def guilty_marked_non_differentiable() -> dict[str, Any]:
    class TopTwo(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, scores: torch.Tensor) -> torch.Tensor:
            mask = torch.zeros_like(scores).scatter_(-1, scores.topk(2, -1).indices, 1.0)
            ctx.mark_non_differentiable(mask)  # FXG112
            return mask

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad

    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.value = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = TopTwo.apply(self.score(x))
            return mask * self.value(x)

    return dict(model=Router(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def guilty_every_block_of_a_deep_net() -> dict[str, Any]:
    """Six layers with one Function: one line, one finding."""

    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, beta)
            return x * torch.sigmoid(beta * x)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            x, beta = ctx.saved_tensors
            s = torch.sigmoid(beta * x)
            return grad * (s + beta * x * s * (1 - s)), None  # FXG112

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.beta = nn.Linear(4, 4), nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Swish.apply(self.fc(x), self.beta)

    return dict(model=nn.Sequential(*(Block() for _ in range(6))), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_tensors_in_a_list() -> dict[str, Any]:
    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, parts: list[torch.Tensor]) -> torch.Tensor:
            ctx.count = len(parts)
            return torch.stack(parts).sum(0)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            return [grad] * ctx.count

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
            self.out = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(Sum.apply([b(x) for b in self.branches]))  # FXG112

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_backward_without_return() -> dict[str, Any]:
    class Debug(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> None:  # FXG112
            ctx.norm = grad.norm()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(Debug.apply(self.a(x)))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_zeros_from_backward() -> dict[str, Any]:
    class Threshold(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, bound)
            return torch.where(x > bound, x, torch.zeros_like(x))

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            x, bound = ctx.saved_tensors
            return grad * (x > bound), torch.zeros_like(bound)  # FXG112

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 4)
            self.bound = nn.Parameter(torch.tensor(0.1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Threshold.apply(self.net(x), self.bound)

    return dict(model=Net(), inputs=(torch.randn(6, 3),), loss=lambda out: out.square().mean())


def guilty_old_style_instance() -> dict[str, Any]:
    class Square(torch.autograd.Function):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return x * x

        def backward(self, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return grad

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Square()(self.net(x))  # FXG112

    return dict(model=Net(), inputs=(torch.randn(6, 3),), loss=lambda out: out.mean())


def guilty_without_a_backward() -> dict[str, Any]:
    class Sign(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.sign()

    def binarize(x: torch.Tensor) -> torch.Tensor:
        return Sign.apply(x)  # FXG112

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(binarize(self.a(x)))

    return dict(model=Net(), inputs=(torch.randn(6, 3),), loss=lambda out: out.mean())


def guilty_backward_that_raises() -> dict[str, Any]:
    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * factor

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            x, factor = ctx.saved_tensors  # FXG112
            return grad * factor, (grad * x).sum()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.factor = nn.Linear(3, 4), nn.Parameter(torch.tensor(2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Scale.apply(self.net(x), self.factor)

    return dict(model=Net(), inputs=(torch.randn(6, 3),), loss=lambda out: out.mean())


# ---------------------------------------------------------------------------------------------------------------- healthy


def quiet_none_for_constants() -> dict[str, Any]:
    class Power(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, exponent: float, mask: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, mask)
            ctx.exponent = exponent
            return x.abs() ** exponent * mask

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            x, mask = ctx.saved_tensors
            return grad * mask * ctx.exponent * x.abs() ** (ctx.exponent - 1) * x.sign(), None, None

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 3)
            self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Power.apply(self.net(x), 1.5, self.mask)

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.sum())


def quiet_none_for_a_frozen_weight() -> dict[str, Any]:
    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(weight)
            return x @ weight.t()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            (weight,) = ctx.saved_tensors
            return grad @ weight, None

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4), requires_grad=False)
            self.lora = nn.Linear(4, 3, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Linear.apply(x, self.weight) + self.lora(x)

    return dict(model=nn.Sequential(nn.Linear(4, 4), Quantised()), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def quiet_straight_through_round() -> dict[str, Any]:
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.round()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(Round.apply(self.a(x) * 4) / 4)

    return dict(model=Net(), inputs=(torch.randn(5, 3),), loss=lambda out: out.square().mean())


def quiet_gradient_reversal() -> dict[str, Any]:
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: float) -> torch.Tensor:
            ctx.weight = weight
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            return -ctx.weight * grad, None

    class Dann(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.label, self.domain = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            f = torch.relu(self.features(x))
            return self.label(f), self.domain(Reverse.apply(f, 0.5))

    y = torch.tensor([0, 1, 1])
    return dict(model=Dann(), inputs=(torch.randn(3, 4),), loss=lambda out: F.cross_entropy(out[0], y) + F.cross_entropy(out[1], 1 - y))


def quiet_needs_input_grad_respected() -> dict[str, Any]:
    class Affine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            ctx.save_for_backward(x, weight)
            return F.linear(x, weight, bias)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            x, weight = ctx.saved_tensors
            gx = gw = gb = None
            if ctx.needs_input_grad[0]:
                gx = grad @ weight
            if ctx.needs_input_grad[1]:
                gw = grad.t() @ x
            if ctx.needs_input_grad[2]:
                gb = grad.sum(0)
            return gx, gw, gb

    class Layer(nn.Module):
        def __init__(self, rows: int, columns: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(rows, columns) / math.sqrt(columns))
            self.bias = nn.Parameter(torch.zeros(rows))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Affine.apply(x, self.weight, self.bias)

    return dict(model=nn.Sequential(Layer(4, 3), nn.ReLU(), Layer(2, 4)), inputs=(torch.randn(5, 3),), loss=lambda out: out.sum())


def quiet_square_without_a_backward() -> dict[str, Any]:
    """A module written with torch's own operations needs no backward of its own."""

    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**2

    return dict(model=nn.Sequential(nn.Linear(3, 2), Square()), inputs=(torch.randn(2, 3),), loss=lambda out: out.mean())
