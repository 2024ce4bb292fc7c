"""Which names the text makes copies of networks: each row a text, and all the names that it must find in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.source.network_copies import copied_networks
from fxgrad.source.parsing import load

TEXTS = [
    ("self.t = copy.deepcopy(self.q)", {"t"}),
    ("self.t = deepcopy(self.q).to(device).eval()", {"t"}),
    ("self.a, self.b = deepcopy(self.c), nn.Linear(2, 2)", {"a"}),
    ("self.t: nn.Module = deepcopy(q)", {"t"}),
    ("self.add_module('t', deepcopy(q))", {"t"}),
    ("nets = nn.ModuleDict({'live': q, 't': deepcopy(q)})", {"t"}),
    ("agent = Agent(q, slow=deepcopy(q))", {"slow"}),
    ("setattr(self, f't{i}', deepcopy(q))", {"t*"}),
    ("self.ts = nn.ModuleList([deepcopy(q) for q in self.qs])", {"ts"}),
    ("self.layers = nn.ModuleList([deepcopy(layer) for _ in range(3)])", set()),
    ("self.q = deepcopy(self.q)", set()),
    ("t.load_state_dict(q.state_dict())", {"t"}),
    ("q.load_state_dict(torch.load(path))", set()),
    ("for a, b in zip(t.parameters(), q.parameters()):\n    a.data.lerp_(b.data, tau)", {"t"}),
    ("for (_, a), (_, b) in zip(list(t.named_parameters()), list(q.named_parameters())):\n    a.data = b.data", {"t"}),
    ("for a, b in zip(t.state_dict().values(), q.state_dict().values()):\n    a.copy_(b)", {"t"}),
    ("for a, b in zip(t.parameters(), q.parameters()):\n    distance += (a - b).norm()", set()),
    ("ours = dict(t.named_parameters())\nfor k, p in q.named_parameters():\n    ours[k].data.lerp_(p, 0.1)", {"t"}),
    ("ours, theirs = dict(t.named_parameters()), q.state_dict()\nfor k in ours:\n    ours[k].mul_(d).add_(theirs[k])", {"t"}),
    ("ours = dict(t.named_parameters())\nfor k in ours:\n    ours[k].data.normal_()", set()),
    (
        "def soft(a, b, tau):\n    for x, y in zip(a.parameters(), b.parameters()):\n        x.data.copy_(tau * y + x)\nsoft(self.t, self.q, 0.1)",
        {"a", "t"},
    ),
    (
        "def sync(mine, given):\n    for x, y in zip(mine, given):\n        torch.add(x, y, out=y.data)\nsync(q.parameters(), given=t.parameters())",
        {"given", "t"},
    ),
    (
        "class Trainer:\n    def sync(self, a, b):\n        a.load_state_dict(b.state_dict())\n"
        "    def both(self, x, y):\n        self.sync(x, y)\n    def step(self):\n        self.both(self.t, self.q)",
        {"a", "x", "t"},
    ),
    ("for k, p in q.state_dict().items():\n    t.state_dict()[k].mul_(1 - tau).add_(tau * p)", {"t"}),
    ("for k, p in t.named_parameters():\n    p.data.lerp_(q.get(k), 0.1)", set()),
    ("for k, p in t.named_parameters():\n    p.data.lerp_(q.state_dict()[k], 0.1)", {"t"}),
    ("class Pair:\n    def __init__(self, live, slow): pass\nPair(q, deepcopy(q))", {"slow"}),
    ("class Pair:\n    def __init__(self, live, slow): pass\ncopied = deepcopy(q)\nPair(q, copied)", {"slow", "copied"}),
    ("copied = deepcopy(q)\nself.t = copied", {"copied", "t"}),
    ("def f():\n    copied = deepcopy(q)\ndef g(copied):\n    self.t = copied", {"copied"}),
    ("for row, scale in zip(rows, scales):\n    row.mul_(scale)", set()),
]


@pytest.mark.parametrize(("text", "names"), TEXTS, ids=[text.replace("\n", " ")[:50] for text, _ in TEXTS])
def test_names(tmp_path: Path, text: str, names: set[str]) -> None:
    file = tmp_path / "agent.py"
    file.write_text(text + "\n")
    assert copied_networks([load(str(file))]).keys() == names


def test_a_helper_of_another_file(tmp_path: Path) -> None:
    """The helper writes what it is given; which network that is stands in the file that calls it."""
    (tmp_path / "helpers.py").write_text("def hard_update(target, source):\n    target.load_state_dict(source.state_dict())\n")
    (tmp_path / "agent.py").write_text("import helpers\nhelpers.hard_update(agent.old, agent.new)\n")
    assert "old" in copied_networks(load(str(tmp_path / name)) for name in ("helpers.py", "agent.py"))


def test_averaged_again_and_again(tmp_path: Path) -> None:
    """Averages are told from what is copied once, through a helper too."""
    file = tmp_path / "agent.py"
    file.write_text(
        "def soft(a, b):\n    for x, y in zip(a.parameters(), b.parameters()):\n        x.data.lerp_(y, 0.1)\n"
        "soft(self.slow, self.fast)\nself.old.load_state_dict(self.fast.state_dict())\nself.twin = deepcopy(self.fast)\n"
        "while playing:\n    hard.load_state_dict(fast.state_dict())\n"
        "class Agent:\n    def __init__(self):\n        self.first.load_state_dict(self.fast.state_dict())\n"
        "    def keep(self):\n        self.best.load_state_dict(self.fast.state_dict())\n"
    )
    again = {name for name, repeated in copied_networks([load(str(file))]).items() if repeated}
    assert again == {"a", "slow", "hard", "best"}
