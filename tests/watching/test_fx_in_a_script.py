"""Scripts that trace a model with torch.fx, or build a graph by its proxies, before they train what came of it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from fxgrad.watching.script import run_script

HEAD = """import torch
from torch import fx, nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(4, 3), nn.Dropout(0.1), nn.Linear(3, 2)

    def forward(self, x, scale=None):
        h = torch.relu(self.drop(self.body(x)))
        return self.head(torch.cat([h, h], 0)[: x.shape[0]]).mean(dim=[1])


net = Net()
"""
TRAIN = """
opt = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(3):
    opt.zero_grad()
    loss = made(torch.randn(2, 4)).sum()
    loss.backward()
    opt.step()
"""
MADE = {
    "traced": "made = fx.symbolic_trace(net)",
    "traced with an argument bound": "made = fx.symbolic_trace(net, concrete_args={'scale': None})",
    "a graph of proxies": """
        graph = fx.Graph()
        tracer = fx.proxy.GraphAppendingTracer(graph)
        x = fx.Proxy(graph.placeholder("x", torch.Tensor), tracer=tracer)
        y = torch.einsum("i,i->i", x, torch.stack([x, x]).sum(0))
        graph.output(y.node)
        tail = fx.GraphModule(nn.Module(), graph)
        made = nn.Sequential(net, tail)
        """,
    "a node replaced": """
        made = fx.symbolic_trace(net)
        for node in made.graph.nodes:
            if node.target is torch.relu:
                with made.graph.inserting_after(node):
                    new = made.graph.call_function(torch.tanh, node.args)
                node.replace_all_uses_with(new)
        made.graph.eliminate_dead_code()
        made.recompile()
        """,
}


@pytest.mark.parametrize("name", MADE)
def test_a_model_that_fx_traced_is_watched(name: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(HEAD + textwrap.dedent(MADE[name]).lstrip() + TRAIN)
    report, _ = run_script(str(script))
    assert report is not None
    assert not report.findings, str(report)
    assert set(report.verdicts.values()) == {"flows"}


def test_a_layer_that_fx_was_asked_to_drop_is_told(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    dropped = """
made = fx.symbolic_trace(net)
for node in made.graph.nodes:
    if node.target == "body":
        node.replace_all_uses_with(node.args[0])
net.head = made.head = nn.Linear(4, 2)
made.graph.eliminate_dead_code()
made.recompile()
"""
    script.write_text(HEAD + dropped.lstrip() + TRAIN)
    report, _ = run_script(str(script))
    assert report is not None
    starved = {name for name, verdict in report.verdicts.items() if verdict == "none"}
    assert starved == {f"{model}.body.{kind}" for model in ("net", "made") for kind in ("weight", "bias")}  # tied
    assert [f.code for f in report.findings if f.severity == "error"] == ["FXG101"]
