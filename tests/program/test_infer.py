"""Inputs as a command line writes them, and inputs guessed for models that came without."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fxgrad.program.infer import Spec, build, infer_inputs, inputs_from_specs, larger_inputs, missing_inputs, other_dimensions, parse
from fxgrad.program.infer.spec import Group
from fxgrad.records import Inputs
from fxgrad.records.errors import InputError

# ------------------------------------------------------------------------------------------------------------ the text


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("x=2x3x224x224:float32", Spec("x", (2, 3, 224, 224))),
        ("ids=2x16:int64[0,1000)", Spec("ids", (2, 16), torch.int64, 0, 1000)),
        ("2x3", Spec(None, (2, 3))),
        ("5", Spec(None, (5,))),
        ("t=:float32", Spec("t", ())),
        (":int64[3,4)", Spec(None, (), torch.int64, 3, 4)),
        ("x=2x3:bf16", Spec("x", (2, 3), torch.bfloat16)),
        ("x=2x3:bool", Spec("x", (2, 3), torch.bool)),
        ("x=2x3:complex64", Spec("x", (2, 3), torch.complex64)),
        ("x=2:int32[0,9]", Spec("x", (2,), torch.int32, 0, 10)),
        ("x=2:float32[-1.5,1e2)", Spec("x", (2,), torch.float32, -1.5, 100.0)),
        (" x = 2x3 : float64 ", Spec("x", (2, 3), torch.float64)),
        ("x=2X3", Spec("x", (2, 3))),
        ("x=0x3", Spec("x", (0, 3))),
        ("x=2x3:grad", Spec("x", (2, 3), grad=True)),
        ("x=2:float32[0,1):grad", Spec("x", (2,), torch.float32, 0, 1, grad=True)),
        ("s=(2:grad,3:bf16:grad)", Group("s", (Spec(None, (2,), grad=True), Spec(None, (3,), torch.bfloat16, grad=True)))),
        ("größe=2", Spec("größe", (2,))),
        ("s=(2x3,2x3)", Group("s", (Spec(None, (2, 3)), Spec(None, (2, 3))))),
        (
            "s=(2:int64[0,9),(3,4x5:bool))",
            Group("s", (Spec(None, (2,), torch.int64, 0, 9), Group(None, (Spec(None, (3,)), Spec(None, (4, 5), torch.bool))))),
        ),
        ("(2,)", Group(None, (Spec(None, (2,)),))),
        (
            "b={x=2x3, y=(2:int64[0,9), 3), z=:bool}",
            Group(
                "b",
                (Spec(None, (2, 3)), Group(None, (Spec(None, (2,), torch.int64, 0, 9), Spec(None, (3,)))), Spec(None, (), torch.bool)),
                ("x", "y", "z"),
            ),
        ),
        ("{x=2}", Group(None, (Spec(None, (2,)),), ("x",))),
    ],
)
def test_parse(text: str, want: Spec | Group) -> None:
    assert parse(text) == want
    assert parse(str(want)) == want


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot read the input ''"),
        ("x=", "cannot read the input 'x='"),
        ("x", "cannot read the input 'x'"),
        ("x=2x", "cannot read the input 'x=2x'"),
        ("x=2x-1", "cannot read the input 'x=2x-1'"),
        ("x=2x3:int64[0,5", "cannot read the input 'x=2x3:int64[0,5'"),
        ("=2x3", "cannot read the input '=2x3'"),
        ("s=(2x3;2)", "cannot read the input 's=(2x3;2)'"),
        ("s=()", "cannot read the input 's=()'"),
        ("b={}", "cannot read the input 'b={}'"),
        ("b={x}", "cannot read the input 'b={x}'"),
        ("b={x=2,x=3}", "cannot read the input 'b={x=2,x=3}'"),
        ("b={x=2;y=3}", "cannot read the input 'b={x=2;y=3}'"),
        ("x=2:float31", "'float31' in the input 'x=2:float31' is no torch dtype"),
        ("x=2:nn", "'nn' in the input 'x=2:nn' is no torch dtype"),
        ("x=2:int64[5,5)", "the range of the input 'x=2:int64[5,5)' is empty"),
        ("x=2:int64[5,1)", "the range of the input 'x=2:int64[5,1)' is empty"),
        ("x=2:int64[0,1.5)", "the range of the input 'x=2:int64[0,1.5)' must be integers"),
        ("x=2:int64:grad", "the input 'x=2:int64:grad' is int64, which requires no grad"),
        ("x=2:gradual", "'gradual' in the input 'x=2:gradual' is no torch dtype"),
        ("x=2:bool[0,1)", "the input 'x=2:bool[0,1)' is bool, which takes no range"),
    ],
)
def test_what_cannot_be_read_is_shown_with_an_example(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.reason == reason
    assert any(part in caught.value.hint for part in ("x=2x3x224x224:float32", "state=(2x4x16,2x4x16)", "batch={image="))


@given(
    st.none() | st.sampled_from(["x", "input_ids"]),
    st.lists(st.integers(0, 300), max_size=4).map(tuple),
    st.sampled_from([torch.float32, torch.int64, torch.bool, torch.float16]),
    st.none() | st.tuples(st.integers(-9, 9), st.integers(1, 9)),
    st.booleans(),
)
def test_a_spec_reads_back_what_it_writes(
    name: str | None, shape: tuple[int, ...], dtype: torch.dtype, bounds: tuple[int, int] | None, grad: bool
) -> None:
    low, high = (None, None) if bounds is None or dtype is torch.bool else (float(bounds[0]), float(bounds[0] + bounds[1]))
    spec = Spec(name, shape, dtype, low, high, grad and dtype.is_floating_point)
    assert parse(str(spec)) == spec


# ------------------------------------------------------------------------------------------------------------ the tensors


def made(text: str) -> torch.Tensor:
    return build(parse(text), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool", "complex64", "complex128"])
def test_build_has_shape_and_dtype(dtype: str) -> None:
    got = made(f"2x3:{dtype}")
    assert (got.shape, got.dtype, got.device.type) == ((2, 3), getattr(torch, dtype), "cpu")


def test_a_scalar_has_no_dimensions() -> None:
    assert made("t=:float32").dim() == 0


def test_integers_cover_their_range() -> None:
    assert set(made("500:int64[3,6)").tolist()) == {3, 4, 5}
    assert set(made("500:int64[3,6]").tolist()) == {3, 4, 5, 6}
    assert set(made("500:int64").tolist()) == {0, 1}


def test_floats_stay_in_their_range() -> None:
    got = made("500:float32[2,3)")
    assert 2 <= got.min() < 2.1
    assert 2.9 < got.max() < 3


def test_floats_without_a_range_are_normal() -> None:
    got = made("2000:float32")
    assert abs(got.mean().item()) < 0.1
    assert abs(got.std().item() - 1) < 0.1


def test_the_same_text_makes_the_same_tensor_and_leaves_the_random_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = inputs_from_specs(["2x3", "n=2:int64[0,9)"])
    torch.manual_seed(2)
    second = inputs_from_specs(["2x3", "n=2:int64[0,9)"])
    torch.manual_seed(1)
    assert torch.equal(first.args[0], second.args[0])
    assert torch.equal(first.kwargs["n"], second.kwargs["n"])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_default_device_and_dtype_of_the_users_does_not_matter() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = made("2x3:float32")
    finally:
        torch.set_default_dtype(torch.float32)
    assert (got.device.type, got.dtype) == ("cpu", torch.float32)


def test_a_tensor_that_cannot_be_made_is_an_input_error() -> None:
    with pytest.raises(InputError, match="cannot be made"):
        made("999999999x999999999x999999999")


def test_specs_without_a_name_go_by_position() -> None:
    got = inputs_from_specs(["2", "mask=3:bool", "4"])
    assert [len(tensor) for tensor in got.args] == [2, 4]
    assert list(got.kwargs) == ["mask"]


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="two inputs are named 'x'"):
        inputs_from_specs(["x=2", "x=3"])


# ------------------------------------------------------------------------------------------------------------ guessing


class Body(nn.Module):
    """A model made of one forward and the layers it is given."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class Image(Body):
    def forward(self, x: torch.Tensor) -> Any:
        return self.net(x)


