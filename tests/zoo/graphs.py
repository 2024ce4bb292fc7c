"""PyTorch Geometric: convolutions, pooling, aggregations, norms, dense layers, and its models, on one small graph.

What asks for a compiled extension (`pyg-lib`, `torch-cluster`, cuGraph) or a download is left out. A convolution needs a
row only where it takes more than channels, a node matrix and the edges.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo.others import entries, module
from tests.zoo.vision import have, seeded

Entry = tuple[str, Callable[[], Any]]
Table = dict[str, Callable[[Any], Any]]

EDGE = torch.tensor([[0, 1, 1, 2, 3, 0, 4, 5], [1, 0, 2, 1, 0, 3, 5, 4]])
BATCH = torch.tensor([0, 0, 0, 0, 1, 1])
KINDS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
META = (["a", "b"], [("a", "to", "b"), ("b", "back", "a")])
# ask for compiled extensions or for other inputs than floats, or are another name of one in the table
LEFT_OUT = ("CuGraph", "FusedGAT", "GravNet", "Dynamic", "XConv", "Spline", "WLConv", "MeshCNN", "PAN", "ECConv", "PointConv")


def nodes(width: int = 8, count: int = 6) -> torch.Tensor:
    return torch.randn(count, width)


def edges(width: int) -> torch.Tensor:
    return torch.rand(EDGE.shape[1], width)


def mlp(width: int, out: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, out))


def _hetero() -> tuple[dict[str, torch.Tensor], dict[Any, torch.Tensor]]:
    return {"a": nodes(), "b": nodes()}, {kind: EDGE for kind in META[1]}


CONVOLUTIONS: Table = {
    "DNAConv": lambda p: (p.DNAConv(8, heads=2), (torch.randn(6, 3, 8), EDGE)),
    "FAConv": lambda p: (p.FAConv(8), (nodes(), nodes(), EDGE)),
    "GCN2Conv": lambda p: (p.GCN2Conv(8, alpha=0.1, theta=0.5, layer=1), (nodes(), nodes(), EDGE)),
    "RGCNConv": lambda p: (p.RGCNConv(8, 8, 3, num_bases=2), (nodes(), EDGE, KINDS)),
    "RGCNConv, blocks": lambda p: (p.RGCNConv(8, 8, 3, num_blocks=2), (nodes(), EDGE, KINDS)),
    "FastRGCNConv": lambda p: (p.FastRGCNConv(8, 8, 3), (nodes(), EDGE, KINDS)),
    "RGATConv": lambda p: (p.RGATConv(8, 8, 3, edge_dim=4), (nodes(), EDGE, KINDS, edges(4))),
    "FiLMConv": lambda p: (p.FiLMConv(8, 8, num_relations=3), (nodes(), EDGE, KINDS)),
    "EdgeConv": lambda p: (p.EdgeConv(mlp(16)), (nodes(), EDGE)),
    "GINEConv": lambda p: (p.GINEConv(mlp(8), train_eps=True, edge_dim=4), (nodes(), EDGE, edges(4))),
    "GMMConv": lambda p: (p.GMMConv(8, 8, dim=2, kernel_size=3), (nodes(), EDGE, edges(2))),
    "NNConv": lambda p: (p.NNConv(8, 4, mlp(3, 32)), (nodes(), EDGE, edges(3))),
    "CGConv": lambda p: (p.CGConv(8, dim=3, batch_norm=True), (nodes(), EDGE, edges(3))),
    "GATConv, edges": lambda p: (p.GATConv(8, 4, heads=2, dropout=0.5, edge_dim=3, residual=True), (nodes(), EDGE, edges(3))),
    "GATv2Conv, edges": lambda p: (p.GATv2Conv(8, 4, heads=2, edge_dim=3, share_weights=True), (nodes(), EDGE, edges(3))),
    "TransformerConv, edges": lambda p: (p.TransformerConv(8, 4, heads=2, edge_dim=3, beta=True), (nodes(), EDGE, edges(3))),
    "PNAConv": lambda p: (p.PNAConv(8, 8, ["mean", "max", "std"], ["identity", "amplification"], torch.tensor([0, 3, 2]), edge_dim=3, towers=2),
                          (nodes(), EDGE, edges(3))),
    "GENConv, learned": lambda p: (p.GENConv(8, 8, aggr="softmax", learn_t=True, msg_norm=True, learn_msg_scale=True), (nodes(), EDGE)),
    "PDNConv": lambda p: (p.PDNConv(8, 8, edge_dim=3, hidden_channels=4), (nodes(), EDGE, edges(3))),
    "PointNetConv": lambda p: (p.PointNetConv(mlp(11), mlp(8)), (nodes(), nodes(3), EDGE)),
    "PPFConv": lambda p: (p.PPFConv(mlp(12), mlp(8)), (nodes(), nodes(3), nn.functional.normalize(nodes(3)), EDGE)),
    "PointGNNConv": lambda p: (p.PointGNNConv(mlp(8, 3), mlp(11), mlp(8)), (nodes(), nodes(3), EDGE)),
    "PointTransformerConv": lambda p: (p.PointTransformerConv(8, 8, mlp(3), mlp(8)), (nodes(), nodes(3), EDGE)),
    "SignedConv": lambda p: (p.SignedConv(8, 8, first_aggr=True), (nodes(), EDGE, EDGE.flip(0))),
    "HypergraphConv": lambda p: (p.HypergraphConv(8, 4, use_attention=True, heads=2), {"x": nodes(), "hyperedge_index": EDGE, "hyperedge_attr": nodes()}),
    "SuperGATConv": lambda p: (_Loss(p.SuperGATConv(8, 4, heads=2), lambda m, out: out.sum() + m.get_attention_loss()), (nodes(), EDGE)),
    "EGConv": lambda p: (p.EGConv(8, 8, aggregators=["sum", "max", "symnorm"], num_heads=2), (nodes(), EDGE)),
    "GeneralConv": lambda p: (p.GeneralConv(8, 8, in_edge_channels=3, attention=True, heads=2, l2_normalize=True), (nodes(), EDGE, edges(3))),
    "HGTConv": lambda p: (p.HGTConv(8, 8, META, heads=2), _hetero()),
    "HANConv": lambda p: (p.HANConv(8, 8, META, heads=2), _hetero()),
    "HEATConv": lambda p: (p.HEATConv(8, 8, 2, 3, 4, 3, 4), (nodes(), EDGE, BATCH, KINDS, edges(3))),
    "HeteroConv": lambda p: (p.HeteroConv({META[1][0]: p.SAGEConv((8, 8), 8), META[1][1]: p.GATConv((8, 8), 8, add_self_loops=False)}), _hetero()),
    "GPSConv": lambda p: (p.GPSConv(8, p.GINConv(mlp(8)), heads=2), (nodes(), EDGE, BATCH)),
    "GPSConv, performer": lambda p: (p.GPSConv(8, p.GCNConv(8, 8), heads=2, attn_type="performer"), (nodes(), EDGE, BATCH)),
    "AntiSymmetricConv": lambda p: (p.AntiSymmetricConv(8, num_iters=2), (nodes(), EDGE)),
    "DirGNNConv": lambda p: (p.DirGNNConv(p.SAGEConv(8, 8)), (nodes(), EDGE)),
    "AGNNConv": lambda p: (p.AGNNConv(), (nodes(), EDGE)),
    "APPNP": lambda p: (_Behind(p.APPNP(K=2, alpha=0.1, dropout=0.5)), (nodes(), EDGE)),
    "LGConv": lambda p: (_Behind(p.LGConv()), (nodes(), EDGE)),
    "SimpleConv": lambda p: (_Behind(p.SimpleConv(aggr="mean", combine_root="cat")), (nodes(), EDGE)),
    "to_hetero": lambda p: (p.to_hetero(p.GraphSAGE((-1, -1), 8, 2), META), _hetero()),
    "Sequential": lambda p: (p.Sequential("x, e", [(p.GCNConv(8, 8), "x, e -> x1"), nn.ReLU(inplace=True), (p.GCNConv(8, 8), "x1, e -> x2"),
                               (lambda a, b: [a, b], "x1, x2 -> xs"), (p.JumpingKnowledge("lstm", 8, 2), "xs -> x")]), (nodes(), EDGE)),
    "GCNConv, cached": lambda p: (p.GCNConv(8, 8, cached=True, normalize=True), (nodes(), EDGE, torch.rand(8))),
}  # fmt: skip


class _Loss(nn.Module):
    """A layer and a loss of its own."""

    def __init__(self, layer: nn.Module, loss: Callable[[Any, Any], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.loss = layer, loss

    def forward(self, *args: Any) -> torch.Tensor:
        return self.loss(self.layer, self.layer(*args))


class _Behind(nn.Module):
    """A layer without parameters behind one that has some; `rest` are the layer's arguments after the nodes."""

    def __init__(self, layer: Any, *rest: Any, width: int = 8, **named: Any) -> None:
        super().__init__()
        self.first, self.layer, self.rest, self.named = nn.Linear(width, width), layer, rest, named

    def forward(self, x: torch.Tensor, *args: Any) -> Any:
        return self.layer(self.first(x), *args, *self.rest, **self.named)


