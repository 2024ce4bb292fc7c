"""Gradients that are asked for in vain: of no leaf, too early, of a computed weight, of what a derivative does not depend on.

Each program is held beside its mended version, which does what the report says and nothing more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fxgrad.watching.script import run_script
from tests.watching.remedies import Program, check_mended, check_said, write

NET = """
net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    opt.zero_grad()
    x, y = torch.rand(4, 6), torch.randint(0, 3, (4,))
"""

REWEIGHTED = """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    x, y, xv, yv = torch.randn(6, 3), torch.randn(6, 1), torch.randn(6, 3), torch.randn(6, 1)
    eps = torch.zeros(6, 1, requires_grad=True)
    inner = (eps * F.mse_loss(net(x), y, reduction="none")).sum()
    INNER
    meta = F.mse_loss(net(xv), yv)
    (g,) = torch.autograd.grad(meta, eps)
    weight = (1 - g).clamp(min=0)
    loss = (weight * F.mse_loss(net(x), y, reduction="none")).sum()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
    del eps
"""
FAST = (
    "params = dict(net.named_parameters())\n    grads = torch.autograd.grad(inner, list(params.values()), create_graph=True)\n"
    "    fast = {name: p - 0.1 * g for (name, p), g in zip(params.items(), grads)}"
)

PROGRAMS = {
    "the gradient of a weight that a parametrization computes": Program(
        "net = torch.nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))\n"
        "opt = torch.optim.SGD(net.parameters(), 0.1)\n"
        "for it in range(3):\n"
        "    loss = (net(torch.randn(6, 3)) - 1).square().mean()\n"
        "    opt.zero_grad()\n"
        "    loss.backward()\n"
        "    norm = net.weight.grad.norm()  # FXG111\n"
        "    opt.step()\n"
        "    losses.append(loss.item())\n",
        ("`net.weight` is computed each time it is read", "`net.parametrizations.weight.original.grad`"),
        (("net.weight.grad.norm()", "net.parametrizations.weight.original.grad.norm()"),),
    ),
    "the same under the name of a loop": Program(
        "net = torch.nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))\n"
        "opt = torch.optim.SGD(net.parameters(), 0.1)\n"
        "for it in range(3):\n"
        "    loss = (net(torch.randn(6, 3)) - 1).square().mean()\n"
        "    opt.zero_grad()\n"
        "    loss.backward()\n"
        "    norm = sum(p.grad.norm() for p in [net.weight, net.bias])  # FXG111\n"
        "    opt.step()\n"
        "    losses.append(loss.item())\n",
        ("`net.weight` is computed each time it is read", "`net.parametrizations.weight.original.grad`"),
        (("[net.weight, net.bias]", "[net.parametrizations.weight.original, net.bias]"),),
    ),
    "the gradient of a weight that a hook computes before each forward": Program(
        "net = torch.nn.utils.weight_norm(nn.Linear(3, 3))\n"
        "opt = torch.optim.SGD(net.parameters(), 0.1)\n"
        "for it in range(3):\n"
        "    loss = (net(torch.randn(6, 3)) - 1).square().mean()\n"
        "    opt.zero_grad()\n"
        "    loss.backward()\n"
        "    norm = net.weight.grad.norm()  # FXG111\n"
        "    opt.step()\n"
        "    losses.append(loss.item())\n",
        ("`net.weight` is computed in every forward, from `net.weight_g` and `net.weight_v`", "the `.grad` of these"),
        (("net.weight.grad.norm()", "net.weight_v.grad.norm()"),),
    ),
    # ------------------------------------------------------------------------------------- through an inner update
    "weights of examples, through a step of the optimizer": Program(
        REWEIGHTED.replace("INNER", "opt.zero_grad()\n    inner.backward()\n    opt.step()  # FXG104"),
        ("`opt.step()` changes the weights", "`eps` shaped the gradients", "index 0 of `autograd.grad`", "create_graph=True"),
        (
            ("opt.zero_grad()\n    inner.backward()\n    opt.step()  # FXG104", FAST),
            ("net(xv)", "torch.func.functional_call(net, fast, (xv,))"),
        ),
    ),
    "the same, updated by hand": Program(
        REWEIGHTED.replace(
            "INNER",
            "inner.backward(create_graph=True)\n    with torch.no_grad():\n        for p in net.parameters():\n"
            "            p -= 0.1 * p.grad  # FXG104",
        ),
        ("`p -= 0.1 * p.grad` changes the weights", "`eps` shaped the gradients", "functional_call"),
        (
            (
                "inner.backward(create_graph=True)\n    with torch.no_grad():\n        for p in net.parameters():\n"
                "            p -= 0.1 * p.grad  # FXG104",
                FAST,
            ),
            ("net(xv)", "torch.func.functional_call(net, fast, (xv,))"),
        ),
    ),
    "None for a learnt strength of noise": Program(
        """
