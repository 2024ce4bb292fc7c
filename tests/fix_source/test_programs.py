"""Whole programs mended in their source: the diff, that the mended program trains what it should, and that it equals the oracle in float64.

Each program's module has `make()`, which returns what a command line would find in a model file. The oracle is the program as it was
written, run by eager PyTorch with a copy of everything it saves for backward; where torch refuses the write itself, `right` is the same
program written out of place by hand.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fxgrad.fix_source import MendResult, mend
from fxgrad.fix_source.trials.server import Server

CASES = Path(__file__).parents[1] / "cases"

HEAD = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n\n\n"

RESIDUAL = """
class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.conv2, self.bn2 = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out += identity
        return out


def make():
    return dict(model=nn.Sequential(Block(2), Block(2)), inputs=(torch.randn(2, 2, 4, 4),), loss=lambda o: o.square().mean())
"""

CODEBOOK = """
class Codebook(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 4)
        self.register_buffer("embed", torch.randn(8, 4))
        self.decay = 0.9

    def update(self, flat, onehot):
        with torch.no_grad():
            mean = onehot.T @ flat / onehot.sum(0).clamp(min=1)[:, None]
            self.embed.mul_(self.decay).add_(mean, alpha=1 - self.decay)

    def forward(self, x):
        z = torch.tanh(self.encoder(x))
        logits = z @ self.embed.T
        onehot = F.one_hot(logits.argmax(-1), 8).to(z.dtype)
        self.update(z, onehot)
        return torch.softmax(logits, -1), onehot @ self.embed


def make():
    return dict(model=Codebook(), inputs=(torch.randn(9, 6),), loss=lambda o: o[0].square().sum() + o[1].sum())
"""

ATTENTION = """
class Attention(nn.Module):
    def __init__(self, c=4, heads=2):
        super().__init__()
        self.qkv = nn.Linear(c, 3 * c)
        self.out = nn.Linear(c, c)
        self.scale = (c // heads) ** -0.5

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, -1).unbind(2)
        q *= self.scale  # a view of qkv
        return self.out(torch.softmax(q @ k.transpose(-1, -2), -1) @ v)


def make():
    return dict(model=Attention(), inputs=(torch.randn(2, 3, 4),), loss=lambda o: o.square().mean())
"""

REVERSAL = """
class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alpha):
        ctx.alpha = alpha
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -ctx.alpha * g, None


class Dann(nn.Module):
    def __init__(self):
        super().__init__()
        self.feature, self.domain = nn.Linear(4, 3), nn.Linear(3, 2)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        h = self.feature(x)
        r = Reverse.apply(h, 0.5)
        r += self.bias
        return self.domain(torch.relu(r))


def make():
    return dict(model=Dann(), inputs=(torch.randn(4, 4),), loss=lambda o: o.square().mean())
"""

DROPOUT = """
class SquaredRelu(nn.Module):
    def __init__(self, d=4):
        super().__init__()
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def noise(self, h, p=0.3):
        keep = (torch.rand_like(h) > p).to(h.dtype) / (1 - p)
        h.data.mul_(keep)
        return h

    def forward(self, x):
        a = F.softplus(self.up(x))
        energy = a.square().mean()
        return self.down(self.noise(a)), energy


def make():
    return dict(model=SquaredRelu(), inputs=(torch.randn(6, 4),), loss=lambda o: o[0].square().mean() + 0.1 * o[1])
