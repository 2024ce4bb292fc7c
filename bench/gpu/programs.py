"""Programs with what only a GPU has or does otherwise, each as a builder `device -> (model, inputs, loss)`.

On a CPU each runs in the nearest form that torch has there, so that a dry run runs the same lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Built = tuple[nn.Module, tuple[Any, ...], Callable[[Any], torch.Tensor]]


def total(out: torch.Tensor) -> torch.Tensor:
    return out.float().square().mean()


class Autocast(nn.Module):
    """A linear stack under autocast, with an in-place ReLU and a detached gate."""

    def __init__(self, dtype: torch.dtype, device: str) -> None:
        super().__init__()
        self.a, self.b, self.gate, self.dtype, self.device = (
            nn.Linear(16, 32),
            nn.Linear(32, 4),
            nn.Linear(32, 32),
            dtype,
            device,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device, self.dtype):
            h = self.a(x)
            h.relu_()
            h = h * self.gate(h.detach()).sigmoid().detach()
            return self.b(h)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(8, 16, 2, batch_first=True, **options)
        self.head = nn.Linear(32 if options.get("bidirectional") else 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rnn.flatten_parameters()
        out, _ = self.rnn(x)
        out = self.head(out)
        out += 1
        return out


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lengths = torch.tensor([5, 3, 2])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(out)


class Attention(nn.Module):
    """Scaled dot-product attention by one kernel; the scores' parameter that never meets the loss stays
    without a gradient."""

    def __init__(self, kernel: SDPBackend, dtype: torch.dtype) -> None:
        super().__init__()
        self.qkv, self.out, self.idle = nn.Linear(64, 192), nn.Linear(64, 64), nn.Linear(64, 64)
        self.kernel = kernel
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, 2, d // 2).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(self.kernel):
            h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        self.idle(x.detach())
        return self.out(h.transpose(1, 2).reshape(b, n, d))


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.conv(x))
        y = h.sigmoid()
        y.mul_(2)
        return self.head(y.mean((2, 3)))


class Dropped(nn.Module):
    """Random numbers of the device's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.dropout(self.a(x), 0.5, inplace=True)
        return self.b(h + 0.1 * torch.randn_like(h))


class Streams(nn.Module):
    """Half of the work on a stream of its own."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.a, self.b, self.cuda_too = nn.Linear(8, 8), nn.Linear(8, 8), device == "cuda"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.cuda_too:
            return self.a(x) + self.b(x)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            one = self.a(x)
        torch.cuda.current_stream().wait_stream(side)
        return one + self.b(x)


class ThereAndBack(nn.Module):
    """Part of the model on the CPU, as large embeddings are."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(10, 8), nn.Linear(8, 2)
        self.head.to(device)
        self.place = device

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids).to(self.place, non_blocking=True))


class Scaled(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.lin, self.scale, self.function = nn.Linear(8, 8), nn.Parameter(torch.ones(8)), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.lin(x), self.scale)


def _triton_product() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A Function whose forward and backward are one Triton kernel; on a CPU, where Triton has none, the same
    by torch."""
    try:
        from bench.gpu.kernels import product
    except ImportError:
        product = torch.mul

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, scale)
            wide = scale.expand_as(x).contiguous()
            return product(x, wide) if x.is_cuda else x * wide

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
            _, scale = ctx.saved_tensors
            wide = scale.expand_as(grad).contiguous()
            return (product(grad.contiguous(), wide) if grad.is_cuda else grad * wide), None

    return lambda x, scale: Product.apply(x, scale)


class Graphed(nn.Module):
    """A part of the model captured as CUDA graphs by `make_graphed_callables`."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 8).to(device), nn.Linear(8, 2).to(device)
        if device == "cuda":
            self.body = torch.cuda.make_graphed_callables(
                self.body, (torch.randn(4, 8, device=device, requires_grad=True),)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


class Scaler:
    """The loss as `GradScaler` hands it to backward."""

    def __init__(self, device: str) -> None:
        self.scaler = torch.amp.GradScaler(device)

    def __call__(self, out: torch.Tensor) -> torch.Tensor:
        return self.scaler.scale(total(out))


def of(
    make: Callable[[str], nn.Module],
    *sizes: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    grad: bool = False,
) -> Any:
    """A builder of that module with normal inputs of those sizes."""

    def build(device: str) -> Built:
        torch.manual_seed(0)
        model = make(device).to(device)
        inputs = tuple(torch.randn(size, device=device, dtype=dtype, requires_grad=grad) for size in sizes)
        return model, inputs, total

    return build


def _scaled_loss(device: str) -> Built:
    model, inputs, _ = of(lambda d: Autocast(torch.float16 if d == "cuda" else torch.bfloat16, d), (4, 16))(
        device
    )
    return model, inputs, Scaler(device)


def _channels_last(device: str) -> Built:
    model, inputs, loss = of(lambda _: ChannelsLast(), (2, 3, 8, 8))(device)
    last = torch.channels_last
    return model.to(memory_format=last), tuple(t.to(memory_format=last) for t in inputs), loss


def _there_and_back(device: str) -> Built:
    torch.manual_seed(0)
    return ThereAndBack(device), (torch.randint(0, 10, (4,)),), total


def _embedding_bag(device: str) -> Built:
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(10, 8, sparse=True), nn.Linear(8, 2)).to(device)
    return model, (torch.randint(0, 10, (3, 4), device=device),), total


FLASH, EFFICIENT, MATH, CUDNN = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
    SDPBackend.CUDNN_ATTENTION,
)
HALF = torch.bfloat16
PROGRAMS: dict[str, Callable[[str], Built]] = {
    "autocast float16": of(lambda d: Autocast(torch.float16 if d == "cuda" else HALF, d), (4, 16)),
    "autocast bfloat16": of(lambda d: Autocast(HALF, d), (4, 16)),
    "GradScaler": _scaled_loss,
    "LSTM of cuDNN": of(lambda _: Recurrent(nn.LSTM), (3, 5, 8)),
    "GRU of cuDNN, both directions, dropout": of(
        lambda _: Recurrent(nn.GRU, bidirectional=True, dropout=0.2), (3, 5, 8)
    ),
    "RNN of cuDNN, the input's gradient too": of(lambda _: Recurrent(nn.RNN), (3, 5, 8), grad=True),
    "packed sequence": of(lambda _: Packed(), (3, 5, 8)),
    "attention: flash": of(lambda _: Attention(FLASH, HALF), (2, 128, 64), dtype=HALF),
    "attention: memory-efficient": of(
        lambda d: Attention(EFFICIENT if d == "cuda" else MATH, torch.float32), (2, 128, 64)
    ),
    "attention: cuDNN": of(
        lambda d: Attention(CUDNN if d == "cuda" else MATH, HALF), (2, 128, 64), dtype=HALF
    ),
    "attention: math": of(lambda _: Attention(MATH, torch.float32), (2, 128, 64)),
    "channels_last, a write that breaks backward": _channels_last,
    "dropout in place, normal noise": of(lambda _: Dropped(), (4, 8)),
    "a stream of its own": of(Streams, (4, 8)),
    "an embedding on the CPU": _there_and_back,
    "sparse gradients": _embedding_bag,
    "a Function over a Triton kernel that drops a gradient": of(lambda _: Scaled(_triton_product()), (4, 8)),
    "CUDA graphs (make_graphed_callables)": of(Graphed, (4, 8)),
    "under torch.compile": of(lambda _: torch.compile(Dropped(), backend="eager"), (4, 8)),
}