class Flattened(nn.Module):
    def __init__(self, conv: nn.Module, features: int) -> None:
        super().__init__()
        self.conv = conv
        self.fc = nn.Linear(features, 3)

    def forward(self, picture: torch.Tensor) -> Any:
        return self.fc(self.conv(picture).flatten(1))


class Fixed(nn.Module):
    """A transformer whose positions are as long as they are."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(65, 8)
        self.positions = nn.Parameter(torch.zeros(1, length, 8))

    def forward(self, x: torch.Tensor) -> Any:
        return self.embed(x) + self.positions


class Positions(nn.Module):
    """Its second embedding has fewer rows than the usual length: only real indices show that."""

    def __init__(self) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(12, 6), nn.Embedding(8, 6)

    def forward(self, ids: torch.Tensor) -> Any:
        return self.tok(ids) + self.pos(torch.arange(ids.shape[1]))


class Diffusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv2d(3, 8, 3, padding=1), nn.Embedding(50, 8)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> Any:
        return self.conv(x) + self.embed(t)[:, :, None, None]


class OwnLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(20, 5)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return F.cross_entropy(self.net(x), y)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(20, 5)

    def forward(self, a: torch.Tensor, b: torch.Tensor, similar: torch.Tensor) -> Any:
        return F.binary_cross_entropy_with_logits((self.net(a) - self.net(b)).norm(dim=1), similar)


class Agent(nn.Module):
    """Five inputs, two of which fit only what was computed from the others."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(4, 3)

    def forward(self, s: torch.Tensor, act: torch.Tensor, r: torch.Tensor, s2: torch.Tensor, done: torch.Tensor) -> Any:
        chosen = self.q(s).gather(1, act[:, None]).squeeze(1)
        return F.mse_loss(chosen, r + (1 - done) * self.q(s2).max(1).values)


class ByKeywords(nn.Module):
    """Torch's functions without one argument by its place."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(9, 4)

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> Any:
        return torch.gather(input=self.net(x), dim=1, index=index)


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(9, 4)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> Any:
        h = self.net(x)
        source, target = edge_index
        return torch.zeros_like(h).index_add(0, target, h[source])


class Asks(nn.Module):
    """Branches on values, leaves torch for NumPy, and counts to where no fake tensor can."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(20, 5)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.net(x)
        while x.sum() > 0:
            x = x - 1
        x = x + torch.from_numpy(x.detach().numpy() * 2)
        return x[x > x.mean().item()].sum()


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(7, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return x @ self.w


class Numbers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(20, 20)

    def forward(self, x: torch.Tensor, steps: int, *, scale: float, flag: bool) -> Any:
        for _ in range(steps):
            x = self.net(x)
        return x * scale


class Wrapped(Body):
    def forward(self, *inputs: torch.Tensor, **options: Any) -> Any:
        return self.net(*inputs)


class Optional_(Body):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Any:
        return self.net(x if mask is None else x * mask)


def conv(channels: int, *more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2), nn.ReLU(), *more)


class Scaled(nn.Module):
    """A norm of one's own in a block that unpacks three sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.net = nn.Parameter(torch.ones(24)), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)) * self.weight
        _, length, _ = x.shape
        return self.net(x)[:, :length]


class Masked(nn.Module):
    """Reads its weight through a mask of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.register_buffer("mask", torch.ones(6, 6).tril().byte())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight) + self.weight[self.mask].sum()


