"""Packages of one field each: spiking neurons, tables, control, physics, molecules, sound, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo.others import entries, module
from tests.zoo.sequences import First
from tests.zoo.vision import images

Entry = tuple[str, Callable[[], Any]]


class Steps(nn.Module):
    """A neuron of one time step between two layers, for several steps; its state is its own or handed on."""

    def __init__(self, neuron: nn.Module, *, state: bool = False, reset: Callable[[Any], None] | None = None, width: int = 8) -> None:
        super().__init__()
        self.before, self.neuron, self.after = nn.Linear(6, width), neuron, nn.Linear(width, 3)
        self.state, self.reset = state, reset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.reset is not None:
            self.reset(self.neuron)
        state: tuple[Any, ...] = ()
        outs = []
        for step in x:
            out = self.neuron(self.before(step), *state)
            spikes, state = (
                (out[0], tuple(out) if type(self.neuron).__name__.startswith("R") else tuple(out[1:])) if self.state else (out, ())
            )
            outs.append(self.after(spikes))
        return torch.stack(outs)


def spiking() -> Iterator[Entry]:
    """snntorch, spikingjelly: surrogate gradients in custom functions; entmax: sparse ones."""
    x = (torch.randn(4, 2, 6) * 3,)
    learn = {"learn_beta": True, "learn_threshold": True}
    yield from entries("snntorch", {
        "Leaky": lambda p: (Steps(p.Leaky(beta=0.9, **learn), state=True), x),
        "Leaky, atan": lambda p: (Steps(p.Leaky(beta=0.9, spike_grad=module("snntorch.surrogate").atan(), reset_mechanism="zero"), state=True), x),
        "Leaky, hidden": lambda p: (Steps(p.Leaky(beta=0.9, init_hidden=True, spike_grad=module("snntorch.surrogate").fast_sigmoid()), reset=lambda n: n.reset_mem()), x),
        "Leaky, straight through": lambda p: (Steps(p.Leaky(beta=0.9, spike_grad=module("snntorch.surrogate").straight_through_estimator()), state=True), x),
        "Leaky, triangular": lambda p: (Steps(p.Leaky(beta=0.9, spike_grad=module("snntorch.surrogate").triangular()), state=True), x),
        "Synaptic": lambda p: (Steps(p.Synaptic(alpha=0.8, beta=0.9, learn_alpha=True), state=True), x),
        "Lapicque": lambda p: (Steps(p.Lapicque(beta=0.5), state=True), x),
        "Alpha": lambda p: (Steps(p.Alpha(alpha=0.9, beta=0.8), state=True), x),
        "RLeaky": lambda p: (Steps(p.RLeaky(beta=0.9, linear_features=8, **learn), state=True), x),
        "SLSTM": lambda p: (Steps(p.SLSTM(8, 8), state=True), x),
        "LeakyParallel": lambda p: (p.LeakyParallel(6, 8), x),
    }, "snntorch")  # fmt: skip
    reset = {"reset": lambda neuron: neuron.reset()}
    yield from entries("spikingjelly.activation_based.neuron", {
        **{n: lambda p, n=n: (Steps(getattr(p, n)(), **reset), x) for n in ("IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "KLIFNode", "IzhikevichNode")},
        "LIFNode, detached": lambda p: (Steps(p.LIFNode(detach_reset=True, v_reset=None, surrogate_function=module("spikingjelly.activation_based.surrogate").ATan()), **reset), x),
        "LIFNode, steps": lambda p: (nn.Sequential(nn.Linear(6, 8), p.LIFNode(step_mode="m")), x),
        "PSN": lambda p: (nn.Sequential(nn.Linear(6, 8), p.PSN(T=4)), x),
        "MaskedPSN": lambda p: (nn.Sequential(nn.Linear(6, 8), p.MaskedPSN(k=2, T=4, step_mode="m")), x),
        **{f"surrogate {n}": lambda p, n=n: (nn.Sequential(nn.Linear(6, 8), getattr(module("spikingjelly.activation_based.surrogate"), n)()), x)
           for n in ("Sigmoid", "ATan", "SoftSign", "PiecewiseQuadratic", "LeakyKReLU", "Erf", "S2NN", "QPseudoSpike", "FakeNumericalGradient")},
    }, "spikingjelly")  # fmt: skip
    rows = (torch.randn(4, 6),)
    pair = (*rows, torch.tensor([0, 1, 2, 3]))
    yield from entries("entmax", {
        **{n: lambda p, n=n: (nn.Sequential(nn.Linear(6, 8), getattr(p, n)(dim=-1)), rows) for n in ("Sparsemax", "Entmax15", "EntmaxBisect", "SparsemaxBisect", "NormmaxBisect")},
        **{n: lambda p, n=n: (_Scored(getattr(p, n)()), pair) for n in ("SparsemaxLoss", "Entmax15Loss", "EntmaxBisectLoss", "SparsemaxBisectLoss")},
        "entmax_bisect, learned": lambda p: (_LearnedAlpha(p.entmax_bisect), rows),
    }, "entmax")  # fmt: skip


class _Scored(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.layer, self.loss = nn.Linear(6, 8), loss

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.loss(self.layer(x), target).sum()
        return value


class _LearnedAlpha(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.layer, self.alpha, self.function = nn.Linear(6, 8), nn.Parameter(torch.tensor(1.4)), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.function(self.layer(x), self.alpha, dim=-1)
        return value


def tables() -> Iterator[Entry]:
    """Networks over tables and series."""
    x = torch.randn(8, 6)
    groups = {"group_attention_matrix": torch.eye(6)}
    yield from entries("pytorch_tabnet.tab_network", {
        "TabNet": lambda p: (p.TabNet(6, 3, n_d=4, n_a=4, n_steps=2, virtual_batch_size=4, **groups), (x,)),
        "TabNet, entmax": lambda p: (p.TabNet(6, 3, n_d=4, n_a=4, n_steps=2, cat_idxs=[0], cat_dims=[5], cat_emb_dim=[2], mask_type="entmax", **groups),
                                     (torch.cat([torch.randint(0, 5, (8, 1)).float(), x[:, 1:]], 1),)),
        "TabNetPretraining": lambda p: (First(p.TabNetPretraining(6, n_d=4, n_a=4, n_steps=2, **groups), 0, 1), (x,)),
    }, "tabnet")  # fmt: skip
    kinds = torch.randint(0, 4, (8, 3))
    yield from entries("tab_transformer_pytorch", {
        "TabTransformer": lambda p: (p.TabTransformer(categories=(4, 4, 4), num_continuous=6, dim=8, depth=2, heads=2, dim_head=4, mlp_act=nn.ReLU()), (kinds, x)),
        "FTTransformer": lambda p: (p.FTTransformer(categories=(4, 4, 4), num_continuous=6, dim=8, depth=2, heads=2, dim_head=4), (kinds, x)),
    }, "tab_transformer")  # fmt: skip
    yield from entries("rtdl_revisiting_models", {
        "MLP": lambda p: (p.MLP(d_in=6, d_out=2, n_blocks=2, d_block=8, dropout=0.1), (x,)),
        "ResNet": lambda p: (p.ResNet(d_in=6, d_out=2, n_blocks=2, d_block=8, d_hidden_multiplier=2.0, dropout1=0.1, dropout2=0.0), (x,)),
        "FTTransformer": lambda p: (p.FTTransformer(n_cont_features=6, cat_cardinalities=[4, 4, 4], d_out=2, n_blocks=2, d_block=8, attention_n_heads=2, attention_dropout=0.1,
                                    ffn_d_hidden_multiplier=2.0, ffn_dropout=0.1, residual_dropout=0.0), (x, kinds)),
    }, "rtdl")  # fmt: skip
    yield from entries("rtdl_num_embeddings", {
        "PeriodicEmbeddings": lambda p: (p.PeriodicEmbeddings(6, 4, lite=True), (x,)),
        "PiecewiseLinearEmbeddings": lambda p: (p.PiecewiseLinearEmbeddings(p.compute_bins(torch.randn(64, 6), n_bins=4), 4, activation=True, version="B"), (x,)),
    }, "rtdl")  # fmt: skip
    yield from entries("tabm", {
        "TabM": lambda p: (p.TabM.make(n_num_features=6, cat_cardinalities=[4, 4, 4], d_out=2, k=4, n_blocks=2, d_block=8), {"x_num": x, "x_cat": kinds}),
        "TabM, packed": lambda p: (p.TabM.make(n_num_features=6, d_out=2, k=4, n_blocks=2, d_block=8, arch_type="tabm-packed"), (x,)),
    }, "tabm")  # fmt: skip
    series = (torch.randn(2, 16, 5),)
    common = {"num_variates": 5, "lookback_len": 16, "dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "pred_length": 4}
    yield from entries("iTransformer", {
        "iTransformer": lambda p: (p.iTransformer(**common, use_reversible_instance_norm=True, num_tokens_per_variate=1), series),
        "iTransformer2D": lambda p: (p.iTransformer2D(**common, num_time_tokens=4), series),
        "iTransformerFFT": lambda p: (p.iTransformerFFT(**common), (*series, torch.randn(2, 4, 5))),
    }, "iTransformer")  # fmt: skip
    yield from entries(
        "pytorch_tcn",
        {
            "TCN": lambda p: (
                p.TCN(num_inputs=5, num_channels=[8, 8], use_skip_connections=True, use_norm="weight_norm"),
                (torch.randn(2, 5, 16),),
            )
        },
        "pytorch_tcn",
    )


def agents() -> Iterator[Entry]:
    """torchrl's networks and losses over tensordicts."""
    see, act = torch.randn(4, 6), torch.randn(4, 2)
    yield from entries("torchrl.modules", {
        "MLP": lambda p: (p.MLP(in_features=6, out_features=2, num_cells=[8, 8], dropout=0.1), (see,)),
        "DdpgMlpQNet": lambda p: (p.DdpgMlpQNet(), (see, act)),
        "DuelingCnnDQNet": lambda p: (p.DuelingCnnDQNet(3, cnn_kwargs={"num_cells": [4], "kernel_sizes": [3], "strides": [2]}, mlp_kwargs={"depth": 1,
                            "num_cells": 8}), images(16)),
        "NoisyLinear": lambda p: (nn.Sequential(p.NoisyLinear(6, 8), nn.ReLU(), p.NoisyLinear(8, 2)), (see,)),
        "MultiAgentMLP": lambda p: (p.MultiAgentMLP(6, 2, 3, centralized=False, share_params=False, depth=1, num_cells=8), (torch.randn(4, 3, 6),)),
        "QMixer": lambda p: (p.QMixer(state_shape=(6,), mixing_embed_dim=8, n_agents=3, device="cpu"), (torch.randn(4, 3, 1), see)),
        "VDNMixer": lambda p: (nn.Sequential(nn.Linear(1, 1), p.VDNMixer(n_agents=3, device="cpu")), (torch.randn(4, 3, 1),)),
        "LSTM": lambda p: (p.LSTM(6, 8, batch_first=True), (torch.randn(2, 5, 6),)),
        "BatchRenorm1d": lambda p: (nn.Sequential(nn.Linear(6, 8), p.BatchRenorm1d(8, warmup_steps=0)), (see,)),
        "ConsistentDropout": lambda p: (nn.Sequential(nn.Linear(6, 8), p.ConsistentDropout(0.5)), (see,)),
        "RSSMPosterior": lambda p: (p.RSSMPosterior(hidden_dim=8, state_dim=4, rnn_hidden_dim=8, obs_embed_dim=6), (torch.randn(4, 8), see)),
        "Actor": lambda p: (_OverDict(p.Actor(p.MLP(in_features=6, out_features=2, num_cells=[8])), "action"), (see,)),
        "ProbabilisticActor": lambda p: (_OverDict(_policy(p), "sample_log_prob"), (see,)),
        "ClipPPOLoss": lambda p: (_Objective(lambda: _ppo(p)), (see, act)),
        "SACLoss": lambda p: (_Objective(lambda: _sac(p)), (see, act)),
        "DQNLoss": lambda p: (_Objective(lambda: _dqn(p)), (see, torch.randint(0, 2, (4,)))),
    }, "torchrl")  # fmt: skip