net, alpha = nn.Linear(3, 1), nn.Parameter(torch.tensor(0.5))
opt = torch.optim.SGD(net.parameters(), 0.1)
outer = torch.optim.SGD([alpha], 0.1)
for it in range(3):
    x, y, xv, yv = torch.randn(6, 3), torch.randn(6, 1), torch.randn(6, 3), torch.randn(6, 1)
    inner = F.mse_loss(net(x + alpha * torch.randn_like(x)), y)
    opt.zero_grad()
    inner.backward()
    opt.step()  # FXG104
    loss = F.mse_loss(net(xv), yv)
    (g,) = torch.autograd.grad(loss, alpha, allow_unused=True)
    alpha.grad = g.clone()
    outer.step()
    losses.append(loss.item())
""",
        ("`opt.step()` changes the weights", "`alpha` shaped the gradients that it uses (line 14)", "create_graph=True"),
        (
            ("    inner.backward()\n    opt.step()  # FXG104\n", f"    {FAST}\n"),
            ("net(xv)", "torch.func.functional_call(net, fast, (xv,))"),
            ("    outer.step()\n", "    outer.step()\n    F.mse_loss(net(x), y).backward()\n    opt.step()\n"),
        ),
    ),
    # ------------------------------------------------------------------------------------------- the gradient of no leaf
    "an attack on a clamped sum": Program(
        NET
        + """    delta = torch.zeros_like(x).requires_grad_()
    worse = (x + delta).clamp(0, 1)  # FXG111
    loss = F.cross_entropy(net(worse), y)
    loss.backward()
    step = worse.grad.sign()
    opt.step()
    losses.append(loss.item())
""",
        ("`worse` is no leaf", "`delta`", "read `delta.grad`", "`worse.retain_grad()`"),
        (("worse.grad.sign()", "delta.grad.sign()"),),
    ),
    "an image cast after it was made a leaf": Program(
        NET
        + """    image = x.requires_grad_().double().float()  # FXG111
    loss = F.cross_entropy(net(image), y)
    loss.backward()
    step = image.grad.sign()
    opt.step()
    losses.append(loss.item())
""",
        ("`image` is no leaf", "`image = image.detach().requires_grad_()` behind this line"),
        (
            (
                "    image = x.requires_grad_().double().float()  # FXG111\n",
                "    image = x.requires_grad_().double().float()\n    image = image.detach().requires_grad_()\n",
            ),
        ),
    ),
    "an image whose flag was set, under another name": Program(
        NET
        + """    x.requires_grad = True
    seen = x.clamp(0.1, 0.9)  # FXG111
    loss = F.cross_entropy(net(seen), y)
    loss.backward()
    step = seen.grad.sign()
    opt.step()
    losses.append(loss.item())
""",
        ("`seen` is no leaf", "here on `x`", "read `x.grad`"),
        (("seen.grad.sign()", "x.grad.sign()"),),
    ),
    "an image whose flag was set, and its own name given to what was made of it": Program(
        NET
        + """    x.requires_grad = True
    x = x.clamp(0.1, 0.9)  # FXG111
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    step = x.grad.sign()
    opt.step()
    losses.append(loss.item())
""",
        ("`x` is no leaf", "`x = x.detach().requires_grad_()` behind this line"),
        (("x.clamp(0.1, 0.9)  # FXG111\n", "x.clamp(0.1, 0.9)\n    x = x.detach().requires_grad_()\n"),),
    ),
    "the same, its gradient kept": Program(
        NET
        + """    image = torch.randn(4, 6, requires_grad=True).tanh()  # FXG111
    loss = F.cross_entropy(net(image), y)
    loss.backward()
    print(image.grad.abs().max())
    opt.step()
    losses.append(loss.item())