POOLING: Table = {
    "TopKPooling": lambda p: (p.TopKPooling(8, ratio=0.5), {"x": nodes(), "edge_index": EDGE, "batch": BATCH}),
    "TopKPooling, score": lambda p: (p.TopKPooling(8, min_score=0.1), {"x": nodes(), "edge_index": EDGE, "batch": BATCH}),
    "SAGPooling": lambda p: (p.SAGPooling(8, ratio=0.5, GNN=p.GCNConv), {"x": nodes(), "edge_index": EDGE, "batch": BATCH}),
    "ASAPooling": lambda p: (p.ASAPooling(8, ratio=0.5, GNN=p.GCNConv), {"x": nodes(), "edge_index": EDGE, "batch": BATCH}),
    "EdgePooling": lambda p: (p.EdgePooling(8), (nodes(), EDGE, BATCH)),
    "ClusterPooling": lambda p: (p.ClusterPooling(8), (nodes(), EDGE, BATCH)),
    "MemPooling": lambda p: (_Loss(p.MemPooling(8, 8, heads=2, num_clusters=3), lambda m, out: out[0].sum() + m.kl_loss(out[1])), (nodes(), BATCH)),
    "GraphUNet": lambda p: (p.GraphUNet(8, 8, 4, depth=2), (nodes(), EDGE, BATCH)),
    "max_pool_neighbor": lambda p: (_Behind(p.global_max_pool, BATCH), (nodes(),)),
    "global_add_pool": lambda p: (_Behind(p.global_add_pool, BATCH, 2), (nodes(),)),
    "global_mean_pool": lambda p: (_Behind(p.global_mean_pool, BATCH), (nodes(),)),
    "avg_pool_x": lambda p: (_Behind(lambda x: p.avg_pool_x(torch.tensor([0, 0, 1, 1, 2, 2]), x, BATCH)), (nodes(),)),
    "dense_diff_pool": lambda p: (_Dense(p.dense_diff_pool), (torch.randn(2, 5, 8), torch.rand(2, 5, 5))),
    "dense_mincut_pool": lambda p: (_Dense(p.dense_mincut_pool), (torch.randn(2, 5, 8), torch.rand(2, 5, 5))),
    "DMoNPooling": lambda p: (p.DMoNPooling([8, 8], 3), (torch.randn(2, 5, 8), torch.rand(2, 5, 5))),
    "DenseGCNConv": lambda p: (p.DenseGCNConv(8, 8), (torch.randn(2, 5, 8), torch.rand(2, 5, 5))),
    "DenseGINConv": lambda p: (p.DenseGINConv(mlp(8), train_eps=True), (torch.randn(2, 5, 8), torch.rand(2, 5, 5), torch.ones(2, 5, dtype=torch.bool))),
    "DenseGraphConv": lambda p: (p.DenseGraphConv(8, 8, aggr="max"), (torch.randn(2, 5, 8), torch.ones(2, 5, 5))),
    "DenseSAGEConv": lambda p: (p.DenseSAGEConv(8, 8, normalize=True), (torch.randn(2, 5, 8), torch.rand(2, 5, 5))),
    "DenseGATConv": lambda p: (p.DenseGATConv(8, 4, heads=2), (torch.randn(2, 5, 8), torch.ones(2, 5, 5))),
    "HeteroLinear": lambda p: (p.HeteroLinear(8, 4, 3), (nodes(), torch.tensor([0, 0, 1, 1, 2, 2]))),
    "HeteroDictLinear": lambda p: (p.HeteroDictLinear(8, 4, ["a", "b"]), ({"a": nodes(), "b": nodes()},)),
}  # fmt: skip


