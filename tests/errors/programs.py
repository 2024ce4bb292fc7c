"""For each error of `fxgrad.torch_api.explanations` a program that provokes it in torch, by the entry's name.

`# HERE` marks the line that `fxgrad run` must name. A second program of a kind has a number after its name. `WARNINGS`: what torch only
warns of. `OTHERS`: errors that look alike and are of something else. `ELSEWHERE`: what cannot be provoked in one process without a GPU,
with torch's words for it.
"""

from __future__ import annotations

PRELUDE = """\
import torch
from torch import nn
import torch.nn.functional as F
torch.manual_seed(0)
"""

PROGRAMS: dict[str, str] = {
    # ------------------------------------------------------------------------------------------- backward
    "second-time": """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
h = net(torch.randn(4, 3)).exp()  # HERE
for step in range(2):
    loss = h.mean()
    loss.backward()
    opt.step()
""",
    "nothing-recorded": """
net = nn.Linear(3, 1)
with torch.no_grad():  # HERE
    out = net(torch.randn(4, 3))
out.mean().backward()
""",
    "nothing-recorded 2": """
class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.energy = nn.Linear(2, 1)
    def forward(self, x):
        return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]  # HERE
class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, field):
        return x - field(x)
    @staticmethod
    def backward(ctx, g):
        return g, None
field = Field()
Step.apply(torch.randn(3, 2, requires_grad=True), field).sum().backward()
""",
    "nothing-recorded 3": """
net = nn.Linear(2, 1)
@torch.no_grad()  # HERE
def slope(x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
opt = torch.optim.SGD(net.parameters(), lr=0.1)
slope(torch.randn(3, 2)).sum().backward()
""",
    "nothing-recorded 4": """
class F1(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, net):
        ctx.save_for_backward(x); ctx.net = net
        return net(x)
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        y = ctx.net(x)
        (gx,) = torch.autograd.grad(y, x, g)  # HERE
        return gx, None
net = nn.Linear(3, 1)
head = nn.Linear(3, 3)
F1.apply(head(torch.randn(2, 3)), net).sum().backward()
""",
    "complex-loss": """
net = nn.Linear(4, 4)
spectrum = torch.fft.rfft(net(torch.randn(2, 4)))  # HERE
loss = spectrum.mean()
loss.backward()
""",
    "complex-loss 2": """
net = nn.Linear(4, 4)
out = net(torch.randn(2, 4))
pairs = torch.view_as_complex(out.unflatten(1, (2, 2)))  # HERE
(pairs ** 2).sum().backward()
""",
    "complex-loss 3": """
w = nn.Parameter(torch.randn(3, dtype=torch.cfloat))
x = torch.randn(3)
loss = (w * x).sum()  # HERE
loss.backward()
""",
    "not-a-scalar": """
net = nn.Linear(3, 2)
loss = F.mse_loss(net(torch.randn(4, 3)), torch.zeros(4, 2), reduction="none")  # HERE
loss.backward()
""",
    "not-differentiated": """
net = nn.Linear(3, 1)
x = torch.randn(4, 3)
(g,) = torch.autograd.grad(net(x).sum(), x)  # HERE
""",
    "not-used": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 1)
        self.spare = nn.Linear(3, 1)  # HERE
    def forward(self, x):
        return self.used(x)
net = Net()
grads = torch.autograd.grad(net(torch.randn(2, 3)).sum(), list(net.parameters()))
""",
    "not-used 2": """
net = nn.Linear(3, 1)
x = torch.randn(2, 3, requires_grad=True)
y = net(x * 1)
other = x.detach().requires_grad_()
(g,) = torch.autograd.grad(y.sum(), other, create_graph=True)  # HERE
""",
    "not-used 3": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 1)
    def forward(self, x):
        h = self.a(x).detach()  # HERE
        return self.b(h)
net = Net()
loss = net(torch.randn(2, 3)).sum()
g = torch.autograd.grad(loss, net.a.weight, create_graph=True)
""",
    "not-used 4": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})  # HERE
        self.head = nn.Linear(3, 1)
    def forward(self, x):
        return self.head(self.enc["a"](x))
net = Net()
def inner(net, x):
    params = {n: p for n, p in net.named_parameters()}
    loss = net(x).mean()
    return torch.autograd.grad(loss, tuple(params.values()), create_graph=True)
inner(net, torch.randn(2, 3))
""",
    "no-inputs": """
net = nn.Linear(3, 1)
weights = net.parameters()
opt = torch.optim.SGD(weights, lr=0.1)
torch.autograd.grad(net(torch.randn(2, 3)).sum(), weights)  # HERE
""",
    "gradient-shape": """