"""

# name: (program, its diff, the lines that make it right by hand where eager cannot run it as it stands)
PROGRAMS = {
    "residual": (
        RESIDUAL,
        """\
        --- a/net.py
        +++ b/net.py
        @@ -14,7 +14,7 @@ FXG201 safe
                 identity = x
                 out = self.relu(self.bn1(self.conv1(x)))
                 out = self.relu(self.bn2(self.conv2(out)))
        -        out += identity
        +        out = out + identity
                 return out
        {space}
        {space}
        """,
        (),
    ),
    "codebook": (
        CODEBOOK,
        """\
        --- a/net.py
        +++ b/net.py
        @@ -13,7 +13,7 @@ FXG201 safe
             def update(self, flat, onehot):
                 with torch.no_grad():
                     mean = onehot.T @ flat / onehot.sum(0).clamp(min=1)[:, None]
        -            self.embed.mul_(self.decay).add_(mean, alpha=1 - self.decay)
        +            self.embed = self.embed.mul(self.decay).add(mean, alpha=1 - self.decay)
        {space}
             def forward(self, x):
                 z = torch.tanh(self.encoder(x))
        """,
        (),
    ),
    "attention": (
        ATTENTION,
        """\
        --- a/net.py
        +++ b/net.py
        @@ -12,7 +12,7 @@ FXG202 safe
        {space}
             def forward(self, x):
                 q, k, v = self.qkv(x).view(*x.shape[:2], 3, -1).unbind(2)
        -        q *= self.scale  # a view of qkv
        +        q = q * self.scale  # a view of qkv
                 return self.out(torch.softmax(q @ k.transpose(-1, -2), -1) @ v)
        {space}
        {space}
        """,
        (("q *= self.scale", "q = torch.mul(q, self.scale)"),),
    ),
    "reversal": (
        REVERSAL,
        """\
        --- a/net.py
        +++ b/net.py
        @@ -23,7 +23,7 @@ FXG202 safe
             def forward(self, x):
                 h = self.feature(x)
                 r = Reverse.apply(h, 0.5)
        -        r += self.bias
        +        r = r + self.bias
                 return self.domain(torch.relu(r))
        {space}
        {space}
        """,
        (("r += self.bias", "r = torch.add(r, self.bias)"),),
    ),
    "dropout": (
        DROPOUT,
        """\
        --- a/net.py
        +++ b/net.py
        @@ -10,7 +10,7 @@ FXG203 safe
        {space}
             def noise(self, h, p=0.3):
                 keep = (torch.rand_like(h) > p).to(h.dtype) / (1 - p)
        -        h.data.mul_(keep)
        +        h = h * keep
                 return h
        {space}
             def forward(self, x):
        """,
        (("h.data.mul_(keep)", "h = torch.mul(h, keep)"),),
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def load(file: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def numbers(module: Any, function: str = "make", *, copies: bool = False) -> dict[str, torch.Tensor]:
    """Outputs, gradients and buffers of two steps in float64; `copies`: backward gets copies of what was saved."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(5)
        case = getattr(module, function)()
        model, found = case["model"].double(), {}
        loss = case.get("loss") or (lambda out: out)
        for step in range(2):
            torch.manual_seed(step)
            model.zero_grad()
            saved = torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t)
            with saved if copies else contextlib.nullcontext():
                out = model(*case["inputs"])
                loss(out).backward()
            for index, leaf in enumerate(torch.utils._pytree.tree_leaves(out)):
                found[f"{step}: output {index}"] = leaf.detach().clone()
            found.update({f"{step}: gradient of {n}": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
            found.update({f"{step}: {n}": b.clone() for n, b in model.named_buffers()})
        return found
    finally:
        torch.set_default_dtype(before)


def assert_equal(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str, tmp_path: Path, server: Server) -> None:
    text, diff, by_hand = PROGRAMS[name]
    file = tmp_path / "net.py"
    file.write_text(HEAD + text.lstrip("\n"))
    result = mend(f"{file}:make", server=server)
    assert result.diff(str(tmp_path)) == textwrap.dedent(diff).replace("{space}", " ")
    assert (len(result.fixed), result.remaining, set(result.after.values())) == (1, (), {"flows"})
    for old, new in by_hand:
        text = text.replace(old, new)
    right = tmp_path / "right.py"
    right.write_text(HEAD + text.lstrip("\n"))
    result.write()
    got = numbers(load(file, "mended_net"))
    assert_equal(got, numbers(load(right, "right_net"), copies=not by_hand))
    trained = {name.partition("gradient of ")[2] for name in got if "gradient of" in name}
    assert trained == set(result.after)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_second_run_has_nothing_to_do(name: str, tmp_path: Path, server: Server) -> None:
    file = tmp_path / "net.py"
    file.write_text(HEAD + PROGRAMS[name][0].lstrip("\n"))
    mend(f"{file}:make", server=server).write()
    again = mend(f"{file}:make", server=server)
    assert (again.diff(), again.repairs, again.refused, again.write()) == ("", (), (), ())


# ------------------------------------------------------------------------------- the in-place programs that the rules are tested with

# What is mended, by its changed lines; a program that is not here is refused, for the reason that its test of the rules gives.
CHANGED = {
    "guilty_relu_module_inplace_after_sigmoid": "-self.act = nn.ReLU(inplace=True)\n+self.act = nn.ReLU(inplace=False)",
    "guilty_functional_relu_inplace_flag_in_helper": "-h = torch.tanh(self.a(x))\n+h = torch.tanh(self.a(x)).clone()",
    "guilty_custom_function_saved_its_output": "-h += 0.1 * torch.randn_like(h)\n+h = h + 0.1 * torch.randn_like(h)",
    "guilty_setitem_masks_exponentials": "+e = e.clone()",
    "guilty_foreach_scales_saved_activations": "-torch._foreach_mul_(outs, 0.5)\n+outs = torch._foreach_mul(outs, 0.5)",
    "guilty_ema_codebook_after_lookup": "-self.codes.lerp_(hot.T @ z, 0.01)\n+self.codes = self.codes.lerp(hot.T @ z, 0.01)",
    "guilty_memory_bank_queue_in_loss": "+self.queue = self.queue.clone()",
    "guilty_two_savers_one_writer": "-h.clamp_(-0.5, 0.5)\n+h = h.clamp(-0.5, 0.5)",
    "guilty_inherited_residual_add": "-out += x\n+out = out + x",
    "guilty_adversarial_input_stepped_in_place": "-x += 0.1 * g.sign()\n+x = x + 0.1 * g.sign()",
    "guilty_split_halves_edited": "-b.mul_(self.scale(a).exp())\n+b = b.mul(self.scale(a).exp())",
    "guilty_out_argument_with_gradients": (
        "-return torch.tanh(self.fc(x), out=self.result)\n+self.result = torch.tanh(self.fc(x))\n+return self.result"
    ),
    "guilty_activation_scaled_after_it_was_saved": "-h.data.mul_(0.5)\n+h = h * 0.5",
    "guilty_norm_projection_after_use": "-y = self.first(x) @ self.weight\n+y = self.first(x) @ self.weight.clone()",
}


def guilty() -> list[Any]:
    found = []
    for code in ("fxg201", "fxg202", "fxg203", "fxg205"):
        for path in sorted(CASES.glob(f"{code}_*.py")):
            for name in re.findall(r"^def (guilty_\w+)", path.read_text(), re.MULTILINE):
                found.append(pytest.param(path, name, id=f"{code}-{name}"))
    return found


def changed_lines(result: MendResult, root: Path) -> str:
    lines = [line for line in result.diff(str(root)).splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join(line[0] + re.sub(r"\s*#\s*(or )?FXG\d+.*", "", line[1:]).strip() for line in lines)


@pytest.mark.parametrize(("path", "name"), guilty())
def test_case(path: Path, name: str, tmp_path: Path, server: Server) -> None:
    grad = torch.is_grad_enabled()
    file = tmp_path / path.name
    file.write_text(path.read_text())
    result = mend(f"{file}:{name}", server=server)
    if name in CHANGED:
        assert changed_lines(result, tmp_path) == CHANGED[name]
    if not result.repairs:
        assert all(refusal.reason for refusal in result.refused)
        assert file.read_text() == path.read_text()
        return
    result.write()
    try:
        case = load(path, "case_as_written")
        mended = numbers(load(file, "case_mended"), name)
        assert any("gradient of" in key for key in mended)
        # Eager runs what it only refuses in backward: that is the oracle. Of what it refuses in forward the diff above is the test.
        if any(finding.code in ("FXG201", "FXG205") for finding in result.fixed):
            assert_equal(mended, numbers(case, name, copies=True))
    finally:
        torch.set_grad_enabled(grad)
