"""The rewrite over graphs that others made: `symbolic_trace`, `torch.export`, `make_fx`, and the operators that they call by themselves.

The oracle is eager with a copy of everything saved for backward. A graph that is no longer the program (functionalized ones call operators
whose own derivative is missing or wrong) is measured against nothing and passed over; each program has some graph that is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.fx
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from fxgrad.passes.rewrites.out_of_place import rewrite
from fxgrad.torch_api.saved_hooks import saved_copies

Tensor = torch.Tensor
Body = Callable[[Tensor, Tensor], Tensor]
aten: Any = torch.ops.aten


class Net(nn.Module):
    """`w` is a parameter, `x` the input, both 4x4."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w, self.body = nn.Parameter(torch.randn(4, 4, dtype=torch.float64)), body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.w, x)


def over_parameter(graph_module: torch.fx.GraphModule, net: Net) -> torch.fx.GraphModule:
    """A graph of `body(w, x)` as one of `forward(x)`."""
    first = next(iter(graph_module.graph.nodes))
    graph_module.w = net.w
    with graph_module.graph.inserting_before(first):
        first.replace_all_uses_with(graph_module.graph.get_attr("w"))
    graph_module.graph.erase_node(first)
    graph_module.recompile()
    return graph_module


GRAPHS: dict[str, Callable[[Net, Tensor], torch.fx.GraphModule]] = {
    "symbolic_trace": lambda net, x: torch.fx.symbolic_trace(net),
    "export": lambda net, x: torch.export.export(net, (x,)).module(),
    "make_fx": lambda net, x: over_parameter(make_fx(net.body)(net.w, x), net),
    "make_fx before dispatch": lambda net, x: over_parameter(make_fx(net.body, pre_dispatch=True)(net.w, x), net),
    "functionalize": lambda net, x: over_parameter(make_fx(torch.func.functionalize(net.body))(net.w, x), net),
}


def after(write: Callable[[Tensor, Tensor], Any], then: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None) -> Body:
    """Saves `y`, writes it, reads it."""

    def body(w: Tensor, x: Tensor) -> Tensor:
        y = w.exp()
        product = y * y
        write(y, x)
        return product.sum() + y * x if then is None else then(y, w, x)

    return body


def written_result(call: Callable[[Tensor], Any], write: Callable[[Any, Tensor], Any]) -> Body:
    """Writes one of several results of a call, each in memory of its own."""

    def body(w: Tensor, x: Tensor) -> Tensor:
        made = call(w)
        product = made[0] * made[0]
        write(made, x)
        return product + made[0]

    return body


def positive(w: Tensor) -> Tensor:
    return w @ w.t() + 4 * torch.eye(4, dtype=w.dtype)


def into_out(w: Tensor, x: Tensor) -> Tensor:
    z = torch.empty(4, 4, dtype=w.dtype)
    aten.mul.out(x, x, out=z)
    y = z * w
    aten.add(x, 1, out=z)
    return z * y


def into_several_outs(w: Tensor, x: Tensor) -> Tensor:
    values, places = torch.empty(4, 2, dtype=w.dtype), torch.empty(4, 2, dtype=torch.long)
    aten.topk.values(x, 2, values=values, indices=places)
    y = values * w[:, :2]
    aten.topk.values(-x, 2, values=values, indices=places)
    return y * values


torch.library.define("fxgrad_test::into_second", "(Tensor x, Tensor(a!) y) -> ()")
torch.library.impl("fxgrad_test::into_second", "CompositeImplicitAutograd", lambda x, y: (y.mul_(x), None)[1])