class Stamped(nn.Module):
    """Makes an index of floats."""

    def __init__(self) -> None:
        super().__init__()
        self.hour, self.day, self.net = nn.Embedding(24, 8), nn.Embedding(7, 8), nn.Linear(5, 8)

    def forward(self, x: torch.Tensor, mark: torch.Tensor) -> torch.Tensor:
        mark = mark.long()
        return self.net(x) + self.hour(mark[:, :, 0]) + self.day(mark[:, :, 1])


class Fusion(nn.Module):
    """Takes a dict and a tuple, and a number of them anew."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.word, self.sound, self.mel = nn.Conv2d(3, 8, 3), nn.Embedding(9, 8), nn.Conv1d(4, 8, 3), nn.Linear(5, 8)

    def forward(self, batch: Any, sounds: Any) -> torch.Tensor:
        mel, sound = sounds
        seen = self.image(batch["image"]).mean((2, 3)) + self.word(batch["ids"]).mean(1)
        batch = {"other": seen}
        return batch["other"].sum() + self.mel(mel).sum() + self.sound(sound).sum()


class Either(nn.Module):
    """Takes a tensor, or a pair of which it uses the first."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 2)

    def forward(self, x: Any) -> torch.Tensor:
        if isinstance(x, tuple):
            x, _ = x
        return self.net(x)


class Picky(nn.Module):
    """A linear layer that no number of rows satisfies: what follows refuses every shape."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) + self.net(x.reshape(-1, 64)).view(x.numel() + 1)


class Pooled(nn.Module):
    """Picks from what may hold nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        out = self.net(x)
        return out[edge_index[0]].sum() + out[: len(x) // 4].index_select(0, edge_index[1][:0]).sum()


CASES: list[tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = [
    (lambda: nn.Linear(7, 2), ((2, 7),)),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), ((2, 784),)),
    (lambda: nn.Sequential(nn.BatchNorm1d(7), nn.Linear(7, 2)), ((2, 7),)),
    (lambda: nn.Sequential(nn.LayerNorm(7), nn.Linear(7, 2)), ((2, 7),)),
    (Functional, ((2, 7),)),
    (lambda: Image(net=conv(3)), ((2, 3, 64, 64),)),
    (lambda: Image(net=conv(1)), ((2, 1, 28, 28),)),
    (lambda: Image(net=nn.Sequential(nn.BatchNorm2d(5), nn.Conv2d(5, 2, 3))), ((2, 5, 64, 64),)),
    (lambda: Image(net=nn.Conv1d(4, 2, 3)), ((2, 4, 64),)),
    (lambda: Image(net=nn.Conv3d(2, 2, 3)), ((2, 2, 16, 16, 16),)),
    (lambda: Flattened(conv(3), 8 * 31 * 31), ((2, 3, 64, 64),)),
    (lambda: Flattened(conv(1), 8 * 13 * 13), ((2, 1, 28, 28),)),
    (lambda: Flattened(nn.Conv2d(3, 4, 5), 4 * 44 * 44), ((2, 3, 48, 48),)),  # 48 is no usual size
    (lambda: nn.LSTM(5, 6, batch_first=True), ((2, 16, 5),)),
    (lambda: nn.GRU(5, 6), ((2, 16, 5),)),
    (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), ((2, 16, 8),)),
    (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), ((2, 16, 8), (2, 16, 8))),
    (lambda: nn.Embedding(9, 3), ((2, 16),)),
    (lambda: Fixed(50), ((2, 50),)),
    (Positions, ((2, 8),)),
    (Diffusion, ((2, 3, 64, 64), (2,))),
    (OwnLoss, ((2, 20), (2,))),
    (Siamese, ((2, 20), (2, 20), (2,))),
    (Agent, ((2, 4), (2,), (2,), (2, 4), (2,))),
    (ByKeywords, ((2, 9), (2, 1))),
    (Graph, ((2, 9), (2, 8))),
    (Asks, ((2, 20),)),
    (lambda: Wrapped(net=nn.Linear(7, 2)), ((2, 7),)),
    (lambda: Optional_(net=nn.Linear(7, 2)), ((2, 7),)),
    (lambda: nn.DataParallel(nn.Linear(7, 2)), ((2, 7),)),
    (lambda: nn.Identity(), ((2, 16),)),
    (Scaled, ((2, 16, 24),)),
    (Masked, ((2, 6),)),
    (Pooled, ((2, 5), (2, 8))),
    (Either, ((2, 6),)),
]


def names(cases: list[Any]) -> list[str]:
    return [f"{position}-{type(make()).__name__}" for position, (make, _) in enumerate(cases)]


@pytest.mark.parametrize(("make", "shapes"), CASES, ids=names(CASES))
def test_guessed_inputs_have_the_shapes_and_run(make: Callable[[], nn.Module], shapes: tuple[tuple[int, ...], ...]) -> None:
    model = make()
    inputs, assumptions = infer_inputs(model)
    assert tuple(tuple(tensor.shape) for tensor in inputs.args) == shapes
    assert len(assumptions) >= len(shapes)
    model(*inputs.args, **inputs.kwargs)


