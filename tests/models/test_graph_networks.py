"""Message passing of PyTorch Geometric: eager step == step of the regenerated graph. Its scatters ask for data: fake values are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

geometric = pytest.importorskip("torch_geometric.nn")
data = pytest.importorskip("torch_geometric.data")

EDGES = torch.tensor([[0, 1, 2, 3, 0, 2], [1, 2, 3, 0, 2, 0]])
NODES = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = geometric.GCNConv(8, 8), geometric.BatchNorm(8)
        self.second, self.third = geometric.GATConv(8, 4, heads=2), geometric.SAGEConv(8, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.norm(self.first(x, edges)).relu(), 0.2, self.training)
        x = self.third(self.second(x, edges).relu(), edges)
        return self.out(geometric.global_mean_pool(x, batch))


class OnBatches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = geometric.GINConv(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
        self.second, self.pool = geometric.TransformerConv(8, 4), geometric.TopKPooling(4)
        self.out = nn.Linear(4, 2)

    def forward(self, batch: Any) -> torch.Tensor:
        x = self.second(self.first(batch.x, batch.edge_index), batch.edge_index)
        x, _, _, number, _, _ = self.pool(x, batch.edge_index, None, batch.batch)
        return self.out(geometric.global_max_pool(x, number))


def test_convolutions(same_as_eager: Callable[..., Any]) -> None:
    same_as_eager(Convolutions(), (NODES, EDGES, torch.zeros(4, dtype=torch.long)), fake=None)


def test_attributes_of_a_batch_object_are_inputs(same_as_eager: Callable[..., Any]) -> None:
    graphs = [data.Data(x=NODES, edge_index=EDGES), data.Data(x=NODES * 2, edge_index=EDGES)]
    same_as_eager(OnBatches(), (data.Batch.from_data_list(graphs),), fake=None)


def test_a_ready_made_network(same_as_eager: Callable[..., Any]) -> None:
    same_as_eager(geometric.GAT(8, 8, 2, 4), (NODES, EDGES), fake=None)
