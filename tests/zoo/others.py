"""Models of packages that are not only about images: attention variants, graphs and symmetry, physics, probability, control."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn

from tests.zoo.vision import have, images, seeded, torchvision_models

Entry = tuple[str, Callable[[], Any]]


def module(name: str) -> Any:
    torchvision_models()  # several import it
    if name.startswith("speechbrain"):
        with _without_torchaudio():
            return importlib.import_module(name)
    return importlib.import_module(name)


@contextlib.contextmanager
def _without_torchaudio() -> Iterator[None]:
    """speechbrain imports it to read files, which no model of it does."""
    if have("torchaudio"):
        yield
        return
    sys.modules["torchaudio"] = mock.MagicMock(__version__="2.1.0", __spec__=None)
    try:
        yield
    finally:
        del sys.modules["torchaudio"]  # others ask whether it is there


def entries(package: str, table: dict[str, Callable[[Any], Any]], prefix: str) -> Iterator[Entry]:
    """`table`: by name, from the imported package to model and inputs."""
    if have(package.split(".")[0]):
        for name, build in table.items():
            yield f"{prefix}/{name}", seeded(lambda build=build: build(module(package)))  # type: ignore[misc]  # mypy does not type defaults of lambdas


def attention() -> Iterator[Entry]:
    """Packages of one idea each: perceiver, performer, rotary embeddings, local attention, equivariant graphs, CLIP, diffusion."""
    rows, tokens = torch.randn(2, 16, 32), torch.randint(0, 32, (2, 16))
    perceiver = {
        "depth": 2,
        "num_latents": 8,
        "latent_dim": 16,
        "cross_heads": 1,
        "latent_heads": 2,
        "cross_dim_head": 8,
        "latent_dim_head": 8,
    }
    yield from entries("perceiver_pytorch", {
        "Perceiver": lambda p: (p.Perceiver(input_channels=3, input_axis=2, num_freq_bands=2, max_freq=4.0, num_classes=5, **perceiver),
                                (torch.randn(2, 8, 8, 3),)),
        "PerceiverIO": lambda p: (p.PerceiverIO(dim=32, queries_dim=16, logits_dim=4, **perceiver), {"data": rows, "queries": torch.randn(5, 16)}),
        "PerceiverLM": lambda p: (p.PerceiverLM(num_tokens=32, dim=16, max_seq_len=16, **perceiver),
                                  (tokens,)),
    }, "perceiver")  # fmt: skip
    yield from entries("performer_pytorch", {
        "Performer": lambda p: (p.Performer(dim=32, depth=2, heads=2, dim_head=16), (rows,)),
        "Performer, causal": lambda p: (p.PerformerLM(num_tokens=32, max_seq_len=16, dim=32, depth=2, heads=2, dim_head=16), (tokens,)),
        "Performer, reversible": lambda p: (p.PerformerLM(num_tokens=32, max_seq_len=16, dim=32, depth=2, heads=2, dim_head=16, reversible=True), (tokens,)),
    }, "performer")  # fmt: skip
    yield from entries("local_attention", {
        "LocalTransformer": lambda p: (p.transformer.LocalTransformer(num_tokens=32, dim=32, depth=2, max_seq_len=16, heads=2, dim_head=16,
                                       local_attn_window_size=8, causal=True), (tokens,)),
        "LocalMHA": lambda p: (p.LocalMHA(dim=32, window_size=8, heads=2, dim_head=16), (rows,)),
    }, "local_attention")  # fmt: skip
    yield from entries("rotary_embedding_torch", {
        "RotaryEmbedding": lambda p: (_Rotary(p.RotaryEmbedding(dim=8, learned_freq=True)), (torch.randn(2, 2, 6, 16),)),
    }, "rotary")  # fmt: skip
    yield from entries("egnn_pytorch", {
        "EGNN": lambda p: (p.EGNN(dim=16, norm_coors=True), (torch.randn(1, 8, 16), torch.randn(1, 8, 3))),
        "EGNN, nearest": lambda p: (p.EGNN(dim=16, num_nearest_neighbors=3, edge_dim=4), (torch.randn(1, 8, 16), torch.randn(1, 8, 3), torch.randn(1, 8, 8, 4))),
        "EGNN_Network": lambda p: (p.EGNN_Network(num_tokens=16, num_positions=16, dim=16, depth=2, num_nearest_neighbors=3),
                                   (torch.randint(0, 16, (1, 8)), torch.randn(1, 8, 3))),
        "EGNN_Network, global": lambda p: (p.EGNN_Network(dim=16, depth=2, global_linear_attn_every=1, global_linear_attn_heads=2,
                                           global_linear_attn_dim_head=8), (torch.randn(1, 8, 16), torch.randn(1, 8, 3))),
    }, "egnn")  # fmt: skip
    clip = {"dim_text": 32, "dim_image": 32, "dim_latent": 32, "num_text_tokens": 64, "text_enc_depth": 1, "text_seq_len": 16, "text_heads": 2,
            "visual_enc_depth": 1, "visual_image_size": 32, "visual_patch_size": 16, "visual_heads": 2}  # fmt: skip
    pair = {"text": torch.randint(1, 64, (2, 16)), "image": torch.randn(2, 3, 32, 32), "return_loss": True}
    yield from entries("x_clip", {
        "CLIP": lambda p: (p.CLIP(**clip, visual_patch_dropout=0.5), pair),
        "CLIP, filip": lambda p: (p.CLIP(**clip, use_all_token_embeds=True, decoupled_contrastive_learning=True), pair),
    }, "x_clip")  # fmt: skip
    yield from entries("vector_quantize_pytorch", {
        "VectorQuantize": lambda p: (p.VectorQuantize(dim=32, codebook_size=16), (rows,)),
        "VectorQuantize, learnable": lambda p: (p.VectorQuantize(dim=32, codebook_size=16, learnable_codebook=True, ema_update=False, codebook_dim=8), (rows,)),
        "VectorQuantize, kmeans": lambda p: (p.VectorQuantize(dim=32, codebook_size=8, kmeans_init=True, threshold_ema_dead_code=2), (rows,)),
        "VectorQuantize, rotation": lambda p: (nn.Sequential(nn.Linear(32, 32), p.VectorQuantize(dim=32, codebook_size=16, rotation_trick=True)), (rows,)),
        "ResidualVQ": lambda p: (p.ResidualVQ(dim=32, num_quantizers=3, codebook_size=16, codebook_dim=8), (rows,)),
        "FSQ": lambda p: (p.FSQ(levels=[4, 4, 3], dim=32), (rows,)),
        "LFQ": lambda p: (p.LFQ(codebook_size=16, dim=32), (rows,)),
        "ResidualFSQ": lambda p: (p.ResidualFSQ(dim=32, levels=[4, 3], num_quantizers=2), (rows,)),
        "ResidualLFQ": lambda p: (p.ResidualLFQ(dim=32, codebook_size=16, num_quantizers=2), (rows,)),
        "SimVQ": lambda p: (p.SimVQ(dim=32, codebook_size=16), (rows,)),
        "LatentQuantize": lambda p: (p.LatentQuantize(levels=[4, 4], dim=16), (torch.randn(2, 16, 4, 4),)),
        "RandomProjectionQuantizer": lambda p: (nn.Sequential(nn.Linear(32, 32), p.GroupedResidualVQ(dim=32, num_quantizers=2, groups=2, codebook_size=8)), (rows,)),
    }, "vector_quantize")  # fmt: skip
    yield from entries("denoising_diffusion_pytorch", {
        "Unet": lambda p: (p.Unet(8, dim_mults=(1, 2)), (*images(16), torch.tensor([3, 5]))),
        "GaussianDiffusion": lambda p: (p.GaussianDiffusion(p.Unet(8, dim_mults=(1, 2)), image_size=16, timesteps=10), (torch.rand(2, 3, 16, 16),)),
        "Unet1D": lambda p: (p.Unet1D(8, dim_mults=(1, 2), channels=4), (torch.randn(2, 4, 16), torch.tensor([3, 5]))),
        "GaussianDiffusion1D": lambda p: (p.GaussianDiffusion1D(p.Unet1D(8, dim_mults=(1, 2), channels=4), seq_length=16, timesteps=10),
                                          (torch.rand(2, 4, 16),)),
        "ElucidatedDiffusion": lambda p: (module("denoising_diffusion_pytorch.elucidated_diffusion").ElucidatedDiffusion(
            p.Unet(8, dim_mults=(1, 2), learned_sinusoidal_cond=True), image_size=16), (torch.rand(2, 3, 16, 16),)),
    }, "denoising_diffusion")  # fmt: skip


class _Rotary(nn.Module):
    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        self.rotary = rotary

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned: torch.Tensor = self.rotary.rotate_queries_or_keys(x)  # type: ignore[operator]  # a method, which nn.Module's type does not know
        return turned


def science() -> Iterator[Entry]:
    """Equivariant networks, neural operators, Kolmogorov-Arnold networks, Gaussian processes, probabilistic programs."""
    yield from entries("e3nn.o3", {
        "Linear": lambda p: (p.Linear("4x0e+2x1o", "3x0e+2x1o"), (torch.randn(5, 10),)),
        "FullyConnectedTensorProduct": lambda p: (p.FullyConnectedTensorProduct("4x0e+2x1o", "1x0e+1x1o", "4x0e+2x1o"),
                                                  (torch.randn(5, 10), torch.randn(5, 4))),
        "FullTensorProduct": lambda p: (_Second(p.Linear("2x0e+1x1o", "2x0e+1x1o"), p.FullTensorProduct("2x0e+1x1o", "1x1o")),
                                        (torch.randn(5, 5), torch.randn(5, 3))),
        "Gate": lambda p: (nn.Sequential(p.Linear("4x0e+2x1o", "6x0e+2x1o"), module("e3nn.nn").Gate("4x0e", [torch.tanh], "2x0e", [torch.sigmoid], "2x1o")),
                           (torch.randn(5, 10),)),
        "FullyConnectedNet": lambda p: (module("e3nn.nn").FullyConnectedNet([4, 16, 8], torch.relu), (torch.randn(5, 4),)),
        "BatchNorm": lambda p: (module("e3nn.nn").BatchNorm("4x0e+2x1o"), (torch.randn(5, 10),)),
    }, "e3nn")  # fmt: skip
    yield from entries("neuralop.models", {
        "FNO": lambda p: (p.FNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=8), (torch.randn(2, 1, 16, 16),)),
        "TFNO": lambda p: (p.TFNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=8, factorization="tucker", rank=0.5), (torch.randn(2, 1, 16, 16),)),
        "FNO, 1d": lambda p: (p.FNO(n_modes=(4,), in_channels=1, out_channels=1, hidden_channels=8), (torch.randn(2, 1, 16),)),
        "UNO": lambda p: (p.UNO(1, 1, hidden_channels=8, uno_out_channels=[8, 8, 8], uno_n_modes=[[4, 4]] * 3,
                                uno_scalings=[[1.0, 1.0], [0.5, 0.5], [2.0, 2.0]], n_layers=3, channel_mlp_skip="linear"), (torch.randn(2, 1, 16, 16),)),
        "UQNO": lambda p: (p.FNO(n_modes=(4, 4), in_channels=1, out_channels=1, hidden_channels=8, factorization="cp", implementation="reconstructed"),
                           (torch.randn(2, 1, 16, 16),)),
    }, "neuralop")  # fmt: skip
    yield from entries("kan", {
        "KAN": lambda p: (p.KAN(width=[2, 3, 1], grid=3, k=3, seed=0, auto_save=False, save_act=False), (torch.rand(8, 2),)),
    }, "kan")  # fmt: skip
    yield from entries("gpytorch", {
        "ExactGP": _exact_gp,
        "ApproximateGP": _approximate_gp,
        "RBFKernel": lambda p: (_Kernel(p.kernels.ScaleKernel(p.kernels.RBFKernel(ard_num_dims=3))), (torch.randn(6, 3),)),
        "MaternKernel": lambda p: (_Kernel(p.kernels.ScaleKernel(p.kernels.MaternKernel())), (torch.randn(6, 3),)),
        "SpectralMixtureKernel": lambda p: (_Kernel(p.kernels.SpectralMixtureKernel(num_mixtures=2, ard_num_dims=3)), (torch.randn(6, 3),)),
    }, "gpytorch")  # fmt: skip
    yield from entries("pyro.nn", {
        "AutoRegressiveNN": lambda p: (p.AutoRegressiveNN(6, [8, 8]), (torch.randn(4, 6),)),
        "ConditionalAutoRegressiveNN": lambda p: (p.ConditionalAutoRegressiveNN(6, 2, [8]), (torch.randn(4, 6), torch.randn(4, 2))),
        "DenseNN": lambda p: (p.DenseNN(6, [8], [2, 2]), (torch.randn(4, 6),)),
    }, "pyro")  # fmt: skip
    yield from entries("pyro.distributions.transforms", {
        name: lambda p, make=make: (_Flow(make(p)), (torch.randn(4, 6),)) for name, make in {
            "affine_coupling": lambda p: p.affine_coupling(6, [8]), "planar": lambda p: p.planar(6), "radial": lambda p: p.radial(6),
            "spline_coupling": lambda p: p.spline_coupling(6, 3, [8]), "householder": lambda p: p.householder(6),
            "affine_autoregressive": lambda p: p.affine_autoregressive(6, [8]), "sylvester": lambda p: p.sylvester(6),
            "neural_autoregressive": lambda p: p.neural_autoregressive(6, [8]), "polynomial": lambda p: p.polynomial(6, [8]),
        }.items()
    }, "pyro")  # fmt: skip
    yield from entries("torchdiffeq", {
        "odeint": lambda p: (_Ode(p.odeint), (torch.randn(4, 6),)),
        "odeint, rk4": lambda p: (_Ode(p.odeint, method="rk4"), (torch.randn(4, 6),)),
        "odeint_adjoint": lambda p: (_Ode(p.odeint_adjoint, method="rk4"), (torch.randn(4, 6),)),
    }, "torchdiffeq")  # fmt: skip


class _Second(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(self.first(x), y)
        return result


class _Kernel(nn.Module):
    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrix: torch.Tensor = self.kernel(x).to_dense()
        return matrix


class _Flow(nn.Module):
    """A normalizing flow's density of its input."""

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.flow(x)
        total: torch.Tensor = self.flow.log_abs_det_jacobian(x, y).sum() + y.pow(2).sum()
        return total