class Score(nn.Module):
    """Differentiates by what it is given, which the caller makes require grad."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.energy = nn.Linear(3, 1, dtype=dtype)

    def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        energy = self.energy(x).exp() * steps.sum()
        (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        return slope


class ScoreOfPair(Score):
    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
        q, p = pair
        return torch.autograd.grad(self.energy(torch.tanh(q) + p).sum(), q, create_graph=True)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_input_that_is_differentiated_by_requires_grad(dtype: torch.dtype) -> None:
    model = Score(dtype)
    inputs, assumed = infer_inputs(model)
    x = inputs.args[0]
    assert isinstance(x, torch.Tensor)
    assert (x.requires_grad, x.is_leaf, x.dtype) == (True, True, dtype)
    assert model(*inputs.args, **inputs.kwargs).shape == x.shape
    assert ":grad (" in assumed[0]
    assert "requires grad, for the program differentiates by an input" in assumed[0]


def test_of_a_pair_too() -> None:
    inputs, assumed = infer_inputs(ScoreOfPair())
    assert all(part.requires_grad for part in inputs.args[0])  # type: ignore[attr-defined]
    assert assumed[0].count(":grad") == 2, assumed


def test_an_input_that_is_not_differentiated_by_does_not() -> None:
    inputs, assumed = infer_inputs(nn.Linear(3, 2))
    assert not inputs.args[0].requires_grad  # type: ignore[attr-defined]
    assert "grad" not in assumed[0]


def test_indices_stay_below_what_they_index() -> None:
    inputs, assumptions = infer_inputs(Positions())
    assert inputs.args[0].dtype == torch.int64
    assert inputs.args[0].max() < 12
    assert assumptions == ("--input ids=2x8:int64[0,12) (`embedding` has 12 rows)",)


def test_what_holds_tensors_is_guessed_part_by_part_and_can_be_pasted_back() -> None:
    model = Fusion()
    inputs, assumptions = infer_inputs(model)
    batch, sounds = inputs.args
    assert {key: tuple(value.shape) for key, value in batch.items()} == {"image": (2, 3, 64, 64), "ids": (2, 16)}
    assert [tuple(value.shape) for value in sounds] == [(2, 5), (2, 4, 64)]
    written = [line.removeprefix("--input ").partition(" (")[0] for line in assumptions]
    assert set(written) == {
        "batch={image=2x3x64x64:float32,ids=2x16:int64[0,9)}",
        "sounds=(2x5:float32,2x4x64:float32)",
    }
    pasted = inputs_from_specs(written).kwargs
    assert model(**pasted).isfinite()
    assert assumptions[0].split(" (")[1].startswith(("forward reads it by key; ", "forward unpacks it; "))


def test_a_part_that_cannot_be_guessed_is_told_with_its_input() -> None:
    class Hard(Fusion):
        def forward(self, batch: Any, sounds: Any) -> torch.Tensor:
            if batch["image"].shape != (7, 1, 2, 3):
                raise ValueError("image must be 7x1x2x3")
            return super().forward(batch, sounds)

    with pytest.raises(InputError, match="no guess for the input `batch` of Hard.forward ran") as caught:
        infer_inputs(Hard())
    assert caught.value.hint == "define `example_inputs` in the model's file: forward takes several tensors in it"


def test_floats_that_become_an_index_stay_below_what_it_indexes() -> None:
    model = Stamped()
    inputs, _ = infer_inputs(model)
    mark = inputs.args[1]
    assert mark.is_floating_point()
    assert mark.min() >= 0
    assert mark.max() < 7
    model(*inputs.args)


def test_where_nothing_is_picked_from_an_index_is_still_one() -> None:
    inputs, _ = infer_inputs(Pooled())
    assert inputs.args[1].min() >= 0


def test_labels_stay_below_the_number_of_classes() -> None:
    _, assumptions = infer_inputs(OwnLoss())
    assert assumptions[1] == "--input y=2:int64[0,5) (by the name `y`)"


def test_what_was_assumed_can_be_pasted_back() -> None:
    inputs, assumptions = infer_inputs(Diffusion())
    texts = [line.removeprefix("--input ").partition(" ")[0] for line in assumptions]
    again = inputs_from_specs(texts)
    assert {name: (value.shape, value.dtype) for name, value in again.kwargs.items()} == {
        "x": (inputs.args[0].shape, inputs.args[0].dtype),
        "t": (inputs.args[1].shape, inputs.args[1].dtype),
    }


def test_python_numbers_are_given_where_they_are_annotated() -> None:
    inputs, assumptions = infer_inputs(Numbers())
    assert (inputs.args[1], inputs.kwargs) == (1, {"scale": 0.5, "flag": False})
    assert assumptions[1:] == (
        "steps=1 (`steps` is annotated int)",
        "scale=0.5 (`scale` is annotated float)",
        "flag=False (`flag` is annotated bool)",
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_floats_come_in_the_precision_of_the_model(dtype: torch.dtype) -> None:
    inputs, _ = infer_inputs(nn.Linear(7, 2).to(dtype))
    assert inputs.args[0].dtype == dtype


def test_a_model_on_the_meta_device_gets_meta_inputs() -> None:
    inputs, _ = infer_inputs(nn.Linear(7, 2, device="meta"))
    assert inputs.args[0].device.type == "meta"


def test_a_function_over_tensors() -> None:
    layer = nn.Linear(7, 2)

    def step(x: torch.Tensor, *, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(layer(x), y)

    inputs, _ = infer_inputs(step)
    assert (inputs.args[0].shape, inputs.kwargs["y"].shape) == ((2, 7), (2,))


def test_given_inputs_are_kept_and_the_rest_is_guessed() -> None:
    x = torch.randn(6, 4)
    inputs, assumptions = infer_inputs(Agent(), Inputs((x,), {"done": torch.zeros(6)}))
    assert inputs.args[0] is x
    assert inputs.args[1].shape == (2,) or inputs.args[1].shape == (6,)
    assert [line.partition("=")[0] for line in assumptions] == ["--input act", "--input r", "--input s2"]


def test_missing_inputs() -> None:
    assert missing_inputs(Agent(), Inputs((torch.ones(1),), {"done": torch.ones(1)})) == ("act", "r", "s2")
    assert missing_inputs(Optional_(net=nn.Identity()), Inputs((1,))) == ()


def test_an_input_that_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(InputError, match=r"the inputs do not fit the model: .*unexpected keyword argument 'z' \(forward takes x, t\)"):
        missing_inputs(Diffusion(), Inputs((), {"z": 1}))


class Joined(Body):
    """Its inputs are joined before anything takes them."""

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.net(torch.cat(inputs, self.dim))

    def __init__(self, dim: int, **layers: nn.Module) -> None:
        super().__init__(**layers)
        self.dim = dim


class Two(Joined):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return super().forward(x, y)


class Hole(Joined):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Any:
        return super().forward(image * (1 - mask), mask)


class Placed(Body):
    """Joined with where each point is, then without the places."""

    def forward(self, x: torch.Tensor) -> Any:
        _, *axes, _ = x.shape
        assert len(axes) == 2
        where = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in axes), indexing="ij"), -1)
        return self.net(torch.cat((x, where.expand(len(x), *where.shape)), -1).flatten(1, 2).relu())


class Own(nn.Linear):
    """Brings what it made of its input to sizes of its own and adds it."""

    def forward(self, x: torch.Tensor) -> Any:
        h = x.unsqueeze(-1) * torch.ones(3)
        y = torch.fft.irfft(torch.fft.rfft(h, dim=1), n=24, dim=1)
        y = torch.fft.irfft(torch.fft.rfft(y, dim=2), n=self.in_features, dim=2)
        return super().forward((h + y).sum(-1))


class Coupled(Body):
    """The first half of each row changes the second."""

    def forward(self, x: torch.Tensor) -> Any:
        first, second = x[:, :5], x[:, 5:]
        return torch.cat((first, self.net(first) + second * first.exp()), 1)


class Conditional(Joined):
    """What is joined with the picture has a size of its own."""

    def forward(self, img: torch.Tensor, labels: torch.Tensor) -> Any:
        return super().forward(img.flatten(1), self.embed(labels))


class Recurrent(Body):
    def forward(self, tokens: torch.Tensor, hidden: Any) -> Any:
        return self.rnn(self.embed(tokens), hidden)


class Stacked(Body):
    """Goes through its recurrent layers by hand, with a list of their states."""

    def forward(self, tokens: torch.Tensor, hidden: Any) -> Any:
        x, states = self.embed(tokens), []
        for layer, state in zip((self.first, self.second), hidden, strict=True):
            x, state = layer(x, state)
            states.append(state)
        return x, states


class Apart(Body):
    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        return self.rnn(x, (h, c))


class Cell(Body):
    """A cell of its own: the state is joined with the input."""

    def forward(self, x: torch.Tensor, state: Any) -> Any:
        h, c = state
        return self.net(torch.cat([x, h], 1)).chunk(2, 1)[0] * c


class Halves(Body):
    def forward(self, x: torch.Tensor) -> Any:
        a, b = x.split([3, 5], -1)
        return self.net(a) + self.net(b[..., :3])


class Seen(Body):
    def forward(self, x: torch.Tensor) -> Any:
        return self.net(x.view(-1, 12, 3))


class Asking(Body):
    """Measures one input before it takes the other."""

    def forward(self, x: torch.Tensor, segmap: torch.Tensor) -> Any:
        return x * self.net(F.interpolate(segmap, size=x.size()[2:]))


class Spread(Joined):
    """A row is spread over the picture first."""

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> Any:
        c = c.view(c.size(0), c.size(1), 1, 1).repeat(1, 1, x.size(2), x.size(3))
        return super().forward(x, c)


class Grown(Joined):
    """A row becomes a picture of one point, as in the generator of a GAN."""

    def forward(self, z: torch.Tensor) -> Any:
        return self.net(z[:, :, None, None])


class Turned(Body):
    """A series, its time last for the layer, and flattened for the next."""

    def forward(self, x: torch.Tensor) -> Any:
        season = self.net((x - x.mean(1, keepdim=True)).permute(0, 2, 1))
        return self.out(season.permute(0, 2, 1).flatten(1))


class Rows(Body):
    """As many rows as the other part leaves."""

    def forward(self, x: torch.Tensor) -> Any:
        state = x.new_zeros(x.size(0), x.size(2), 5)
        return self.net(torch.cat([state, x.permute(0, 2, 1)], 2).view(-1, 13))


class Neighbours(Body):
    """Each point joined with its difference from another: twice the coordinates."""

    def forward(self, x: torch.Tensor) -> Any:
        rows = x.view(x.size(0), -1, x.size(2)).transpose(2, 1)
        pairs = torch.stack([rows - rows.roll(1, 1), rows], 3).flatten(2).transpose(2, 1)
        return self.net(pairs)


class Windows(Body):
    """A picture cut into windows of a fixed size."""

    def forward(self, img: torch.Tensor) -> Any:
        if img.shape[2] % 56 or img.shape[1] != 3:
            raise ValueError("the windows do not fit")
        return self.net(img.unfold(2, 56, 56).flatten(3))


class Checked(Body):
    """Says what it takes, in words of its own."""

    def forward(self, x: torch.Tensor) -> Any:
        _, _, height, width = x.shape
        for side in (height, width):
            if side != 24:
                raise ValueError(f"the side is {side}, the model is built for 24")
        return self.net(x)


class Turning(Body):
    def forward(self, clip: torch.Tensor) -> Any:
        return self.net(clip.permute(0, 2, 1, 3, 4))


class Hiding(Body):
    """A layer under the name of a method."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(**layers)
        self._modules["half"] = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.net(x)


