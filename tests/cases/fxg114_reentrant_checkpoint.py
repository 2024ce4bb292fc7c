"""FXG114: reentrant checkpoints that drop the gradient of what they hold, and checkpoints that keep it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential


class _Lora(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, 2, bias=False), nn.Linear(2, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def guilty_first_block_on_plain_inputs() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = checkpoint(self.stem, x, use_reentrant=True)  # FXG114
            x = checkpoint(self.body, torch.relu(x), use_reentrant=True)  # or FXG114
            return self.head(x.mean((2, 3)))

    return dict(model=Net(), inputs=(torch.randn(2, 3, 6, 6),), loss=lambda out: out.square().mean())


def guilty_adapters_behind_a_frozen_embedding() -> dict[str, Any]:
    class Lm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4).requires_grad_(False)
            self.blocks = nn.ModuleList([_Lora(4) for _ in range(4)])
            self.head = nn.Linear(4, 9)
            self.gradient_checkpointing = True

        def run(self, block: nn.Module, h: torch.Tensor) -> torch.Tensor:
            if self.gradient_checkpointing and self.training:
                return torch.utils.checkpoint.checkpoint(block.__call__, h, use_reentrant=True)  # FXG114
            return block(h)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            h = self.embed(ids)
            for block in self.blocks:
                h = self.run(block, h)
            return self.head(h)

    ids = torch.tensor([[1, 2, 3]])
    return dict(model=Lm(), inputs=(ids,), loss=lambda out: F.cross_entropy(out[0], ids[0]))


def guilty_closure_carries_the_only_differentiable_tensor() -> dict[str, Any]:
    class Film(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.style, self.out = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
            gain = self.style(style)

            def modulate(features: torch.Tensor) -> torch.Tensor:
                return torch.tanh(features * gain)

            return self.out(checkpoint(modulate, x, use_reentrant=True))  # FXG114

    return dict(model=Film(), inputs=(torch.randn(2, 4), torch.randn(2, 3)), loss=lambda out: out.square().mean())


def guilty_checkpoint_sequential() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
            self.head = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint_sequential(self.layers, 2, x, use_reentrant=True))  # FXG114

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def guilty_dict_argument() -> dict[str, Any]:
    """The reentrant form looks at tensors among the arguments only, not inside a dict."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.relu(self.fc(batch["x"]))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block, self.head = nn.Linear(3, 4), Block(), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.block, {"x": self.embed(x)}, use_reentrant=True))  # FXG114

    return dict(model=Net(), inputs=(torch.randn(3, 3),), loss=lambda out: out.square().mean())


# ---------------------------------------------------------------------------------------------------------------- healthy


def quiet_not_reentrant() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.stem, x, use_reentrant=False))

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_reentrant_behind_a_trained_layer() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(5, 4)
            self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            h = self.embed(ids)
            for block in self.blocks:
                h = checkpoint(block, h, use_reentrant=True)
            return h

    return dict(model=Net(), inputs=(torch.tensor([1, 2]),), loss=lambda out: out.square().mean())


def quiet_inputs_made_to_require_grad() -> dict[str, Any]:
    """What transformers' enable_input_require_grads does."""

    class Lm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(9, 4).requires_grad_(False)
            self.embed.register_forward_hook(lambda module, args, out: out.requires_grad_(True))
            self.block = _Lora(4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.block, self.embed(ids), use_reentrant=True)

    return dict(model=Lm(), inputs=(torch.tensor([[1, 2, 3]]),), loss=lambda out: out.square().mean())


def quiet_checkpointed_frozen_backbone() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.backbone, x, use_reentrant=True))

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_dummy_tensor_argument() -> dict[str, Any]:
    """The old trick: an argument that requires grad, used by nothing."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
            self.dummy = torch.ones(1, requires_grad=True)

        def run(self, x: torch.Tensor, dummy: torch.Tensor) -> torch.Tensor:
            return self.stem(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(checkpoint(self.run, x, self.dummy, use_reentrant=True))

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_checkpoint_sequential_not_reentrant() -> dict[str, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint_sequential(self.layers, 2, x, use_reentrant=False)

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())


def quiet_detach_inside_is_another_rule() -> dict[str, Any]:
    """Only one of two terms is detached inside the checkpointed function; everything trains."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.gate = nn.Linear(4, 4), nn.Linear(4, 4)

        def inner(self, x: torch.Tensor) -> torch.Tensor:
            h = self.fc(x)
            return torch.sigmoid(self.gate(h.detach())) * h

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.inner, x, use_reentrant=False)

    return dict(model=Net(), inputs=(torch.randn(3, 4),), loss=lambda out: out.square().mean())