class _Dense(nn.Module):
    """Soft assignment to three clusters, and the pooling's own losses."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool, self.assign, self.embed = pool, nn.Linear(8, 3), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> Any:
        return self.pool(self.embed(x), adjacency, self.assign(x))


PLAIN = ("Sum", "Mean", "Max", "Min", "Mul", "Var", "Std", "Median", "VariancePreserving")
AGGREGATIONS: Table = {
    **{f"{n}Aggregation": lambda p, n=n: (_Behind(getattr(p, f"{n}Aggregation")(), BATCH), (nodes(),)) for n in PLAIN},
    "SoftmaxAggregation": lambda p: (p.SoftmaxAggregation(learn=True, channels=8), (nodes(), BATCH)),
    "SoftmaxAggregation, semi": lambda p: (_Behind(p.SoftmaxAggregation(t=0.5, semi_grad=True), BATCH), (nodes(),)),
    "PowerMeanAggregation": lambda p: (p.PowerMeanAggregation(learn=True), (nodes().abs(), BATCH)),
    "QuantileAggregation": lambda p: (_Behind(p.QuantileAggregation([0.25, 0.75]), BATCH), (nodes(),)),
    "LSTMAggregation": lambda p: (p.LSTMAggregation(8, 4), (nodes(), BATCH)),
    "GRUAggregation": lambda p: (p.GRUAggregation(8, 4), (nodes(), BATCH)),
    "Set2Set": lambda p: (p.Set2Set(8, processing_steps=2), (nodes(), BATCH)),
    "SortAggregation": lambda p: (_Behind(p.SortAggregation(k=2), BATCH), (nodes(),)),
    "MultiAggregation": lambda p: (p.MultiAggregation(["mean", "max", "std"], mode="attn", mode_kwargs={"in_channels": 8, "out_channels": 8, "num_heads": 2}), (nodes(), BATCH)),
    "DegreeScalerAggregation": lambda p: (p.DegreeScalerAggregation(["mean", "max"], ["amplification", "attenuation"], torch.tensor([0, 1, 2]), train_norm=True), (nodes(), BATCH)),
    "GraphMultisetTransformer": lambda p: (p.GraphMultisetTransformer(8, k=2, heads=2), (nodes(), BATCH)),
    "AttentionalAggregation": lambda p: (p.AttentionalAggregation(mlp(8, 1), mlp(8)), (nodes(), BATCH)),
    "EquilibriumAggregation": lambda p: (p.EquilibriumAggregation(8, 4, [8], grad_iter=2), (nodes(), BATCH)),
    "MLPAggregation": lambda p: (p.MLPAggregation(8, 4, 4, num_layers=1), (nodes(), BATCH)),
    "DeepSetsAggregation": lambda p: (p.DeepSetsAggregation(mlp(8), mlp(8)), (nodes(), BATCH)),
    "SetTransformerAggregation": lambda p: (p.SetTransformerAggregation(8, num_seed_points=2, heads=2), (nodes(), BATCH)),
    "LCMAggregation": lambda p: (p.LCMAggregation(8, 4), (nodes(), BATCH)),
    "PatchTransformerAggregation": lambda p: (p.PatchTransformerAggregation(8, 4, 2, 8, heads=2), (nodes(), BATCH)),
}  # fmt: skip

NORMS: Table = {
    "BatchNorm": lambda p: (p.BatchNorm(8), (nodes(),)),
    "HeteroBatchNorm": lambda p: (p.HeteroBatchNorm(8, 3), (nodes(), torch.tensor([0, 0, 1, 1, 2, 2]))),
    "InstanceNorm": lambda p: (p.InstanceNorm(8, affine=True, track_running_stats=True), (nodes(), BATCH)),
    "LayerNorm": lambda p: (p.LayerNorm(8), (nodes(), BATCH)),
    "LayerNorm, node": lambda p: (p.LayerNorm(8, mode="node"), (nodes(),)),
    "HeteroLayerNorm": lambda p: (p.HeteroLayerNorm(8, 3, mode="node"), (nodes(), torch.tensor([0, 0, 1, 1, 2, 2]))),
    "GraphNorm": lambda p: (p.GraphNorm(8), (nodes(), BATCH)),
    "GraphSizeNorm": lambda p: (_Behind(p.GraphSizeNorm(), BATCH), (nodes(),)),
    "PairNorm": lambda p: (_Behind(p.PairNorm(scale_individually=True), BATCH), (nodes(),)),
    "MeanSubtractionNorm": lambda p: (_Behind(p.MeanSubtractionNorm(), BATCH), (nodes(),)),
    "MessageNorm": lambda p: (p.MessageNorm(learn_scale=True), (nodes(), nodes())),
    "DiffGroupNorm": lambda p: (p.DiffGroupNorm(8, groups=2), (nodes(),)),
}  # fmt: skip

MODELS: Table = {
    "MLP": lambda p: (p.MLP([8, 16, 4]), (nodes(),)),
    **{n: lambda p, n=n: (getattr(p, n)(8, 16, 2, 4), (nodes(), EDGE)) for n in ("GCN", "GraphSAGE", "GIN", "GAT", "EdgeCNN")},
    "GCN, jk": lambda p: (p.GCN(8, 16, 3, 4, dropout=0.5, norm="batch_norm", jk="cat", act="leaky_relu"), (nodes(), EDGE)),
    "PNA": lambda p: (p.PNA(8, 16, 2, 4, aggregators=["mean", "max"], scalers=["identity"], deg=torch.tensor([0, 2, 2])), (nodes(), EDGE)),
    "JumpingKnowledge": lambda p: (p.JumpingKnowledge("lstm", 8, 2), ([nodes(), nodes()],)),
    "HeteroJumpingKnowledge": lambda p: (p.HeteroJumpingKnowledge(["a", "b"], "lstm", 8, 2), ({"a": [nodes(), nodes()], "b": [nodes(), nodes()]},)),
    "MetaLayer": lambda p: (p.MetaLayer(_EdgeModel(), _NodeModel(), None), (nodes(), EDGE, edges(3))),
    "DeepGraphInfomax": lambda p: (_Loss(p.DeepGraphInfomax(8, p.GCNConv(8, 8), summary=lambda z, *_: z.mean(0).sigmoid(),
                                   corruption=lambda x, e: (x[torch.randperm(6)], e)), lambda m, out: m.loss(*out)), (nodes(), EDGE)),
    "GAE": lambda p: (_Loss(p.GAE(p.GCNConv(8, 4)), lambda m, z: m.recon_loss(z, EDGE)), (nodes(), EDGE)),
    "VGAE": lambda p: (_Loss(p.VGAE(_Variational(p)), _vgae), (nodes(), EDGE)),
    "ARGA": lambda p: (_Loss(p.ARGA(p.GCNConv(8, 4), mlp(4, 1)), lambda m, z: m.reg_loss(z) + m.discriminator_loss(z)), (nodes(), EDGE)),
    "ARGVA": lambda p: (_Loss(p.ARGVA(_Variational(p), mlp(4, 1)), lambda m, out: _vgae(m, out) + m.reg_loss(m.reparametrize(*out))), (nodes(), EDGE)),
    "SignedGCN": lambda p: (_Loss(p.SignedGCN(8, 8, 2), lambda m, z: m.loss(z, EDGE, EDGE.flip(0))), (nodes(), EDGE, EDGE.flip(0))),
    "SchNet": lambda p: (p.SchNet(8, 8, 2, 5, interaction_graph=lambda pos, _: (EDGE, (pos[EDGE[0]] - pos[EDGE[1]]).norm(dim=-1))),
                         (torch.tensor([1, 6, 8, 1, 1, 6]), nodes(3), BATCH)),
    "DeepGCNLayer": lambda p: (p.DeepGCNLayer(p.GENConv(8, 8), p.LayerNorm(8), nn.ReLU(inplace=True), block="res+", dropout=0.1), (nodes(), EDGE)),
    "DeepGCNLayer, checkpoint": lambda p: (_Behind(p.DeepGCNLayer(p.GENConv(8, 8), p.LayerNorm(8), nn.ReLU(), block="plain", ckpt_grad=True)), (nodes(), EDGE)),
    "AttentiveFP": lambda p: (p.AttentiveFP(8, 8, 4, 3, 2, 2), (nodes(), EDGE, edges(3), BATCH)),
    "RECT_L": lambda p: (p.RECT_L(8, 8), (nodes(), EDGE)),
    "LINKX": lambda p: (p.LINKX(6, 8, 8, 4, 2), (nodes(), EDGE)),
    "LightGCN": lambda p: (p.LightGCN(6, 8, 2), (EDGE,)),
    "LightGCN, loss": lambda p: (_Loss(p.LightGCN(6, 8, 2), lambda m, ranks: m.recommendation_loss(ranks[:4], ranks[4:], torch.tensor([0, 1]))), (EDGE,)),
    "MaskLabel": lambda p: (p.MaskLabel(3, 8), (nodes(), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([True, False] * 3))),
    "GroupAddRev": lambda p: (p.GroupAddRev(p.SAGEConv(4, 4), num_groups=2), (nodes().requires_grad_(), EDGE)),
    "PMLP": lambda p: (p.PMLP(8, 8, 4, 2), (nodes(),)),
    "PMLP, eval": lambda p: (_Evaluated(p.PMLP(8, 8, 4, 2)), (nodes(), EDGE)),
    "NeuralFingerprint": lambda p: (p.NeuralFingerprint(8, 8, 4, 2), (nodes(), EDGE, BATCH)),
    "SGFormer": lambda p: (p.SGFormer(8, 8, 4), (nodes(), EDGE, BATCH)),
    "Polynormer": lambda p: (p.Polynormer(8, 8, 4, local_layers=2, global_layers=1, heads=2), (nodes(), EDGE, BATCH)),
    "Polynormer, global": lambda p: (_globally(p.Polynormer(8, 8, 4, local_layers=1, global_layers=1)), (nodes(), EDGE, BATCH)),
    "TGNMemory": lambda p: (_tgn(p), (torch.tensor([0, 1, 3]),)),
    "PerformerAttention": lambda p: (p.attention.PerformerAttention(8, heads=2), (torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool))),
    "QFormer": lambda p: (p.attention.QFormer(8, 8, 4, 2, 1), (torch.randn(2, 5, 8),)),
    "TemporalEncoding": lambda p: (_Behind(nn.Sequential(p.TemporalEncoding(8)), width=1), (nodes(1),)),
}  # fmt: skip


class _Evaluated(nn.Module):
    """Always in evaluation: the model's other half."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def train(self, mode: bool = True) -> _Evaluated:
        super().train(mode)
        self.inner.eval()
        return self

    def forward(self, *args: Any) -> Any:
        return self.inner(*args)