net = nn.Linear(3, 1)
net(torch.randn(4, 3)).backward(torch.ones(4))  # HERE
""",
    "no-formula": """
@torch.library.custom_op("fxgrad_errors::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2
net = nn.Linear(3, 1)
twice(net(torch.randn(2, 3))).sum().backward()  # HERE
""",
    "no-derivative": """
a = nn.Parameter(torch.ones(3))
y = torch.igamma(a, torch.ones(3))  # HERE
y.sum().backward()
""",
    "no-derivative 2": """
class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
    def forward(self, x):
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v).sum()  # HERE
critic = Critic()
x = torch.randn(2, 4, 8, requires_grad=True)
(g,) = torch.autograd.grad(critic(x), x, create_graph=True)
g.pow(2).sum().backward()
""",
    "complex-output": """
w = nn.Parameter(torch.ones(3, dtype=torch.complex64))
F.silu(w).abs().sum().backward()  # HERE
""",
    "nan-gradient": """
net = nn.Linear(3, 3)
nn.init.zeros_(net.weight)
nn.init.zeros_(net.bias)
with torch.autograd.detect_anomaly():
    h = net(torch.randn(2, 3))
    size = (h * h).sqrt()  # HERE
    size.sum().mul(0).backward()
""",
    "negative-slope": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 3)
        self.act = nn.LeakyReLU(-0.2, inplace=True)  # HERE
    def forward(self, x):
        return self.act(self.body(x))
net = Net()
net(torch.randn(2, 3)).sum().backward()
""",
    "negative-slope 2": """
net = nn.Linear(3, 3)
h = net(torch.randn(2, 3))
F.leaky_relu_(h, -0.1)  # HERE
h.sum().backward()
""",
    "flex-attention": """
from torch.nn.attention.flex_attention import flex_attention
net = nn.Linear(16, 16)
q = net(torch.randn(1, 1, 8, 16))
flex_attention(q, q, q).sum().backward()  # HERE
""",
    "assigned-gradient": """
net = nn.Linear(3, 1)
net(torch.randn(2, 3)).sum().backward()
flat = torch.cat([p.grad.flatten() for p in net.parameters()])
net.weight.grad = flat[:3]  # HERE
""",
    "overwritten": """
net = nn.Linear(3, 3)
h = net(torch.randn(2, 3)).exp()
h += 1  # HERE
h.sum().backward()
""",
    "detached-saved": """
net = nn.Linear(3, 3)
h = net(torch.randn(2, 3))
y = h * h
h.detach_()  # HERE
y.sum().backward()
""",
    # ------------------------------------------------------------------------------- Functions, hooks, checkpoints
    "gradient-count": """
class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x * factor
    @staticmethod
    def backward(ctx, g):
        return g * ctx.factor  # HERE
net = nn.Linear(3, 1)
Scale.apply(net(torch.randn(2, 3)), 2.0).sum().backward()
""",
    "gradient-form": """
class Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias):
        return x + bias
    @staticmethod
    def backward(ctx, g):
        return g.t(), g.sum()  # HERE
net, bias = nn.Linear(3, 2), nn.Parameter(torch.zeros(1))
Shift.apply(net(torch.randn(4, 3)), bias).sum().backward()
""",
    "no-backward": """
class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x / 2
net = nn.Linear(3, 1)
Half.apply(net(torch.randn(2, 3))).sum().backward()  # HERE
""",
    "legacy-function": """
class Double(torch.autograd.Function):
    def forward(self, x):
        return x * 2
    def backward(self, g):
        return g * 2
net = nn.Linear(3, 1)
Double()(net(torch.randn(2, 3))).sum().backward()  # HERE
""",
    "dirty": """
class Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.clamp(min=0)
    @staticmethod
    def backward(ctx, g):
        return g
net = nn.Linear(3, 1)
Relu.apply(net(torch.randn(2, 3))).sum().backward()  # HERE
""",
    "setup-context": """
class Sin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()
    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()
w = nn.Parameter(torch.ones(3))
torch.func.grad(lambda x: Sin.apply(x).sum())(w)  # HERE
""",
    "function-under-vmap": """
class Sin(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.sin()
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()
w = nn.Parameter(torch.ones(3))
torch.vmap(Sin.apply)(w).sum().backward()  # HERE
""",
    "no-jvp": """
class Sin(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.sin()
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()
w = torch.ones(3)
torch.func.jvp(Sin.apply, (w,), (w,))  # HERE
""",
    "tensor-hook": """
net = nn.Linear(3, 1)
x = torch.randn(2, 3)
x.register_hook(print)  # HERE
net(x).sum().backward()
""",
    "leaf-hook": """
net = nn.Linear(3, 1)
w = net.weight * 1
w.register_post_accumulate_grad_hook(print)  # HERE
""",
    "retain-grad": """
net = nn.Linear(3, 1).requires_grad_(False)  # HERE
h = net(torch.randn(2, 3))
h.retain_grad()
""",
    "two-kinds-of-hooks": """
net = nn.Linear(3, 1)
net.register_backward_hook(lambda m, i, o: None)
net.register_full_backward_hook(lambda m, i, o: None)  # HERE
""",
    "hook-result": """
net = nn.Linear(3, 1)
net.register_full_backward_hook(lambda m, gin, gout: (gin[0], gin[0]))
x = torch.randn(2, 3, requires_grad=True)
net(x).sum().backward()  # HERE
""",
    "hook-value": """
net = nn.Linear(4, 3)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(3):
    h = net(torch.randn(5, 4))
    h.register_hook(lambda g: g.mean(0))  # HERE
    opt.zero_grad()
    h.pow(2).mean().backward()
    opt.step()
""",
    "hook-value 2": """
net = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
def squeeze(module, grad_input, grad_output):
    return (grad_input[0].mean(0),)  # HERE
net[1].register_full_backward_hook(squeeze)
net(torch.randn(5, 4)).pow(2).mean().backward()
""",
    "hook-value 3": """
def scale(g):
    return float(g.norm()) * 0.5
net = nn.Linear(4, 3)
net.weight.register_hook(scale)  # HERE
net(torch.randn(5, 4)).pow(2).mean().backward()
""",
    "hook-value 5": """
net = nn.Linear(4, 3)
net.bias.register_hook(lambda g: g.clamp(-1, 1))
net.weight.register_hook(lambda g: g.norm())
net(torch.randn(5, 4)).pow(2).mean().backward()  # HERE
""",
    "hook-value 4": """
net = nn.Linear(4, 3)
net.weight.register_hook(lambda g: g.half())  # HERE
net(torch.randn(5, 4)).pow(2).mean().backward()
""",
    "hooked-view": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.act = nn.Linear(3, 3), nn.ReLU(inplace=True)
        self.body.register_full_backward_hook(lambda m, i, o: None)
    def forward(self, x):
        return self.act(self.body(x))  # HERE