class Twice(Body):
    """A layer under two names, whose weight is made anew in each forward."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net=nn.utils.weight_norm(net))
        self.again = nn.Sequential(self.net)

    def forward(self, x: torch.Tensor) -> Any:
        return self.again(x)[:, :, 1:]


class Gated(Body):
    """A gated cell: of the two that are joined one is multiplied by a gate besides, whose size is the layers'."""

    def __init__(self, hidden: int, size: int) -> None:
        gate, new = (nn.Conv2d(hidden + size, hidden, 3, padding=1) for _ in range(2))
        super().__init__(gate=gate, new=new)

    def forward(self, h: torch.Tensor, x: torch.Tensor) -> Any:
        gate = torch.sigmoid(self.gate(torch.cat([h, x], 1)))
        return (1 - gate) * h + gate * torch.tanh(self.new(torch.cat([gate * h, x], 1)))


class GatedOverJoined(Body):
    """A cell whose second input is joined before: with what was computed, and with an input that has a layer of its own."""

    def __init__(self) -> None:
        super().__init__(cell=Gated(12, 10 + 6 + 2), flows=nn.Conv2d(2, 6, 3, padding=1))

    def forward(self, net: torch.Tensor, inp: torch.Tensor, flow: torch.Tensor) -> Any:
        moved = torch.cat([self.flows(flow), flow], 1)
        return self.cell(net, torch.cat([inp, moved], 1))


