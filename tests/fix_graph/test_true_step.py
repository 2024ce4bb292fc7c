"""A module is only given if it does what the plain program does, on the inputs at hand and on others: what a trace bends is refused."""

from __future__ import annotations

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import has_torch_function_unary
from torch.utils.checkpoint import checkpoint

import fxgrad


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("kept", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


class Pooled(Two):
    """A worker's result."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.a, x).result() * self.b(x)


class Handed(Two):
    """A thread leaves its result in a list."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []
        worker = threading.Thread(target=lambda: found.append(self.a(x)))
        worker.start()
        worker.join()
        return self.b(found[0])


class Overridden(Two):
    """Asks whether somebody listens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        listened = has_torch_function_unary(x) or torch.overrides._get_current_function_mode() is not None
        return self.a(x) if listened else self.b(x)


class Rebound(Two):
    """A buffer assigned where it is computed again in backward."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def body(h: torch.Tensor) -> torch.Tensor:
            self.kept = self.kept * 0.5 + h.detach().mean(0)
            return h * self.kept

        return checkpoint(body, self.a(x), use_reentrant=False)


class Rows(Two):
    """As many rounds as there are rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.stack([self.a(x[i]) for i in range(x.shape[0])]))


class Chosen(Two):
    """A layer by a number that left torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.a, self.b)[int((x.sum() > x.sum().item()).long().item())](x) * (1 + (x[0] > 0).sum().tolist())


class ByLength(Two):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) if len(x) == 3 else self.b(x)


class Dropped(Two):
    """A layer by a draw of Python's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) if random.random() < 0.5 else self.b(x)


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [Pooled, Handed, Overridden, Rebound, Dropped])
def test_a_graph_that_does_not_stand_for_the_program_is_refused(make: Any) -> None:
    net = make()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(fxgrad.FixError) as caught:
        fxgrad.fix(net, (X,), options=fxgrad.Options(rewrite="all"))
    assert caught.value.site is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


class OverriddenAndNoted(Overridden):
    """Notes its calls in a list, and goes by none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.noted.append(len(self.noted))
        return super().forward(x)


def test_state_that_a_forward_keeps_is_not_blamed_for_what_the_first_call_shows() -> None:
    with pytest.raises(fxgrad.FixError, match="does not do what the program does"):
        fxgrad.fix(OverriddenAndNoted(), (X,))


@pytest.mark.parametrize("make", [Chosen, ByLength, Rows])
def test_a_number_that_is_held_fixed_is_either_listed_or_refused(make: Any) -> None:
    try:
        fixed = fxgrad.fix(make(), (X,))
    except fxgrad.FixError:
        return
    assert fixed.frozen


class Normed(Two):
    """Nothing here depends on the batch in a way that a graph has not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.drop(self.norm(self.a(x))).sigmoid()
        y = self.b(h * h)
        h.add_(1.0)
        return y + h.reshape(x.shape[0], -1) / x.shape[0]


class Fixed(Two):
    """Takes one size only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) != 3:
            raise ValueError("three rows, please")
        return self.b(F.relu(self.a(x), inplace=True))


class Guarded(Two):
    """Refuses values that the given ones do not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x).view(3, 4))


class Shuffled(Two):
    """Draws what changes nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        random.random()
        return super().forward(x)


class Decayed(Two):
    """Writes its own parameter, as autograd refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.scale.mul_(0.5)
        return super().forward(x) * self.scale


@pytest.mark.parametrize("make", [Normed, Fixed, Guarded, Shuffled, Decayed])
def test_a_graph_that_stands_for_the_program_is_given(make: Any) -> None:
    net = make()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fixed = fxgrad.fix(net, (X,))
    assert fixed.verification.passed
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_ragged_results_are_compared_by_their_values() -> None:
    class Ragged(Two):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(torch.nested.nested_tensor([x[:1], x[1:]], layout=torch.jagged))

    net = Ragged()
    fixed = fxgrad.fix(net, (X,))
    for x in (X, torch.randn(5, 4)):
        assert torch.equal(fixed.module(x).values(), net(x).values())
        assert torch.equal(fixed.module(x).offsets(), net(x).offsets())


def tripled(x: torch.Tensor) -> torch.Tensor:
    return (x * 3).exp().sum()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_graph_that_the_user_keeps_of_an_input_does_not_stand_in_the_way(rows: int) -> None:
    # Autograd goes on with the node that collects the input's gradient, which knows the size that it had: the
    # module is tried on one row more, and the gradient there came back summed to one row.
    x = torch.ones(rows, 3, requires_grad=True)
    kept = (x * 2).exp()
    assert fxgrad.fix(tripled, (x,)).verification.passed
    kept.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * kept.detach())


def test_no_graph_waits_for_the_garbage_collector() -> None:
    x = torch.ones(1, 3, requires_grad=True)
    gc.collect()
    before = _with_history()  # of other tests, whom somebody holds
    gc.disable()
    try:
        fxgrad.fix(lambda x: (tripled(x), x.exp()), (x,))
        left = _with_history()
    finally:
        gc.enable()
    known = {id(tensor) for tensor in before}
    assert [tensor for tensor in left if id(tensor) not in known] == []


def _with_history() -> list[torch.Tensor]:
    """Every living tensor that has a graph."""
    return [item for item in gc.get_objects() if type(item) is torch.Tensor and item.grad_fn is not None]