""",
        ("`image` is no leaf", "call `image.retain_grad()` before the backward"),
        (("    loss.backward()\n", "    image.retain_grad()\n    loss.backward()\n"),),
    ),
    "a second step of an attack": Program(
        """
net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
image = torch.rand(4, 6, requires_grad=True)
for it in range(3):
    loss = net(image).logsumexp(1).mean()
    loss.backward()
    losses.append(loss.item())
    image = (image + 0.1 * image.grad.sign()).clamp(0, 1)  # FXG111
image.requires_grad_(False)
""",
        ("`image` is no leaf any more", "`image = image.detach().requires_grad_()`"),
        ((".clamp(0, 1)  # FXG111\n", ".clamp(0, 1)\n    image = image.detach().requires_grad_()\n"),),
    ),
    # ------------------------------------------------------------------------------ a later loss without a history
    "a sharpness-aware step, its second pass under no_grad": Program(
        """
class Sharp(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure):
        kept = [p.clone() for p in self.param_groups[0]["params"]]
        for p in self.param_groups[0]["params"]:
            p.add_(0.05 * p.grad.sign())
        self.zero_grad()
        closure()  # FXG104
        for p, old in zip(self.param_groups[0]["params"], kept):
            p.copy_(old - 0.1 * p.grad)

net = nn.Linear(3, 1)
opt = Sharp(net.parameters())
x = torch.randn(5, 3)
def closure():
    loss = net(x).square().mean()
    loss.backward()
    return loss.item()
for it in range(3):
    losses.append(closure())
    opt.step(closure)
""",
        ("calls its closure where gradients are off", "whatever an earlier backward gave"),
        (("        closure()  # FXG104\n", "        with torch.enable_grad():\n            closure()\n"),),
    ),
    "a second loss from what was computed for a log": Program(
        NET
        + """    F.cross_entropy(net(x), y).backward()
    with torch.no_grad():  # FXG104
        scores = net(x)
    smooth = scores.logsumexp(1).mean()
    smooth.backward()
    opt.step()
    losses.append(smooth.item())
""",
        ("gradients are off", "from `smooth.backward()`"),
        (("    with torch.no_grad():  # FXG104\n        scores", "    scores"),),
    ),
    "a second loss from detached scores": Program(
        NET
        + """    scores = net(x)
    F.cross_entropy(scores, y).backward()
    scores = net(x).detach()  # FXG103
    smooth = scores.logsumexp(1).mean()
    smooth.backward()
    opt.step()
    losses.append(smooth.item())