class _OverDict(nn.Module):
    """A module over a tensordict, from a tensor to one of its results."""

    def __init__(self, inner: nn.Module, out: str) -> None:
        super().__init__()
        self.inner, self.out = inner, out

    def forward(self, observation: torch.Tensor) -> Any:
        data = module("tensordict").TensorDict({"observation": observation}, batch_size=[len(observation)])
        result = self.inner(data)
        return result[self.out] if self.out in result else result["action"].sum()


class _Objective(nn.Module):
    """The losses of one batch of transitions."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.inner = make()

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> Any:
        size = len(observation)
        end = torch.zeros(size, 1, dtype=torch.bool)
        after = {"observation": observation + 0.1, "reward": torch.ones(size, 1), "done": end, "terminated": end}
        data = module("tensordict").TensorDict(
            {"observation": observation, "action": action, "action_log_prob": -torch.ones(size), "sample_log_prob": -torch.ones(size), "next": after}, batch_size=[size]
        )  # fmt: skip
        losses = self.inner(data)
        return sum(value for key, value in losses.items() if key.startswith("loss"))


def _policy(p: Any) -> Any:
    nn_ = module("tensordict.nn")
    net = nn_.TensorDictModule(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4), p.NormalParamExtractor() if hasattr(p, "NormalParamExtractor") else
                               nn_.NormalParamExtractor()), in_keys=["observation"], out_keys=["loc", "scale"])  # fmt: skip
    return p.ProbabilisticActor(net, in_keys=["loc", "scale"], distribution_class=p.TanhNormal, return_log_prob=True)


def _ppo(p: Any) -> Any:
    return module("torchrl.objectives").ClipPPOLoss(
        _policy(p), p.ValueOperator(p.MLP(in_features=6, out_features=1, num_cells=[8]), in_keys=["observation"])
    )


def _sac(p: Any) -> Any:
    value = p.ValueOperator(_Both(), in_keys=["observation", "action"])
    return module("torchrl.objectives").SACLoss(
        _policy(p), value, num_qvalue_nets=2, action_spec=module("torchrl.data").Bounded(-1, 1, (2,))
    )


class _Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> Any:
        return self.net(torch.cat([observation, action], -1))


def _dqn(p: Any) -> Any:
    actor = p.QValueActor(p.MLP(in_features=6, out_features=2, num_cells=[8]), in_keys=["observation"], action_space="categorical")
    return module("torchrl.objectives").DQNLoss(actor, action_space="categorical")


def physics() -> Iterator[Entry]:
    """Equivariant transformers, differential equations, Gaussian processes."""
    atoms, places = torch.randint(0, 8, (1, 8)), torch.randn(1, 8, 3)
    yield from entries("se3_transformer_pytorch", {
        "SE3Transformer": lambda p: (p.SE3Transformer(dim=8, heads=2, dim_head=4, depth=1, num_degrees=2, valid_radius=10, num_neighbors=4),
                                     {"feats": torch.randn(1, 8, 8), "coors": places, "mask": torch.ones(1, 8, dtype=torch.bool)}),
        "SE3Transformer, tokens": lambda p: (p.SE3Transformer(dim=8, heads=2, dim_head=4, depth=1, num_tokens=8, num_degrees=2, output_degrees=2, valid_radius=10, num_neighbors=4),
                                             {"feats": atoms, "coors": places, "return_type": 1}),
        "SE3Transformer, reversible": lambda p: (p.SE3Transformer(dim=8, heads=2, dim_head=4, depth=2, num_degrees=2, valid_radius=10, num_neighbors=4, reversible=True),
                                                 {"feats": torch.randn(1, 8, 8), "coors": places}),
    }, "se3_transformer")  # fmt: skip
    yield from entries("equiformer_pytorch", {
        "Equiformer": lambda p: (p.Equiformer(num_tokens=8, dim=(8, 4), dim_head=(4, 4), heads=(2, 1), num_linear_attn_heads=0, num_degrees=2, depth=1, num_neighbors=4,
                                 valid_radius=10.0), (atoms, places)),
    }, "equiformer")  # fmt: skip
    yield from entries("invariant_point_attention", {
        "IPATransformer": lambda p: (p.IPATransformer(dim=16, depth=2, num_tokens=8, predict_points=True), {"single_repr": atoms, "pairwise_repr": torch.randn(1, 8, 8, 16)}),
        "IPABlock": lambda p: (p.IPABlock(dim=16, heads=2), {"x": torch.randn(1, 8, 16), "pairwise_repr": torch.randn(1, 8, 8, 16),
                               "rotations": torch.eye(3).expand(1, 8, 3, 3).contiguous(), "translations": places}),
    }, "ipa")  # fmt: skip
    yield from entries("enformer_pytorch", {
        "Enformer": lambda p: (_Head(p.Enformer.from_hparams(dim=48, depth=2, heads=2, output_heads={"human": 3}, target_length=-1, num_downsamples=3)),
                            (torch.randint(0, 5, (1, 128)),)),
    }, "enformer")  # fmt: skip
    yield from entries("torchsde", {
        f"sdeint, {method}": lambda p, method=method: (_Sde(p.sdeint, method), (torch.randn(3, 4),))
        for method in ("euler", "srk", "milstein")
    }, "torchsde")  # fmt: skip
    yield from entries("torchcde", {
        "cdeint": lambda p: (_Cde(), (torch.randn(2, 6, 3),)),
        "cdeint, linear": lambda p: (_Cde(linear=True), (torch.randn(2, 6, 3),)),
    }, "torchcde")  # fmt: skip
    yield from entries("torchdyn.core", {
        "NeuralODE": lambda p: (First(p.NeuralODE(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), solver="rk4", sensitivity="autograd"), 1),
                            (torch.randn(3, 4), torch.linspace(0, 1, 4))),
        "NeuralODE, adjoint": lambda p: (First(p.NeuralODE(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), solver="rk4", sensitivity="adjoint"), 1),
                                         (torch.randn(3, 4), torch.linspace(0, 1, 4))),
        "NeuralODE, interpolated": lambda p: (First(p.NeuralODE(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), solver="dopri5",
                            sensitivity="interpolated_adjoint"), 1),
                                              (torch.randn(3, 4), torch.linspace(0, 1, 4))),
    }, "torchdyn")  # fmt: skip
    yield from entries("pytorch_wavelets", {
        "DWTForward": lambda p: (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), p.DWTForward(J=2, wave="db2")), images(16)),
        "DTCWTForward": lambda p: (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), p.DTCWTForward(J=2)), images(16)),
        "ScatLayer": lambda p: (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), p.ScatLayer()), images(16)),
    }, "pytorch_wavelets")  # fmt: skip


class _Head(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x)["human"]


class _Sde(nn.Module):
    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, solve: Any, method: str) -> None:
        super().__init__()
        self.drift, self.spread, self.solve, self.method = nn.Linear(4, 4), nn.Linear(4, 4), solve, method

    def f(self, t: torch.Tensor, y: torch.Tensor) -> Any:
        return self.drift(y).tanh()

    def g(self, t: torch.Tensor, y: torch.Tensor) -> Any:
        return self.spread(y).sigmoid()

    def forward(self, x: torch.Tensor) -> Any:
        return self.solve(self, x, torch.tensor([0.0, 0.5, 1.0]), dt=0.25, method=self.method)[-1]


class _Cde(nn.Module):
    def __init__(self, *, linear: bool = False) -> None:
        super().__init__()
        self.start, self.net, self.linear = nn.Linear(3, 4), nn.Linear(4, 12), linear

    def forward(self, x: torch.Tensor) -> Any:
        p = module("torchcde")
        kind = "linear_interpolation_coeffs" if self.linear else "hermite_cubic_coefficients_with_backward_differences"
        path = (p.LinearInterpolation if self.linear else p.CubicSpline)(getattr(p, kind)(x))
        return p.cdeint(
            X=path, func=lambda t, z: self.net(z).tanh().view(*z.shape, 3), z0=self.start(path.evaluate(path.interval[0])), t=path.interval,
            adjoint=False, method="rk4", options={"step_size": 0.5},
        )[:, -1]  # fmt: skip


def pictures() -> Iterator[Entry]:
    """Detection blocks, faces, old model collections, separation of sound, odd attentions over images."""
    x = (torch.randn(2, 8, 16, 16),)
    plain = ("C1", "C2", "C2PSA", "C3", "C3TR", "C2f", "C2fCIB", "C2fPSA", "C3Ghost", "C3k2", "C3x", "BottleneckCSP", "RepC3", "SPP", "SPPF", "A2C2f", "GhostConv",
                        "ADown", "AConv",
             "DWConv", "Focus", "Conv2", "RepConv", "ConvTranspose", "Proto", "LightConv", "Classify")  # fmt: skip
    wide = (torch.randn(2, 64, 8, 8),)
    table: dict[str, Callable[[Any], Any]] = {
        n: lambda p, n=n: (getattr(p, n)(64, 64), wide) if n in ("C2PSA", "C2fPSA", "A2C2f", "C3TR") else (getattr(p, n)(8, 8), x)
        for n in plain
    }
    table["Detect"] = lambda p: (_Levels(p.Detect(nc=3, ch=(8, 8))), x)
    table["Segment"] = lambda p: (_Levels(p.Segment(nc=3, nm=4, npr=8, ch=(8, 8))), x)
    table["v10Detect"] = lambda p: (_Levels(p.v10Detect(nc=3, ch=(8, 8))), x)
    table["AIFI"] = lambda p: (p.AIFI(8, 16, num_heads=2), x)
    table["CBAM"] = lambda p: (p.CBAM(8), x)
    table["ResNetLayer"] = lambda p: (p.ResNetLayer(8, 4, n=2), x)
    yield from entries("ultralytics.nn.modules", table, "ultralytics")
    yield from entries("facenet_pytorch", {
        "PNet": lambda p: (p.PNet(pretrained=False), images(24)),
        "RNet": lambda p: (p.RNet(pretrained=False), images(24)),
        "ONet": lambda p: (p.ONet(pretrained=False), images(48)),
        "InceptionResnetV1": lambda p: (p.InceptionResnetV1(classify=True, num_classes=5), images(96)),
    }, "facenet")  # fmt: skip
    yield from entries(
        "efficientnet_pytorch",
        {"EfficientNet": lambda p: (p.EfficientNet.from_name("efficientnet-b0", num_classes=5), images(32))},
        "efficientnet_pytorch",
    )
    yield from entries("pretrainedmodels.models", {
        "bninception": lambda p: (p.bninception(num_classes=5, pretrained=None), images(224, 1)),
        "dpn68": lambda p: (p.dpn68(num_classes=5, pretrained=None), images(64)),
        "polynet stem": lambda p: (module("pretrainedmodels.models.polynet").Stem(), images(64)),
        "xception": lambda p: (p.xception(num_classes=5, pretrained=None), images(64)),
    }, "pretrainedmodels")  # fmt: skip
    sound = (torch.randn(1, 400),)
    yield from entries("asteroid.models", {
        "ConvTasNet": lambda p: (p.ConvTasNet(2, n_blocks=2, n_repeats=1, bn_chan=8, hid_chan=8, skip_chan=8, n_filters=16, kernel_size=8, stride=4), sound),
        "DPRNNTasNet": lambda p: (p.DPRNNTasNet(2, bn_chan=8, hid_size=8, chunk_size=8, n_repeats=1, n_filters=16, kernel_size=8, stride=4), sound),
        "DPTNet": lambda p: (p.DPTNet(2, n_heads=2, ff_hid=8, chunk_size=8, n_repeats=1, n_filters=16, kernel_size=8, stride=4), sound),
        "SuDORMRFNet": lambda p: (p.SuDORMRFNet(2, bn_chan=8, num_blocks=1, upsampling_depth=2, n_filters=16, kernel_size=9, stride=4), sound),
        "LSTMTasNet": lambda p: (p.LSTMTasNet(2, n_layers=1, hid_size=8, n_filters=16, kernel_size=8, stride=4), sound),
        "DeMask": lambda p: (p.DeMask(hidden_dims=(8,), n_filters=32, kernel_size=32, stride=16), sound),
    }, "asteroid")  # fmt: skip
    yield from entries("demucs.demucs", {
        "Demucs": lambda p: (p.Demucs(["a", "b"], audio_channels=1, channels=4, depth=2, lstm_layers=1, resample=False), (torch.randn(1, 1, 1024),)),
        "HDemucs": lambda p: (module("demucs.hdemucs").HDemucs(["a", "b"], audio_channels=1, channels=4, nfft=256, depth=3), (torch.randn(1, 1, 2048),)),
    }, "demucs")  # fmt: skip
    yield from entries("byol_pytorch", {
        "BYOL": lambda p: (p.BYOL(module("torchvision.models").resnet18(), image_size=32, hidden_layer="avgpool", augment_fn=nn.Identity(), augment_fn2=nn.Identity()), images(32)),
    }, "byol")  # fmt: skip
    yield from entries(
        "lambda_networks",
        {"LambdaLayer": lambda p: (p.LambdaLayer(dim=8, dim_out=8, r=5, dim_k=4, heads=2, dim_u=2), x)},
        "lambda_networks",
    )
    yield from entries(
        "halonet_pytorch",
        {"HaloAttention": lambda p: (p.HaloAttention(dim=8, block_size=4, halo_size=2, dim_head=4, heads=2), x)},
        "halonet",
    )
    yield from entries("bottleneck_transformer_pytorch", {
        "BottleStack": lambda p: (p.BottleStack(dim=8, fmap_size=16, dim_out=16, num_layers=1, heads=2, dim_head=4, rel_pos_emb=True), x),
    }, "bottleneck_transformer")  # fmt: skip
    yield from entries("timesformer_pytorch", {
        "TimeSformer": lambda p: (p.TimeSformer(dim=16, image_size=16, patch_size=8, num_frames=3, num_classes=5, depth=1, heads=2, dim_head=8), (torch.randn(1, 3, 3, 16, 16),)),
    }, "timesformer")  # fmt: skip


class _Levels(nn.Module):
    """A head over two sizes of one map."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head, self.smaller = head, nn.Conv2d(8, 8, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head([x, self.smaller(x)])


FAMILIES: tuple[Callable[[], Iterator[Entry]], ...] = (spiking, tables, agents, physics, pictures)
