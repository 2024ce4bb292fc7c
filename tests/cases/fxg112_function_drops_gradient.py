"""FXG112: autograd Functions that hand on no gradient, and Functions that rightly return None."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


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


def guilty_hook_of_a_module_returns_none() -> dict[str, Any]:
    def drop(module: nn.Module, into: Any, out: Any) -> Any:
        if len(into) > 1:
            return into
        return (None,)  # FXG112

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower, self.upper = nn.Linear(4, 4), nn.Linear(4, 2)
            self.upper.register_full_backward_hook(drop)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.upper(self.lower(x).tanh())

    return dict(model=Net(), inputs=(torch.randn(6, 4),), loss=lambda out: out.square().mean())


def guilty_hook_before_a_module_returns_none() -> dict[str, Any]:
    """Its own weights get none, those below zeros: one cause."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower, self.upper = nn.Linear(4, 4), nn.Linear(4, 2)
            self.upper.register_full_backward_pre_hook(lambda module, out: (None,))  # FXG112

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.upper(self.lower(x).tanh())

    return dict(model=Net(), inputs=(torch.randn(6, 4),), loss=lambda out: out.square().mean())


def quiet_hooks_of_modules_return_nothing_or_what_needs_none() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower, self.upper = nn.Linear(4, 4), nn.Linear(4, 2)
            self.upper.register_full_backward_hook(lambda module, into, out: None)
            self.upper.register_full_backward_hook(lambda module, into, out: into)
            self.lower.register_full_backward_hook(lambda module, into, out: (None,))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.upper(self.lower(x).tanh())

    return dict(model=Net(), inputs=(torch.randn(6, 4),), loss=lambda out: out.square().mean())


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


def quiet_indices_returned_as_non_differentiable() -> dict[str, Any]:
    class Nearest(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: torch.Tensor, codes: torch.Tensor) -> Any:
            index = torch.cdist(z, codes).argmin(-1)
            ctx.save_for_backward(index)
            ctx.rows = len(codes)
            ctx.mark_non_differentiable(index)
            return codes[index], index

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor, _: Any) -> Any:
            (index,) = ctx.saved_tensors
            return grad, grad.new_zeros(ctx.rows, grad.shape[1]).index_add_(0, index, grad)

    class Vq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.codes = nn.Linear(4, 3), nn.Parameter(torch.randn(5, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, index = Nearest.apply(self.enc(x), self.codes)
            return q * (1 + index[:, None] * 0)

    return dict(model=Vq(), inputs=(torch.randn(6, 4),), loss=lambda out: out.square().mean())


def quiet_once_differentiable_backward() -> dict[str, Any]:
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * x.sigmoid()

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            s = x.sigmoid()
            return grad * (s * (1 + x * (1 - s)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(Swish.apply(self.a(x)))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_setup_context_apart_from_forward() -> dict[str, Any]:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(x: torch.Tensor, scale: float) -> torch.Tensor:
            return scale * x**3

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            x, ctx.scale = inputs
            ctx.save_for_backward(x)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            return 3 * ctx.scale * ctx.saved_tensors[0].square() * grad, None

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Cube.apply(self.fc(x), 0.5)

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_second_output_unused_by_the_loss() -> dict[str, Any]:
    class Split(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> Any:
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, twice: Any, thrice: Any) -> Any:
            total = None
            for grad, factor in ((twice, 2), (thrice, 3)):
                if grad is not None:
                    total = grad * factor if total is None else total + grad * factor
            return total

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return Split.apply(self.fc(x))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out[0].square().mean())


def quiet_mask_by_the_bounds_of_a_clamp() -> dict[str, Any]:
    class Clamp(torch.autograd.Function):
        """GDN's lower bound: the gradient passes inside, and outside where it leads back."""

        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, bound)
            return torch.max(x, bound)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            x, bound = ctx.saved_tensors
            passes = (x >= bound) | (grad < 0)
            return passes * grad, None

    class Gdn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.beta, self.fc = nn.Parameter(torch.ones(3)), nn.Linear(3, 3)
            self.register_buffer("bound", torch.tensor([1e-3]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.fc(x)
            return h / torch.sqrt(Clamp.apply(self.beta, self.bound) + h.square())

    return dict(model=Gdn(), inputs=(torch.randn(4, 3),), loss=lambda out: out.square().mean())


def quiet_first_layer_asks_no_gradient_of_the_image() -> dict[str, Any]:
    class Conv(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, weight)
            return F.conv1d(x, weight)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            x, weight = ctx.saved_tensors
            gx = torch.nn.grad.conv1d_input(x.shape, weight, grad) if ctx.needs_input_grad[0] else None
            return gx, torch.nn.grad.conv1d_weight(x, weight.shape, grad)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.out = nn.Parameter(torch.randn(3, 2, 3)), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(Conv.apply(x, self.kernel))

    return dict(model=Net(), inputs=(torch.randn(2, 2, 6),), loss=lambda out: out.square().mean())


def quiet_loss_that_computes_its_gradient_in_forward() -> dict[str, Any]:
    class FusedCrossEntropy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, h: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            logits = h @ weight.T
            p = logits.softmax(-1) - F.one_hot(y, len(weight))
            ctx.save_for_backward(p @ weight / len(h), p.T @ h / len(h))
            return F.cross_entropy(logits, y)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            gh, gw = ctx.saved_tensors
            return gh * grad, gw * grad, None

    class Lm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 5, bias=False)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return FusedCrossEntropy.apply(self.body(x), self.head.weight, y)

    return dict(model=Lm(), inputs=(torch.randn(4, 4), torch.tensor([0, 2, 4, 1])))


def quiet_reversible_block_differentiated_by_hand() -> dict[str, Any]:
    class Reversible(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, f: Any, *weights: torch.Tensor) -> torch.Tensor:
            ctx.f, ctx.weights = f, weights
            ctx.save_for_backward(x)
            with torch.no_grad():
                return x + f(x)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            x = ctx.saved_tensors[0].detach().requires_grad_()
            with torch.enable_grad():
                y = ctx.f(x)
            gx, *rest = torch.autograd.grad(y, (x, *ctx.weights), grad)
            return grad + gx, None, *rest

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.f = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Reversible.apply(self.stem(x), self.f, *self.f.parameters())

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_identity_that_only_watches_the_gradient() -> dict[str, Any]:
    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, log: list[float]) -> torch.Tensor:
            ctx.log = log
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            ctx.log.append(grad.norm().item())
            return grad, None

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.log = nn.Linear(3, 3), nn.Linear(3, 1), []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(Watch.apply(self.a(x), self.log))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_gradient_stopped_for_one_argument_on_purpose() -> dict[str, Any]:
    """The second argument's parameters have a term of their own."""

    class Commit(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(z, q)
            return (z - q).square().mean()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> Any:
            z, q = ctx.saved_tensors
            return grad * 2 * (z - q) / z.numel(), None

    class Vq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.codes = nn.Linear(4, 3), nn.Embedding(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.enc(x)
            q = self.codes(torch.cdist(z, self.codes.weight).argmin(-1))
            return Commit.apply(z, q) + F.mse_loss(q, z.detach())

    return dict(model=Vq(), inputs=(torch.randn(6, 4),))