""",
        ("`detach` cuts `net` off", "from `smooth.backward()`"),
        ((".detach()  # FXG103", ""),),
    ),
    # ------------------------------------------------------------------------------------------------------- too early
    "gradients scaled above the backward": Program(
        NET
        + """    loss = F.cross_entropy(net(x), y)
    for p in net.parameters():
        p.grad.data *= 0.5  # FXG205
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("no backward has run yet", "move this below `loss.backward()` (line 15)"),
        (
            (
                "    for p in net.parameters():\n        p.grad.data *= 0.5  # FXG205\n    loss.backward()\n",
                "    loss.backward()\n    for p in net.parameters():\n        p.grad.data *= 0.5\n",
            ),
        ),
        ("is not None",),
    ),
    "gradients clipped by hand above the backward": Program(
        NET
        + """    loss = F.cross_entropy(net(x), y)
    net[0].weight.grad.clamp_(-1, 1)  # FXG205
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("below `loss.backward()`",),
        (
            (
                "    net[0].weight.grad.clamp_(-1, 1)  # FXG205\n    loss.backward()\n",
                "    loss.backward()\n    net[0].weight.grad.clamp_(-1, 1)\n",
            ),
        ),
        ("is not None",),
    ),
    "the norm of gradients that were dropped": Program(
        NET
        + """    loss = F.cross_entropy(net(x), y)
    loss.backward()
    opt.zero_grad()
    norm = net[0].weight.grad.norm()  # FXG205
    opt.step()
    losses.append(loss.item())
""",
        ("it was dropped (line 14) after the last backward", "move this above (line 14)"),
        (
            (
                "    opt.zero_grad()\n    norm = net[0].weight.grad.norm()  # FXG205\n    opt.step()\n",
                "    norm = net[0].weight.grad.norm()\n    opt.step()\n",
            ),
        ),
    ),
    "zeroed by hand before there is one": Program(
        """
w = torch.randn(3, requires_grad=True)
for it in range(3):
    w.grad.zero_()  # FXG205
    loss = (w * torch.randn(3)).square().sum()
    loss.backward()
    with torch.no_grad():
        w -= 0.1 * w.grad
    losses.append(loss.item())
""",
        ("guard the first time: `if w.grad is not None:`",),
        (("    w.grad.zero_()  # FXG205\n", "    if w.grad is not None:\n        w.grad.zero_()\n"),),
    ),
    # ----------------------------------------------------------------------------------------------- a computed weight
    "a weight-normed layer frozen": Program(
        NET.replace("nn.Linear(8, 3))", "nn.Linear(8, 3))\nbase = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))").replace(
            "opt = ", "base.weight.requires_grad = False  # FXG102\nopt = "
        )
        + """    loss = F.cross_entropy(net(base(x)), y)
    loss.backward()
    opt.step()
    losses.append(loss.item())
del base
""",
        ("`base.parametrizations.weight.original0.requires_grad_(False)`", "original1"),
        (
            (
                "base.weight.requires_grad = False  # FXG102",
                "base.parametrizations.weight.original0.requires_grad_(False)\nbase.parametrizations.weight.original1.requires_grad_(False)",
            ),
        ),
    ),
    "a pruned layer frozen": Program(
        NET.replace(
            "opt = ",
            "base = nn.Linear(6, 6)\nfrom torch.nn.utils import prune\nprune.random_unstructured(base, 'weight', 0.5)\n"
            "base.weight.requires_grad_(False)  # FXG102\nopt = ",
        )
        + """    loss = F.cross_entropy(net(base(x)), y)
    loss.backward()
    opt.step()
    losses.append(loss.item())
del base
""",
        ("`base.weight` is computed anew in every forward", "`base.weight_orig.requires_grad_(False)`"),
        (("base.weight.requires_grad_(False)  # FXG102", "base.weight_orig.requires_grad_(False)"),),
    ),
    "an activation frozen": Program(
        NET
        + """    h = net[0](x).tanh()
    h.requires_grad = False  # FXG102
    loss = F.cross_entropy(net(x), y) + h.square().mean()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`h.detach()`",),
        (("    h.requires_grad = False  # FXG102\n", ""), ("h.square()", "h.detach().square()")),
    ),
    # --------------------------------------------------------------------------------- asked for its derivative, unused
    "an unused layer of a meta learner": Program(
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 1)
        self.spare = nn.Linear(8, 8)  # FXG101
    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))
net = Net()
opt = torch.optim.Adam(net.parameters())
for it in range(3):
    x, y = torch.randn(6, 4), torch.randn(6, 1)
    weights = dict(net.named_parameters())
    grads = torch.autograd.grad(F.mse_loss(net(x), y), weights.values(), create_graph=True, allow_unused=True)
    fast = {name: p if g is None else p - 0.1 * g for (name, p), g in zip(weights.items(), grads)}
    loss = F.mse_loss(torch.func.functional_call(net, fast, (x,)), y)
    opt.zero_grad()
    loss.backward()
    for p in net.parameters():
        p.grad.mul_(0.5)
    opt.step()
    losses.append(loss.item())
""",
        ("`net.spare` is never called", "or remove it"),
        (("        self.spare = nn.Linear(8, 8)  # FXG101\n", ""),),
        ("create_graph",),
    ),
    "an unused vector beside a penalty": Program(
        """
class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 1)
        self.scale = nn.Parameter(torch.ones(3))  # FXG101
    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))
