"""Normalizing flows, metric learning, image quality: packages whose result is a loss, and adapters that wrap a model (peft)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo.others import entries
from tests.zoo.vision import have

Entry = tuple[str, Callable[[], Any]]
Table = dict[str, Callable[[Any], Any]]


class Minus(nn.Module):
    """The negative mean of what a method of the module gives: of a flow, the likelihood."""

    def __init__(self, inner: nn.Module, method: str = "log_prob") -> None:
        super().__init__()
        self.inner, self.method = inner, method

    def forward(self, *args: Any) -> torch.Tensor:
        value: torch.Tensor = -getattr(self.inner, self.method)(*args).mean()
        return value


class Conditioned(nn.Module):
    """The likelihood under a lazy distribution, given a context."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = -self.flow(c).log_prob(x).mean()
        return value


class Sampled(Conditioned):
    """What a flow samples, by way of its inverse."""

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = (self.flow(c).rsample() - x).square().mean()
        return value


def _sample(features: int = 4) -> tuple[torch.Tensor]:
    return (torch.randn(6, features) / 2,)


def flows() -> Iterator[Entry]:
    """zuko, nflows and normflows."""
    small = {"hidden_features": [8, 8], "transforms": 2}
    zuko: dict[str, dict[str, Any]] = {
        "MAF": small, "NSF": {**small, "bins": 4}, "RealNVP": small, "NICE": small, "SOSPF": {**small, "degree": 2, "polynomials": 2}, "BPF": {**small, "degree": 3},
        "NAF": {"transforms": 1, "signal": 4, "network": {"hidden_features": [8]}, "hidden_features": [8]},
        "UNAF": {"transforms": 1, "signal": 4, "network": {"hidden_features": [8]}, "hidden_features": [8]},
        "CNF": {"hidden_features": [8]}, "GF": {"transforms": 2, "components": 3, "hidden_features": [8]}, "NCSF": {**small, "bins": 4},
        "GMM": {"components": 3, "hidden_features": [8]},
    }  # fmt: skip
    table: Table = {
        n: lambda p, n=n, o=o: (Conditioned(getattr(p, n)(4, 2, **o)), (*_sample(), torch.randn(6, 2))) for n, o in zuko.items()
    }
    for name in ("MAF", "RealNVP", "CNF"):
        table[f"{name}, sampled"] = lambda p, n=name: (Sampled(getattr(p, n)(4, 2, **zuko[n])), (*_sample(), torch.randn(6, 2)))
    yield from entries("zuko.flows", table, "zuko")
    yield from entries("nflows.flows", {
        "MaskedAutoregressiveFlow": lambda p: (Minus(p.MaskedAutoregressiveFlow(4, 8, 2, 1, batch_norm_between_layers=True)), _sample()),
        "SimpleRealNVP": lambda p: (Minus(p.SimpleRealNVP(4, 8, 2, 1, batch_norm_between_layers=True)), _sample()),
    }, "nflows")  # fmt: skip
    bare: dict[str, tuple[Any, ...]] = {
        "ActNorm": (4,), "BatchNorm": (4,), "HouseholderSequence": (4, 2), "LULinear": (4,), "NaiveLinear": (4,), "QRLinear": (4, 2), "SVDLinear": (4, 2),
        "MaskedAffineAutoregressiveTransform": (4, 8), "MaskedPiecewiseQuadraticAutoregressiveTransform": (4, 8),
        "MaskedPiecewiseRationalQuadraticAutoregressiveTransform": (4, 8), "PiecewiseRationalQuadraticCDF": ([4],), "PiecewiseCubicCDF": ([4],),
        "PiecewiseLinearCDF": ([4],), "PiecewiseQuadraticCDF": ([4],), "MaskedPiecewiseCubicAutoregressiveTransform": (4, 4, 8), "Sigmoid": (1.0, 1e-6, True),
    }  # fmt: skip
    yield from entries("nflows.transforms", {
        **{n: lambda p, n=n, a=a: (getattr(p, n)(*a), (torch.rand(6, 4) * 0.9 + 0.05,)) for n, a in bare.items()},
        "OneByOneConvolution": lambda p: (p.CompositeTransform([p.SqueezeTransform(), p.OneByOneConvolution(4)]), (torch.rand(2, 1, 4, 4),)),
    }, "nflows")  # fmt: skip

    def normal(p: Any, *flows: Any) -> Any:
        return Minus(p.NormalizingFlow(p.distributions.DiagGaussian(4), list(flows)), "forward_kld"), _sample()

    yield from entries("normflows", {
        "Planar": lambda p: (p.flows.Planar((4,)), _sample()),
        "Radial": lambda p: (p.flows.Radial((4,)), _sample()),
        "AffineCouplingBlock": lambda p: normal(p, p.flows.AffineCouplingBlock(p.nets.MLP([2, 8, 4], init_zeros=True)), p.flows.Permute(4, mode="swap"), p.flows.ActNorm(4)),
        "MaskedAffineFlow": lambda p: normal(p, p.flows.MaskedAffineFlow(torch.tensor([1.0, 0, 1, 0]), p.nets.MLP([4, 8, 4]), p.nets.MLP([4, 8, 4]))),
        "MaskedAffineAutoregressive": lambda p: normal(p, p.flows.MaskedAffineAutoregressive(4, 8), p.flows.LULinearPermute(4)),
        "AutoregressiveRationalQuadraticSpline": lambda p: normal(p, p.flows.AutoregressiveRationalQuadraticSpline(4, 1, 8)),
        "CoupledRationalQuadraticSpline": lambda p: normal(p, p.flows.CoupledRationalQuadraticSpline(4, 1, 8)),
        "CircularCoupledRationalQuadraticSpline": lambda p: normal(p, p.flows.CircularCoupledRationalQuadraticSpline(4, 1, 8, [0, 1])),
        "Residual": lambda p: normal(p, p.flows.Residual(p.nets.LipschitzMLP([4, 8, 4], init_zeros=True, lipschitz_const=0.9), reduce_memory=False)),
        "Residual, reduced memory": lambda p: normal(p, p.flows.Residual(p.nets.LipschitzMLP([4, 8, 4], init_zeros=True, lipschitz_const=0.9), reduce_memory=True)),
        "InvertibleAffine": lambda p: normal(p, p.flows.InvertibleAffine(4)),
        "GlowBlock": lambda p: (p.flows.GlowBlock(4, 8, split_mode="channel", scale=True), (torch.randn(2, 4, 4, 4),)),
        "NormalizingFlowVAE": lambda p: (_Elbo(p.NormalizingFlowVAE(p.distributions.DiagGaussian(2), p.distributions.NNDiagGaussian(p.nets.MLP([4, 8, 4])),
                                         [p.flows.Planar((2,))], p.distributions.NNDiagGaussianDecoder(p.nets.MLP([2, 8, 8])))), (torch.rand(6, 4),)),
        "reverse_kld": lambda p: (Minus(p.NormalizingFlow(p.distributions.DiagGaussian(2), [p.flows.Planar((2,)) for _ in range(3)], p.distributions.TwoMoons()),
                                     "reverse_kld"), (8,)),
    }, "normflows")  # fmt: skip