PAIR = ((2, 16, 6), (2, 16, 6))
JOINED: list[tuple[Callable[[], nn.Module], tuple[Any, ...]]] = [
    (lambda: Two(1, net=nn.Conv2d(6, 2, 3)), ((2, 3, 64, 64), (2, 3, 64, 64))),
    (lambda: Two(1, net=nn.Conv2d(4, 2, 3)), ((2, 3, 64, 64), (2, 1, 64, 64))),
    (lambda: Two(-1, net=nn.Linear(14, 2)), ((2, 7), (2, 7))),
    (lambda: Two(-1, net=nn.Linear(7, 2)), ((2, 6), (2, 1))),
    (lambda: Conditional(1, net=nn.Linear(3 * 64 * 64 + 5, 2), embed=nn.Embedding(9, 5)), ((2, 3, 64, 64), (2,))),
    (lambda: Recurrent(embed=nn.Embedding(9, 4), rnn=nn.LSTM(4, 6, 2)), ((2, 16), PAIR)),
    (lambda: Recurrent(embed=nn.Embedding(9, 4), rnn=nn.GRU(4, 6, bidirectional=True)), ((2, 16), (2, 16, 6))),
    (lambda: Recurrent(embed=nn.Embedding(9, 4), rnn=nn.LSTM(4, 6, batch_first=True, proj_size=3)), ((2, 16), ((1, 2, 3), (1, 2, 6)))),
    (
        lambda: Stacked(embed=nn.Embedding(9, 4), first=nn.LSTM(4, 6), second=nn.LSTM(6, 8)),
        ((2, 16), (((1, 16, 6),) * 2, ((1, 16, 8),) * 2)),
    ),
    (
        lambda: Stacked(embed=nn.Embedding(9, 4), first=nn.GRU(4, 6, batch_first=True), second=nn.GRU(6, 6, batch_first=True)),
        ((2, 16), ((1, 2, 6),) * 2),
    ),
    (lambda: Apart(rnn=nn.LSTMCell(4, 6)), ((2, 4), (2, 6), (2, 6))),
    (lambda: Apart(rnn=nn.LSTM(4, 6, batch_first=True)), ((2, 16, 4), (1, 2, 6), (1, 2, 6))),
    (lambda: Cell(net=nn.Conv2d(8, 8, 3, padding=1)), ((2, 4, 64, 64), ((2, 4, 64, 64), (2, 4, 64, 64)))),
    (lambda: Halves(net=nn.Linear(3, 2)), ((2, 8),)),
    (lambda: Seen(net=nn.Linear(3, 2)), ((2, 12, 3),)),
    (lambda: Asking(net=nn.Conv2d(3, 3, 3, padding=1)), ((2, 3, 64, 64), (2, 3, 64, 64))),
    (lambda: Spread(1, net=nn.Conv2d(8, 2, 3)), ((2, 3, 64, 64), (2, 5))),
    (lambda: Spread(1, net=nn.Conv2d(2, 2, 3)), ((2, 1, 28, 28), (2, 1))),
    (lambda: Grown(1, net=nn.ConvTranspose2d(100, 4, 4)), ((2, 100),)),
    (lambda: Turned(net=nn.Linear(24, 6), out=nn.Linear(30, 2)), ((2, 24, 5),)),
    (lambda: Neighbours(net=nn.Conv1d(6, 2, 1)), ((2, 3, 64),)),
    (lambda: Windows(net=nn.Linear(224 * 56, 2)), ((2, 3, 224, 224),)),
    (lambda: Rows(net=nn.Linear(13, 2)), ((2, 8, 8),)),
    (lambda: Checked(net=nn.Conv2d(4, 2, 3)), ((2, 4, 24, 24),)),
    (lambda: Turning(net=nn.Conv3d(4, 2, 3)), ((2, 3, 4, 64, 64),)),
    (lambda: Hiding(net=nn.Linear(6, 2)), ((2, 6),)),
    (lambda: Twice(nn.Conv1d(6, 2, 3)), ((2, 6, 64),)),
    (lambda: Placed(net=nn.Linear(5, 2)), ((2, 4, 16, 3),)),
    (lambda: Own(10, 2), ((2, 24, 10),)),
    (lambda: Coupled(net=nn.Linear(5, 5)), ((2, 10),)),
    (lambda: Gated(8, 20), ((2, 8, 64, 64), (2, 20, 64, 64))),
    (lambda: Gated(20, 8), ((2, 20, 64, 64), (2, 8, 64, 64))),
    (GatedOverJoined, ((2, 12, 64, 64), (2, 10, 64, 64), (2, 2, 64, 64))),
]


