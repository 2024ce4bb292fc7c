"""Rounds that repeat are not noted one by one, and what a report says of them is the same."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from fxgrad.report import Report
from fxgrad.trace.rounds import ROUNDS
from fxgrad.watching.script import run_script

HEAD = """import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
one, two, head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
opt = torch.optim.SGD([*one.parameters(), *two.parameters(), *head.parameters()], 0.1)
END = TURNS - 10
"""
FEW, MANY = ROUNDS - 4, 4 * ROUNDS


def watched(text: str, turns: int, folder: Path) -> tuple[Report, str]:
    script = folder / "train.py"
    text = textwrap.dedent(text).replace("STEP", "opt.zero_grad()\nloss.backward()\nopt.step()")
    script.write_text((HEAD + text).replace("TURNS", str(turns)))
    report, _ = run_script(str(script))
    assert report is not None
    return report, script.read_text()


def told(report: Report) -> object:
    findings = [(f.code, f.site.line if f.site else 0, f.parameters) for f in report.findings]
    return sorted(findings), dict(report.verdicts)


QUIET = {
    "samples": """
        x = torch.randn(8, 4)
        for turn in range(TURNS):
            x = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(head(two(one(x)).tanh()).square().sum(), x)
            x = x + 0.01 * g
        loss = head(two(one(x.detach()))).sum() - head(two(one(torch.randn(8, 4)))).sum()
        STEP
        """,
    "small batches": """
        for turn in range(TURNS):
            (head(two(one(torch.randn(8, 4)))).mean() / TURNS).backward()
        opt.step()
        """,
    "a line for the log now and then": """
        for turn in range(TURNS):
            loss = head(two(one(torch.randn(8, 4)))).mean()
            if turn % 7 == 0:
                print(loss.item())
            loss.backward()
        opt.step()
        """,
    "pictures that require grad": """
        found = []
        for turn in range(TURNS):
            x = torch.randn(8, 4)
            x.requires_grad = True
            head(two(one(x))).sum().backward()
            found.append(x.grad.abs().amax(1))
        opt.step()
        """,
    "weights updated by hand": """
        w = torch.zeros(4, requires_grad=True)
        for turn in range(TURNS):
            (g,) = torch.autograd.grad((w * torch.randn(8, 4) - 1).square().mean(), w)
            with torch.no_grad():
                w -= 0.1 * g
        loss = head(two(one(torch.randn(8, 4) * w.detach()))).sum()
        STEP
        """,
    "running means": """
        norm = nn.BatchNorm1d(4)
        opt.add_param_group({"params": norm.parameters()})
        seen = torch.zeros(4)
        for turn in range(TURNS):
            h = norm(two(one(torch.randn(8, 4))))
            seen += h.detach().mean(0)
            head(F.dropout(h)).square().mean().backward()
        opt.step()
        """,
    "an expert that is late": """
        for turn in range(TURNS):
            h = one(torch.randn(8, 4))
            if turn == END:
                h = two(h)
            head(h).mean().backward()
        opt.step()
        """,
    "weights in a list, one of them late": """
        weights = [torch.randn(4, 4).requires_grad_() for _ in range(8)]
        opt.add_param_group({"params": weights})
        for turn in range(TURNS):
            h = two(one(torch.randn(8, 4))) @ weights[7 if turn == END else turn % 7]
            head(h).mean().backward()
        opt.step()
        """,
    "a term that is faded in": """
        for turn in range(TURNS):
            x = torch.randn(8, 4)
            (head(one(x)).mean() + float(turn > END) * two(x).mean()).backward()
        opt.step()
        """,
    "another phase": """
        for turn in range(TURNS):
            head(one(torch.randn(8, 4))).mean().backward()
        loss = head(two(one(torch.randn(8, 4)))).mean()
        loss.backward()
        opt.step()
        """,
    "a function of one's own": """
        class Twice(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2
            @staticmethod
            def backward(ctx, g):
                return g * 2
        for turn in range(TURNS):
            head(Twice.apply(two(one(torch.randn(8, 4))))).mean().backward()
        opt.step()
        """,
    "a loss that is kept": """
        kept = []
        for turn in range(TURNS):
            loss = head(two(one(torch.randn(8, 4)))).mean()
            kept.append(loss.detach())
            loss.backward()
        print(torch.stack(kept).mean())
        opt.step()
        """,
    "a loss that is NaN at first": """
        for turn in range(TURNS):
            x = torch.randn(8, 4)
            head(two(one(x + (float("nan") if turn < END else 1.0)))).mean().backward()
        opt.step()
        """,
    "other strings and types": """
        for turn in range(TURNS):
            h = two(one(torch.randn(8, 4))).to(torch.float64 if turn == END else torch.float32)
            h = torch.div(h, 2.0, rounding_mode="floor" if turn == END else None).float()
            head(h + one(torch.randn(8, 4))).mean().backward()
        opt.step()
        """,
    "gradients zeroed in every round": """
        for turn in range(TURNS):
            opt.zero_grad()
            head(two(one(torch.randn(8, 4)))).mean().backward()
        opt.step()
        """,
    "parameters that are frozen now and then": """
        for turn in range(TURNS):
            two.requires_grad_(turn % 2 == 0)
            head(two(one(torch.randn(8, 4)))).mean().backward()
        two.requires_grad_(True)
        opt.step()
        """,
    "inner steps": """
        for turn in range(TURNS):
            w = one.weight
            for inner in range(2):
                (g,) = torch.autograd.grad(F.linear(torch.randn(8, 4), w).square().mean(), w, create_graph=True)
                w = w - 0.1 * g
            head(two(F.linear(torch.randn(8, 4), w, one.bias))).mean().backward()
        opt.step()
        """,
}

GUILTY = {
    "a cut in every round": """
        for turn in range(TURNS):
            x = torch.randn(8, 4)
            head(one(x) + two(x).detach()).mean().backward()  # FXG103 two
        opt.step()
        """,
    "a cut after many rounds": """
        x = torch.randn(8, 4)
        for turn in range(TURNS):
            x = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(head(one(x)).square().sum(), x)
            x = x + 0.01 * g
        loss = head(one(x.detach()) + two(x).detach()).sum()  # FXG103 two
        STEP
        """,
    "a cut behind what was not noted": """
        for turn in range(TURNS):
            h = one(torch.randn(8, 4))
            if turn == END:
                h = h + torch.tensor(two(h).tolist())  # FXG107 two
            head(h).mean().backward()
        opt.step()
        """,
    "what was walked already": """
        old = 0
        for turn in range(TURNS):
            loss = head(two(one(torch.randn(8, 4)))).exp().mean()
            (loss + old if turn == END else loss).backward()
            old = loss
        opt.step()
        """,
    "what was walked and is carried on": """
        h = torch.zeros(8, 4)
        for turn in range(TURNS):
            h = two(one(torch.randn(8, 4) + (h if turn == END else h.detach()))).tanh()
            head(h).mean().backward()
        opt.step()
        """,
    "a write into what was saved": """
        for turn in range(TURNS):
            h = two(one(torch.randn(8, 4))).exp()
            if turn == END:
                h.add_(1)  # FXG201
            head(h).mean().backward()
        opt.step()
        """,
    "a write into a weight": """
        for turn in range(TURNS):
            h = two(one(torch.randn(8, 4)).exp())
            if turn == END:
                with torch.no_grad():
                    two.weight.mul_(0.9)  # FXG205
            head(h).mean().backward()
        opt.step()
        """,
    "no gradient where one is asked for": """
        for turn in range(TURNS):
            h = one(torch.randn(8, 4))
            if turn != END:
                h = two(h)
            (g,) = torch.autograd.grad(head(h).mean(), two.weight, allow_unused=True)
            g.norm()
        opt.step()
        """,
    "frozen all along": """
        two.requires_grad_(False)
        for turn in range(TURNS):
            head(two(one(torch.randn(8, 4)))).mean().backward()
        opt.step()
        """,
    "never called": """
        for turn in range(TURNS):
            head(one(torch.randn(8, 4))).mean().backward()
        opt.step()
        """,
    "a type that carries no gradient": """
        for turn in range(TURNS):
            h = head(two(one(torch.randn(8, 4))))
            h.to(torch.int64 if turn == END else torch.float64).float().mean().backward()  # FXG106
        opt.step()
        """,
    "a type by its name that carries none": """
        for turn in range(TURNS):
            h = head(two(one(torch.randn(8, 4))))
            h.type("torch.LongTensor" if turn == END else "torch.DoubleTensor").float().mean().backward()
        opt.step()
        """,
    "a tensor made in inference mode": """
        for turn in range(TURNS):
            with torch.inference_mode() if turn == END else torch.no_grad():  # FXG104
                x = torch.randn(8, 4) * 2
            head(two(one(x))).mean().backward()
        opt.step()
        """,
    "the array of another": """
        for turn in range(TURNS):
            h = one(torch.randn(8, 4))
            arrays = h.detach().numpy(), two(h).detach().numpy()  # FXG107
            (head(h) + torch.tensor(arrays[int(turn == END)]).mean()).mean().backward()
        opt.step()
        """,
    "a Function that reads another weight": """
        class Pick(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, turn):
                return x @ (two if turn == END + 1 else one).weight
            @staticmethod
            def backward(ctx, g):
                return g, None
        for turn in range(TURNS):
            head(Pick.apply(one(torch.randn(8, 4)), turn + 1)).mean().backward()  # FXG112
        opt.step()
        """,
    "a Function that writes what it is given": """
        class Double(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, turn):
                if turn <= END:
                    return x * 2
                x.mul_(2)
                ctx.mark_dirty(x)
                return x
            @staticmethod
            def backward(ctx, g):
                return 2 * g, None
        for turn in range(TURNS):
            h = two(one(torch.randn(8, 4))).exp()
            h = Double.apply(h, turn + 1)  # FXG201
            head(h).mean().backward()
        opt.step()
        """,
    "an infinite loss": """
        for turn in range(TURNS):
            x = torch.randn(8, 4) * (1e30 if turn >= END else 1.0)
            head(two(one(x))).square().mean().backward()  # FXG401
        opt.step()
        """,
    "frozen anew in every round": """
        for turn in range(TURNS):
            two.requires_grad_(False)
            h = two(one(torch.randn(8, 4)))
            if turn == END:
                h = h.detach()  # FXG103
                head.requires_grad_(False)
            loss = head(h).mean()
            loss.backward()
            two.requires_grad_(True)
        """,
    "zeros": """
        for turn in range(TURNS):
            (head(one(torch.randn(8, 4))).mean() + two(torch.randn(8, 4)).round().mean()).backward()
        opt.step()
        """,
}


@pytest.mark.parametrize("name", QUIET)
def test_many_rounds_are_as_quiet_as_few(name: str, tmp_path: Path) -> None:
    few, many = (watched(QUIET[name], turns, tmp_path)[0] for turns in (FEW, MANY))
    assert few.ok, str(few)
    assert told(many) == told(few), str(many)


@pytest.mark.parametrize("name", GUILTY)
def test_of_many_rounds_the_same_is_told(name: str, tmp_path: Path) -> None:
    (few, text), (many, _) = (watched(GUILTY[name], turns, tmp_path) for turns in (FEW, MANY))
    assert told(many) == told(few), f"{few}\n{many}"
    assert few.findings
    for number, line in enumerate(text.splitlines(), 1):
        for code in re.findall(r"# (FXG\d+)", line):
            assert (code, number) in [(f.code, f.site.line if f.site else 0) for f in many.findings]


def test_a_branch_is_not_said_to_have_gone_one_way_where_not_all_was_counted(tmp_path: Path) -> None:
    text = """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two, self.head, self.deep = one, two, head, False
            def forward(self, x, late):
                h = self.one(x)
                if late:
                    h = h * 2
                    if self.deep:
                        h = self.two(h)
                return self.head(h)
        net = Net()
        for turn in range(TURNS):
            net(torch.randn(8, 4), turn == END).mean().backward()
        opt.step()
        """
    few, many = (str(watched(text, turns, tmp_path)[0]) for turns in (FEW, MANY))
    assert "under `if self.deep` (line 18), which was false" in few
    assert "under `if self.deep` (line 18), which was false" in many or (
        "under `if late` (line 16), which was false as far as lines were counted" in many
    )


@pytest.mark.parametrize("name", ["samples", "small batches", "running means", "gradients zeroed in every round"])
def test_notes_do_not_grow_with_rounds(name: str, tmp_path: Path) -> None:
    some, many = (watched(QUIET[name], turns, tmp_path)[0] for turns in (2 * ROUNDS, MANY))
    assert some.to_dict()["nodes"] == many.to_dict()["nodes"]