net = Net()
net(torch.randn(2, 3, requires_grad=True)).sum().backward()
""",
    "pack-hook": """
net = nn.Linear(3, 3)
x = torch.randn(2, 3, requires_grad=True).exp()
with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().mul_(1), lambda t: t):
    (net(x) * x).sum().backward()  # HERE
""",
    "checkpoint-changed": """
from torch.utils.checkpoint import checkpoint
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj, self.seen = nn.Linear(4, 4), []
    def forward(self, x):
        self.seen.append(x)  # HERE
        return torch.tanh(self.proj(x)).t() @ torch.cat(self.seen, 1)
block = Block()
checkpoint(block, torch.randn(2, 4), use_reentrant=False).sum().backward()
""",
    "checkpoint-changed 2": """
import random
from torch.utils.checkpoint import checkpoint
random.seed(5)
net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
def part(x):
    for _ in range(random.randint(1, 6)):  # HERE
        x = net(x)
    return x
checkpoint(part, torch.randn(2, 4), use_reentrant=False).sum().backward()
""",
    "checkpoint-changed 3": """
from torch.utils.checkpoint import checkpoint
calls = 0
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(4, 4)
    def forward(self, x):
        global calls
        calls += 1  # HERE
        h = self.proj(x)
        return h.exp() if calls == 1 else h
block = Block()
loss = checkpoint(block, torch.randn(2, 4), use_reentrant=False).sum()
loss.backward()
""",
    "checkpoint-changed 4": """
from torch.utils.checkpoint import checkpoint
class B(nn.Module):
    def __init__(self):
        super().__init__()
        self.l, self.d, self.cos = nn.Linear(4, 4), nn.Dropout(.5), None
        self.count = 0
    def forward(self, x):
        self.count += 1
        if self.cos is None:
            self.cos = torch.cos(self.l.weight)  # HERE
        return self.d(self.l(x)) @ self.cos
b = B()
loss = checkpoint(b, torch.randn(2, 4), use_reentrant=False).sum()
loss.backward()
""",
    "checkpoint-changed 5": """
from torch.utils.checkpoint import checkpoint
net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(.5), nn.Linear(4, 1))
loss = checkpoint(net, torch.randn(2, 4), use_reentrant=False).sum()
net.eval()  # HERE
loss.backward()
""",
    "checkpoint-grad": """
