"""A Wasserstein GAN: five critic steps with a gradient penalty, then the generator, the critic frozen for its turn."""

import sys

import torch
from torch import autograd, nn

broken = "--broken" in sys.argv
torch.manual_seed(0)
G = nn.Sequential(nn.Linear(4, 16), nn.ReLU(True), nn.Linear(16, 2))
D = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 16)), nn.LeakyReLU(0.2, inplace=True), nn.Linear(16, 1))
g_opt = torch.optim.Adam(G.parameters(), 1e-4, betas=(0.5, 0.9))
d_opt = torch.optim.Adam(D.parameters(), 1e-4, betas=(0.5, 0.9))


def gp(real, fake):
    a = torch.rand(real.size(0), 1)
    x = (a * real + (1 - a) * fake).requires_grad_(True)
    out = D(x)
    (g,) = autograd.grad(out, x, torch.ones_like(out), create_graph=True, retain_graph=True, only_inputs=True)
    return ((g.norm(2, 1) - 1) ** 2).mean()


for it in range(3):
    for p in D.parameters():
        p.requires_grad = True
    for _ in range(5):
        real = torch.randn(8, 2) + 3
        with torch.no_grad():
            fake = G(torch.randn(8, 4))
        d_opt.zero_grad()
        loss = D(fake).mean() - D(real).mean() + 10 * gp(real, fake)
        loss.backward()
        d_opt.step()
    for p in D.parameters():
        p.requires_grad = False
    g_opt.zero_grad()
    z = torch.randn(8, 4)
    fake = G(z)
    if broken:
        fake = torch.from_numpy(fake.detach().numpy()).requires_grad_()  # FXG107
    (-D(fake).mean()).backward()
    g_opt.step()
    print(it, loss.item())
