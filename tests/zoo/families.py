"""Where the zoo's models come from: one generator a package, yielding named builders of `(model, inputs)`.

Everything is built from configuration, shrunken, in training mode; nothing is downloaded. A package that is not installed yields nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo import configured, densities, diffusion, fields, graphs, others, sequences, vision

Built = tuple[nn.Module, Any]
Entry = tuple[str, Callable[[], Built]]


def module_db() -> Iterator[Entry]:
    """torch.nn itself: every ModuleInfo of torch's own test database, its first sample that requires grad."""
    with contextlib.redirect_stderr(None):
        try:
            common = importlib.import_module("torch.testing._internal.common_modules")
        except ImportError:
            return
    for info in common.module_db:
        for training in (True, False):
            yield f"module_db/{info.name}/{'train' if training else 'eval'}", _module_info_builder(info, training)


def _module_info_builder(info: Any, training: bool) -> Callable[[], Built]:
    def build() -> Built:
        torch.manual_seed(0)
        samples = info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=True, training=training)
        sample = next(iter(samples))
        model = info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).train(training)
        from fxgrad import Inputs

        return model, Inputs(tuple(sample.forward_input.args), dict(sample.forward_input.kwargs))

    return build


def vit_pytorch() -> Iterator[Entry]:
    """vit-pytorch: the image transformers that share ViT's arguments."""
    try:
        vision.torchvision_models()
        package = importlib.import_module("vit_pytorch")
    except ImportError:
        return
    common = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 32, "depth": 2, "heads": 2, "mlp_dim": 64}
    for module, name, more in (
        ("vit", "ViT", {}), ("simple_vit", "SimpleViT", {}), ("vit_for_small_dataset", "ViT", {}), ("deepvit", "DeepViT", {}),
        ("parallel_vit", "ViT", {}), ("learnable_memory_vit", "ViT", {}), ("vit_with_patch_merger", "ViT", {}),
        ("simple_vit_with_register_tokens", "SimpleViT", {}), ("simple_vit_with_qk_norm", "SimpleViT", {}), ("look_vit", "LookViT", {}),
        ("normalized_vit", "nViT", {}), ("cait", "CaiT", {"cls_depth": 1}),
    ):  # fmt: skip
        yield f"vit_pytorch/{module}.{name}", _vit_builder(package.__name__, module, name, {**common, **more})


def _vit_builder(package: str, module: str, name: str, arguments: dict[str, Any]) -> Callable[[], Built]:
    def build() -> Built:
        torch.manual_seed(0)
        cls = getattr(importlib.import_module(f"{package}.{module}"), name)
        known = inspect.signature(cls).parameters
        return cls(**{k: v for k, v in arguments.items() if k in known}).train(), (torch.randn(2, 3, 32, 32),)

    return build


def x_transformers() -> Iterator[Entry]:
    """x-transformers: one decoder under many of its switches."""
    try:
        package = importlib.import_module("x_transformers")
    except ImportError:
        return
    for switch in ("", "rotary_pos_emb", "alibi_pos_bias", "rel_pos_bias", "use_rmsnorm", "ff_glu", "sandwich_norm", "resi_dual",
                   "attn_qk_norm", "attn_talking_heads", "macaron", "gate_residual", "shift_tokens", "attn_num_mem_kv", "scale_residual"):  # fmt: skip
        yield f"x_transformers/{switch or 'plain'}", _x_builder(package, switch)


def _x_builder(package: Any, switch: str) -> Callable[[], Built]:
    def build() -> Built:
        torch.manual_seed(0)
        options = {switch: {"shift_tokens": 1, "attn_num_mem_kv": 4}.get(switch, True)} if switch else {}
        decoder = package.Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, **options)
        model = package.TransformerWrapper(num_tokens=64, max_seq_len=32, attn_layers=decoder)
        return model, (torch.randint(0, 64, (2, 16)),)

    return build


FAMILIES: tuple[Callable[[], Iterator[Entry]], ...] = (
    module_db, graphs.geometric, vit_pytorch, x_transformers, vision.monai, diffusion.diffusers, vision.torchvision, vision.timm, vision.segmentation,
    *others.FAMILIES, *densities.FAMILIES, *sequences.FAMILIES, *fields.FAMILIES, configured.transformers_models,
)  # fmt: skip