from torch.utils.checkpoint import checkpoint
net = nn.Linear(3, 1)
x = torch.randn(2, 3, requires_grad=True)
torch.autograd.grad(checkpoint(net, x, use_reentrant=True).sum(), x)  # HERE
""",
    "checkpoint-needless": """
from torch.utils.checkpoint import checkpoint
net = nn.Linear(3, 1).requires_grad_(False)
x = torch.randn(2, 3, requires_grad=True)
checkpoint(lambda t: net(t).detach(), x, use_reentrant=True).sum().backward()  # HERE
""",
    "checkpoint-unpacked": """
from torch.utils.checkpoint import checkpoint
class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x
    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] + ctx.saved_tensors[0])  # HERE
net = nn.Linear(3, 3)
checkpoint(lambda t: Square.apply(net(t)), torch.randn(2, 3), use_reentrant=False).sum().backward()
""",
    # ------------------------------------------------------------------------------------------------- writes
    "view-of-leaf": """
net = nn.Linear(3, 1)
net.weight[0] = 0.5  # HERE
""",
    "leaf": """
net = nn.Linear(3, 1)
net(torch.randn(2, 3)).sum().backward()
w = net.weight
w -= 0.1 * w.grad  # HERE
""",
    "several-views": """
net = nn.Linear(3, 4)
a, b = net(torch.randn(2, 3)).chunk(2, 1)
a += b  # HERE
a.sum().backward()
""",
    "function-view": """
class Same(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)
    @staticmethod
    def backward(ctx, g):
        return g
net = nn.Linear(3, 1)
y = Same.apply(net(torch.randn(2, 3)))
y += 1  # HERE
y.sum().backward()
""",
    "no-grad-view": """
net = nn.Linear(3, 3)
h = net(torch.randn(2, 3))
with torch.no_grad():
    first = h[:, :1]
first += 1  # HERE
""",
    "inference-view": """
x = torch.zeros(2, 3)
with torch.inference_mode():
    first = x[:, :1]
net = nn.Linear(3, 1)
first += net(torch.randn(2, 3))  # HERE
""",
    "detached-view": """
net = nn.Linear(3, 4)
a, b = net(torch.randn(2, 3)).split(2, 1)
a.detach_()  # HERE
""",
    "overlap": """
net = nn.Linear(3, 1)
net(torch.randn(2, 3)).sum().backward()
rows = torch.zeros(1, 3).expand(4, 3)
rows += 1  # HERE
""",
    "input-overlap": """
net = nn.Linear(3, 1)
net(torch.randn(2, 3)).sum().backward()
x = torch.ones(4)
torch.add(x[:-1], 1, out=x[1:])  # HERE
""",
    "out-argument": """
w, room = nn.Parameter(torch.ones(3)), torch.zeros(3)
torch.mul(w, 2, out=room)  # HERE
""",
    "resized": """
w = nn.Parameter(torch.ones(3))
(w * 1).resize_(5)  # HERE
""",
    "elementwise-python": """
net = nn.Linear(3, 1)
net(torch.randn(2, 3)).apply_(abs)  # HERE
""",
    "inference-saved": """
body, head = nn.Linear(3, 3), nn.Linear(3, 1)
with torch.inference_mode():  # HERE
    features = body(torch.randn(2, 3))
head(features).sum().backward()
""",
    "inference-write": """
with torch.inference_mode():  # HERE
    memory = torch.zeros(3)
net = nn.Linear(3, 3)
memory += net(torch.randn(3))
""",
    "inference-flag": """
with torch.inference_mode():  # HERE
    x = torch.randn(3)
x.requires_grad_()
""",
    # --------------------------------------------------------------------------------------- leaves, optimizers
    "non-leaf-optimized": """
w = torch.randn(3, requires_grad=True) * 0.1  # HERE
opt = torch.optim.Adam([w])
""",
    "no-parameters": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(3, 3), nn.Linear(3, 1)]
opt = torch.optim.Adam(Net().parameters())  # HERE
""",
    "not-tensors": """
net = nn.Linear(3, 1)
opt = torch.optim.Adam([net])  # HERE
""",
    "shared-groups": """
net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
opt = torch.optim.Adam([{"params": net.parameters()}, {"params": net[1].parameters(), "lr": 0.1}])  # HERE
""",
    "non-leaf-flag": """
net = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
net.weight.requires_grad = False  # HERE
""",
    "non-leaf-flag 2": """
net = nn.Linear(3, 3)
h = net(torch.randn(2, 3))
h.requires_grad_(False)  # HERE
""",
    "integers": """
w = nn.Parameter(torch.tensor([1, 2, 3]))  # HERE
""",
    "numpy": """
net = nn.Linear(3, 1)
loss = net(torch.randn(2, 3)).mean()
print(loss.numpy())  # HERE
""",
    "deepcopy": """
import copy
class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.state = nn.Linear(3, 3), None
    def forward(self, x):
        self.state = torch.tanh(self.body(x))  # HERE
        return self.state
cell = Cell()
cell(torch.randn(2, 3)).sum().backward()
average = copy.deepcopy(cell)
""",
    "deepcopy 2": """
import copy
net = nn.Linear(3, 1)
best = net(torch.randn(2, 3)).mean()
kept = copy.deepcopy({"loss": best})  # HERE
""",
    "deepcopy 3": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(3, 3)
        self.memory = []
    def forward(self, x):
        h = self.l(x)
        self.memory.append(h)  # HERE
        return h
