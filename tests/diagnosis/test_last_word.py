"""`blocked` is said only where the plain program raises as well: what only the recorder runs into is told apart by one plain step."""

from __future__ import annotations

import copy
import io
import linecache
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.spare = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.spare(self.used(x))


class Archived(Base):
    """Reads its own weights back from an archive."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        file = io.BytesIO()
        torch.save(self.state_dict(), file)
        file.seek(0)
        return super().forward(x) + torch.load(file)["spare.bias"]


class Traced(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.spare(torch.jit.trace(self.used, x, check_trace=False)(x))


class Ragged(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nested.nested_tensor([x[:1], x[1:]])
        return super().forward(x) + torch.nested.to_padded_tensor(rows, 0.0).sum()


class Typed(Base):
    """Refuses whatever is no parameter of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = {p: name for name, p in self.named_parameters()}
        self.used(x).grad_fn.next_functions[0][0].variable.register_hook(lambda g: g)
        found = self.used(x).grad_fn.next_functions[0][0].variable
        return super().forward(x) * len(known[found][:1])


class Freed(torch.autograd.Function):
    """Gives the memory of its input back and computes it again in backward, as reversible layers do."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            out = x * 2
        ctx.x, ctx.layer = x.detach(), layer
        ctx.save_for_backward(out)
        x.untyped_storage().resize_(0)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (out,) = ctx.saved_tensors
        ctx.x.untyped_storage().resize_(ctx.x.numel() * ctx.x.element_size())
        ctx.x.copy_(out / 2)
        return grad * 2, None


class Reversible(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.used(x).clone()
        return self.spare(Freed.apply(h, self.used))


def nested(levels: int) -> nn.Module:
    net: nn.Module = nn.Linear(4, 4)
    for _ in range(levels):
        net = nn.Sequential(net)
    return net


def deep() -> nn.Module:
    """Nearly as deep as eager takes it here: how deep C may call is another number in each Python."""
    return nested(_deepest(nested, 100) * 9 // 10)


class Recursive(nn.Module):
    def __init__(self, levels: int) -> None:
        super().__init__()
        self.layer, self.levels = nn.Linear(4, 4), levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(x, self.levels)

    def down(self, x: torch.Tensor, levels: int) -> torch.Tensor:
        return self.down(x, levels - 1) if levels else self.layer(x)


def _deepest(make: Callable[[int], nn.Module], levels: int) -> int:
    while True:
        try:
            make(levels + 1)(X)
        except RecursionError:
            return levels
        levels += 1


X = torch.ones(3, 4)


@pytest.mark.parametrize("make", [Archived, Traced, Ragged, Typed, Reversible, deep])
def test_what_only_the_recorder_cannot_do_is_not_the_programs_error(make: Any) -> None:
    net = make()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = fxgrad.analyze(net, (X,))
    assert set(report.verdicts.values()) == {"flows"}
    assert report.ok
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_recursion_has_the_room_that_it_has_in_eager() -> None:
    """The frames of the analysis are not the program's: what just fits is no error, and a little more is."""
    deepest = _deepest(Recursive, 500) + 1  # that call had a frame more above it than the user's has here
    assert set(fxgrad.analyze(Recursive(deepest), (X,)).verdicts.values()) == {"flows"}
    assert set(fxgrad.analyze(Recursive(deepest + 3), (X,)).verdicts.values()) == {"blocked"}


def test_the_report_says_what_its_verdicts_rest_on() -> None:
    report = fxgrad.analyze(Archived(), (X,))
    assert "those of one plain step" in str(report)
    assert "test_last_word.py:" in "".join(report.assumptions)


def test_an_optimizer_for_each_parameter_steps_in_backward_and_stays_as_it_was() -> None:
    net = Base()
    optimizers = {p: torch.optim.Adam([p]) for p in net.parameters()}
    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: optimizers[p].step())
    before = copy.deepcopy(net.state_dict())
    assert set(fxgrad.analyze(net, (X,)).verdicts.values()) == {"flows"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not any(optimizer.state for optimizer in optimizers.values())


def test_a_parameter_without_gradient_there_is_refused_with_the_line_and_the_fact() -> None:
    class Unread(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            other = pickle.loads(pickle.dumps(torch.jit.trace(self.used, x, check_trace=False)(x).detach()))
            return self.used(x) + other

    class Cut(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(torch.jit.trace(self.spare, x, check_trace=False)(x).detach())

    for make in (Unread, Cut):
        with pytest.raises(fxgrad.TraceError, match=r"`spare.bias` gets no gradient, .*cause is not known") as caught:
            fxgrad.analyze(make(), (X,))
        assert caught.value.site is not None
        assert "torch.jit.trace" in linecache.getline(__file__, caught.value.site.line)


class Overwritten(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.used(x).sigmoid()
        y = self.spare(h * h)
        h.add_(1.0)
        return y


class Refusing(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such mode")


class TypedAndRefusing(Typed):
    """Raises later than the recorder does, and something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        raise ValueError("no such mode")


class AtLast(Base):
    """Raises because of its own data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.used.weight.register_hook(lambda g: {}[g])
        return super().forward(x)


@pytest.mark.parametrize("make", [Overwritten, Refusing, AtLast])
def test_what_the_plain_program_raises_stays_blocked(make: Any) -> None:
    assert set(fxgrad.analyze(make(), (X,)).verdicts.values()) == {"blocked"}


def test_the_error_told_is_the_plain_programs() -> None:
    report = fxgrad.analyze(TypedAndRefusing(), (X,))
    assert report.error is not None
    assert (report.error.type, report.error.message) == ("ValueError", "no such mode")


def test_the_plain_step_is_only_taken_where_a_run_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr("fxgrad.trace.lab.truth", lambda program: taken.append(program))
    fxgrad.analyze(Base(), (X,))
    assert not taken


class Formatted(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * len(f"{x.mean():.1f}"[:1])


class Doubled(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + copy.deepcopy(self.used).double()(x.double()).float()


def test_an_error_of_fake_tensors_is_not_the_programs() -> None:
    report = fxgrad.analyze(Doubled(), (X,), options=fxgrad.Options(values="fake"))
    assert set(report.verdicts.values()) == {"flows"}


def test_without_data_nobody_knows_whether_the_program_raises() -> None:
    with torch.device("meta"):
        net, x = Formatted(), torch.ones(3, 4)
    with pytest.raises(fxgrad.TraceError) as caught:
        fxgrad.analyze(net, (x,))
    assert caught.value.site is not None


def test_an_encoder_before_the_model_keeps_its_gradient_and_its_graph() -> None:
    encoder, net = nn.Linear(4, 4), Base()
    encoder.weight.grad = torch.full((4, 4), 7.0)
    features = encoder(X).tanh()
    assert set(fxgrad.analyze(net, (features,)).verdicts.values()) == {"flows"}
    fxgrad.fix(net, (features,))
    assert bool((encoder.weight.grad == 7.0).all())
    assert encoder.bias.grad is None
    net(features).sum().backward()
    assert encoder.bias.grad is not None
