"""The advice of a finding, followed to the letter: the program then trains every parameter, and there is nothing left to say.

Three programs and more of each kind whose remedy is an exact edit. What a backward meets a second time, and gradients that are asked for in
vain, have files of their own (`test_second_time.py`, `test_missing_gradients.py`).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fxgrad.watching.script import run_script
from tests.watching.remedies import Program, check_mended, check_said, write

LOOP = """
opt = torch.optim.SGD(net.parameters(), 0.1)
for it in range(3):
    opt.zero_grad()
    x, y = torch.randn(6, 4), torch.randn(6, 1)
    loss = F.mse_loss(net(x), y)
    loss.backward()
    opt.step()
    losses.append(loss.item())
"""
TWO = "self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 1)"
THREE = "self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(4, 4)"
PLAIN = "return self.b(self.a(x).tanh())"


def net(forward: str, init: str = TWO, before: str = "", loop: str = LOOP) -> str:
    """A script around a net of these bodies."""

    def indented(text: str) -> str:
        return "".join(f"        {line}\n" for line in text.splitlines())

    head = f"class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n{indented(init)}"
    return f"{head}    def forward(self, x):\n{indented(forward)}net = Net()\n{before}{loop}"


def loop(*edits: tuple[str, str]) -> str:
    text = LOOP
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def dropped(mark: str) -> tuple[str, str]:
    return f"{mark}", ""


PROGRAMS = {
    # ---------------------------------------------------------------------------------------------------------- detach
    "FXG103 a detached feature": Program(
        net("h = self.a(x).tanh().detach()  # FXG103\nreturn self.b(h)"),
        ("drop the `detach`", "out of the optimizer"),
        (dropped(".detach()"),),
    ),
    "FXG103 the data of a feature": Program(
        net("h = self.a(x).tanh().data  # FXG103\nreturn self.b(h)"), ("drop the `data`",), ((".data ", " "),)
    ),
    "FXG103 a detached prediction": Program(
        net(PLAIN, loop=loop(("net(x), y)", "net(x).detach(), y)  # FXG103"))), ("drop the `detach`",), (dropped(".detach()"),)
    ),
    "FXG103 a loss that is forced to require grad": Program(
        net(PLAIN, loop=loop(("F.mse_loss(net(x), y)", "F.mse_loss(net(x).detach(), y).requires_grad_()  # FXG103"))),
        ("drop the `detach`",),
        ((".detach(), y).requires_grad_()", ", y)"),),
        ("give the optimizer",),
    ),
    "FXG103 a gradient that has no history": Program(
        net(
            "return self.b(self.a(x).tanh()).square()",
            "self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 1)",
            loop=loop(
                (
                    "loss = F.mse_loss(net(x), y)",
                    "x.requires_grad_()\n    (g,) = torch.autograd.grad(net(x).sum(), x)  # FXG103\n"
                    "    loss = (g.norm(dim=1) - 1).square().mean()",
                )
            ),
        ),
        ("pass create_graph=True",),
        (("net(x).sum(), x)", "net(x).sum(), x, create_graph=True)"),),
    ),
    # --------------------------------------------------------------------------------------------------- gradients off
    "FXG104 a block": Program(
        net("with torch.no_grad():  # FXG104\n    h = self.a(x).tanh()\nreturn self.b(h)"),
        ("leave the no_grad region",),
        (("        with torch.no_grad():  # FXG104\n            h = ", "        h = "),),
    ),
    "FXG104 a decorator": Program(
        net("return self.b(self.code(x))").replace(
            "    def forward", "    @torch.no_grad()  # FXG104\n    def code(self, x):\n        return self.a(x).tanh()\n    def forward"
        ),
        (
            "take the decorator off",
            "`@torch.no_grad()",
        ),
        (("    @torch.no_grad()  # FXG104\n", ""),),
    ),
    "FXG104 switched off and not on again": Program(
        net(PLAIN, before="torch.set_grad_enabled(False)  # FXG104\nbest = net(torch.randn(2, 4)).sum().item()\n"),
        ("switch gradients on again (`torch.set_grad_enabled(True)`)",),
        (("sum().item()\n", "sum().item()\ntorch.set_grad_enabled(True)\n"),),
    ),
    # ------------------------------------------------------------------------------------------------- out of torch
    "FXG104 inference mode": Program(
        net("with torch.inference_mode():  # FXG104\n    h = self.a(x).tanh()\nreturn self.b(h)"),
        ("if `net.a` is to train, leave the inference_mode region",),
        (("with torch.inference_mode():", "if True:"),),
    ),
    "FXG107 a factor": Program(
        net("return self.b(x * self.a(x).mean().item())  # FXG107"), ("drop the `.item()`",), ((".item())  #", ")  #"),)
    ),
    "FXG107 a loss that is wrapped again": Program(
        net(
            PLAIN,
            loop=loop(("    loss.backward()", "    loss = torch.tensor(loss.item(), requires_grad=True)  # FXG107\n    loss.backward()")),
        ),
        ("drop the `.item()`", "in place of the `torch.tensor(...)` around it"),
        (("torch.tensor(loss.item(), requires_grad=True)", "loss"),),
    ),
    "FXG107 a float": Program(
        net("s = float(self.a(x).mean())  # FXG107\nreturn self.b(x) * s"),
        ("go on with the tensor itself",),
        (("float(self.a(x).mean())", "self.a(x).mean()"),),
    ),
    "FXG107 through NumPy": Program(
        "import numpy as np\n" + net("h = torch.from_numpy(np.tanh(self.a(x).detach().numpy()))  # FXG107\nreturn self.b(h)"),
        ("stay in torch", "in place of the `torch.from_numpy(...)` around it"),
        (("torch.from_numpy(np.tanh(self.a(x).detach().numpy()))", "torch.tanh(self.a(x))"),),
    ),
    "FXG107 a list of numbers": Program(
        net(
            PLAIN,
            loop=loop(
                (
                    "loss = F.mse_loss(net(x), y)",
                    "parts = [(net(a) - b).square().item() for a, b in zip(x, y)]  # FXG107\n"
                    "    loss = torch.tensor(parts).mean().requires_grad_()",
                )
            ),
        ),
        ("drop the `.item()`", "torch.stack of several, in place of the `torch.tensor(...)` (line 19)"),
        ((".square().item() for", ".square() for"), ("torch.tensor(parts).mean().requires_grad_()", "torch.stack(parts).mean()")),
    ),
    # ------------------------------------------------------------------------------------------------------ wrapped anew
    "FXG108 a tensor of a tensor": Program(
        net("h = torch.tensor(self.a(x).tanh())  # FXG108\nreturn self.b(h)"),
        ("use the tensor itself",),
        (("torch.tensor(self.a(x).tanh())", "self.a(x).tanh()"),),
    ),
    "FXG108 a tensor of numbers": Program(
        net("h = torch.tensor([[v.mean(), v.max(), v.min(), v.sum()] for v in self.a(x)])  # FXG108\nreturn self.b(h)"),
        ("torch.stack",),
        (
            (
                "torch.tensor([[v.mean(), v.max(), v.min(), v.sum()] for v",
                "torch.stack([torch.stack([v.mean(), v.max(), v.min(), v.sum()]) for v",
            ),
        ),
    ),
    "FXG108 a Variable": Program(
        net("h = torch.autograd.Variable(self.a(x).data, requires_grad=True)  # FXG108\nreturn self.b(h)"),
        ("use the tensor itself",),
        (("torch.autograd.Variable(self.a(x).data, requires_grad=True)", "self.a(x)"),),
    ),
    # ---------------------------------------------------------------------------------------------------- not registered
    "FXG109 a plain tensor": Program(
        net("return self.b(self.a(x) * self.scale)", TWO + "\nself.scale = torch.ones(4, requires_grad=True)  # FXG109"),
        ("inside nn.Parameter(...)",),
        (("torch.ones(4, requires_grad=True)", "nn.Parameter(torch.ones(4, requires_grad=True))"),),
    ),
    "FXG109 parameters in a list": Program(
        net("return self.b(self.a(x) * self.scales[0])", TWO + "\nself.scales = [nn.Parameter(torch.ones(4))]  # FXG109"),
        ("make an nn.ParameterList",),
        (("[nn.Parameter(torch.ones(4))]", "nn.ParameterList([nn.Parameter(torch.ones(4))])"),),
    ),
    "FXG109 a product of a parameter": Program(
        net(
            "return self.b(self.a(x) * self.scale)",
            TWO + "\nself.scale = nn.Parameter(torch.ones(4)) * 0.5  # FXG109",
        ).replace("loss.backward()", "loss.backward(retain_graph=True)"),
        ("inside nn.Parameter(...)",),
        (("nn.Parameter(torch.ones(4)) * 0.5", "nn.Parameter(torch.ones(4) * 0.5)"),),
    ),
    "FXG110 layers in a list": Program(
        net(
            "for layer in self.layers:\n    x = layer(x).tanh()\nreturn self.b(x)",
            "self.layers = [nn.Linear(4, 4) for _ in range(2)]  # FXG110\nself.b = nn.Linear(4, 1)",
        ),
        ("nn.ModuleList",),
        (("[nn.Linear(4, 4) for _ in range(2)]", "nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])"),),
    ),
    "FXG110 layers in a dict": Program(
        net("return self.b(self.layers['a'](x).tanh())", "self.layers = {'a': nn.Linear(4, 4)}  # FXG110\nself.b = nn.Linear(4, 1)"),
        ("nn.ModuleDict",),
        (("{'a': nn.Linear(4, 4)}", "nn.ModuleDict({'a': nn.Linear(4, 4)})"),),
    ),
    "FXG110 layers in a tuple": Program(
        net(
            "return self.layers[1](self.layers[0](x).tanh()) + self.b(x)",
            "self.layers = (nn.Linear(4, 4), nn.Linear(4, 1))  # FXG110\nself.b = nn.Linear(4, 1)",
        ),
        ("nn.ModuleList",),
        (("(nn.Linear(4, 4), nn.Linear(4, 1))", "nn.ModuleList((nn.Linear(4, 4), nn.Linear(4, 1)))"),),
    ),
    # ---------------------------------------------------------------------------------------------------------- in place
    "FXG201 augmented": Program(
        net("h = self.a(x).sigmoid()\nh += x  # FXG201\nreturn self.b(h)"), ("`h = h + x`",), (("h += x", "h = h + x"),)
    ),
    "FXG201 a flag of a function": Program(
        net("h = self.a(x).sigmoid()\nh = F.relu(h, inplace=True)  # FXG201\nreturn self.b(h)"),
        ("drop `inplace=True`",),
        ((", inplace=True", ""),),
    ),
    "FXG201 a part assigned": Program(
        net("h = self.a(x).exp()\nh[:, 0] = 0  # FXG201\nreturn self.b(h)"),
        ("`h = h.clone()` before this line",),
        (("h[:, 0] = 0", "h = h.clone()\n        h[:, 0] = 0"),),
    ),
    "FXG201 a layer of the module's own": Program(
        net("h = self.a(x).sigmoid()\nh = self.r(h)  # FXG201\nreturn self.b(h)", TWO + "\nself.r = nn.ReLU(inplace=True)"),
        ("build `net.r` with inplace=False",),
        (("nn.ReLU(inplace=True)", "nn.ReLU(inplace=False)"),),
    ),
    "FXG202 a parameter in forward": Program(
        net("self.s *= 0.5  # FXG202\nreturn self.b(self.a(x) * self.s)", TWO + "\nself.s = nn.Parameter(torch.ones(4))"),
        ("in a forward compute a new tensor",),
        (("self.s *= 0.5", "s = self.s * 0.5"), ("self.a(x) * self.s", "self.a(x) * s")),
    ),
    "FXG202 an initialisation": Program(
        net(PLAIN, before="net.a.weight.fill_(0.1)  # FXG202\n"),
        ("under torch.no_grad() if it is an initialisation",),
        (("net.a.weight.fill_(0.1)", "with torch.no_grad(): net.a.weight.fill_(0.1)"),),
    ),
    "FXG202 an element set": Program(
        net(PLAIN, before="net.a.weight[0, 0] = 1.0  # FXG202\n"),
        ("under torch.no_grad() if it is an initialisation",),
        (("net.a.weight[0, 0] = 1.0", "with torch.no_grad(): net.a.weight[0, 0] = 1.0"),),
    ),
    # --------------------------------------------------------------------------------------------------- through .data
    "FXG203 an activation scaled": Program(
        net("h = self.a(x).tanh()\nh.data *= 0.5  # FXG203\nreturn self.b(h)"), ("`h = h * 0.5`",), (("h.data *= 0.5", "h = h * 0.5"),)
    ),
    "FXG203 a branch added": Program(
        net("h = self.a(x).tanh()\nh.data.add_(self.c(x))  # FXG203\nreturn self.b(h)", THREE),
        ("`h = h + self.c(x)`", "no gradient comes back to `net.c` either"),
        (("h.data.add_(self.c(x))", "h = h + self.c(x)"),),
    ),
    "FXG203 a difference taken off": Program(
        net("h = self.a(x).exp()\nh.data -= self.c(x) - 1  # FXG203\nreturn self.b(h)", THREE),
        ("`h = h - (self.c(x) - 1)`",),
        (("h.data -= self.c(x) - 1", "h = h - (self.c(x) - 1)"),),
    ),
    # --------------------------------------------------------------------------------------------------------- the order
    "FXG205 the step first": Program(
        net(PLAIN, loop=loop(("    loss.backward()\n    opt.step()\n", "    opt.step()  # FXG205\n    loss.backward()\n"))),
        ("call backward first, then step",),
        (("    opt.step()  # FXG205\n    loss.backward()\n", "    loss.backward()\n    opt.step()\n"),),
    ),
    "FXG205 a step between two backwards": Program(
        net(
            "h = self.a(x).tanh()\nreturn self.b(h)",
            loop=loop(
                (
                    "    loss.backward()\n    opt.step()\n",
                    "    loss.backward(retain_graph=True)\n    opt.step()  # FXG205\n    loss.square().backward()\n    opt.step()\n",
                )
            ),
        ),
        ("backward",),
        (
            (
                "    loss.backward(retain_graph=True)\n    opt.step()  # FXG205\n    loss.square().backward()\n    opt.step()\n",
                "    loss.backward(retain_graph=True)\n    loss.square().backward()\n    opt.step()\n",
            ),
        ),
    ),
    "FXG205 a write by hand between": Program(
        net(
            PLAIN,
            loop=loop(
                (
                    "    loss.backward()\n",
                    "    with torch.no_grad():\n        for p in net.parameters():\n            p.clamp_(-1, 1)  # FXG205\n    loss.backward()\n",
                )
            ),
        ),
        ("backward",),
        (
            (
                "    with torch.no_grad():\n        for p in net.parameters():\n            p.clamp_(-1, 1)  # FXG205\n    loss.backward()\n",
                "    loss.backward()\n    with torch.no_grad():\n        for p in net.parameters():\n            p.clamp_(-1, 1)\n",
            ),
        ),
    ),
    "FXG205 a closure without a backward": Program(
        net(
            PLAIN,
            loop="opt = torch.optim.LBFGS(net.parameters(), 0.1, max_iter=2)\ndef closure():\n    opt.zero_grad()\n"
            "    loss = net(x).square().mean()\n    return loss\nfor it in range(3):\n    x = torch.randn(6, 4)\n"
            "    losses.append(float(opt.step(closure)))  # FXG205\n",
        ),
        ("call `loss.backward()` in `closure`, which the step calls, before it returns the loss",),
        (("    return loss\n", "    loss.backward()\n    return loss\n"),),
    ),
    "FXG201 a weight that is cached above the loop": Program(
        "net = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))\nopt = torch.optim.SGD(net.parameters(), 0.1)\n"
        "with nn.utils.parametrize.cached():  # FXG201\n    for it in range(3):\n        opt.zero_grad()\n"
        "        loss = (net(torch.randn(6, 4)) - 1).square().mean() + net.weight.sum()\n"
        "        loss.backward()\n        opt.step()\n        losses.append(loss.item())\n",
        ("enter `nn.utils.parametrize.cached()` anew in each step",),
        (
            (
                "with nn.utils.parametrize.cached():  # FXG201\n    for it in range(3):\n",
                "for it in range(3):\n    with nn.utils.parametrize.cached():\n",
            ),
        ),
        ("retain_graph", "detach"),
    ),
    "FXG303 gradients cleared between": Program(
        net(
            PLAIN,
            loop=loop(("    opt.zero_grad()\n", ""), ("    loss.backward()\n", "    loss.backward()\n    opt.zero_grad()  # FXG303\n")),
        ),
        ("call zero_grad() before backward",),
        (("    loss.backward()\n    opt.zero_grad()  # FXG303\n", "    opt.zero_grad()\n    loss.backward()\n"),),
    ),
    "FXG303 the model's cleared between": Program(
        net(PLAIN, loop=loop(("    opt.zero_grad()\n", ""), ("    opt.step()\n", "    net.zero_grad()  # FXG303\n    opt.step()\n"))),
        ("call zero_grad() before backward, or after the step",),
        (
            (
                "    net.zero_grad()  # FXG303\n    opt.step()\n    losses.append(loss.item())\n",
                "    opt.step()\n    losses.append(loss.item())\n    net.zero_grad() if it < 2 else None\n",
            ),
        ),
    ),
    # ----------------------------------------------------------------------------------------------------- the optimizer
    "FXG301 a generator read twice": Program(
        net(
            PLAIN,
            before="ps = net.parameters()\ncount = sum(p.numel() for p in ps)\n",
            loop=loop(("net.parameters(), 0.1)", "[{'params': ps}, {'params': []}], 0.1)  # FXG301")),
        ),
        ("make a list of a generator that is read twice",),
        (("ps = net.parameters()", "ps = list(net.parameters())"),),
    ),
    "FXG301 a filter of names that matches nothing": Program(
        net(
            PLAIN,
            loop=loop(
                (
                    "net.parameters(), 0.1)",
                    "[{'params': [p for n, p in net.named_parameters() if 'body.' in n]}, {'params': net.b.parameters()}], 0.1)  # FXG301",
                )
            ),
        ),
        ("check what a name filter matches",),
        (("'body.' in n", "'a.' in n"),),
    ),
    "FXG301 a filter before anything requires grad": Program(
        net(
            PLAIN,
            before="net.a.requires_grad_(False)\nps = [p for p in net.a.parameters() if p.requires_grad]\nnet.a.requires_grad_(True)\n",
            loop=loop(("net.parameters(), 0.1)", "[{'params': ps}, {'params': net.b.parameters()}], 0.1)  # FXG301")),
        ),
        ("parameter group 0 is empty", "check what a name filter matches"),
        (("if p.requires_grad]", "]"),),
    ),
    "FXG302 copied afterwards": Program(
        "import copy\n" + net(PLAIN, loop=loop(("for it", "net = copy.deepcopy(net)  # FXG302\nfor it"))),
        ("build the optimizer after parameters are replaced",),
        (
            (
                "opt = torch.optim.SGD(net.parameters(), 0.1)\nnet = copy.deepcopy(net)  # FXG302\n",
                "net = copy.deepcopy(net)\nopt = torch.optim.SGD(net.parameters(), 0.1)\n",
            ),
        ),
    ),
    "FXG302 a head put in afterwards": Program(
        net(PLAIN, loop=loop(("for it", "net.b = nn.Linear(4, 1)  # FXG302\nfor it"))),
        ("build the optimizer after parameters are replaced",),
        (
            (
                "opt = torch.optim.SGD(net.parameters(), 0.1)\nnet.b = nn.Linear(4, 1)  # FXG302\n",
                "net.b = nn.Linear(4, 1)\nopt = torch.optim.SGD(net.parameters(), 0.1)\n",
            ),
        ),
    ),
    "FXG302 the data of the parameters": Program(
        net(PLAIN, loop=loop(("net.parameters(), 0.1)", "[p.data for p in net.parameters()], 0.1)  # FXG302"))),
        ("hand it the leaves that the loss is computed from",),
        (("p.data for p", "p for p"),),
    ),
    # ------------------------------------------------------------------------------------------------------------- zeros
    "FXG401 rounded": Program(
        net("h = self.a(x)\nh = h.round()  # FXG401\nreturn self.b(h)"),
        ("straight-through (`x + (x.round() - x).detach()`)",),
        (("h = h.round()", "h = h + (h.round() - h).detach()"),),
    ),
    "FXG401 a hook that hands on zeros": Program(
        net(PLAIN, before="net.b.register_full_backward_hook(lambda module, into, out: tuple(g * 0 for g in into))  # FXG401\n"),
        ("hands on zeros", "let the hook pass on what should train"),
        (("g * 0 for g", "g * 0.5 for g"),),
    ),
    "FXG401 clamped to one number": Program(
        net("h = self.a(x)\nh = h.clamp(1.0, 1.0)  # FXG401\nreturn self.b(h)"),
        ("clamps to a single value", "give it two bounds that differ"),
        (("clamp(1.0, 1.0)", "clamp(-9.0, 9.0)"),),
    ),
    "FXG401 a softmax over one": Program(
        net("h = self.b(self.a(x).tanh())\nreturn h.softmax(1)  # FXG401"),
        ("normalises over a single element", "use a sigmoid"),
        (("h.softmax(1)", "h.sigmoid()"),),
    ),
    "FXG401 a branch times zero": Program(
        net("h = self.a(x).tanh()\nh = h + self.c(x) * 0  # FXG401\nreturn self.b(h)", THREE),
        ("give it a weight other than 0",),
        (("self.c(x) * 0", "self.c(x) * 0.1"),),
    ),
    # ----------------------------------------------------------------------------------------------- without a derivative
    "FXG105 a choice by argmax": Program(
        net("h = self.a(x)\nh = F.one_hot(h.argmax(1), 4).float()  # FXG105\nreturn self.b(h)"),
        ("softmax", "straight-through estimator"),
        (("h = F.one_hot(h.argmax(1), 4).float()", "h = h.softmax(1)"),),
    ),
    "FXG105 a comparison": Program(
        net("h = self.a(x)\nh = (h > 0).float()  # FXG105\nreturn self.b(h)"),
        ("has no derivative", "straight-through estimator"),
        (("h = (h > 0).float()", "soft = h.sigmoid(); h = (h > 0).float() + soft - soft.detach()"),),
    ),
    "FXG105 a sample": Program(
        net("h = self.a(x)\nh = torch.distributions.Normal(h, 1.0).sample()  # FXG105\nreturn self.b(h)"),
        ("rsample()",),
        ((".sample()", ".rsample()"),),
    ),
    "FXG105 gathered from all processes": Program(
        "import os, tempfile\nimport torch.distributed as dist\nimport torch.distributed.nn.functional as exchange\n"
        "store = tempfile.mkdtemp() + '/store'\ndist.init_process_group('gloo', init_method='file://' + store, rank=0, world_size=1)\n"
        + net(
            "h = self.a(x).tanh()\nparts = [torch.zeros_like(h)]\ndist.all_gather(parts, h)  # FXG105\nreturn self.b(torch.cat(parts))",
            loop=LOOP + "dist.destroy_process_group()\n",
        ),
        ("`gathered[rank] = own`", "torch.distributed.nn.functional"),
        (("dist.all_gather(parts, h)", "dist.all_gather(parts, h); parts[0] = h"),),
        ("retain_graph", "softmax"),
    ),
    "FXG105 the indices of a sort": Program(
        net("h = self.a(x)\nh = h.sort(1).indices.float()  # FXG105\nreturn self.b(h)"),
        ("in place of indices",),
        ((".indices.float()", ".values"),),
    ),
    # ------------------------------------------------------------------------------------------------------------- others
    "FXG112 a Function that returns nothing": Program(
        "class Double(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        return x * 2\n    @staticmethod\n"
        "    def backward(ctx, g):\n        return None  # FXG112\n" + net("return self.b(Double.apply(self.a(x)))"),
        ("return the gradient of that input from backward",),
        (("return None", "return g * 2"),),
    ),
    "FXG112 None for the weight": Program(
        "class Product(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x, w):\n        ctx.save_for_backward(x, w)\n"
        "        return x * w\n    @staticmethod\n    def backward(ctx, g):\n        x, w = ctx.saved_tensors\n        return g * w, None  # FXG112\n"
        + net("return self.b(Product.apply(self.a(x), self.w))", TWO + "\nself.w = nn.Parameter(torch.ones(4))"),
        ("returns None where 1 parameter needs a gradient", "return the gradient of that input from backward"),
        (("return g * w, None", "return g * w, (g * x).sum(0)"),),
    ),
    "FXG112 a hook of a module": Program(
        net(PLAIN, before="net.b.register_full_backward_hook(lambda module, into, out: (None,))  # FXG112\n"),
        ("the backward hook of `net.b`", "return the gradients that it is given"),
        (("out: (None,))", "out: into)"),),
    ),
    "FXG112 a forward that is called": Program(
        "class Double(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        return x.detach() * 2\n    @staticmethod\n"
        "    def backward(ctx, g):\n        return g * 2\n" + net("h = Double.forward(None, self.a(x))  # FXG112\nreturn self.b(h)"),
        ("call the Function through its apply",),
        (("Double.forward(None, self.a(x))", "Double.apply(self.a(x))"),),
    ),
    "FXG106 rounded to integers": Program(
        net("h = self.a(x)\nh = (h * 10).int() / 10  # FXG106\nreturn self.b(h)"),
        ("keep the tensor floating",),
        (("(h * 10).int() / 10", "(h * 10) / 10"),),
    ),
    "FXG106 cast to the type of the targets": Program(
        net("h = self.a(x)\nh = h.to(torch.int64)  # FXG106\nreturn self.b(h.float())"),
        ("keep the tensor floating",),
        (("h = h.to(torch.int64)", "h = h + 0"),),
    ),
    "FXG106 a cast": Program(
        net("h = self.a(x)\nh = h.long().float()  # FXG106\nreturn self.b(h)"),
        ("keep the tensor floating",),
        (("h = h.long().float()", "h = h + 0"),),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_line_and_remedy(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.enable_grad():  # a program may leave them switched off
        check_said(PROGRAMS[name], tmp_path)
    capsys.readouterr()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore")
def test_mended_as_advised_everything_trains(tmp_path: Path, name: str) -> None:
    with torch.enable_grad():
        check_mended(PROGRAMS[name], tmp_path)


def test_a_sample_in_a_script_is_no_region_of_the_users(tmp_path: Path) -> None:
    """Neither the arithmetic of an optimizer nor a block of another line says that gradients were off here."""
    text = net(
        "mean, width = self.a(x).chunk(2, 1)\nz = torch.distributions.Normal(mean, width.exp()).sample()  # FXG105\nreturn self.b(z)",
        "self.a, self.b = nn.Linear(4, 4), nn.Linear(2, 1)",
        loop=loop(("torch.optim.SGD", "torch.optim.Adam")),
    )
    flat = (
        "a, b = nn.Linear(4, 4), nn.Linear(2, 1)\nopt = torch.optim.Adam([*a.parameters(), *b.parameters()])\nfor it in range(3):\n"
        "    with torch.no_grad():\n        before = a(torch.randn(2, 4)).mean()\n    mean, width = a(torch.randn(6, 4)).chunk(2, 1)\n"
        "    z = torch.distributions.Normal(mean, width.exp()).sample()  # FXG105\n    loss = b(z).square().mean()\n"
        "    opt.zero_grad()\n    loss.backward()\n    opt.step()\n"
    )
    for program in (text, flat):
        check_said(Program(program, ("has no derivative", "rsample()"), ()), tmp_path)


CRITERION = (
    "class Scaled(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.t = nn.Parameter(torch.ones(1))\n"
    "    def forward(self, out, y):\n        return (out * self.t - y).square().mean() + 0.1 * self.t.sum()\ncriterion = Scaled()\n"
)
LEFT_OUT = {
    "a layer": net(PLAIN, loop=loop(("net.parameters()", "net.b.parameters()"))),
    "a layer of a sequence": "net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))\n"
    + loop(("net.parameters()", "net[2].parameters()")),
    "a single parameter": net(
        "return self.b(self.a(x).tanh()) * self.s",
        TWO + "\nself.s = nn.Parameter(torch.ones(1))",
        loop=loop(("net.parameters()", "[*net.a.parameters(), *net.b.parameters()]")),
    ),
    "two layers": net("return self.b(self.a(x) + self.c(x))", THREE, loop=loop(("net.parameters()", "net.b.parameters()"))),
    "a loss with a parameter": net(PLAIN, before=CRITERION, loop=loop(("F.mse_loss(", "criterion("))),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_added_as_advised_is_trained(tmp_path: Path, name: str) -> None:
    """The statement of the advice is run as it stands."""
    path, text = write(tmp_path, LEFT_OUT[name])
    report, _ = run_script(path)
    assert report is not None
    (finding,) = [f for f in report.findings if f.severity != "note"]
    assert finding.code == "FXG301", str(report)
    assert finding.fix is not None
    (statement,) = re.findall(r"`optimizer\.(add_param_group\(.*\))`", finding.fix.advice)
    mended, _ = write(tmp_path, text.partition("losses = []\n")[2].replace("\nfor it", f"\nopt.{statement}\nfor it"))
    report, _ = run_script(mended)
    assert report is not None
    assert [f for f in report.findings if f.severity != "note"] == [], str(report)