def shapes_of(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else tuple(map(shapes_of, value))


@pytest.mark.parametrize(("make", "shapes"), JOINED, ids=names(JOINED))
def test_what_is_joined_and_what_is_carried_is_guessed(make: Callable[[], nn.Module], shapes: tuple[Any, ...]) -> None:
    model = make()
    inputs, _ = infer_inputs(model)
    assert tuple(map(shapes_of, inputs.args)) == shapes
    model(*inputs.args)


def test_a_picture_with_a_hole_is_guessed() -> None:
    model = Hole(1, net=nn.Conv2d(4, 3, 3))
    inputs, _ = infer_inputs(model)
    assert sum(tensor.shape[1] for tensor in inputs.args) in (3, 4)
    model(*inputs.args)


def test_two_examples_of_whole_numbers_are_not_the_same() -> None:
    for text in ("2x3:int64[0,2)", "2:int64[0,2)", "2x2:bool", "4x1:int64[5,9)"):
        for seed in range(64):
            made = build(parse(text), torch.Generator().manual_seed(seed))
            assert isinstance(made, torch.Tensor)
            assert bool((made != made[:1]).any())
    assert build(parse("2x3:int64[0,1)"), torch.Generator().manual_seed(0)).tolist() == [[0] * 3] * 2


def test_seven_masks_end() -> None:
    class Translate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Embedding(20, 8), nn.Embedding(30, 8)
            self.core = nn.Transformer(8, 2, 1, 1, 8)

        def forward(
            self, src: Any, trg: Any, src_mask: Any, trg_mask: Any, mem_mask: Any, src_pad: Any, trg_pad: Any, pad_mask: Any
        ) -> Any:
            return self.core(self.a(src), self.b(trg), src_mask, trg_mask, mem_mask, src_pad, trg_pad, pad_mask)

    begun = time.process_time()
    model = Translate()
    try:
        inputs, _ = infer_inputs(model)
        model(*inputs.args)
    except InputError as error:
        assert "all that there was time for" in error.reason  # noqa: PT017
    assert time.process_time() - begun < 20


def test_other_dimensions_of_rows_of_features() -> None:
    inputs, own, other = other_dimensions(nn.Linear(7, 2), Inputs())
    assert (own, other) == ("input=2x7:float32", "input=2x16x7:float32")
    assert inputs.args[0].shape == (2, 16, 7)


def test_other_dimensions_of_rows_of_one_feature() -> None:
    assert other_dimensions(nn.Linear(1, 2), Inputs())[1:] == ("input=2x1:float32", "input=2x16x1:float32")


class Strided(nn.Module):
    """Of tokens and their mask every 16th; there are positions for 40."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.pos = nn.Embedding(50, 8), nn.Embedding(40, 8)

    def forward(self, tokens, mask):  # type: ignore[no-untyped-def]
        hidden = self.emb(tokens) + self.pos(torch.arange(tokens.shape[1]))
        return (hidden * mask[..., None])[:, ::16]


def _shapes(found: tuple[Inputs, tuple[str, ...]]) -> list[tuple[int, ...]]:
    return [tuple(one.shape) for one in found[0].args]


def test_lengths_are_enlarged_together_as_far_as_the_model_takes_them() -> None:
    made = list(larger_inputs(Strided(), Inputs()))
    assert _shapes(made[0]) == [(2, 32), (2, 32)]
    assert "larger than the first that ran" in made[0][1][0]


def test_of_a_picture_the_sides_are_enlarged_and_last_the_batch() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    made = [_shapes(found) for found in larger_inputs(model, Inputs())]
    assert made == [[(2, 3, 256, 256)], [(128, 3, 64, 64)]]


def test_what_is_given_keeps_its_length() -> None:
    given = Inputs((torch.zeros(2, 16, dtype=torch.int64),))
    assert list(larger_inputs(Strided(), given)) == []


# ------------------------------------------------------------------------------------------------------------ untouched


class Remembers(nn.Module):
    """Changes everything a forward can change."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)
        self.register_buffer("count", torch.zeros(()))
        self.plain = torch.zeros(3)
        self.calls = 0
        self.seen: list[Any] = []

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        self.plain += 1
        self.count += 1
        self.seen.append(x)
        self.last = x
        with torch.no_grad():
            self.conv.weight.mul_(2)
        random.random()
        return F.dropout(self.conv(self.bn(x)))


def test_the_model_is_untouched() -> None:
    model = Remembers()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    versions = {name: tensor._version for name, tensor in model.state_dict(keep_vars=True).items()}
    own, python, torch_state = model.plain.clone(), random.getstate(), torch.get_rng_state()
    infer_inputs(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert {name: tensor._version for name, tensor in model.state_dict(keep_vars=True).items()} == versions
    assert torch.equal(model.plain, own)
    assert (model.calls, model.seen, hasattr(model, "last")) == (0, [], False)
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_asks_for_values_is_untouched_by_the_real_tries() -> None:
    class Asking(Remembers):
        def forward(self, x: torch.Tensor) -> Any:
            x = super().forward(x)
            return x[x > 0]

    model = Asking()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    infer_inputs(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model.plain, torch.zeros(3))
    assert model.calls == 0


def test_given_inputs_are_untouched() -> None:
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return x.add_(1) + y

    x = torch.zeros(2, 5)
    infer_inputs(Writes(), Inputs((x,)))
    assert torch.equal(x, torch.zeros(2, 5))


def test_what_a_forward_prints_is_not_heard(capfd: pytest.CaptureFixture[str]) -> None:
    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(7, 2)

        def forward(self, x: torch.Tensor) -> Any:
            print("forward")
            return self.net(x)

    infer_inputs(Loud())
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------------------ not guessed


class Batch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)

    def forward(self, batch: Any) -> Any:
        return self.net(batch["x"])


class Attributes(Batch):
    def forward(self, batch: Any) -> Any:
        return self.net(batch.premise)


class Listed(Batch):
    def forward(self, xs: list[torch.Tensor]) -> Any:
        return sum(self.net(x) for x in xs)


class Impossible(Batch):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> Any:
        if second.shape != (3, 1, 4, 1, 5):
            raise ValueError("second must be 3x1x4x1x5")
        return self.net(first)


class Strict(Batch):
    """Its layer takes states of more than it does."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, 2, batch_first=True)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> Any:
        if state.dim() != 3 or state.shape[0] == 2:
            raise ValueError(f"no state of {tuple(state.shape)}")
        return self.rnn(x, state)


class Carrying(nn.Module):
    """It reads what it is given besides the first, one for each part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor, *kept: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x) + kept[0]) * kept[1]


