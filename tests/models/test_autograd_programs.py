"""Programs that steer autograd: grad modes, hooks, checkpoints, autograd.Functions, functorch, derivatives inside the forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
WIDE = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
CASES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {}


def case(**options: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Make the class a test on input X; `options` are those of `same_as_eager`."""

    def add(cls: type[nn.Module]) -> type[nn.Module]:
        CASES[cls.__name__] = (cls, options)
        return cls

    return add


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)


# ------------------------------------------------------------------ grad modes


@case(then=((WIDE,),))
class NoGradForms(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(False):
            u = self.a(x)
        with torch.no_grad():
            u = u + 1
            with torch.enable_grad():
                w = self.b(x)
        torch.set_grad_enabled(False)
        q = self.a(x)
        torch.set_grad_enabled(True)
        return u + w + q + self.a(x)


@case()
class Decorators(TwoLayers):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def lower(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x)

    @torch.no_grad()
    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(x)

    @torch.inference_mode()
    def inferred(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lower(x) + self.frozen(x) + self.inferred(x).clone()


@case()
class InferenceMode(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            mean = self.b(x).mean()
            more = mean + 1
        return self.a(x) + mean.clone() + more


@case(fake=False)
class NumberFromInferenceMode(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            mean = self.b(x).mean()
        return self.a(x) * mean.item()


@case()
class Autocast(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.a(x)
            with torch.autocast("cpu", enabled=False):
                z = self.b(y.float())
            return self.b(z) @ y.T


# ------------------------------------------------------------------ hooks


@case()
class ForwardHooks(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.a.register_forward_hook(lambda module, args, out: out * 2)
        self.b.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        self.b.register_forward_hook(lambda module, args, out: self.seen.append(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = self.a(x)
        return self.b(y) + self.a(x) + self.seen[-1]


@case()
class BackwardHooks(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Linear(8, 8)
        self.a.register_full_backward_pre_hook(lambda module, grad: (grad[0] * 2,))
        self.b.register_full_backward_hook(lambda module, grad_in, grad_out: (grad_in[0] * 3,))
        self.c.register_backward_hook(lambda module, grad_in, grad_out: tuple(None if g is None else g * 5 for g in grad_in))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


@case(then=((WIDE,),))
class TensorHookOverAnIntermediate(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = (x > 0).float() * x
        y = self.a(x)
        y.register_hook(lambda grad: grad * mask)
        return self.b(y.relu())


@case()
class ParameterHook(TwoLayers):
    def __init__(self) -> None:
        super().__init__()
        self.a.weight.register_hook(lambda grad: grad * 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


# ------------------------------------------------------------------ checkpoints


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8))


@case()
class ReentrantCheckpoint(Checkpointed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.body, self.first(x), use_reentrant=True)


@case()
class ReentrantCheckpointWithoutGradient(Checkpointed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) + checkpoint(self.body, x, use_reentrant=True)


@case(then=((WIDE,),))
class CheckpointOverAnIntermediate(Checkpointed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        return checkpoint(lambda y: self.body(y) + h * x, h * 2, use_reentrant=False)


@case()
class CheckpointSequential(Checkpointed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint_sequential(self.body, 2, self.first(x), use_reentrant=False)


# ------------------------------------------------------------------ autograd.Function


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(a, b)
        ctx.factor = factor
        return a * b * factor, a + b

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        a, b = ctx.saved_tensors
        return grad * b * ctx.factor + other, grad * a * ctx.factor + other, None


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(a: torch.Tensor) -> torch.Tensor:
        return a.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * ctx.saved_tensors[0].cos()


class DoubleInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(a)
        return a.mul_(2)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2


@case()
class Functions(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, v = Product.apply(self.a(x), self.b(x), 2.0)
        return Sine.apply(u) + v


@case()
class DirtyFunction(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x) + 0
        DoubleInPlace.apply(y)
        return self.b(y.relu())


# ------------------------------------------------------------------ functorch and derivatives


@case(then=((WIDE,),))
class Vmap(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(lambda row: self.a(row).sin() * x.sum())(x)


@case()
class PerSampleGradient(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(torch.func.grad(lambda row: self.a(row).sin().sum()))(x)


@case()
class Jacobians(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(torch.func.jacrev(self.a))(x) + torch.vmap(torch.func.jacfwd(lambda row: self.a(row)))(x)


@case(then=((WIDE[:2],),))
class JacobianOfABatch(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        by_rows = torch.func.jacrev(lambda q: self.a(q).tanh() * y)(y)
        return by_rows.sum() + torch.func.jacfwd(lambda q: self.b(q).tanh() * y)(y).sum()


@case(fake=None, then=((WIDE[:2],),))
class Hessian(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.func.hessian(lambda q: self.a(q).tanh().sum())(x * 2).sum()


@case(then=((WIDE[:2],),))
class Products(TwoLayers):
    """Jacobian-vector products forwards and backwards; `vjp` gives back a function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x * 3
        y, tangent = torch.func.jvp(lambda q: self.a(q).tanh() * z, (z,), (torch.ones_like(x),))
        out, pull = torch.func.vjp(lambda q: self.b(q) * z, z)
        return y + tangent + out + pull(out)[0] + pull(z)[0]


@case(then=((WIDE,),))
class DualNumbers(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with forward_ad.dual_level():
            primal, tangent = forward_ad.unpack_dual(self.a(forward_ad.make_dual(x, x * 2)).tanh())
        return self.b(primal + tangent)


@case()
class Ensemble(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parameters, buffers = torch.func.stack_module_state(list(self.members))
        base = self.members[0]
        return torch.vmap(lambda p, b: torch.func.functional_call(base, (p, b), (x,)))(parameters, buffers)


@case()
class SavedTensorHooks(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autograd.graph.save_on_cpu():
            y = self.a(x).tanh()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t * 1, lambda t: t):
            return self.b(y).exp()


@case()
class GradientPenalty(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.detach().requires_grad_()
        y = self.a(x).tanh().sum()
        (grad,) = torch.autograd.grad(y, x, create_graph=True)
        return grad.pow(2).sum() + y


@case()
class InnerStep(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.a.weight
        (grad,) = torch.autograd.grad((self.b(x @ weight) ** 2).sum(), [weight], create_graph=True)
        return (self.b(x @ (weight - 0.1 * grad)) ** 2).sum()


@case(then=((WIDE,),))
class NewLeaves(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(nn.Parameter(x * 2)) + torch.autograd.Variable(self.b(x), requires_grad=True)


@case()
class DataWrites(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y.data = y.data * 2
        y.data.clamp_(max=1)
        z = torch.zeros(2, 8)
        z.data = y.detach()
        return y * z


@case()
class RetainGrad(TwoLayers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y.retain_grad()
        z = y.detach().requires_grad_(True)
        return (z * y).sum()


@pytest.mark.parametrize("name", CASES)
def test_regenerated_program_is_the_program(name: str, same_as_eager: Callable[..., Any]) -> None:
    cls, options = CASES[name]
    same_as_eager(cls(), (X,), **options)
