"""An optimizer of its own for what the model has given up, while another trains what came in its place: it steps, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.watching.script import run_script

HEAD = "import torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
NET = "g, d = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))\n"
LOOP = """
def train(*optimizers):
    loss = d(g(torch.randn(8, 2))).square().mean()
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
"""
GUILTY = {
    "a head put in afterwards": NET
    + "head = torch.optim.SGD(d[2].parameters(), 0.1)  # FXG302\nd[2] = nn.Linear(4, 1)\n"
    + "both = torch.optim.SGD([*g.parameters(), *d.parameters()], 0.1)\n"
    + LOOP
    + "for step in range(3):\n    train(both, head)\n",
    "built in the constructor of a model that is copied": """
import copy
class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(3, 2)
        self.optimizer = torch.optim.Adam(self.score.parameters())  # FXG302
    def forward(self, x):
        return self.score(x)
critic = Critic()
own = critic.optimizer
critic.score = copy.deepcopy(critic.score)
all_of_it = torch.optim.SGD(critic.parameters(), 0.1)
for step in range(3):
    all_of_it.zero_grad()
    critic(torch.randn(5, 3)).square().mean().backward()
    own.step()
    all_of_it.step()
""",
}
QUIET = {
    "the old head had its time": NET
    + "body, head = torch.optim.SGD(d[0].parameters(), 0.1), torch.optim.SGD(d[2].parameters(), 0.1)\n"
    + LOOP
    + "train(body, head)\nd[2] = nn.Linear(4, 1)\nnew = torch.optim.SGD(d[2].parameters(), 0.1)\n"
    + "for step in range(3):\n    train(body, new)\n",
    "one number for a schedule": NET
    + "counter = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)\n"
    + "both = torch.optim.SGD([*g.parameters(), *d.parameters()], 0.1)\n"
    + LOOP
    + "for step in range(3):\n    train(both, counter)\n",
    "other shapes for a schedule": NET
    + "counter = torch.optim.SGD(nn.Linear(7, 7).parameters(), 1.0)\n"
    + "both = torch.optim.SGD([*g.parameters(), *d.parameters()], 0.1)\n"
    + LOOP
    + "for step in range(3):\n    train(both, counter)\n",
    "a copy that somebody has": NET
    + "import copy\nold = copy.deepcopy(d[2])\nspare = torch.optim.SGD(old.parameters(), 0.1)\n"
    + "both = torch.optim.SGD([*g.parameters(), *d.parameters()], 0.1)\n"
    + LOOP
    + "for step in range(3):\n    train(both, spare)\n",
}


def said(tmp_path: Path, text: str) -> list[tuple[str, str, int]]:
    (tmp_path / "script.py").write_text(text)
    report, _ = run_script(str(tmp_path / "script.py"))
    assert report is not None
    return [(f.code, f.severity, f.site.line if f.site else 0) for f in report.findings if f.severity != "note"]


@pytest.mark.parametrize("name", GUILTY)
def test_it_is_told_where_it_was_built(tmp_path: Path, name: str) -> None:
    text = HEAD + GUILTY[name]
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "# FXG302" in line)
    assert said(tmp_path, text) == [("FXG302", "warning", line)]


@pytest.mark.parametrize("name", QUIET)
def test_what_is_no_mistake(tmp_path: Path, name: str) -> None:
    assert "FXG302" not in [code for code, *_ in said(tmp_path, HEAD + QUIET[name])]