net = Net()
net(torch.randn(2, 3)).sum().backward()
ema = torch.optim.swa_utils.AveragedModel(net)
""",
    "serialized": """
import multiprocessing.reduction, pickle
from torch.multiprocessing import reductions
net = nn.Linear(3, 1)
reductions.reduce_tensor(net(torch.randn(2, 3)))  # HERE
""",
    "parameter-replaced": """
class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
    def forward(self, x):
        self.weight = self.weight * 0.5  # HERE
        return (x * self.weight).sum()
net = Masked()
net(torch.randn(2, 3)).backward()
""",
    "non-leaf-parameter": """
a, b = nn.Linear(3, 3), nn.Module()
b.register_parameter("w", nn.Parameter(a.weight))
b.register_parameter("w2", (a.weight * 1).as_subclass(nn.Parameter))  # HERE
""",
    "none": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 1)
        self.spare = nn.Linear(3, 1)  # HERE
    def forward(self, x):
        return self.used(x)
net = Net()
grads = torch.autograd.grad(net(torch.randn(2, 3)).sum(), list(net.parameters()), allow_unused=True)
norms = [g.norm() for g in grads]
""",
    "none 2": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.gate = nn.Linear(3, 1), nn.Parameter(torch.ones(3))  # HERE
    def forward(self, x):
        return self.used(x)
net = Net()
net(torch.randn(2, 3)).sum().backward()
grads = [p.grad for p in net.parameters()]
total = sum(g.pow(2).sum() for g in grads)
""",
    "none 3": """
net = nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1))
kept = []
def keep(module, given, returned):
    kept.append(given[0])
net[0].register_full_backward_hook(keep)
signal = torch.randn(1, 1, 3)  # HERE
net(signal).sum().backward()
saliency = kept[0].abs()
""",
    "none 4": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 1)
        self.b = nn.Linear(3, 1)  # HERE
    def forward(self, x):
        return self.a(x)
net = Net()
net(torch.randn(2, 3)).sum().backward()
flat = torch.cat([p.grad.flatten() if p.grad is not None else p.grad for p in net.parameters()])
""",
    "none 5": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 1)
        self.b = nn.Linear(3, 1)  # HERE
    def forward(self, x):
        return self.a(x)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=.1)
def total(params):
    return torch.stack([torch.norm(p.grad) for p in params]).norm()
