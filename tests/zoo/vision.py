"""Models of image packages: torchvision, timm, segmentation-models-pytorch, MONAI, diffusers, open_clip, kornia, lightly.

torchvision is built for one torch build and its compiled operators do not load beside another; its models are Python. Where they do not
load, `torchvision_models` gives the operators a schema and the one that detection needs, `nms`, an implementation in Python.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

Entry = tuple[str, Callable[[], Any]]

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def have(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Non-maximum suppression, quadratic: what torchvision's compiled operator computes."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        corners = torch.minimum(boxes[index, 2:], boxes[kept, 2:]) - torch.maximum(boxes[index, :2], boxes[kept, :2])
        common = corners.clamp(min=0).prod(1)
        if not bool((common / (area[index] + area[kept] - common) > threshold).any()):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


@contextlib.contextmanager
def _operators() -> Iterator[None]:
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    library.impl("nms", nms, "CPU")
    _LIBRARIES.append(library)
    yield


_LIBRARIES: list[torch.library.Library] = []


def torchvision_models() -> Any:
    """`torchvision.models`, or None."""
    if not have("torchvision"):
        return None
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:  # operator torchvision::nms does not exist
        with _operators():
            for name in [n for n in list(importlib.sys.modules) if n.split(".")[0] == "torchvision"]:  # type: ignore[attr-defined]
                del importlib.sys.modules[name]  # type: ignore[attr-defined]
            models = importlib.import_module("torchvision.models")
            importlib.import_module("torchvision.ops.boxes")._assert_has_ops = lambda: None
            pooling = importlib.import_module("torchvision.ops.roi_align")
            pooling._roi_align = inspect.unwrap(pooling._roi_align)  # not compiled: that takes minutes
            return models


def images(size: int = 64, count: int = 2, channels: int = 3) -> tuple[torch.Tensor]:
    return (torch.randn(count, channels, size, size),)


def torchvision() -> Iterator[Entry]:
    """One or two models of every kind that torchvision has."""
    models = torchvision_models()
    if models is None:
        return
    sizes = {"inception_v3": 128, "vit_b_16": 224, "maxvit_t": 224, "swin_v2_t": 64}
    for name in ("convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
                 "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "regnet_x_400mf", "resnet18", "resnet50",
                 "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vit_b_16"):  # fmt: skip
        yield f"torchvision/{name}", _classifier(models, name, sizes.get(name, 64))
    for name in ("deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"):
        yield f"torchvision/{name}", _segmenter(models, name)
    for name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t"):
        yield f"torchvision/{name}", _video(models, name)
    yield "torchvision/raft_small", lambda: (models.get_model("raft_small", weights=None), (*images(128, 1), *images(128, 1)))
    for name in ("fasterrcnn_mobilenet_v3_large_320_fpn", "fcos_resnet50_fpn", "retinanet_resnet50_fpn", "ssdlite320_mobilenet_v3_large",
                 "ssd300_vgg16"):  # fmt: skip
        yield f"torchvision/{name}", _detector(models, name)


def _classifier(models: Any, name: str, size: int) -> Callable[[], Any]:
    more = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return lambda: (models.get_model(name, weights=None, num_classes=5, **more).train(), images(size))


def _segmenter(models: Any, name: str) -> Callable[[], Any]:
    return lambda: (models.get_model(name, weights=None, weights_backbone=None, num_classes=3).train(), images(64))


def _video(models: Any, name: str) -> Callable[[], Any]:
    frames, size = (16, 224) if name.startswith("mvit") else (16, 64)
    return lambda: (models.get_model(name, weights=None, num_classes=5).train(), (torch.randn(1, 3, frames, size, size),))


def _detector(models: Any, name: str) -> Callable[[], Any]:
    def build() -> Any:
        torch.manual_seed(0)
        more = {"min_size": 64, "max_size": 96} if "rcnn" in name or "fcos" in name or "retina" in name else {}
        model = models.get_model(name, weights=None, weights_backbone=None, **more).train()
        target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
        if name.startswith("mask"):
            target["masks"] = torch.ones(1, 64, 64, dtype=torch.uint8)
        if name.startswith("keypoint"):
            target["keypoints"] = torch.rand(1, 17, 3) * 30 + 5
        pictures = [torch.rand(3, 64, 64) for _ in range(2)]
        return model, (pictures, [target, {k: v.clone() for k, v in target.items()}])

    return build


def timm() -> Iterator[Entry]:
    """Of every module of timm the model that its name says is smallest."""
    if not have("timm"):
        return
    torchvision_models()
    package = importlib.import_module("timm")
    small = (
        "test_",
        "atto",
        "femto",
        "pico",
        "nano",
        "zepto",
        "xxs",
        "xxtiny",
        "xtiny",
        "tiny",
        "_xs",
        "mini",
        "_s_",
        "small",
        "_s",
        "18",
        "26",
        "50",
        "_b0",
        "base",
    )
    for module in package.list_modules():
        names = package.list_models(module=module)
        if names:
            name = min(names, key=lambda n: (next((i for i, word in enumerate(small) if word in n), 99), len(n), n))
            yield f"timm/{module}.{name}", _timm_builder(package, name)


def _timm_builder(package: Any, name: str) -> Callable[[], Any]:
    def build() -> Any:
        torch.manual_seed(0)
        model = package.create_model(name, pretrained=False, num_classes=5).train()
        fixed = model.default_cfg.get("fixed_input_size", False)
        size = model.default_cfg["input_size"][-1] if fixed else max(64, model.default_cfg.get("min_input_size", (3, 96, 96))[-1])
        try:
            with torch.no_grad():
                model.eval()(torch.randn(1, 3, size, size))
        except Exception:  # its own size always fits
            size = model.default_cfg["input_size"][-1]
        return model.train(), images(size)

    return build


def segmentation() -> Iterator[Entry]:
    """segmentation-models-pytorch: every decoder on a small encoder."""
    if not have("segmentation_models_pytorch"):
        return
    torchvision_models()
    smp = importlib.import_module("segmentation_models_pytorch")
    for name in ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet", "Segformer"):
        for encoder in ("resnet18", "mobilenet_v2", "timm-mobilenetv3_small_minimal_100"):
            yield f"smp/{name}.{encoder}", _smp_builder(smp, name, encoder)
    yield "smp/Unet.scse", lambda: (smp.Unet("resnet18", encoder_weights=None, decoder_attention_type="scse"), images(64))


def _smp_builder(smp: Any, name: str, encoder: str) -> Callable[[], Any]:
    return lambda: (getattr(smp, name)(encoder, encoder_weights=None, classes=2).train(), images(64))


def monai() -> Iterator[Entry]:
    """MONAI's networks for medical images."""
    if not have("monai"):
        return
    torchvision_models()  # DAF3D imports it
    nets = importlib.import_module("monai.networks.nets")
    flat, deep = (torch.randn(2, 1, 32, 32),), (torch.randn(1, 1, 32, 32, 32),)
    two = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    pyramid = {**two, "channels": (4, 8, 16), "strides": (2, 2)}
    norm = {"norm_num_groups": 4}
    noise = {
        **two,
        "out_channels": 1,
        "channels": (8, 8),
        "attention_levels": (False, True),
        "num_res_blocks": 1,
        "num_head_channels": 8,
        **norm,
    }
    times = torch.tensor([1, 2])
    table: dict[str, Callable[[], Any]] = {
        "AHNet": lambda: (nets.AHNet(spatial_dims=2, upsample_mode="nearest"), (torch.randn(2, 1, 128, 128),)),
        "AttentionUnet": lambda: (nets.AttentionUnet(**pyramid), flat),
        "AutoEncoder": lambda: (nets.AutoEncoder(**{**pyramid, "strides": (2, 2, 2)}), flat),
        "AutoencoderKL": lambda: (nets.AutoencoderKL(2, channels=(8, 8), attention_levels=(False, True), num_res_blocks=(1, 1), **norm), flat),
        "BasicUNet": lambda: (nets.BasicUNet(spatial_dims=2, features=(4, 4, 8, 8, 8, 4)), flat),
        "BasicUNetPlusPlus": lambda: (nets.BasicUNetPlusPlus(spatial_dims=2, features=(4, 4, 8, 8, 8, 4)), flat),
        "Classifier": lambda: (nets.Classifier((1, 32, 32), 3, (4, 8), (2, 2)), flat),
        "Critic": lambda: (nets.Critic((1, 32, 32), (4, 8), (2, 2)), flat),
        "DAF3D": lambda: (nets.DAF3D(1, 2), (torch.randn(2, 1, 32, 32, 32),)),
        "DecoderOnlyTransformer": lambda: (nets.DecoderOnlyTransformer(32, 16, 16, 2, 2), (torch.randint(0, 32, (2, 8)),)),
        "DenseNet121": lambda: (nets.DenseNet121(2, 1, 3), flat),
        "DiffusionModelUNet": lambda: (nets.DiffusionModelUNet(**noise), (*flat, times)),
        "ControlNet": lambda: (
            nets.ControlNet(2, 1, (1, 1), (8, 8), (False, True), num_head_channels=8, conditioning_embedding_in_channels=1,
                            conditioning_embedding_num_channels=(8,), **norm),
            {"x": flat[0], "timesteps": times, "controlnet_cond": flat[0]},
        ),
        "DynUNet": lambda: (nets.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 8], deep_supervision=True, deep_supr_num=1), flat),
        "EfficientNetBN": lambda: (nets.EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=1), flat),
        "FlexibleUNet": lambda: (nets.FlexibleUNet(1, 2, "efficientnet-b0", spatial_dims=2), (torch.randn(2, 1, 64, 64),)),
        "FullyConnectedNet": lambda: (nets.FullyConnectedNet(8, 2, (8, 8)), (torch.randn(3, 8),)),
        "Generator": lambda: (nets.Generator((8,), (4, 4, 4), (8, 4, 1), (2, 2, 1)), (torch.randn(2, 8),)),
        "GlobalNet": lambda: (nets.GlobalNet((32, 32), 2, 1, 4, 2), flat),
        "HighResNet": lambda: (nets.HighResNet(2, 1, 2), flat),
        "LocalNet": lambda: (nets.LocalNet(2, 1, 4, (0, 1, 2)), flat),
        "MaskedAutoEncoderViT": lambda: (nets.MaskedAutoEncoderViT(1, 32, 8, 32, 64, 2, 2, decoder_hidden_size=32, decoder_mlp_dim=32,
                                         decoder_num_layers=1, decoder_num_heads=2, spatial_dims=2), flat),
        "MedNeXt": lambda: (nets.MedNeXt(spatial_dims=2, init_filters=4), (torch.randn(2, 1, 64, 64),)),
        "MultiScalePatchDiscriminator": lambda: (nets.MultiScalePatchDiscriminator(2, 2, 2, 4, 1), (torch.randn(2, 1, 64, 64),)),
        "PatchDiscriminator": lambda: (nets.PatchDiscriminator(2, 4, 1), flat),
        "Quicknat": lambda: (nets.Quicknat(num_channels=1, num_filters=4), flat),
        "RegUNet": lambda: (nets.RegUNet(2, 1, 4, 2), flat),
        "Regressor": lambda: (nets.Regressor((1, 32, 32), (2,), (4, 8), (2, 2)), flat),
        "ResNet18": lambda: (nets.resnet18(spatial_dims=2, n_input_channels=1), flat),
        "SENet": lambda: (nets.SEResNet50(spatial_dims=2, in_channels=1), (torch.randn(2, 1, 64, 64),)),
        "SegResNet": lambda: (nets.SegResNet(2), flat),
        "SegResNetDS": lambda: (nets.SegResNetDS(2, init_filters=8), flat),
        "SegResNetVAE": lambda: (nets.SegResNetVAE((32, 32), spatial_dims=2), flat),
        "SPADENet": lambda: (nets.SPADENet(2, 1, 1, 3, [32, 32], [8, 8], z_dim=8), (torch.randn(2, 3, 32, 32), torch.randn(2, 1, 32, 32))),
        "SwinUNETR": lambda: (nets.SwinUNETR(1, 2, feature_size=12, spatial_dims=2), (torch.randn(1, 1, 64, 64),)),
        "UNETR": lambda: (nets.UNETR(1, 2, 32, feature_size=4, hidden_size=24, mlp_dim=32, num_heads=2, spatial_dims=2), flat),
        "UNet": lambda: (nets.UNet(**pyramid, num_res_units=1), flat),
        "VNet": lambda: (nets.VNet(2), flat),
        "VQVAE": lambda: (nets.VQVAE(2, 1, 1, channels=(8, 8), num_res_layers=1, num_res_channels=(8, 8), num_embeddings=8, embedding_dim=8,
                          downsample_parameters=((2, 4, 1, 1),) * 2, upsample_parameters=((2, 4, 1, 1, 0),) * 2), flat),
        "VarAutoEncoder": lambda: (nets.VarAutoEncoder(2, (1, 32, 32), 1, 4, (4, 8), (2, 2)), flat),
        "VarFullyConnectedNet": lambda: (nets.VarFullyConnectedNet(8, 2, 4, (8,), (8,)), (torch.randn(3, 8),)),
        "ViT": lambda: (nets.ViT(1, 32, 8, 32, 64, 2, 2, classification=True, spatial_dims=2), flat),
        "ViTAutoEnc": lambda: (nets.ViTAutoEnc(1, 32, 4, hidden_size=32, mlp_dim=32, num_layers=2, num_heads=2, spatial_dims=2), flat),
        "VoxelMorphUNet": lambda: (nets.VoxelMorphUNet(2, 2, 4, (4, 4, 4, 4), (4,)), (torch.randn(2, 2, 32, 32),)),
        "SegResNet3d": lambda: (nets.SegResNet(3), deep),
    }  # fmt: skip
    yield from ((f"monai/{name}", seeded(build)) for name, build in table.items())


def seeded(build: Callable[[], Any]) -> Callable[[], Any]:
    def seeded() -> Any:
        torch.manual_seed(0)
        model, inputs = build()
        model.train()  # some return nothing from it
        return model, inputs

    return seeded
