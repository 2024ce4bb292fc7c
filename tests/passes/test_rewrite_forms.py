"""Every way to write in place that the rewrite knows, one small program each, and the rewrite as a torch.fx pass.

The oracle is eager with a copy of everything saved for backward: it is eager where eager runs. Each program writes into what was saved,
so that `needed` has something to rewrite too. What takes the place of the writes is compared with `tests/golden/rewrites.json`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.fx
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.passes.infra.pass_base import PassResult
from torch.fx.passes.infra.pass_manager import PassManager
from torch.fx.passes.shape_prop import ShapeProp

import fxgrad
from fxgrad.passes.rewrites.out_of_place import OutOfPlace
from fxgrad.records import Options
from fxgrad.records.errors import FixError, InputError
from fxgrad.torch_api.saved_hooks import saved_copies

Tensor = torch.Tensor
GOLDEN = "rewrites"
PLACE = r" \([^()]*:\d+:\d+\)"
Body = Callable[["Net", Tensor, Tensor], Any]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


class Net(nn.Module):
    """`h` of a body is 4x6 and saved by `exp`, `w` is a parameter of six."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.lin, self.w, self.body = nn.Linear(3, 6), nn.Parameter(torch.rand(6) + 0.5), body
        self.register_buffer("seen", torch.zeros(6))
        self.act = nn.Sequential(nn.ReLU(inplace=True), nn.Hardtanh(0.0, 2.0, inplace=True))

    def forward(self, x: Tensor) -> Any:
        return self.body(self, (self.lin(x) * 0.1).exp(), self.w)


def assign(index: Any, value: Any = 0.5) -> Body:
    def body(m: Net, h: Tensor, w: Tensor) -> Tensor:
        h[index(h) if callable(index) else index] = value(h, w) if callable(value) else value
        return h * w

    return body