net(torch.randn(2, 3)).sum().backward()
print(total(net.parameters()))
opt.step()
""",
    "none 6": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 1)
        self.b = nn.Linear(3, 1)  # HERE
    def forward(self, x):
        return self.a(x)
net = Net()
saved = {}
net(torch.randn(2, 3)).sum().backward()
for n, p in net.named_parameters():
    saved[n] = p.grad
def average(store):
    return {k: g / 2 for k, g in store.items()}
average(saved)
""",
    "none 7": """
net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
def guided(module, gin, gout):
    return (gin[0].clamp(min=0),)
net[0].register_full_backward_hook(guided)
x = torch.randn(2, 3)  # HERE
net(x).sum().backward()
""",
    "none 8": """
class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 1)
        self.aux = nn.Linear(3, 1)  # HERE
    def forward(self, x):
        return self.used(x)
net, x = Learner(), torch.randn(2, 3)
params = dict(net.named_parameters())
grads = torch.autograd.grad(net(x).sum(), list(params.values()), create_graph=True, allow_unused=True)
fast = {n: p if g is None else p - 0.1 * g for (n, p), g in zip(params.items(), grads)}
torch.func.functional_call(net, fast, (x,)).pow(2).sum().backward()
for p in net.parameters():
    p.grad.mul_(0.5)
""",
    "not-a-loss": """
net = nn.Linear(3, 1)
loss = net(torch.randn(2, 3)).mean().item()  # HERE
loss.backward()
""",
    "dense-gradient": """
table, head = nn.Embedding(10, 3, sparse=True), nn.Linear(3, 1)
opt = torch.optim.SparseAdam([*table.parameters(), *head.parameters()])  # HERE
head(table(torch.tensor([1, 2]))).sum().backward()
opt.step()
""",
    "sparse-gradient": """
table, head = nn.Embedding(10, 3, sparse=True), nn.Linear(3, 1)  # HERE
opt = torch.optim.AdamW([*table.parameters(), *head.parameters()])
head(table(torch.tensor([1, 2]))).sum().backward()
opt.step()
""",
    "sparse-gradient 2": """
class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.EmbeddingBag(  # HERE
            10,
            3,
            sparse=True,
        )
        self.head = nn.Linear(3, 1)
    def forward(self, ids):
        return self.head(self.words(ids))
net = Bag()
opt = torch.optim.RMSprop(net.parameters())
net(torch.tensor([[1, 2]])).sum().backward()
opt.step()
""",
    "sparse-gradient 3": """
class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(10, 3))
    def forward(self, ids):
        return F.embedding(ids, self.rows, sparse=True)  # HERE
net = Table()
opt = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
opt2 = torch.optim.NAdam(net.parameters())
net(torch.tensor([1, 2])).sum().backward()
opt2.step()
""",
    "sparse-gradient 4": """
def make(**options):
    return nn.Embedding(10, 3, **options)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([make(sparse=True) for _ in range(2)])  # HERE
        self.head = nn.Linear(6, 1)
    def forward(self, a):
        return self.head(torch.cat([t(a) for t in self.tables], 1))
net = Net()
opt = torch.optim.AdamW(net.parameters())
for s in range(2):
    loss = net(torch.tensor([1, 2])).sum()
    opt.zero_grad(); loss.backward(); opt.step()
""",
    "foreach": """
net = nn.Linear(3, 1)
opt = torch.optim.Adam(net.parameters(), foreach=True, differentiable=True)
net(torch.randn(2, 3)).sum().backward()
opt.step()  # HERE
""",
    "no-closure": """
net = nn.Linear(3, 1)
opt = torch.optim.LBFGS(net.parameters())
net(torch.randn(2, 3)).sum().backward()
opt.step()  # HERE
""",
    "no-inf-checks": """
import copy
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
net = copy.deepcopy(net)  # HERE
scaler = torch.amp.GradScaler("cpu")
scaler.scale(net(torch.randn(2, 3)).mean()).backward()
scaler.step(opt)
""",
    "no-inf-checks 2": """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu")
scaler.scale(net(torch.randn(2, 3)).mean()).backward()
opt.zero_grad()  # HERE
scaler.step(opt)
""",
    "no-inf-checks 3": """
net, critic = nn.Linear(3, 2), nn.Linear(2, 1)
opt_net = torch.optim.SGD(net.parameters(), lr=0.1)  # HERE
opt_critic = torch.optim.SGD(critic.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu")
scaler.scale(critic(torch.randn(3, 2)).mean()).backward()
scaler.step(opt_net)
""",
    "no-inf-checks 4": """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=.1)
scaler = torch.amp.GradScaler("cpu")
for p in net.parameters():
    p.requires_grad = False  # HERE
x = torch.randn(2, 3, requires_grad=True)
scaler.scale(net(x).mean()).backward()
scaler.step(opt)
""",
    "no-inf-checks 5": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 1)
    def forward(self, x):
        return self.head(self.body(x).detach())  # HERE
net = Net()
opt = torch.optim.SGD(net.body.parameters(), lr=.1)
opt2 = torch.optim.SGD(net.head.parameters(), lr=.1)
scaler = torch.amp.GradScaler("cpu")
scaler.scale(net(torch.randn(2, 3)).mean()).backward()
scaler.step(opt)
""",
    "unscaled-loss": """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=.1)
scaler = torch.amp.GradScaler("cpu")
loss = net(torch.randn(2, 3)).mean()
loss.backward()  # HERE
scaler.step(opt)
""",
    "unscaled-twice": """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu")
for batch in range(2):
    scaler.scale(net(torch.randn(2, 3)).mean()).backward()
    scaler.unscale_(opt)  # HERE
scaler.step(opt)
""",
    "unscaled-late": """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu")
scaler.scale(net(torch.randn(2, 3)).mean()).backward()
scaler.step(opt)
scaler.unscale_(opt)  # HERE
""",
    "stepped-twice": """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu")
scaler.scale(net(torch.randn(2, 3)).mean()).backward()
scaler.step(opt)
scaler.step(opt)  # HERE
""",
    "half-gradients": """