class _Variational(nn.Module):
    def __init__(self, p: Any) -> None:
        super().__init__()
        self.mean, self.spread = p.GCNConv(8, 4), p.GCNConv(8, 4)

    def forward(self, x: torch.Tensor, edge: torch.Tensor) -> Any:
        return self.mean(x, edge), self.spread(x, edge)


def _vgae(model: Any, out: Any) -> torch.Tensor:
    mean, spread = out
    total: torch.Tensor = model.recon_loss(model.reparametrize(mean, spread), EDGE) + model.kl_loss(mean, spread)
    return total


class _EdgeModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = mlp(19, 3)

    def forward(self, source: Any, target: Any, attributes: Any, u: Any, batch: Any) -> Any:
        return self.mlp(torch.cat([source, target, attributes], 1))


class _NodeModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = mlp(11)

    def forward(self, x: Any, edge: Any, attributes: Any, u: Any, batch: Any) -> Any:
        gathered = torch.zeros(x.size(0), 3).index_add_(0, edge[1], attributes)
        return self.mlp(torch.cat([x, gathered], 1))


def _globally(model: Any) -> Any:
    model._global = True
    return model


def _tgn(p: Any) -> Any:
    tgn = module("torch_geometric.nn.models.tgn")
    memory = p.TGNMemory(6, 3, 8, 4, tgn.IdentityMessage(3, 8, 4), tgn.LastAggregator())
    memory.update_state(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([1, 2]), torch.randn(2, 3))
    return memory


def geometric() -> Iterator[Entry]:
    """Everything of PyTorch Geometric that runs without compiled extensions."""
    if not have("torch_geometric"):
        return
    convolutions = module("torch_geometric.nn").conv
    for name in sorted(dir(convolutions)):
        if (
            name.endswith("Conv")
            and inspect.isclass(getattr(convolutions, name))
            and name not in CONVOLUTIONS
            and not name.startswith(LEFT_OUT)
        ):
            yield f"pyg/{name}", seeded(_plain(getattr(convolutions, name)))
    for home, table in (("nn", CONVOLUTIONS), ("nn", POOLING), ("nn.aggr", AGGREGATIONS), ("nn.norm", NORMS), ("nn", MODELS)):
        yield from entries(f"torch_geometric.{home}", table, "pyg")


def _plain(cls: Any) -> Callable[[], Any]:
    """A convolution of (in, out) channels, a node matrix and the edges."""

    def build() -> Any:
        required = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        special = {"nn": nn.Linear(8, 8), "K": 2, "alpha": 0.1}
        return cls(**{p.name: special.get(p.name, 8) for p in required}), (nodes(), EDGE)

    return build


FAMILIES: tuple[Callable[[], Iterator[Entry]], ...] = (geometric,)