critic = Critic()
opt = torch.optim.Adam(critic.parameters())
for it in range(3):
    out = critic(torch.randn(6, 4))
    grads = torch.autograd.grad(out.sum(), critic.parameters(), create_graph=True, allow_unused=True)
    loss = out.square().mean() + sum(g.square().sum() for g in grads if g is not None)
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("`critic.scale` is never used in forward",),
        (("        self.scale = nn.Parameter(torch.ones(3))  # FXG101\n", ""),),
        ("create_graph",),
    ),
    # ------------------------------------------------------------------------------------------- one cause, its own code
    "a projection built in forward": Program(
        """
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(4, 6), nn.Linear(6, 1)
    def forward(self, x):
        h = torch.tanh(self.fc(x))
        if x.shape[1] != h.shape[1]:
            x = nn.Linear(4, 6)(x)  # FXG110
        return self.out(h + x)
net = Block()
opt = torch.optim.Adam(net.parameters())
for it in range(3):
    loss = net(torch.randn(5, 4)).square().mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("made anew in every forward", "once, in __init__"),
        (
            ("nn.Linear(6, 1)\n", "nn.Linear(6, 1)\n        self.proj = nn.Linear(4, 6)\n"),
            ("x = nn.Linear(4, 6)(x)  # FXG110", "x = self.proj(x)"),
        ),
    ),
    "a loss forced to require grad": Program(
        NET
        + """    wrong = (net(x).argmax(1) != y).float()  # FXG105
    loss = wrong.mean() + torch.rand(())
    loss.requires_grad_()
    loss.backward()
    opt.step()
    losses.append(loss.item())
""",
        ("argmax", "differentiable values"),
        (
            ("    wrong = (net(x).argmax(1) != y).float()  # FXG105\n", "    wrong = 1 - net(x).softmax(1).gather(1, y[:, None])\n"),
            ("    loss.requires_grad_()\n", ""),
        ),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_culprit_and_remedy(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_said(PROGRAMS[name], tmp_path)
    capsys.readouterr()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_mended_as_advised_everything_trains(tmp_path: Path, name: str) -> None:
    check_mended(PROGRAMS[name], tmp_path)


# ------------------------------------------------------------------------------------------------------ no error of it

QUIET = {
    "the last bias of an energy has no second derivative": """
net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
opt = torch.optim.Adam(net.parameters())
for it in range(2):
    x = torch.randn(5, 3, requires_grad=True)
    (force,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    opt.zero_grad()
    (force - torch.randn(5, 3)).square().mean().backward()
    opt.step()
""",
    "the last bias of a score net": """
score = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 2))
opt = torch.optim.Adam(score.parameters())
for it in range(2):
    x = torch.randn(5, 2, requires_grad=True)
    s = score(x)
    trace = sum(torch.autograd.grad(s[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2))
    opt.zero_grad()
    trace.mean().backward()
    opt.step()
""",
    "a list of activations kept by hooks": """
net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))
kept = []
for layer in net[:2]:
    layer.register_forward_hook(lambda module, args, out: kept.append(out))
opt = torch.optim.Adam(net.parameters())
for it in range(2):
    kept.clear()
    out = net(torch.randn(4, 1, 8, 8))
    grads = torch.autograd.grad(out[:, 0].sum(), kept, retain_graph=True)
    opt.zero_grad()
    F.cross_entropy(out, torch.zeros(4, dtype=torch.long)).backward()
    opt.step()
""",
    "an activation on the object that looks": """
class Cam:
    def __init__(self, net):
        self.net, self.seen = net, None
        net[0].register_forward_hook(self.keep)
    def keep(self, module, args, out):
        self.seen = out
    def __call__(self, x):
        out = self.net(x)
        (g,) = torch.autograd.grad(out[:, 1].sum(), self.seen, retain_graph=True)
        return out, (g * self.seen).sum(1).detach()
net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
cam, opt = Cam(net), torch.optim.Adam(net.parameters())
for it in range(2):
    out, heat = cam(torch.randn(4, 4))
    opt.zero_grad()
    F.cross_entropy(out, torch.zeros(4, dtype=torch.long)).backward()
    opt.step()
""",
    "a layer built late, once": """