net = nn.Linear(3, 1).half()
opt = torch.optim.SGD(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
scaler.scale(net(torch.randn(2, 3).half()).mean()).backward()
scaler.unscale_(opt)  # HERE
""",
    "not-finite": """
net = nn.Linear(3, 1)
(net(torch.randn(2, 3)).mean() * float("inf")).backward()
nn.utils.clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)  # HERE
""",
    # ---------------------------------------------------------------------------------------------- processes
    "ready-twice": """
import os
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.block = nn.Linear(3, 3), nn.Linear(3, 3)
    def forward(self, x):
        x = checkpoint(self.block, self.first(x), use_reentrant=True)
        return checkpoint(self.block, x, use_reentrant=True)  # HERE
try:
    net = DistributedDataParallel(Net(), find_unused_parameters=True)
    net(torch.randn(2, 3)).sum().backward()
finally:
    dist.destroy_process_group()
""",
    "ready-twice 2": """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.shared = nn.Linear(3, 3), nn.Linear(3, 3)
    def forward(self, x):
        h = self.stem(x)
        for _ in range(3):
            h = checkpoint(self.shared, h, use_reentrant=True)  # HERE
        return h
try:
    net = DistributedDataParallel(Tower(), find_unused_parameters=False)
    net(torch.randn(2, 3)).sum().backward()
finally:
    dist.destroy_process_group()
""",
    "ready-twice 3": """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 1)
    def forward(self, x):
        return self.body(x)
try:
    net = DistributedDataParallel(Net(), find_unused_parameters=True)
    h = net(torch.randn(2, 3))
    loss = net.module.head(h).sum()  # HERE
    loss.backward()
finally:
    dist.destroy_process_group()
""",
    "unreduced": """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 1)
        self.spare = nn.Linear(3, 1)  # HERE
    def forward(self, x):
        return self.used(x)
try:
    net = DistributedDataParallel(Net())
    for step in range(2):
        net(torch.randn(2, 3)).sum().backward()
finally:
    dist.destroy_process_group()
""",
    "graph-changed": """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.extra = nn.Linear(3, 3), nn.Linear(3, 3)
    def forward(self, x, more):
        h = self.body(x)
        return self.extra(h) if more else h
try:
    net = DistributedDataParallel(Net(), static_graph=True)
    for step in range(4):
        net(torch.randn(2, 3), step < 2).sum().backward()  # HERE
finally:
    dist.destroy_process_group()
""",
    "ddp-not-needed": """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
try:
    net = DistributedDataParallel(nn.Linear(3, 1).requires_grad_(False))  # HERE
finally:
    dist.destroy_process_group()
""",
    "ddp-not-needed 2": """
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
teacher = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
for p in teacher.parameters():
    p.requires_grad = False
try:
    teacher = DistributedDataParallel(teacher)  # HERE
finally:
    dist.destroy_process_group()
""",
    # --------------------------------------------------------------------------------------------- transforms
    "forward-ad": """
points = torch.randn(4, 2)
torch.func.jvp(lambda p: torch.cdist(p, p + 1), (points,), (points,))  # HERE
""",
    "no-level": """
import torch.autograd.forward_ad as fwAD
w = torch.ones(3)
fwAD.make_dual(w, w)  # HERE
""",
    "write-under-vmap": """
w = nn.Parameter(torch.ones(2))
def residual(x):
    err = torch.zeros(2)
    err[0] = x[0] * w[0]  # HERE
    return err
torch.vmap(residual)(torch.randn(4, 2)).sum().backward()
""",
    "item-under-vmap": """
w = nn.Parameter(torch.ones(2))
torch.vmap(lambda x: w * x.item())(torch.randn(4))  # HERE
""",
    "branch-under-vmap": """
w = nn.Parameter(torch.ones(2))
def f(x):
    if x > 0:  # HERE
        return w * x
    return w
torch.vmap(f)(torch.randn(4))
""",
    "random-under-vmap": """
w = nn.Parameter(torch.ones(2))
torch.vmap(lambda x: F.dropout(w * x))(torch.randn(4))  # HERE
""",
    "backward-in-transform": """
w = torch.ones(2)
def step(w):
    loss = (w * w).sum()
    loss.backward()  # HERE
    return loss
torch.func.grad(step)(w)
""",
    "transform-not-scalar": """
w = torch.ones(2)
torch.func.grad(lambda w: w * w)(w)  # HERE
""",
    "transform-no-tensor": """
w = torch.ones(2)
torch.func.grad(lambda w: (w.sum(), w))(w)  # HERE
""",
    "flag-in-transform": """
w = torch.ones(2)
torch.func.grad(lambda w: w.requires_grad_().sum())(w)  # HERE
""",
    "transform-integers": """