class Crossed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        out = self.lin(x)
        if times.shape != (7, 7, 7):
            raise ValueError(f"no times of {tuple(times.shape)}")
        return out * times.sum()


class Absent(nn.Module):
    """What it reads too far in is a tuple of its own."""

    def forward(self, x: torch.Tensor, *kept: torch.Tensor) -> torch.Tensor:
        return x * _second((x, *kept))


def _second(items: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return items[3]


@pytest.mark.parametrize(
    ("model", "reason", "hint"),
    [
        (
            Carrying(),
            "no guess for the input `x` of Carrying.forward ran; ",
            "`*kept` than it is given: write every input in its order, as in --input 2x3x",
        ),
        (
            Crossed(),
            "no guess for the input `times` of Crossed.forward ran; ",
            " beside --input x=2x6:float32, with which it came furthest, or",
        ),
        (Absent(), "no guess for the input `x` of Absent.forward ran; ", "write it, as in --input x="),
        (Attributes(), "no guess for the input `batch` of Attributes.forward ran; ", "or define `example_inputs`"),
        (Listed(), "the input `xs` of Listed.forward cannot be guessed: it is no tensor", "define `example_inputs`"),
        (Impossible(), "no guess for the input `second` of Impossible.forward ran; ", "as in --input second=2x3"),
        (Strict(), "no guess for the input `state` of Strict.forward ran; ", "as in --input state="),
        (Picky(), "no guess for the input `x` of Picky.forward ran; ", "as in --input x="),
        (nn.LazyLinear(3), "inputs cannot be guessed for lazy modules", "write them with --input"),
    ],
)
def test_an_input_that_cannot_be_guessed_is_named(model: nn.Module, reason: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        infer_inputs(model)
    assert caught.value.reason.startswith(reason)
    assert hint in caught.value.hint


def test_the_error_of_the_last_guess_gives_its_line() -> None:
    with pytest.raises(InputError, match="second must be 3x1x4x1x5") as caught:
        infer_inputs(Impossible())
    assert caught.value.site is not None
    assert caught.value.site.function == "Impossible.forward"


def test_a_model_that_is_broken_itself_still_gets_inputs() -> None:
    class Misspelt(Batch):
        def forward(self, x: torch.Tensor) -> Any:
            x = self.net(x)
            return self.nett(x)

    inputs, assumptions = infer_inputs(Misspelt())
    assert inputs.args[0].shape == (2, 3)
    assert "where the program raises AttributeError" in assumptions[1]


def test_a_model_that_breaks_autograd_still_gets_inputs() -> None:
    class OnLeaf(Batch):
        def forward(self, x: torch.Tensor) -> Any:
            self.net.bias.add_(1)
            return self.net(x)

    inputs, assumptions = infer_inputs(OnLeaf())
    assert "where the program raises RuntimeError" in assumptions[-1]
    assert len(inputs.args) == 1


def test_an_endless_loop_on_values_ends() -> None:
    class Endless(Batch):
        def forward(self, x: torch.Tensor) -> Any:
            while (x == x).all() or (x != x).all() or True:
                x = self.net(x).sum().expand(2, 3).clone()
                x.tolist()
            return x

    with pytest.raises(InputError, match="keeps asking for values"):
        infer_inputs(Endless())


# ------------------------------------------------------------------------------------------------------------ transformers


def pretrained(name: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**sizes, "vocab_size": 40}
    vision = {**sizes, "image_size": 30, "patch_size": 6}
    t5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 40, "decoder_start_token_id": 0}
    makers: dict[str, Callable[[], Any]] = {
        "mlm": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**text)),
        "classes": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**text, num_labels=3)),
        "answers": lambda: transformers.BertForQuestionAnswering(transformers.BertConfig(**text)),
        "pretraining": lambda: transformers.BertForPreTraining(transformers.BertConfig(**text)),
        "causal": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**text, num_key_value_heads=2)),
        "seq2seq": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**t5)),
        "image": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**vision, num_labels=4)),
        "clip": lambda: transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision)),
    }
    model: nn.Module = makers[name]()
    return model


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("mlm", {"input_ids", "labels"}),
        ("classes", {"input_ids", "labels"}),
        ("answers", {"input_ids", "start_positions", "end_positions"}),
        ("pretraining", {"input_ids", "labels", "next_sentence_label"}),
        ("causal", {"input_ids", "labels"}),
        ("seq2seq", {"input_ids", "labels"}),
        ("image", {"pixel_values", "labels"}),
        ("clip", {"input_ids", "pixel_values", "return_loss"}),
    ],
)
def test_a_transformers_model_gets_inputs_that_give_it_a_loss(name: str, inputs: set[str]) -> None:
    model = pretrained(name)
    got, _ = infer_inputs(model)
    assert (got.args, set(got.kwargs)) == ((), inputs)
    assert model(**got.kwargs).loss.dim() == 0


def test_a_transformers_model_without_a_head_gets_no_labels() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=40)
    got, _ = infer_inputs(transformers.BertModel(config))
    assert set(got.kwargs) == {"input_ids"}


def test_the_image_size_is_the_configured_one() -> None:
    got, assumptions = infer_inputs(pretrained("image"))
    assert got.kwargs["pixel_values"].shape == (2, 3, 30, 30)
    assert "by `config.image_size`" in assumptions[0]
