"""An ordinary training script with a fault in it: the encoder never learns."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
encoder, decoder = nn.Linear(8, 4), nn.Linear(4, 8)
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

for _ in range(100):
    batch = torch.randn(16, 8)
    code = torch.tensor(encoder(batch).tolist())
    loss = F.mse_loss(decoder(code), batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