w = torch.ones(2)
torch.func.vjp(lambda w: w.argmax(), w)  # HERE
""",
    "transform-hooks": """
w = torch.ones(2)
with torch.autograd.graph.save_on_cpu():
    torch.func.grad(lambda w: w.exp().sum())(w)  # HERE
""",
    "independent": """
w = torch.ones(2)
torch.autograd.functional.jacobian(lambda w: torch.ones(2, requires_grad=True) * 2, w, strict=True)  # HERE
""",
}

# With torch's words.
ELSEWHERE: dict[str, str] = {
    "cudnn-eval": "cudnn RNN backward can only be called in training mode",
    "cudnn-twice": "Double backwards is not supported for CuDNN RNNs due to limitations in the CuDNN API.",
    "forked": "Unable to handle autograd's threading in combination with fork-based multiprocessing.",
    "poisoned": "Trying to execute AccumulateGrad node that was poisoned by swap_tensors",
    "too-few-gradients": "Function FooBackward returned not enough gradients",
    "mixed-flat": "Must flatten tensors with uniform `requires_grad` when `use_orig_params=False`",
    "fsdp-twice": "FSDP does not support gradients of gradients",
    "compiled-twice": "torch.compile with aot_autograd does not currently support double backward",
    "donated": "This backward function was compiled with non-empty donated buffers which requires create_graph=False and retain_graph=False.",
    "cuda-graphs": "Error: accessing tensor output of CUDAGraphs that has been overwritten by a subsequent run.",
    "grad-under-vmap": "output (other is being vmapped over). Please call autograd.grad() outside torch.vmap or file a bug report",
    "needless-search": "find_unused_parameters=True was specified in DDP constructor, but did not find any unused parameters in the forward pass.",
    "written-view": "Output 0 of SqueezeBackward1 is a view and is being modified inplace.",
}

# What torch only warns of.
WARNINGS: dict[str, str] = {
    "gradient-of-non-leaf": """
x = torch.ones(2, requires_grad=True)
x = x * 2
x.sum().backward()
x.grad
""",
    "checkpoint-without-gradients": """
from torch.utils.checkpoint import checkpoint
checkpoint(nn.Linear(3, 1), torch.randn(2, 3), use_reentrant=True)
""",
    "scheduler-first": """
net = nn.Linear(3, 1)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
plan = torch.optim.lr_scheduler.StepLR(opt, 1)
plan.step()
""",
    "hook-without-inputs": """
net = nn.Linear(3, 1)
net.register_full_backward_hook(lambda m, i, o: None)
net(torch.randn(2, 3)).sum().backward()
""",
    "old-hook": """
net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
net.register_backward_hook(lambda m, i, o: None)
net(torch.randn(2, 3, requires_grad=True)).sum().backward()
""",
    "copied-tensor": """
loss = nn.Linear(3, 1)(torch.randn(2, 3)).mean()
torch.tensor(loss, requires_grad=True).backward()
""",
    "number-of-tensor": """
float(nn.Linear(3, 1)(torch.randn(1, 3)).mean())
""",
    "gradient-cycle": """
nn.Linear(3, 1)(torch.randn(1, 3)).mean().backward(create_graph=True)
""",
    "fallback-kernel": """
library = torch.library.Library("fxgrad_errors_fallback", "FRAGMENT")
library.define("twice(Tensor x) -> Tensor")
library.impl("twice", lambda x: torch.empty_like(x).copy_(x * 2), "CPU")
w = torch.ones(3, requires_grad=True)
torch.ops.fxgrad_errors_fallback.twice(w * 1).sum().backward()
""",
    "imaginary-part": """
torch.ones(2, dtype=torch.complex64).to(torch.float32)
""",
}

# Errors that look alike and are of something else: the report says nothing of gradients.
OTHERS: dict[str, str] = {
    "sizes": """
net = nn.Linear(3, 1)
net(torch.randn(2, 4)).sum().backward()
""",
    "a cache": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare, self.cache = nn.Linear(3, 1), nn.Parameter(torch.ones(3)), None
    def forward(self, x):
        return self.used(x)
net = Net()
grads = torch.autograd.grad(net(torch.randn(2, 3)).sum(), list(net.parameters()), allow_unused=True)
print(net.cache.data)
""",
    "an option": """
options = {"rate": None}
net = nn.Linear(3, 1)
kept = []
net.register_full_backward_hook(lambda m, i, o: kept.append(i[0]))
net(torch.randn(2, 3)).sum()
print(options["rate"] * 2)
""",
    "a search": """
import re
net = nn.Linear(3, 1)
for p in net.parameters():
    if p.grad is None:
        found = re.match("layer", "other")
print(found.group(1))
""",
}