class _Elbo(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, q, p = self.inner(x)
        value: torch.Tensor = (q - p).mean()
        return value


class _Labelled(nn.Module):
    """A metric loss behind an embedding."""

    def __init__(self, loss: nn.Module, width: int = 8, *, unit: bool = False) -> None:
        super().__init__()
        self.embed, self.loss, self.unit = nn.Linear(6, width), loss, unit

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        y = self.embed(x)
        value: torch.Tensor = self.loss(nn.functional.normalize(y) if self.unit else y, labels)
        return value


class _Restored(nn.Module):
    """A quality measure of what a small network restores."""

    def __init__(self, measure: nn.Module) -> None:
        super().__init__()
        self.net, self.measure = nn.Conv2d(3, 3, 3, padding=1), measure

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.measure(self.net(x).sigmoid(), target).mean()
        return value


def losses() -> Iterator[Entry]:
    """pytorch-metric-learning (losses and miners), piq and lpips."""
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
    plain = ("AngularLoss", "CircleLoss", "ContrastiveLoss", "FastAPLoss", "GeneralizedLiftedStructureLoss", "InstanceLoss", "IntraPairVarianceLoss", "LiftedStructureLoss",
             "MarginLoss", "MultiSimilarityLoss", "NCALoss", "NPairsLoss", "NTXentLoss", "PNPLoss", "SignalToNoiseRatioContrastiveLoss", "SupConLoss", "TripletMarginLoss",
             "TupletMarginLoss", "HistogramLoss", "DynamicSoftMarginLoss", "ThresholdConsistentMarginLoss")  # fmt: skip
    classes = ("ArcFaceLoss", "CosFaceLoss", "LargeMarginSoftmaxLoss", "NormalizedSoftmaxLoss", "ProxyAnchorLoss", "ProxyNCALoss",
               "SoftTripleLoss", "SphereFaceLoss")  # fmt: skip
    rows = (torch.randn(8, 6), labels)
    table: Table = {n: lambda p, n=n: (_Labelled(getattr(p, n)()), rows) for n in plain}
    table |= {n: lambda p, n=n: (_Labelled(getattr(p, n)(3, 8)), rows) for n in classes}
    table["P2SGradLoss"] = lambda p: (_Labelled(p.P2SGradLoss(8, 3)), rows)
    table["SubCenterArcFaceLoss"] = lambda p: (_Labelled(p.SubCenterArcFaceLoss(num_classes=3, embedding_size=8)), rows)
    table["SmoothAPLoss"] = lambda p: (_Labelled(p.SmoothAPLoss()), (torch.randn(6, 6), torch.tensor([0, 0, 1, 1, 2, 2])))
    table["RankedListLoss"] = lambda p: (_Labelled(p.RankedListLoss(margin=1, Tn=0.5)), rows)
    table["CrossBatchMemory"] = lambda p: (_Labelled(p.CrossBatchMemory(p.NTXentLoss(), 8, memory_size=16)), rows)
    table["MultipleLosses"] = lambda p: (_Labelled(p.MultipleLosses([p.TripletMarginLoss(), p.ProxyNCALoss(3, 8)], weights=[1, 0.5])), rows)
    for miner in (
        "MultiSimilarityMiner",
        "TripletMarginMiner",
        "BatchHardMiner",
        "HDCMiner",
        "UniformHistogramMiner",
        "DistanceWeightedMiner",
    ):
        table[miner] = lambda p, n=miner: (
            _Mined(getattr(importlib.import_module("pytorch_metric_learning.miners"), n)(), p.TripletMarginLoss()),
            rows,
        )
    yield from entries("pytorch_metric_learning.losses", table, "metric_learning")
    pictures = (torch.rand(1, 3, 48, 48), torch.rand(1, 3, 48, 48))
    measures = (
        "SSIMLoss",
        "GMSDLoss",
        "MultiScaleGMSDLoss",
        "HaarPSILoss",
        "MDSILoss",
        "VIFLoss",
        "VSILoss",
        "FSIMLoss",
        "SRSIMLoss",
        "DSSLoss",
    )
    yield from entries("piq", {
        **{n: lambda p, n=n: (_Restored(getattr(p, n)()), pictures) for n in measures},
        "MultiScaleSSIMLoss": lambda p: (_Restored(p.MultiScaleSSIMLoss(kernel_size=3, scale_weights=torch.tensor([0.5, 0.5]))), pictures),
        "TVLoss": lambda p: (nn.Sequential(nn.Conv2d(3, 3, 3), p.TVLoss()), pictures[:1]),
    }, "piq")  # fmt: skip
    yield from entries("lpips", {
        "LPIPS, squeeze": lambda p: (_Restored(p.LPIPS(pretrained=False, net="squeeze", pnet_rand=True, verbose=False)), pictures),
        "DSSIM": lambda p: (p.Dist2LogitLayer(), (torch.rand(2, 1, 1, 1), torch.rand(2, 1, 1, 1))),
    }, "lpips")  # fmt: skip


class _Mined(nn.Module):
    def __init__(self, miner: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.embed, self.miner, self.loss = nn.Linear(6, 8), miner, loss

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        y = self.embed(x)
        value: torch.Tensor = self.loss(y, labels, self.miner(y, labels))
        return value


def adapters() -> Iterator[Entry]:
    """peft: each kind of adapter over a tiny language model, and prompts before it."""
    if not (have("peft") and have("transformers")):
        return
    everywhere = ["q_proj", "v_proj"]
    kinds: dict[str, dict[str, Any]] = {
        "LoraConfig": {"r": 4, "lora_dropout": 0.1}, "LoraConfig, dora": {"use_dora": True, "r": 4}, "LoraConfig, rslora": {"use_rslora": True, "r": 4, "bias": "all"},
        "LoraConfig, pissa": {"init_lora_weights": "pissa", "r": 2}, "LoHaConfig": {"r": 2}, "LoKrConfig": {"r": 2},
        "AdaLoraConfig": {"init_r": 4, "target_r": 2, "total_step": 10},
        "IA3Config": {"feedforward_modules": []}, "OFTConfig": {"oft_block_size": 4}, "BOFTConfig": {"boft_block_size": 4}, "VeraConfig": {"r": 4},
        "FourierFTConfig": {"n_frequency": 8},
        "HRAConfig": {"r": 4}, "LNTuningConfig": {"target_modules": ["input_layernorm"]}, "VBLoRAConfig": {"num_vectors": 8, "vector_length": 4, "r": 2, "topk": 2},
        "RandLoraConfig": {"r": 4}, "RoadConfig": {"group_size": 4}, "MissConfig": {"r": 4}, "C3AConfig": {"block_size": 8}, "DeloraConfig": {"r": 4}, "ShiraConfig": {"r": 2},
        "GraloraConfig": {"r": 4, "gralora_k": 2}, "WaveFTConfig": {"n_frequency": 8},
        "TrainableTokensConfig": {"target_modules": ["embed_tokens"], "token_indices": [1, 2]}, "PsoftConfig": {"r": 4},
    }  # fmt: skip
    table: Table = {
        n: lambda p, n=n, o=o: _adapted(p, getattr(p, n.split(",")[0])(**{"target_modules": everywhere, **o})) for n, o in kinds.items()
    }
    for name, options in (("PromptTuningConfig", {}), ("PrefixTuningConfig", {}), ("PrefixTuningConfig, projected", {"prefix_projection": True, "encoder_hidden_size": 16}),
                          ("PromptEncoderConfig", {"encoder_hidden_size": 16}), ("AdaptionPromptConfig", {"adapter_len": 3, "adapter_layers": 1})):  # fmt: skip
        more = options if name.startswith("Adaption") else {"num_virtual_tokens": 3, **options}
        table[name] = lambda p, n=name, o=more: _adapted(p, getattr(p, n.split(",")[0])(task_type="CAUSAL_LM", **o))
    table["LoraConfig, convolution"] = lambda p: (
        p.get_peft_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3)), p.LoraConfig(target_modules=["0", "2"], r=2)), (torch.randn(1, 3, 8, 8),)
    )  # fmt: skip
    yield from entries("peft", table, "peft")


def _adapted(p: Any, config: Any) -> Any:
    transformers = importlib.import_module("transformers")
    tiny = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    tokens = torch.randint(1, 32, (2, 6))
    inputs = {"input_ids": tokens, "labels": tokens}
    return p.get_peft_model(transformers.LlamaForCausalLM(tiny), config), inputs


FAMILIES: tuple[Callable[[], Iterator[Entry]], ...] = (flows, losses, adapters)
