"""Programs by what their modules do: layers of torch.nn as the model, parametrizations, shared and swapped weights, buffers, containers,
TorchScript, torch.compile, and inputs and outputs of every structure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, rnn
from torch.utils.checkpoint import checkpoint

SEED = torch.Generator().manual_seed(1)
X = torch.randn(2, 8, generator=SEED)
WIDE = torch.randn(5, 8, generator=SEED)
SEQUENCE = torch.randn(2, 5, 8, generator=SEED)
LONGER = torch.randn(5, 5, 8, generator=SEED)
Case = tuple[Callable[[], Any], Any, dict[str, Any]]
CASES: dict[str, Case] = {}


def case(*inputs: Any, **options: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Make the class a test on these inputs (X if none); `options` are those of `same_as_eager`."""

    def add(cls: type[nn.Module]) -> type[nn.Module]:
        CASES[cls.__name__] = (cls, inputs or (X,), options)
        return cls

    return add


# ------------------------------------------------------------------ torch.nn's layers, as the model and inside it

MASK = nn.Transformer.generate_square_subsequent_mask(3)
CASES |= {
    "Transformer": (
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        (SEQUENCE, SEQUENCE[:, :3]),
        {"then": ((LONGER, LONGER[:, :3]),)},
    ),
    "TransformerWithMask": (
        lambda: nn.Transformer(8, 2, 1, 1, 16),
        {"src": torch.randn(5, 2, 8, generator=SEED), "tgt": torch.randn(3, 2, 8, generator=SEED), "tgt_mask": MASK},
        {},
    ),
    "BidirectionalLSTM": (lambda: nn.LSTM(8, 4, 2, bidirectional=True, batch_first=True, dropout=0.2), (SEQUENCE,), {}),
    "GRU": (lambda: nn.GRU(8, 4), (SEQUENCE,), {}),
    "Attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (SEQUENCE, SEQUENCE, SEQUENCE), {}),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(10, 4, sparse=True), (torch.randint(0, 10, (2, 3), generator=SEED),), {}),
    "ConvNet": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2)),
        (torch.randn(2, 3, 8, 8, generator=SEED),),
        {"then": ((torch.randn(5, 3, 8, 8, generator=SEED),),)},
    ),
    "EvalMode": (lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).eval(), (X,), {}),
    "DataParallel": (lambda: nn.DataParallel(nn.Sequential(nn.Linear(8, 8), nn.ReLU())), (X,), {}),
    "Pruned": (lambda: nn.Sequential(prune.l1_unstructured(nn.Linear(8, 8), "weight", amount=0.3), nn.ReLU()), (X,), {}),
    "GraphModule": (lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 8), nn.ReLU())), (X,), {}),
}


@case(SEQUENCE, then=((LONGER,),))
class LSTMInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 4, 2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, (hidden, cell) = self.lstm(x)
        return self.out(steps[:, -1]) + hidden.sum()


@case(SEQUENCE, torch.tensor([5, 3]), fake=False)
class PackedLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.lstm = nn.LSTM(8, 4, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = rnn.pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


@case(rnn.pack_padded_sequence(torch.randn(5, 2, 8, generator=SEED), [5, 3]), fake=False)
class PackedInputAndOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 4)

    def forward(self, packed: rnn.PackedSequence) -> tuple[rnn.PackedSequence, torch.Tensor]:
        steps, last = self.gru(packed)
        return steps, steps.data.sum() + last.sum()


# ------------------------------------------------------------------ parametrized, shared, swapped and listed parameters


