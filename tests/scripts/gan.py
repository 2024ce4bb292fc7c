"""GAN: two networks and two optimizers, weights initialised by hand."""

import sys

import torch
from torch import nn

broken = "--broken" in sys.argv
torch.manual_seed(0)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Linear(4, 8), nn.ReLU(True), nn.Linear(8, 6), nn.Tanh())

    def forward(self, z):
        return self.main(z)


def weights_init(module):
    if isinstance(module, nn.Linear):
        module.weight.data.normal_(0.0, 0.02)
        module.bias.data.fill_(0)


netG = Generator()
netD = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2, inplace=True), nn.Linear(8, 1))
netG.apply(weights_init)
netD.apply(weights_init)
optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
criterion = nn.BCEWithLogitsLoss()

for step in range(3):
    real = torch.rand(16, 6) * 2 - 1
    netD.zero_grad()
    label = torch.full((16, 1), 1.0)
    errD_real = criterion(netD(real), label)
    errD_real.backward()
    fake = netG(torch.randn(16, 4))
    label.fill_(0.0)
    errD_fake = criterion(netD(fake.detach()), label)
    errD_fake.backward()
    optimizerD.step()

    netG.zero_grad()
    label.fill_(1.0)
    if broken:
        fake = fake.detach()  # FXG103
    errG = criterion(netD(fake), label)
    errG.backward()
    optimizerG.step()
    print(f"{step}: D {(errD_real + errD_fake).item():.3f} G {errG.item():.3f}")