def view_then(view: Callable[[Tensor], Any]) -> Body:
    """Writes a view, reads base and view."""

    def body(m: Net, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        v = view(h)
        v = v[0] if isinstance(v, tuple | list) else v
        v.mul_(w.sum())
        return h * w, v * 2

    return body


def statement(write: Callable[[Net, Tensor, Tensor], Any]) -> Body:
    def body(m: Net, h: Tensor, w: Tensor) -> Tensor:
        write(m, h, w)
        return h * w if h.shape[-1] == 6 else h * w.sum()

    return body


def loop(m: Net, h: Tensor, w: Tensor) -> Tensor:
    for row in h:
        for pair in row.view(3, 2).unbind(0):
            pair[0] += pair[1] * pair[1]
    return h * w


def no_grad_block(m: Net, h: Tensor, w: Tensor) -> Tensor:
    with torch.no_grad():
        h.clamp_(max=1.0)
        h[:, 1:3].mul_(2)
    return h * w


def reshaped_unseen(m: Net, h: Tensor, w: Tensor) -> Tensor:
    with torch.no_grad():
        h.unsqueeze_(0)
    return h * w


def turned_unseen(m: Net, h: Tensor, w: Tensor) -> Tensor:
    g = h[:, 1:5] * 1
    with torch.no_grad():
        g.t_()  # eager hands the gradient on as it comes: not turned back
    return g * torch.arange(16.0).view(4, 4) * w.sum()


def reshaped_unseen_and_written(m: Net, h: Tensor, w: Tensor) -> Tensor:
    with torch.no_grad():
        h.unsqueeze_(0)
    g = h.sigmoid() * w
    h.mul_(2)
    return g + h


def slots(m: Net, h: Tensor, w: Tensor) -> Tensor:
    out = torch.zeros(4, 6)
    for i in range(4):
        out[i] = torch.tanh(h[i] + (out[i - 1] * w if i else 0))
    return out


def normalised(m: Net, h: Tensor, w: Tensor) -> Tensor:
    h -= h.mean(0)
    h /= h.std(0) + 1
    h **= 2
    return h * w


def buffers(m: Net, h: Tensor, w: Tensor) -> Tensor:
    old = m.seen * w
    m.seen.mul_(0.9).add_(h.detach().mean(0))
    return h * w + old + m.seen * w


def foreach(m: Net, h: Tensor, w: Tensor) -> Tensor:
    g = (h * w).sigmoid()
    torch._foreach_mul_([h, g], [2.0, 3.0])
    torch._foreach_add_([h, g], [g * 1, h * 1])
    torch._foreach_sqrt_([h])
    return h * g


def out_buffers(m: Net, h: Tensor, w: Tensor) -> Tensor:
    values, places = torch.empty(4), torch.empty(4, dtype=torch.long)
    with torch.no_grad():
        torch.max(h, 1, out=(values, places))
    return h * values[:, None] * w


def draws(m: Net, h: Tensor, w: Tensor) -> Tensor:
    noise = torch.empty(4, 6).normal_()
    h.mul_(torch.empty(4, 6).bernoulli_(0.5))
    h.add_(noise.uniform_(-1, 1)).add_(torch.rand(6))
    noise.exponential_().clamp_(0, 1)
    return h * w * noise + torch.randn(6)


def whole_written(m: Net, h: Tensor, w: Tensor) -> Tensor:
    g = h + 1  # saved by nobody
    first, second, *_ = g.unbind(0)
    g.mul_(2)
    return first * 3 + second + w


def whole_written_want(m: Net, h: Tensor, w: Tensor) -> Tensor:
    return 6 * (h[0] + 1) + 2 * (h[1] + 1) + w


def sized_by_out(m: Net, h: Tensor, w: Tensor) -> None:
    made = torch.empty(0)
    torch.mul(w.detach(), 2, out=made)
    h.mul_(made)


PROGRAMS: dict[str, Body] = {
    "method": statement(lambda m, h, w: h.sigmoid_()),
    "augmented assignments": normalised,
    "an int": assign(1),
    "a negative int and a slice": assign((-1, slice(1, None, 2))),
    "an ellipsis and None": assign((..., None, 2)),
    "a broadcast value": assign((slice(1, 3), slice(None)), lambda h, w: w * 2),
    "a mask": assign(lambda h: h > 1),
    "a mask of rows": assign(lambda h: torch.tensor([True, False, True, False]), lambda h, w: w),
    "a mask and values of its size": assign(lambda h: h > -1, lambda h, w: (h * 2).flatten()),
    "an index tensor": assign(lambda h: torch.tensor([2, 0])),
    "two index tensors": assign(lambda h: (torch.tensor([0, 1]), torch.tensor([5, 0])), lambda h, w: w[:2]),
    "an index tensor and a slice": assign(lambda h: (torch.tensor([0, 3]), slice(2, 4)), lambda h, w: w[:2]),
    "a slice and a list": assign((slice(None), [0, 5]), lambda h, w: w[:2]),
    "an int, None and a mask": assign(lambda h: (1, None, h[1] > 1)),
    "a value of another dtype": assign(0, lambda h, w: w.double()),
    "itself, shifted": assign((slice(1, None),), lambda h, w: h[:-1] * w),
    "out=": out_buffers,
    "F.relu(inplace=True)": statement(lambda m, h, w: F.relu(h, inplace=True)),
    "F.elu(inplace=True)": statement(lambda m, h, w: F.elu(h, inplace=True)),
    "F.dropout(inplace=True)": statement(lambda m, h, w: F.dropout(h, 0.5, True, True)),
    "inplace=True modules": statement(lambda m, h, w: m.act(h)),
    "copy_ that broadcasts": statement(lambda m, h, w: h.copy_(w)),
    "copy_ of another dtype": statement(lambda m, h, w: h.copy_(w.double())),
    "copy_ into a view": statement(lambda m, h, w: h[:, :3].copy_(w[3:])),
    "index_put_ accumulates": statement(lambda m, h, w: h.index_put_((torch.tensor([1, 1]),), w.expand(2, 6), accumulate=True)),
    "index_add_": statement(lambda m, h, w: h.index_add_(0, torch.tensor([1, 1]), w.expand(2, 6), alpha=2)),
    "index_copy_": statement(lambda m, h, w: h.index_copy_(0, torch.tensor([3]), w[None])),
    "index_fill_": statement(lambda m, h, w: h.index_fill_(1, torch.tensor([3]), 0.5)),
    "scatter_": statement(lambda m, h, w: h.scatter_(0, torch.tensor([[3, 1]]), w[None, :2])),
    "scatter_add_": statement(lambda m, h, w: h.scatter_add_(0, torch.tensor([[3, 1]]), w[None, :2])),
    "scatter_reduce_": statement(lambda m, h, w: h.scatter_reduce_(0, torch.tensor([[3, 1]]), w[None, :2], "prod")),
    "masked_fill_": statement(lambda m, h, w: h.masked_fill_(h > 1, w.sum())),
    "masked_scatter_": statement(lambda m, h, w: h.masked_scatter_(torch.eye(4, 6, dtype=torch.bool), w)),
    "put_": statement(lambda m, h, w: h.put_(torch.tensor([7, 2]), w[:2])),
    "fill_ and zero_": statement(lambda m, h, w: (h[0].fill_(w.sum()), h[1].zero_())),
    "cumsum_ and tril_": statement(lambda m, h, w: h.cumsum_(1).tril_()),
    "addmm_": statement(lambda m, h, w: h.addmm_(torch.ones(4, 4), h * w, beta=0.5)),
    "lerp_ and addcdiv_": statement(lambda m, h, w: h.lerp_(w, 0.3).addcdiv_(w, h + 3)),
    "select": view_then(lambda h: h.select(1, 2)),
    "slice with a step": view_then(lambda h: h[::2, 1::2]),
    "narrow": view_then(lambda h: h.narrow(1, 1, 3)),
    "diagonal": view_then(lambda h: h.diagonal(1)),
    "transpose": view_then(lambda h: h.transpose(0, 1)),
    "permute of a view": view_then(lambda h: h.view(2, 2, 6).permute(2, 0, 1)),
    "permute by a list": view_then(lambda h: h.permute([1, 0])),
    "permute of one dimension": view_then(lambda h: h[1].permute(0)),
    "view of a slice": view_then(lambda h: h[1:3].view(3, 4)),
    "reshape that is a view": view_then(lambda h: h.reshape(-1)),
    "flatten, unflatten": view_then(lambda h: h.flatten().unflatten(0, (2, 12))),
    "squeeze of unsqueeze": view_then(lambda h: h.unsqueeze(0).squeeze(0)),
    "split": view_then(lambda h: h.split(2, 1)),
    "chunk": view_then(lambda h: h.chunk(2)),
    "unbind": view_then(lambda h: h.unbind(1)),
    "tensor_split": view_then(lambda h: h.tensor_split(4, 1)),
    "tensor_split at places": view_then(lambda h: h.tensor_split([2, -1], 1)),
    "hsplit": view_then(lambda h: h.hsplit(3)),
    "hsplit of a vector": view_then(lambda h: h[1].hsplit(2)),
    "parts are read after the whole is written": whole_written,
    "unfold without overlap": view_then(lambda h: h.unfold(1, 2, 2)),
    "as_strided": view_then(lambda h: h.as_strided((2, 3), (6, 2), 1)),
    "mT and movedim": view_then(lambda h: h.view(2, 2, 6).mT.movedim(0, 2)),
    "view_as_real": view_then(lambda h: torch.view_as_real(torch.complex(h, h))),
    "imag": view_then(lambda h: torch.complex(h, h * 2).imag),
    "contiguous is the tensor": view_then(lambda h: h.contiguous()),
    "Identity is the tensor": view_then(lambda h: nn.Identity()(h)),
    "eval-mode dropout is the tensor": view_then(lambda h: F.dropout(h, 0.5, False)),
    "a view of a view of a view": view_then(lambda h: h[1:].t()[2:4].reshape(2, 3)[0]),
    "views in loops": loop,
    "slots": slots,
    "foreach": foreach,
    "t_ and unsqueeze_": statement(lambda m, h, w: h.t_().unsqueeze_(0).squeeze_().t_()),
    "requires_grad_ of a fresh tensor": lambda m, h, w: h * (torch.ones(6).requires_grad_() * w),
    "detach_ of an own tensor": lambda m, h, w: h * (w * 2).detach_(),
    "out= of an empty tensor": statement(sized_by_out),
    "resize_ of an empty tensor": lambda m, h, w: h * torch.empty(0).resize_(6).fill_(2.0) * w,
    "random numbers keep their order": draws,
    "writes under no_grad": no_grad_block,
    "another shape under no_grad": reshaped_unseen,
    "turned under no_grad": turned_unseen,
    "another shape under no_grad, then written": reshaped_unseen_and_written,
    "buffers keep their writes": buffers,
    "mark_dirty": statement(lambda m, h, w: Doubled.apply(h)),
}


def loop_want(m: Net, h: Tensor, w: Tensor) -> Tensor:
    pairs = h.view(4, 3, 2)
    return torch.stack([pairs[..., 0] + pairs[..., 1] ** 2, pairs[..., 1]], -1).view(4, 6) * w


# Eager refuses to write one of several views that one call made; what the program means, said without such a view.
MEANT: dict[str, Body] = {
    "split": view_then(lambda h: h[:, :2]),
    "chunk": view_then(lambda h: h[:2]),
    "unbind": view_then(lambda h: h[:, 0]),
    "tensor_split": view_then(lambda h: h[:, :2]),
    "tensor_split at places": view_then(lambda h: h[:, :2]),
    "hsplit": view_then(lambda h: h[:, :2]),
    "hsplit of a vector": view_then(lambda h: h[1, :3]),
    "parts are read after the whole is written": whole_written_want,
    "views in loops": loop_want,
}


def stepped(call: Callable[[Tensor], Any], net: nn.Module) -> list[Tensor]:
    """Outputs, gradients, buffer, and the next random number."""
    net.zero_grad()
    torch.manual_seed(3)
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
    out = call(x)
    out = out if isinstance(out, tuple) else (out,)
    sum(o.sum() for o in out).backward()  # type: ignore[union-attr]  # a tensor: there is an output
    gradients = [torch.zeros(()) if t.grad is None else t.grad.clone() for t in (x, *net.parameters())]
    return [*(o.detach().clone() for o in out), *gradients, *(b.clone() for b in net.buffers()), torch.rand(1)]


def made(body: Body) -> Net:
    torch.manual_seed(0)
    return Net(body)


@pytest.mark.parametrize("mode", ["needed", "all"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_rewritten_is_what_eager_does(name: str, mode: Any, golden: Any) -> None:
    body = PROGRAMS[name]
    net = made(MEANT.get(name, body))
    with saved_copies():
        want = stepped(net, net)
    net = made(body)
    fixed = fxgrad.fix(net, (torch.rand(4, 3).requires_grad_(),), options=Options(rewrite=mode))
    got = stepped(fixed.module, fixed.module)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(a, b)
    golden.check(f"{name}, {mode}", told(fixed))


def told(fixed: fxgrad.FixResult) -> list[str]:
    """What was rewritten how, and the calls of the module."""
    calls = [n for n in fixed.module.graph.nodes if n.op.startswith("call")]
    return [
        *(f"{a.node} ({a.operator}): {a.form}, {re.sub(PLACE, '', a.reason)}" for a in fixed.applied),
        *(f"{r.node} ({r.operator}) stays: {re.sub(PLACE, '', r.reason)}" for r in fixed.refused),
        " ".join(n.target if isinstance(n.target, str) else n.target.__name__ for n in calls),
    ]


def test_a_write_by_a_size_has_a_form_out_of_place() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.lin(x).exp().clamp_(max=x.shape[0])

    applied = fxgrad.fix(Scaled(), (torch.rand(3, 4),)).applied
    assert [(done.operator, done.form) for done in applied] == [("clamp_", "functional")]


def contiguous_after_the_last_write(h: Tensor) -> Tensor:
    h.add_(1)
    return h.contiguous()


def contiguous_before_the_last_write(h: Tensor) -> Tensor:
    k = h.contiguous()
    h.add_(1)
    return k + h


@pytest.mark.parametrize(
    ("body", "forms"),
    [
        (contiguous_after_the_last_write, [("mul_", "functional")]),
        (contiguous_before_the_last_write, [("mul_", "functional"), ("contiguous", "snapshot")]),
    ],
)
def test_what_was_a_copy_is_one_where_it_is_written_later(body: Callable[[Tensor], Tensor], forms: list[tuple[str, str]]) -> None:
    """Out of place a tensor with gaps becomes one without: `contiguous()` of that is no copy any more."""

    class Gaps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.empty_strided((3, 4), (8, 2))
            h.copy_(self.lin(x))
            y = h * h
            h.mul_(2)
            return y + body(h)

    applied = fxgrad.fix(Gaps(), (torch.rand(3, 4),)).applied
    assert [(done.operator, done.form) for done in applied] == forms


def test_all_leaves_no_write_in_place() -> None:
    fixed = fxgrad.fix(made(normalised), (torch.rand(4, 3),), options=Options(rewrite="all"))
    assert [str(n.target) for n in fixed.module.graph.nodes if str(n.target).endswith("_")] == []


@pytest.mark.parametrize("mode", ["needed", "all"])
def test_an_input_written_through_data_is_saved_before(mode: Any) -> None:
    """Eager's own gradient is falsified, so it is no measure of the repair."""
    x, w = torch.ones(3), torch.full((3,), 2.0, requires_grad=True)

    def program(x: Tensor, w: Tensor) -> Tensor:
        y = x * w
        x.data.add_(1)
        return y

    fixed = fxgrad.fix(program, (x, w), options=Options(rewrite=mode)).module
    fixed(x, w).sum().backward()
    assert w.grad is not None
    assert (w.grad.tolist(), x.tolist()) == ([1.0] * 3, [2.0] * 3)


def test_a_shape_changed_unseen_in_shared_memory_is_right_or_refused() -> None:
    def program(m: Net, h: Tensor, w: Tensor) -> Tensor:
        v = h[1:]
        with torch.no_grad():
            h.unsqueeze_(0)
        v.mul_(w)
        return h * w + v.sum()

    try:
        fixed = fxgrad.fix(made(program), (torch.rand(4, 3).requires_grad_(),), options=Options(rewrite="all"))
    except FixError as error:
        assert error.site is not None  # noqa: PT017  a refusal is one of two good ends
        return
    with saved_copies():
        want = stepped(net := made(program), net)
    for a, b in zip(want, stepped(fixed.module, fixed.module), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (statement(lambda m, h, w: h.set_(torch.ones(4, 6))), "derivative for set_ is not implemented"),
        (statement(lambda m, h, w: h.resize_(2, 6)), "resize"),
    ],
    ids=["set_", "resize_"],
)
def test_what_changes_the_tensor_itself_is_refused_with_its_line(body: Body, reason: str) -> None:
    with pytest.raises(FixError, match=reason) as caught:
        fxgrad.fix(made(body), (torch.rand(4, 3),))
    assert caught.value.site is not None
    assert caught.value.site.file == __file__


# ---------------------------------------------------------------------------------------------------------------- as a pass


class Plain(nn.Module):
    """symbolic_trace takes it; its backward raises."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.relu = nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor, scale: float = 2.0) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.lin(x).sigmoid()
        v = h[:, :2]
        v.mul_(scale)
        return self.relu(h.exp()) * h, {"view": v}


def traced() -> tuple[Plain, torch.fx.GraphModule, Tensor]:
    model = Plain()
    return model, torch.fx.symbolic_trace(model), torch.rand(3, 4)


def wanted(model: Plain, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    with saved_copies():
        out, rest = model(x)
        (out.sum() + rest["view"].sum()).backward()
    return [out.detach(), rest["view"].detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def gotten(model: Plain, call: Any, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    out, rest = call(x)
    (out.sum() + rest["view"].sum()).backward()
    return [out.detach(), rest["view"].detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("mode", ["needed", "all"])
def test_a_pass_over_a_graph_that_torch_traced(mode: Any) -> None:
    model, graph_module, x = traced()
    before = graph_module.code
    result = OutOfPlace((x, 2.0), mode=mode)(graph_module)
    assert isinstance(result, PassResult)
    assert (result.modified, graph_module.code) == (True, before)
    for a, b in zip(wanted(model, x), gotten(model, result.graph_module, x), strict=True):
        torch.testing.assert_close(a, b)


def test_a_pass_with_nothing_to_do_says_so() -> None:
    graph_module = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)))
    result = OutOfPlace((torch.rand(3, 4),))(graph_module)
    assert (result.modified, result.graph_module) == (False, graph_module)


def test_it_composes_in_a_pass_manager() -> None:
    model, graph_module, x = traced()

    def shapes(module: torch.fx.GraphModule) -> PassResult:
        ShapeProp(module).propagate(x, 2.0)
        return PassResult(module, False)

    result = PassManager(passes=[shapes, OutOfPlace((x, 2.0)), shapes, OutOfPlace((x, 2.0), mode="all")])(graph_module)
    assert result.modified
    assert all("tensor_meta" in n.meta for n in result.graph_module.graph.nodes if n.op == "call_module" and n.target == "lin")
    for a, b in zip(wanted(model, x), gotten(model, result.graph_module, x), strict=True):
        torch.testing.assert_close(a, b)


def test_inputs_from_the_placeholders_metadata() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.ReLU(inplace=True)), torch.rand(3, 4)
    graph_module = torch.fx.symbolic_trace(model)
    with pytest.raises(InputError, match="example inputs"):
        OutOfPlace()(graph_module)
    next(iter(graph_module.graph.nodes)).meta["val"] = FakeTensorMode(allow_non_fake_inputs=True).from_tensor(x)
    result = OutOfPlace()(graph_module)
    assert result.modified
    result.graph_module(x).sum().backward()
    assert [p.grad is not None for p in model.parameters()] == [True, True]


def test_a_graph_of_make_fx() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    def program(x: Tensor) -> Tensor:
        y = x.sigmoid()
        y.mul_(2)
        return y

    x = torch.rand(3, requires_grad=True)
    graph_module = make_fx(program)(x.detach())
    result = OutOfPlace((x,))(graph_module)
    result.graph_module(x).sum().backward()
    s = x.detach().sigmoid()
    torch.testing.assert_close(x.grad, 2 * s * (1 - s))


# ---------------------------------------------------------------------------------------------------------------- the oracle


@pytest.mark.parametrize(
    "draw",
    [
        lambda h: F.rrelu(h, 0.1, 0.3, True),
        lambda h: F.rrelu_(h, 0.1, 0.3, True),
        lambda h: F.rrelu(h, 0.1, 0.3, True, inplace=True),
        lambda h: nn.RReLU(inplace=True)(h[1:]),
    ],
    ids=["functional", "rrelu_", "inplace=True", "a module on a view"],
)
@pytest.mark.parametrize("mode", ["needed", "all"])
def test_noise_that_an_operator_draws_while_it_runs_is_saved_as_drawn(draw: Callable[[Tensor], Tensor], mode: Any) -> None:
    """Autograd is handed the noise before it is drawn: a copy taken then is of nothing."""

    def program(m: Net, h: Tensor, w: Tensor) -> Tensor:
        h = h - 1
        return h.sin() * draw(h).sum() * w if mode == "needed" else draw(h).sum() * w

    net = made(program)
    fixed = fxgrad.fix(net, (torch.rand(4, 3).requires_grad_(),), options=Options(rewrite=mode))
    with saved_copies():
        want = stepped(net, net)
    for a, b in zip(want, stepped(fixed.module, fixed.module), strict=True):
        torch.testing.assert_close(a, b)


# ---------------------------------------------------------------------------------------------------------------- hooks


class Hooked(nn.Module):
    """Backward hooks on a layer whose result is written: eager refuses the write, for the hook marks the result by a view."""

    def __init__(self, where: str, inplace: bool) -> None:
        super().__init__()
        self.lin, self.act, self.inplace = nn.Linear(3, 6), nn.ELU(inplace=inplace), inplace
        self.seen: list[Tensor] = []
        if where in ("layer", "sum"):
            self.lin.register_full_backward_hook(lambda module, inner, outer: self.seen.append(outer[0].clone()))
        elif where == "before":
            self.lin.register_full_backward_pre_hook(lambda module, outer: self.seen.append(outer[0].clone()))
        else:
            self.act.register_full_backward_hook(lambda module, inner, outer: self.seen.append(inner[0].clone()))
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        h = self.lin(x)
        if self.where == "sum" and self.inplace:
            h += x.sum()
        elif self.where == "sum":
            h = h + x.sum()
        return self.act(h) * 2


@pytest.mark.parametrize("mode", ["needed", "all"])
@pytest.mark.parametrize("where", ["layer", "before", "activation", "sum"])
def test_a_write_into_what_a_backward_hook_marked(where: str, mode: Any) -> None:
    torch.manual_seed(0)
    written, meant = Hooked(where, True), Hooked(where, False)
    meant.load_state_dict(written.state_dict())
    x = torch.rand(4, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="is a view and is being modified"):
        written(x)
    fixed = fxgrad.fix(written, (x,), options=Options(rewrite=mode)).module
    written.seen.clear()
    for a, b in zip(stepped(meant, meant), stepped(fixed, fixed), strict=True):
        torch.testing.assert_close(a, b)
    assert len(written.seen) == len(meant.seen) == 1
    torch.testing.assert_close(written.seen, meant.seen)


# ---------------------------------------------------------------------------------------------------------------- other memory


def resized(m: Net, h: Tensor, w: Tensor) -> Tensor:
    z = torch.zeros(4)
    kept = z * w.sum()
    z.resize_(2, 2).fill_(2.0)
    return kept.sum() * z.sum() * h


def set_to(m: Net, h: Tensor, w: Tensor) -> Tensor:
    y = torch.ones(6)
    kept = y * w
    with torch.no_grad():
        y.set_(torch.full((6,), 3.0))
    y.mul_(3)
    return kept * y * h


def set_aside(m: Net, h: Tensor, w: Tensor) -> Tensor:
    y, other = torch.ones(6), torch.empty(0)
    other.set_(y)
    kept = y * w
    other.add_(1)
    return kept * y * h


@pytest.mark.parametrize("body", [resized, set_to, set_aside])
def test_what_changes_the_tensor_itself_stays_and_what_it_overwrites_is_copied(body: Body) -> None:
    """Also where all was to be rewritten: the write is refused with a reason, and the gradient is right all the same."""
    with saved_copies():
        want = stepped(net := made(body), net)
    fixed = fxgrad.fix(made(body), (torch.rand(4, 3).requires_grad_(),), options=Options(rewrite="all"))
    assert any("set_" in r.reason or "resize_" in r.reason or "changes the tensor itself" in r.reason for r in fixed.refused)
    for a, b in zip(want, stepped(fixed.module, fixed.module), strict=True):
        torch.testing.assert_close(a, b)


class Filled(nn.Module):
    def __init__(self, fill: Callable[[Filled, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.fill = fill

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fill(self, x)


def filled_by_halves(net: Filled, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(4, 12)
    left, right = out[:, :6], out[:, 6:]
    left.copy_(net.a(x))
    right.copy_(net.b(left))
    left.mul_(right)
    return out


def halves(net: Filled, x: torch.Tensor) -> torch.Tensor:
    left = net.a(x)
    right = net.b(left)
    return torch.cat([left * right, right], 1)


def filled_by_rows(net: Filled, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(3, 4, 6)
    first, second = out[0], out[1]
    first += net.a(x)
    second += net.b(first)
    first *= second
    out[2] = first
    return out


def rows(net: Filled, x: torch.Tensor) -> torch.Tensor:
    first = net.a(x)
    second = net.b(first)
    return torch.stack([first * second, second, first * second])


@pytest.mark.parametrize(("fill", "plain"), [(filled_by_halves, halves), (filled_by_rows, rows)])
def test_where_rewriting_a_few_writes_is_not_enough_all_are(
    fill: Callable[[Filled, torch.Tensor], torch.Tensor], plain: Callable[[Filled, torch.Tensor], torch.Tensor]
) -> None:
    """Views of one tensor taken before the first write: torch takes the second for a leaf."""
    net, x = Filled(fill), torch.randn(4, 6)
    result = fxgrad.fix(net, (x,))
    assert result.applied
    assert not result.refused
    assert {entry.reason for entry in result.applied} & {
        "with some writes in place and some out of place the graph is not equal to the program"
    }
    result.module(x).square().sum().backward()
    gradients = [p.grad for p in net.parameters()]
    net.zero_grad()
    plain(net, x).square().sum().backward()
    for p, gradient in zip(net.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, p.grad)
