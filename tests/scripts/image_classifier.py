"""An image classifier as users write it: argparse, a DataLoader, autocast, a scaler, clipping, a schedule, an average, validation."""

import argparse
import copy
import os
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, random_split


class Blobs(Dataset):
    def __init__(self, n):
        g = torch.Generator().manual_seed(0)
        self.y = torch.randint(0, 3, (n,), generator=g)
        self.x = torch.randn(n, 1, 8, 8, generator=g) + self.y[:, None, None, None]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return {"image": self.x[i], "label": self.y[i]}


class Net(nn.Module):
    def __init__(self, width, broken=False):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.1)
        self.aux = nn.Linear(width, 3)
        self.fc = nn.Linear(width, 3)
        self.broken = broken

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        r = h
        h = self.bn2(self.conv2(h))
        h = F.relu(h + r, inplace=True)
        h = h.mean((2, 3))
        out = self.fc(self.drop(h))
        if self.training:
            return out, self.aux(h)
        return out


class EMA:
    def __init__(self, model, decay):
        self.shadow = copy.deepcopy(model).eval()
        for p in self.shadow.parameters():
            p.requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        for s, p in zip(self.shadow.parameters(), model.parameters(), strict=True):
            s.mul_(self.decay).add_(p, alpha=1 - self.decay)
        for s, b in zip(self.shadow.buffers(), model.buffers(), strict=True):
            s.copy_(b)


def set_seed(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@torch.no_grad()
def evaluate(model, loader, device):
    model.eval()
    right = 0
    for batch in loader:
        right += (model(batch["image"].to(device)).argmax(1) == batch["label"].to(device)).sum().item()
    return right / len(loader.dataset)


def train_one_epoch(model, loader, optimizer, scheduler, scaler, ema, device, args):
    model.train()
    running = 0.0
    for i, batch in enumerate(loader):
        x, y = batch["image"].to(device, non_blocking=True), batch["label"].to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=args.amp):
            logits, aux = model(x)
            if args.broken:
                logits = torch.tensor(logits.detach().float().numpy(), requires_grad=True)  # FXG107
            loss = F.cross_entropy(logits, y) + 0.3 * F.cross_entropy(aux, y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        ema.update(model)
        running += loss.item()
        if i % 10 == 0:
            print(f"step {i}: loss {running / (i + 1):.3f} lr {scheduler.get_last_lr()[0]:.2e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--broken", action="store_true")
    args = parser.parse_args()
    set_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_set, val_set = random_split(Blobs(96), [64, 32])
    loader = DataLoader(train_set, batch_size=16, shuffle=True, num_workers=args.workers, pin_memory=False, drop_last=True)
    val = DataLoader(val_set, batch_size=16, num_workers=args.workers)
    model = Net(8).to(device)
    no_decay = [p for n, p in model.named_parameters() if p.ndim == 1]
    decay = [p for n, p in model.named_parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.01}, {"params": no_decay, "weight_decay": 0.0}], lr=args.lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=args.lr, total_steps=args.epochs * len(loader))
    scaler = torch.amp.GradScaler(device.type)
    ema = EMA(model, 0.99)
    print("before", evaluate(model, val, device))
    for epoch in range(args.epochs):
        train_one_epoch(model, loader, optimizer, scheduler, scaler, ema, device, args)
        print(f"epoch {epoch}: acc {evaluate(ema.shadow, val, device):.3f}")
    torch.save(model.state_dict(), os.devnull)


if __name__ == "__main__":
    main()
