"""A training script as users write them, for `bench.gpu.watching`: a ResNet on random pictures, AdamW, a
schedule, a GradScaler.

python bench/gpu/train.py DEVICE STEPS TINY FILE      writes the milliseconds of each step to FILE
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

START = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
from bench.gpu.models import ResNet  # noqa: E402  found by the line above

device, steps, tiny, file = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "tiny", sys.argv[4]
model = (ResNet(8, (1, 1), 10) if tiny else ResNet(64, (3, 4, 6, 3), 1000)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
size, batch = (32, 4) if tiny else (224, 64)
times = []
for _ in range(steps):
    begin = time.perf_counter()
    pictures = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(0, 10, (batch,), device=device)
    optimizer.zero_grad()
    with torch.autocast(device, torch.float16 if device == "cuda" else torch.bfloat16):
        loss = F.cross_entropy(model(pictures), labels)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    schedule.step()
    if device == "cuda":
        torch.cuda.synchronize()
    times.append(1000 * (time.perf_counter() - begin))
peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
Path(file).write_text(json.dumps({"steps": times, "whole": time.perf_counter() - START, "peak": peak}))
