"""FXG113: custom operators without an autograd formula, and custom operators that need none or have one."""

from __future__ import annotations

import uuid
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def _space() -> str:
    """A library of its own for every program that is built: an operator can be defined once only."""
    return f"fxg113_{uuid.uuid4().hex}"


T = TypeVar("T")
_KEPT: list[Any] = []


def _kept(made: T) -> T:
    """A library or operator that stays until the process ends: torch 2.11 goes on listing those that are gone, and then cannot compile."""
    _KEPT.append(made)
    return made


def guilty_custom_op_in_a_layer() -> dict[str, Any]:
    space = _space()

    @_kept
    @torch.library.custom_op(f"{space}::gelu", mutates_args=())
    def gelu(x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x)

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(gelu(self.up(x)))  # FXG113

    return dict(model=nn.Sequential(Mlp(), Mlp()), inputs=(torch.randn(2, 4),), loss=lambda out: out.square().mean())


def guilty_library_define_and_impl() -> dict[str, Any]:
    space = _space()
    library = _kept(torch.library.Library(space, "DEF"))
    library.define("scale(Tensor x, float factor) -> Tensor")
    library.impl("scale", lambda x, factor: x * factor, "CompositeExplicitAutograd")
    op = getattr(torch.ops, space).scale

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)
            self.keep = library

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return op(self.net(x), 0.5)  # FXG113

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_cpu_kernel_only() -> dict[str, Any]:
    space = _space()
    library = _kept(torch.library.Library(space, "DEF"))
    library.define("norm(Tensor x) -> Tensor")
    library.impl("norm", lambda x: x / x.norm(dim=-1, keepdim=True), "CPU")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(6, 4)
            self.out = nn.Linear(4, 6)
            self.keep = library

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            h = getattr(torch.ops, space).norm(self.embed(ids))  # FXG113
            return self.out(h)

    ids = torch.tensor([1, 2, 3])
    return dict(model=Net(), inputs=(ids,), loss=lambda out: F.cross_entropy(out, ids))


def guilty_custom_op_inside_the_loss() -> dict[str, Any]:
    space = _space()

    @_kept
    @torch.library.custom_op(f"{space}::huber", mutates_args=())
    def huber(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.smooth_l1_loss(a, b)

    class Criterion:
        def __init__(self) -> None:
            self.target = torch.zeros(3, 2)

        def __call__(self, out: torch.Tensor) -> torch.Tensor:
            return huber(out, self.target)  # FXG113

    return dict(model=nn.Linear(4, 2), inputs=(torch.randn(3, 4),), loss=Criterion())


def guilty_wrapped_op_of_two_branches() -> dict[str, Any]:
    space = _space()

    @_kept
    @torch.library.custom_op(f"{space}::mix", mutates_args=())
    def mix(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
        return share * a + (1 - share) * b

    def blend(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return mix(a, b, 0.3)  # FXG113

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.out = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(blend(self.left(x), self.right(x)))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def guilty_kernel_in_numpy() -> dict[str, Any]:
    """torch puts a node in the graph that warns in backward and hands on nothing."""
    space = _space()
    library = _kept(torch.library.Library(space, "DEF"))
    library.define("sort(Tensor x) -> Tensor")
    library.impl("sort", lambda x: torch.from_numpy(np.sort(x.detach().numpy(), axis=-1)), "CPU")

    class Ranker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.out = nn.Linear(3, 4), nn.Linear(4, 1)
            self.keep = library

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(getattr(torch.ops, space).sort(self.score(x)))  # FXG113

    return dict(model=Ranker(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


# ---------------------------------------------------------------------------------------------------------------- healthy


def quiet_registered_autograd() -> dict[str, Any]:
    space = _space()

    @_kept
    @torch.library.custom_op(f"{space}::square", mutates_args=())
    def square(x: torch.Tensor) -> torch.Tensor:
        return x * x

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    square.register_autograd(lambda ctx, grad: 2 * ctx.saved_tensors[0] * grad, setup_context=setup)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return square(self.net(x))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.sum())


def quiet_composite_implicit() -> dict[str, Any]:
    space = _space()
    library = _kept(torch.library.Library(space, "DEF"))
    library.define("affine(Tensor x, Tensor w) -> Tensor")
    library.impl("affine", lambda x, w: x @ w.t(), "CompositeImplicitAutograd")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3))
            self.keep = library

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(torch.ops, space).affine(x, self.weight)

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_op_on_the_inputs_only() -> dict[str, Any]:
    space = _space()

    @_kept
    @torch.library.custom_op(f"{space}::normalise", mutates_args=())
    def normalise(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean()) / x.std()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(normalise(x))

    return dict(model=Net(), inputs=(torch.randn(4, 3),), loss=lambda out: out.square().mean())


def quiet_integer_result_beside_the_way() -> dict[str, Any]:
    space = _space()

    @_kept
    @torch.library.custom_op(f"{space}::assign", mutates_args=())
    def assign(distances: torch.Tensor) -> torch.Tensor:
        return distances.argmin(-1)

    class Kmeans(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(3, 2)
            self.centres = nn.Parameter(torch.randn(4, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.project(x)
            nearest = assign(torch.cdist(z, self.centres).detach())
            return F.mse_loss(z, self.centres[nearest])

    return dict(model=Kmeans(), inputs=(torch.randn(5, 3),))


def quiet_under_no_grad_for_a_metric() -> dict[str, Any]:
    space = _space()

    @_kept
    @torch.library.custom_op(f"{space}::score", mutates_args=())
    def score(x: torch.Tensor) -> torch.Tensor:
        return x.abs().mean()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)
            self.last: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.net(x)
            with torch.no_grad():
                self.last = score(out)
            return out

    return dict(model=Net(), inputs=(torch.randn(4, 3),), loss=lambda out: out.square().mean())


def quiet_torch_ops_called_by_name() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten.mul.Tensor(torch.ops.aten.relu(self.net(x)), 2.0)

    return dict(model=Net(), inputs=(torch.randn(4, 3),), loss=lambda out: out.square().mean())


def quiet_operator_inside_an_autograd_function() -> dict[str, Any]:
    space = _space()

    @torch.library.custom_op(f"{space}::gelu", mutates_args=())
    def gelu(x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)

    @torch.library.custom_op(f"{space}::gelu_backward", mutates_args=())
    def gelu_backward(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        s = torch.sigmoid(1.702 * x)
        return grad * (s + 1.702 * x * s * (1 - s))

    class Gelu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return gelu(x)

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return gelu_backward(grad, *ctx.saved_tensors)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(Gelu.apply(self.a(x)))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())


def quiet_sampling_operator_on_detached_logits() -> dict[str, Any]:
    space = _space()

    @torch.library.custom_op(f"{space}::pick", mutates_args=())
    def pick(logits: torch.Tensor) -> torch.Tensor:
        return logits.argmax(-1, keepdim=True)

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pi = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.pi(x)
            return -logits.log_softmax(-1).gather(1, pick(logits)).mean()

    return dict(model=Policy(), inputs=(torch.randn(5, 4),))


def quiet_autograd_kernel_in_a_library() -> dict[str, Any]:
    space = _space()
    library = _kept(torch.library.Library(space, "DEF"))
    library.define("double(Tensor x) -> Tensor")

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * 2

    library.impl("double", Double.apply, "Autograd")
    library.impl("double", lambda x: x * 2, "CPU")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.keep = nn.Linear(3, 2), library

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(torch.ops, space).double(self.fc(x))

    return dict(model=Net(), inputs=(torch.randn(2, 3),), loss=lambda out: out.square().mean())