@case()
class Parametrized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = parametrizations.weight_norm(nn.Linear(8, 8))
        self.b = parametrizations.spectral_norm(nn.Linear(8, 8))
        self.c = parametrizations.orthogonal(nn.Linear(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


@case()
class OldNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.weight_norm(nn.Linear(8, 8))
        self.b = nn.utils.spectral_norm(nn.Linear(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


class Symmetric(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.triu() + weight.triu(1).T


@case()
class CachedParametrization(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        parametrize.register_parametrization(self.a, "weight", Symmetric())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with parametrize.cached():
            return self.a(self.a(x))


@case(torch.randint(0, 10, (2, 4), generator=SEED))
class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.out = nn.Linear(8, 10, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(ids).relu())


@case()
class SharedModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = self.a
        self.parts = nn.ModuleList([self.a, nn.Sequential(self.a)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        return self.b(x)


@case()
class ListedParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ParameterList([torch.randn(8) for _ in range(3)])
        self.shifts = nn.ParameterDict({"a": torch.randn(8), "b": torch.randn(8)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for scale in self.scales:
            x = x * scale
        return x + self.shifts["a"] + sum(self.shifts.values())


class NamedParameter(nn.Parameter):
    pass


@case()
class ParameterSubclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = NamedParameter(torch.randn(8))
        self.fixed = nn.Parameter(torch.randn(8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.fixed


@case()
class FunctionalCall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = torch.func.functional_call(self.a, {"weight": self.a.weight * self.scale}, (x,))
        return scaled + self.a(x)


@case()
class AssignedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.raw = nn.Parameter(self.layer.weight.detach().clone())
        del self.layer.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer.weight = self.raw * 2
        return self.layer(x)


# ------------------------------------------------------------------ buffers and other state


@case(then=((WIDE,),))
class LazyCache(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.cache: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.cache is None or self.cache.shape[0] != x.shape[1]:
            self.cache = torch.arange(x.shape[1]).float()
        return self.a(x) * self.cache


@case()
class LazyBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "cache"):
            self.register_buffer("cache", torch.arange(x.shape[1]).float(), persistent=False)
        return self.a(x) * self.cache


@case()
class ReboundBuffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.register_buffer("mean", torch.ones(8))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x) * self.mean
        self.mean = self.mean * 0.9 + y.detach().mean(0) * 0.1
        self.norm.running_mean = self.norm.running_mean + 1
        self.steps += 1
        return y * self.mean.sum() * self.steps


@case()
class PythonState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.history: list[torch.Tensor] = []
        self.last: dict[str, Any] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        self.history.append(y)
        self.last["y"] = y
        return self.history[-1] + self.last["y"]


# ------------------------------------------------------------------ TorchScript and torch.compile


@torch.jit.script
def scripted_function(a: torch.Tensor, factor: float) -> torch.Tensor:
    return torch.tanh(a) * factor


@case()
class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.script = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)))
        self.traced = torch.jit.trace(nn.Linear(8, 8), X)
        self.function = torch.jit.trace(lambda a: a.sin() + a, (X,))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = checkpoint(self.script, self.a(x), use_reentrant=True)
        return self.function(self.traced(self.script(scripted_function(y, 2.0))))


@case()
class Compiled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = torch.compile(nn.Linear(8, 8))
        self.c = nn.Linear(8, 8)
        self.c.compile()
        self.activation = torch.compile(lambda x: x.sin() * 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.c(self.b(self.a(x))))


# ------------------------------------------------------------------ inputs and outputs


@dataclass
class Batch:
    values: torch.Tensor
    extra: dict[str, Any]
    number: int = 3


class Point(NamedTuple):
    u: torch.Tensor
    v: Any


@case(Batch(X, {"t": (WIDE[:2], 5)}), 3, None, WIDE[2:4], WIDE[0])
class NestedStructures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, batch: Batch, factor: int = 2, flag: Any = None, *rest: torch.Tensor, scale: float = 1.0, **named: Any) -> Any:
        y = self.a(batch.values) * factor * scale + batch.extra["t"][0]
        for tensor in (*rest, *named.values()):
            y = y + tensor
        return Batch(y, {"z": (y * 2, [y.sum(), None, "s"])}, 7), Point(y, (1, 2.5)), OrderedDict(a=y, b=flag)


class KeywordOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, *, mask: Any = None, scale: float = 2.0, **extra: torch.Tensor) -> dict[str, Any]:
        return {"out": self.a(x) * scale + extra["more"], "scale": scale, "mask": mask}


CASES["KeywordOnly"] = (KeywordOnly, {"x": X, "more": torch.ones(8), "scale": 3}, {})


@case(X.clone().requires_grad_(), WIDE[:2].clone().requires_grad_())
class InputsThatRequireGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.a(x) * y


@case(X, X)
class OneTensorTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.a(x) + y


@case(X, {"k": 1})
class ReturnsWhatItGot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, given: dict[str, Any]) -> Any:
        given["new"] = self.a(x)
        return x, given, self.a.weight


def test_a_plain_function_is_a_model(same_as_eager: Callable[..., Any]) -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    same_as_eager(lambda x: F.gelu(second(first(x).relu())), (X,))


def test_an_exported_program_is_a_model(same_as_eager: Callable[..., Any]) -> None:
    same_as_eager(torch.export.export(Parametrized(), (X,)).module(), (X,))


@pytest.mark.parametrize("name", CASES)
def test_regenerated_program_is_the_program(name: str, same_as_eager: Callable[..., Any]) -> None:
    build, inputs, options = CASES[name]
    with torch.compiler.set_stance("force_eager"):  # compiled kernels round otherwise
        same_as_eager(build(), inputs, **options)