PROGRAMS: dict[str, Body] = {
    "a packet": after(lambda y, x: aten.add_(y, x)),
    "a packet with keywords": after(lambda y, x: aten.sub_(self=y, other=x, alpha=2)),
    "a packet with the keyword of one overload": after(lambda y, x: aten.div_(y, x + 9, rounding_mode="floor")),
    "a write of the second argument": after(lambda y, x: torch.ops.fxgrad_test.into_second(x, y)),
    "a packet's copy_": after(lambda y, x: aten.copy_(y[1:], x[0])),
    "a packet of a list": after(lambda y, x: aten.index_put_(y, [None, torch.tensor([0, 2])], x[:, :2])),
    "an overload": after(lambda y, x: aten.div_.Tensor_mode(y, x + 9, rounding_mode=None)),
    "an overload's copy_": after(lambda y, x: aten.copy_.default(y, x)),
    "an overload of lists": after(lambda y, x: aten._foreach_mul_.Scalar([y], 2.0)),
    "a method called as a function": after(lambda y, x: torch.Tensor.mul_(y, x)),
    "an overload's out": into_out,
    "several outs of an overload": into_several_outs,
    "transpose_": after(lambda y, x: y.transpose_(0, 1)[0].add_(10)),
    "t_ by its overload": after(lambda y, x: aten.t_.default(y)[1:].mul_(x[1:])),
    "swapdims_ beside a view": after(lambda y, x: (y[0].mul_(2), y.swapdims_(0, 1))),
    "squeeze_ and unsqueeze_": after(lambda y, x: y.unsqueeze_(0).squeeze_(0)[:, 0].mul_(3)),
    "as_strided_": after(lambda y, x: y.as_strided_((2, 2), (4, 1), 1).mul_(2), lambda y, w, x: y * x[:2, :2]),
    "a view by keywords": after(lambda y, x: (y.select(dim=1, index=2).mul_(x[0]), y.narrow(dim=0, start=1, length=2).mul_(x[:2]))),
    "views by overloads": after(lambda y, x: aten.slice.Tensor(aten.permute.default(y, [1, 0]), 0, 1, 3).mul_(x[1:3])),
    "as_strided": after(lambda y, x: y.as_strided((2, 3), (8, 1), 4).mul_(x[:2, :3])),
    "a diagonal that is filled": after(lambda y, x: y.fill_diagonal_(2.0)),
    "parts by hsplit": lambda w, x: after(lambda y, _: x.exp().hsplit(2)[1].mul_(y[:, :2].detach()))(w, x),
    "comparisons alone": lambda w, x: w.exp().gt_(1.0) * x,
    "a comparison by its overload": lambda w, x: aten.le_.Tensor(w.exp(), x) * x,
    "a comparison of a view": after(lambda y, x: y[0].ne_(x[0])),
    "a logical operator": after(lambda y, x: y.logical_xor_(x > 0)),
    "a logical operator on a view": after(lambda y, x: aten.logical_and_(y[:, 1], x[:, 0])),
    "an operator that writes nothing": after(lambda y, x: y.mul_(2), lambda y, w, x: y * ((x > 0) ^ (y > 1))),
    "cholesky_ex": written_result(lambda w: torch.linalg.cholesky_ex(positive(w)), lambda made, x: made[0].diagonal().log_()),
    "svd": written_result(lambda w: torch.linalg.svd(w)[1:], lambda made, x: made[0][1:].sqrt_()),
    "sort": written_result(lambda w: w.sort(1), lambda made, x: made[0][0].mul_(x[0])),
    "max by its field": written_result(lambda w: torch.max(w, 1), lambda made, x: made.values[1:].add_(x[1:, 0])),
    "median by its field": written_result(lambda w: torch.median(w, 1), lambda made, x: made.values.mul_(x[:, 0])),
}


def stepped(call: Callable[[Tensor], Tensor], net: Net, x: Tensor) -> tuple[Tensor, Tensor | None]:
    net.w.grad = None
    out = call(x.clone())
    (out.flatten() * torch.arange(out.numel(), dtype=out.dtype).cos()).sum().backward()
    return out.detach(), net.w.grad


def same(one: tuple[Tensor, Tensor | None], other: tuple[Tensor, Tensor | None]) -> bool:
    return all((a is None) is (b is None) and (a is None or torch.allclose(a, b)) for a, b in zip(one, other, strict=True))


def stands_for(graph_module: torch.fx.GraphModule, want: Any, net: Net, x: Tensor) -> bool:
    try:
        with saved_copies():
            return same(want, stepped(graph_module, net, x))
    except RuntimeError:  # an operator without a derivative
        return False


@pytest.mark.parametrize("name", PROGRAMS)
def test_rewritten_is_what_eager_does_whoever_made_the_graph(name: str) -> None:
    net, x = Net(PROGRAMS[name]), torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with saved_copies():
        want = stepped(net, net, x)
    found, wrong = 0, []
    for kind, graph in GRAPHS.items():
        try:
            graph_module = graph(net, x)
        except (RuntimeError, TypeError, AttributeError):  # a program that this tracer does not take
            continue
        if not stands_for(graph_module, want, net, x):
            continue
        found += 1
        for mode in ("needed", "all"):
            made = rewrite(graph_module, (x,), mode=mode)
            if made.refused or not same(want, stepped(made.graph_module, net, x)):
                wrong.append((kind, mode, made.refused))
    assert found >= 2
    assert wrong == []


def test_a_call_used_as_a_whole_is_refused_and_named() -> None:
    def body(w: Tensor, x: Tensor) -> Any:
        made = torch.linalg.cholesky_ex(positive(w))
        made[0].diagonal().log_()
        return made

    x = torch.zeros(4, 4, dtype=torch.float64)
    made = rewrite(torch.fx.symbolic_trace(Net(body)), (x,), mode="all")
    assert [r.reason for r in made.refused] == ["it writes one of the results of linalg_cholesky_ex, which is used as a whole after"]


# Kept for good: torch 2.12 cannot import its inductor any more where an operator was taken away again.
LIBRARY = torch.library.Library("fxgrad_rewriting", "DEF")
LIBRARY.define("relu_(Tensor(a!) x) -> Tensor(a!)")
LIBRARY.impl("relu_", lambda x: x.add_(1), "CompositeImplicitAutograd")


def test_an_operator_of_the_users_is_not_taken_for_torchs() -> None:
    net, x = Net(lambda w, x: torch.ops.fxgrad_rewriting.relu_(w.exp()) * w), torch.rand(4, 4, dtype=torch.float64)
    with saved_copies():
        want = stepped(net, net, x)
    made = rewrite(torch.fx.symbolic_trace(net), (x,), mode="all")
    assert same(want, stepped(made.graph_module, net, x))
