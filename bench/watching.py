"""What `fxgrad run --continue` costs beside the plain script: CPU seconds of both, in turns, and their ratio.

Each script runs in a process of its own, by every Python that is given; the smallest of the rounds counts. A
part of the cost is there whatever the script does (fxgrad is loaded): that is the row `nothing but a step`,
and `beyond it` is what the watch adds to the others past that, for one second of the plain script.

    python bench/watching.py [--python PATH ...] [--rounds 3] [--scripts light heavy ...] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).parent.parent
HEAD = """import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)


def train(net, batch, steps):
    opt = torch.optim.Adam(net.parameters())
    for step in range(steps):
        opt.zero_grad()
        net(batch()).square().mean().backward()
        opt.step()


def net(width):
    first, second, last = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


"""
SCRIPTS = {
    "nothing but a step": "train(nn.Linear(4, 1), lambda: torch.randn(8, 4), 1)",
    "1,500 light steps": "train(net(16), lambda: torch.randn(8, 4), 1500)",
    "30 heavy steps": "train(net(2048), lambda: torch.randn(256, 4), 30)",
    "a rollout of 5,000 steps without gradients": """
policy, state, seen = net(16), torch.zeros(4), []
with torch.no_grad():
    for step in range(5000):
        state = torch.tanh(0.9 * state + policy(state) + 0.1 * torch.randn(4))
        seen.append(state)
train(policy, lambda: torch.stack(seen), 100)
""",
    "a target network, updated through data": """
online, target = net(16), net(16)
target.load_state_dict(online.state_dict())
opt = torch.optim.Adam(online.parameters())
for step in range(1000):
    x = torch.randn(8, 4)
    with torch.no_grad():
        aim = target(x)
    opt.zero_grad()
    (online(x) - aim).square().mean().backward()
    opt.step()
    for slow, fast in zip(target.parameters(), online.parameters()):
        slow.data.copy_(0.99 * slow.data + 0.01 * fast.data)
""",
    "one loss over 2,000 turns of a cell": """
cell, head = nn.GRUCell(4, 8), nn.Linear(8, 1)
opt = torch.optim.Adam([*cell.parameters(), *head.parameters()])
for step in range(6):
    h, loss = torch.zeros(1, 8), 0
    for turn in range(2000):
        h = cell(torch.randn(1, 4), h)
        loss = loss + head(h).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
""",
    "100,000 calls before the first step": """
x = torch.zeros(4)
layer = nn.Linear(4, 4)
for turn in range(33000):
    x = layer(x.detach() * 0.5).tanh()
train(net(16), lambda: torch.randn(8, 4), 100)
""",
    "10,000 samples by autograd.grad": """
energy, x = net(16), torch.randn(8, 4)
for turn in range(10000):
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).square().sum(), x)
    x = x + 0.01 * slope + 0.01 * torch.randn(8, 4)
train(energy, lambda: x.detach(), 1)
""",
    "10,000 small batches to a step": """
model = net(16)
opt = torch.optim.Adam(model.parameters())
for turn in range(10000):
    (model(torch.randn(8, 4)).square().mean() / 10000).backward()
opt.step()
""",
    "data from 4 worker processes": """
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 2000
    def __getitem__(self, number):
        x = torch.zeros(4)
        for turn in range(40):
            x = x * 0.9 + 0.1
        return x

loader = torch.utils.data.DataLoader(Rows(), batch_size=20, num_workers=4)
batches = iter(loader)
train(net(16), lambda: next(batches), 100)
""",
}


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """CPU seconds of a command and all its children.

    Raises:
        RuntimeError: it failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}{done.stdout}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measured(python: str, names: list[str], rounds: int) -> list[list[object]]:
    """A row for each script: plain and watched seconds, their ratio, and what the watch adds past the
    constant part."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    best: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, f"{names.index(name)}.py").write_text(HEAD + SCRIPTS[name])
        for _ in range(rounds):
            for name in names:
                script = str(Path(folder, f"{names.index(name)}.py"))
                plain = seconds([python, script], environment)
                watched = seconds([python, "-m", "fxgrad", "run", "--continue", script], environment)
                old = best.get(name, (plain, watched))
                best[name] = min(plain, old[0]), min(watched, old[1])
    constant = best[names[0]][1] - best[names[0]][0]
    rows: list[list[object]] = []
    for name, (plain, watched) in best.items():
        beyond = (watched - constant) / plain
        rows.append([name, f"{plain:.2f}", f"{watched:.2f}", f"{watched / plain:.2f}", f"{beyond:.2f}"])
    return rows


def main() -> None:
    """Measure and print, by Python."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scripts", nargs="+", default=[], help="words of their names")
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    first, *others = SCRIPTS
    names = [first, *(n for n in others if not args.scripts or any(word in n for word in args.scripts))]
    parts = []
    for python in args.python:
        asked = [python, "-c", "import sys, torch; print(sys.version.split()[0], 'torch', torch.__version__)"]
        version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        head = [f"Python {version}", "plain, s", "watched, s", "ratio", "beyond it"]
        parts.append(
            tabulate(measured(python, names, args.rounds), head, tablefmt="github", disable_numparse=True)
        )
        print(parts[-1], end="\n\n", flush=True)
    if args.markdown:
        args.markdown.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