class _Ode(nn.Module):
    def __init__(self, solve: Any, **options: Any) -> None:
        super().__init__()
        self.solve, self.options = solve, options
        self.field = _Field()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        end: torch.Tensor = self.solve(self.field, x, torch.tensor([0.0, 0.5, 1.0]), **self.options)[-1]
        return end


class _Field(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))

    def forward(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        slope: torch.Tensor = self.net(x) * t
        return slope


def _exact_gp(p: Any) -> Any:
    class Model(p.models.ExactGP):  # type: ignore[misc]  # the base is Any
        def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
            super().__init__(x, y, p.likelihoods.GaussianLikelihood())
            self.mean = p.means.ConstantMean()
            self.kernel = p.kernels.ScaleKernel(p.kernels.RBFKernel())

        def forward(self, x: torch.Tensor) -> Any:
            return p.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    class Likelihood(nn.Module):
        def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
            super().__init__()
            self.gp, self.y = Model(x, y), y
            self.loss = p.mlls.ExactMarginalLogLikelihood(self.gp.likelihood, self.gp)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            value: torch.Tensor = -self.loss(self.gp(x), self.y)
            return value

    x = torch.linspace(0, 1, 8).unsqueeze(1)
    return Likelihood(x, torch.sin(6 * x[:, 0])), (x,)


def _approximate_gp(p: Any) -> Any:
    class Model(p.models.ApproximateGP):  # type: ignore[misc]  # the base is Any
        def __init__(self, points: torch.Tensor) -> None:
            q = p.variational.CholeskyVariationalDistribution(points.size(0))
            super().__init__(p.variational.VariationalStrategy(self, points, q, learn_inducing_locations=True))
            self.mean = p.means.ConstantMean()
            self.kernel = p.kernels.ScaleKernel(p.kernels.RBFKernel())

        def forward(self, x: torch.Tensor) -> Any:
            return p.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    class Likelihood(nn.Module):
        def __init__(self, points: torch.Tensor) -> None:
            super().__init__()
            self.gp, self.likelihood = Model(points), p.likelihoods.GaussianLikelihood()
            self.loss = p.mlls.VariationalELBO(self.likelihood, self.gp, num_data=16)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            value: torch.Tensor = -self.loss(self.gp(x), y)
            return value

    x = torch.linspace(0, 1, 8).unsqueeze(1)
    return Likelihood(x[::2].clone()), (x, torch.sin(6 * x[:, 0]))


def control() -> Iterator[Entry]:
    """Policies of stable-baselines3."""
    if not have("stable_baselines3"):
        return
    gymnasium, policies = importlib.import_module("gymnasium"), importlib.import_module("stable_baselines3.common.policies")
    space = gymnasium.spaces.Box(-1, 1, (6,))
    kinds = {
        "discrete": gymnasium.spaces.Discrete(3),
        "box": gymnasium.spaces.Box(-1, 1, (2,)),
        "multi": gymnasium.spaces.MultiDiscrete([2, 3]),
    }
    for name, actions in kinds.items():
        yield (
            f"stable_baselines3/ActorCriticPolicy, {name}",
            seeded(lambda a=actions: (policies.ActorCriticPolicy(space, a, lambda _: 1e-3), (torch.randn(4, 6),))),
        )  # type: ignore[misc]
    for name in ("dqn.DQNPolicy", "sac.SACPolicy", "td3.TD3Policy"):
        family, cls = name.split(".")

        def build(family: str = family, cls: str = cls) -> Any:
            module = importlib.import_module(f"stable_baselines3.{family}.policies")
            policy = getattr(module, cls)(space, kinds["discrete" if family == "dqn" else "box"], lambda _: 1e-3)
            return (policy.q_net if family == "dqn" else policy.critic), (
                (torch.randn(4, 6),) if family == "dqn" else (torch.randn(4, 6), torch.randn(4, 2))
            )

        yield f"stable_baselines3/{name}", seeded(build)


def speech() -> Iterator[Entry]:
    """speechbrain's recipes."""
    sound = torch.randn(2, 40, 24)
    lobes = "speechbrain.lobes.models."
    for module, name, build in (
        ("ECAPA_TDNN", "ECAPA_TDNN", lambda p: (p.ECAPA_TDNN(24, lin_neurons=8, channels=[16, 16, 16, 16, 48], attention_channels=8), (sound,))),
        ("Xvector", "Xvector", lambda p: (p.Xvector(in_channels=24, tdnn_channels=[16, 16, 16, 16, 32], lin_neurons=8), (sound,))),
        ("CRDNN", "CRDNN", lambda p: (p.CRDNN(input_shape=[2, 40, 24], cnn_channels=[4, 8], rnn_neurons=8, dnn_neurons=8), (sound,))),
        ("conv_tasnet", "MaskNet", lambda p: (p.MaskNet(8, 8, 16, 3, 2, 1, 2), (torch.rand(2, 8, 40),))),
        ("transformer.Conformer", "ConformerEncoder", lambda p: (p.ConformerEncoder(num_layers=1, nhead=2, d_ffn=16, d_model=24,
                                                                 attention_type="regularMHA"), (sound,))),
        ("transformer.TransformerASR", "TransformerASR", lambda p: (p.TransformerASR(tgt_vocab=16, input_size=24, d_model=16, nhead=2,
            num_encoder_layers=1, num_decoder_layers=1, d_ffn=16), (sound, torch.randint(1, 16, (2, 5)), torch.ones(2), 0))),
        ("HifiGAN", "HifiganGenerator", lambda p: (p.HifiganGenerator(24, 1, "1", [[1, 3, 5], [1, 3, 5]], [3, 3], [4, 4], 16, [2, 2]), (torch.randn(1, 24, 10),))),
        ("dual_path", "SBTransformerBlock", lambda p: (p.SBTransformerBlock(1, 24, 2, 16), (sound,))),
        ("MetricGAN", "EnhancementGenerator", lambda p: (p.EnhancementGenerator(), (torch.rand(2, 10, 257), torch.ones(2)))),
    ):  # fmt: skip
        yield from entries(lobes + module, {name: build}, "speechbrain")


def contrastive() -> Iterator[Entry]:
    """open_clip, lightly and kornia."""
    vision, text = (
        {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
        {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2},
    )
    pair = (torch.randn(2, 3, 32, 32), torch.randint(1, 64, (2, 16)))
    yield from entries("open_clip", {
        "CLIP": lambda p: (p.CLIP(32, vision, text), pair),
        "CLIP, resnet": lambda p: (p.CLIP(32, {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}, text), pair),
        "CoCa": lambda p: (p.CoCa(32, {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
                           {**text, "embed_cls": True, "output_tokens": True},
                           {**vision, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}), pair),
    }, "open_clip")  # fmt: skip
    rows = torch.randn(4, 32)
    heads = ("BarlowTwinsProjectionHead", "BYOLProjectionHead", "MoCoProjectionHead", "SimCLRProjectionHead", "SimSiamProjectionHead",
             "VICRegProjectionHead", "SMoGProjectionHead", "MSNProjectionHead", "DINOProjectionHead")  # fmt: skip
    table: dict[str, Callable[[Any], Any]] = {
        name: lambda p, name=name: (getattr(p, name)(32, 16, 8, **({"batch_norm": True} if name == "DINOProjectionHead" else {})), (rows,))
        for name in heads
    }
    yield from entries("lightly.models.modules.heads", table, "lightly")
    losses: dict[str, Callable[[Any], Any]] = {
        name: lambda p, name=name: (_Pair(getattr(p, name)()), (rows, rows + 0.1))
        for name in ("NTXentLoss", "BarlowTwinsLoss", "VICRegLoss", "DCLLoss", "NegativeCosineSimilarity")
    }
    yield from entries("lightly.loss", losses, "lightly")
    yield from entries("kornia.feature", {
        "HardNet": lambda p: (p.HardNet(pretrained=False), (torch.randn(2, 1, 32, 32),)),
        "SOSNet": lambda p: (p.SOSNet(pretrained=False), (torch.randn(2, 1, 32, 32),)),
        "HyNet": lambda p: (p.HyNet(pretrained=False), (torch.randn(2, 1, 32, 32),)),
        "TFeat": lambda p: (p.TFeat(pretrained=False), (torch.randn(2, 1, 32, 32),)),
        "OriNet": lambda p: (p.OriNet(pretrained=False), (torch.randn(2, 1, 32, 32),)),
        "DISK": lambda p: (_Features(p.DISK()), (torch.randn(1, 3, 32, 32),)),
        "KeyNet": lambda p: (p.KeyNet(pretrained=False), (torch.randn(1, 1, 32, 32),)),
    }, "kornia")  # fmt: skip
    yield from entries("kornia.models", {
        "VisionTransformer": lambda p: (module("kornia.models.vit").VisionTransformer(image_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2), images(32)),
        "MobileViT": lambda p: (module("kornia.models.vit_mobile").MobileViT(mode="xxs"), images(256, 1)),
        "TinyViT": lambda p: (module("kornia.models.tiny_vit").TinyViT.from_config("5m", img_size=64), images(64)),
    }, "kornia")  # fmt: skip


class _Pair(nn.Module):
    """A contrastive loss behind a projection."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.project, self.loss = nn.Linear(32, 16), loss

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.loss(self.project(one), self.project(other))
        return value


class _Features(nn.Module):
    def __init__(self, disk: Any) -> None:
        super().__init__()
        self.disk = disk

    def forward(self, x: torch.Tensor) -> Any:
        return self.disk.heatmap_and_dense_descriptors(x)


FAMILIES: tuple[Callable[[], Iterator[Entry]], ...] = (attention, science, control, speech, contrastive)