class Late(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.proj = nn.Linear(4, 6), None
    def forward(self, x):
        if self.proj is None:
            self.proj = nn.Linear(x.shape[1], 6)
        return self.fc(x) + self.proj(x)
net = Late()
net(torch.randn(1, 4))
opt = torch.optim.Adam(net.parameters())
for it in range(2):
    opt.zero_grad()
    net(torch.randn(5, 4)).square().mean().backward()
    opt.step()
""",
}


@pytest.mark.parametrize("name", QUIET)
@pytest.mark.filterwarnings("ignore")
def test_no_error_of_it(tmp_path: Path, name: str) -> None:
    report, status = run_script(write(tmp_path, QUIET[name])[0], steps=2)
    assert report is not None
    assert [f for f in report.findings if f.severity == "error"] == []
    assert status == 0


def test_a_layer_without_a_line_of_its_own_is_one_error_at_the_call(tmp_path: Path) -> None:
    """An entry of a ModuleDict that nothing calls, asked of `autograd.grad`."""
    text = """
net = nn.ModuleDict({"body": nn.Linear(3, 4), "spare": nn.Linear(4, 2)})
loss = net["body"](torch.rand(5, 3)).square().mean()
torch.autograd.grad(loss, list(net.parameters()))
"""
    path, _ = write(tmp_path, text)
    report, _ = run_script(path)
    assert report is not None
    (found,) = [f for f in report.findings if f.severity == "error"]
    assert (found.code, set(found.parameters)) == ("FXG101", {"net.spare.weight", "net.spare.bias"})
    assert found.site is not None
    assert "autograd.grad(loss" in Path(found.site.file).read_text().splitlines()[found.site.line - 1]
    assert "index 2 of `autograd.grad`" in found.message


def test_a_constant_of_what_is_derived_is_a_note(tmp_path: Path) -> None:
    """Score matching: the last bias has no influence on a derivative, which is no mistake."""
    text = """
net = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 1))
opt = torch.optim.Adam(net.parameters())
x = torch.randn(5, 2, requires_grad=True)
(score,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
(score + torch.randn(5, 2)).square().mean().backward()
opt.step()
"""
    path, _ = write(tmp_path, text)
    report, status = run_script(path)
    assert report is not None
    found = {f.code: f for f in report.findings if f.parameters == ("net.2.bias",)}
    assert {f.severity for f in found.values()} == {"note"}
    assert "does not depend on `net.2.bias`" in found["FXG101"].message
    assert status == 0
    row = next(line for line in str(report).splitlines() if line.startswith("net.2.bias"))
    assert "FXG101" in row


APART = """
import torch
from torch import nn

G, D = nn.Linear(4, 6), nn.Linear(6, 1)
opt_g, opt_d = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
for it in range(3):
    fake = G(torch.randn(5, 4)){made}
    loss_d = D(fake{first}).square().mean() - D(torch.randn(5, 6)).square().mean()
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()
    loss_g = -D(fake{second}).square().mean()
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
"""


@pytest.mark.parametrize(
    ("cuts", "advice"),
    [
        ({"made": ".detach()"}, "keep the value as it is, and `detach` it only where the loss (line 11) is computed: that (line 15)"),
        ({"first": ".detach()", "second": ".detach()"}, "drop the `detach`"),
        ({"first": ".detach()"}, ""),
    ],
)
def test_a_detach_for_another_loss_is_moved_and_not_dropped(tmp_path: Path, cuts: dict[str, str], advice: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(APART.format(**{"made": "", "first": "", "second": "", **cuts}))
    report, _ = run_script(str(path))
    assert report is not None
    found = [f.fix.advice for f in report.findings if f.severity == "error" and f.fix is not None]
    assert len(found) == bool(advice), str(report)
    assert not advice or found[0].startswith(advice)


def test_what_a_scaler_died_stepping_has_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(
        "import torch\nfrom torch import nn\nnet, aux = nn.Linear(4, 1), nn.Linear(4, 1)\n"
        "one, two = torch.optim.SGD(net.parameters(), 0.1), torch.optim.SGD(aux.parameters(), 0.1)\n"
        "scaler = torch.amp.GradScaler('cpu')\nfor _ in range(2):\n    x = torch.randn(5, 4)\n"
        "    loss = net(x).mean() + aux(x).detach().mean()\n    scaler.scale(loss).backward()\n"
        "    scaler.step(one)\n    scaler.step(two)\n    scaler.update()\n"
    )
    report, _ = run_script(str(path))
    assert report is not None
    assert [(f.code, f.site and f.site.line) for f in report.findings if f.severity == "error"] == [("FXG103", 8)], str(report)
