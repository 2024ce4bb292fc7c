"""Part 4: a Llama of 8 billion parameters in bf16 on the device, analysed where it lies and on meta, in its
own real steps.

Built from this folder's own blocks (`bench.gpu.models.Llama`), so that no package but torch is needed.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch
from tabulate import tabulate

import fxgrad
from bench.gpu.models import Llama, cross_entropy, rotated
from bench.gpu.pages import arguments, publish, show


class Sound(torch.nn.Module):
    """The blocks without the writes that break backward: each gets a residual stream of its own."""

    def __init__(self, llama: Llama) -> None:
        super().__init__()
        self.llama = llama

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        llama = self.llama
        x = llama.embedding(ids)
        for block in llama.blocks:
            x = self._block(block, x, llama.cos[: ids.shape[1]], llama.sin[: ids.shape[1]])
        return llama.head(llama.norm(x))

    @staticmethod
    def _block(block: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        b, n, d = x.shape
        h = block.norm1(x)
        q = rotated(block.q(h).view(b, n, block.heads, -1).transpose(1, 2), cos, sin)
        k = rotated(block.k(h).view(b, n, block.groups, -1).transpose(1, 2), cos, sin)
        v = block.v(h).view(b, n, block.groups, -1).transpose(1, 2)
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + block.o(attended.transpose(1, 2).reshape(b, n, d))
        h = block.norm2(x)
        return x + block.down(torch.nn.functional.silu(block.gate(h)) * block.up(h))


def built(device: str, tiny: bool) -> tuple[Sound, torch.Tensor]:
    torch.manual_seed(0)
    with torch.device(device):
        llama = Llama(64, 32, 4, 2, 64, 2, 16) if tiny else Llama(128256, 4096, 32, 8, 14336, 32, 2048)
        ids = torch.randint(0, 64, (1, 8 if tiny else 2048))
    return Sound(llama).bfloat16(), ids


def main() -> int:
    options = arguments("size", __doc__)
    default = torch.get_default_dtype()
    # built in bf16 from the start: in float32 it would not fit beside its copy
    torch.set_default_dtype(torch.bfloat16)
    model, ids = built(options.device, options.tiny)
    torch.set_default_dtype(default)
    count = sum(p.numel() for p in model.parameters())
    clock = _Clock(options.device)
    rows: list[list[str]] = []
    data: dict[str, Any] = {"parameters": count}

    steps, memory = [], 0
    for _ in range(6):
        seconds, memory = clock.of(lambda: cross_entropy(model(ids)).backward())
        steps.append(seconds)
        for parameter in model.parameters():
            parameter.grad = None
    step = statistics.median(steps[2:])
    rows.append(["one real step (forward, loss, backward)", f"{step:.3f}", "1.00", f"{memory / 2**20:.1f}"])
    data["step"] = {"seconds": steps, "memory": memory}

    meta, meta_ids = built("meta", options.tiny)
    for name, one, inputs in (("analysed as it is", model, ids), ("analysed on meta", meta, meta_ids)):
        times = []
        for _ in range(3):
            report: list[fxgrad.Report] = []
            seconds, memory = clock.of(
                lambda one=one, inputs=inputs, report=report: report.append(
                    fxgrad.analyze(one, (inputs,), loss=cross_entropy)
                )
            )
            times.append(seconds)
        found = report[0]
        rows.append(
            [
                f"{name} ({found.values} values)",
                f"{statistics.median(times):.3f}",
                f"{statistics.median(times) / step:.2f}",
                f"{memory / 2**20:.1f}",
            ]
        )
        data[name] = {
            "seconds": times,
            "memory": memory,
            "values": found.values,
            "ok": found.ok,
            "verdicts": sorted(set(found.verdicts.values())),
        }
        if not found.ok or set(found.verdicts.values()) != {"flows"}:
            raise SystemExit(f"{name}: a sound model was reported as\n{found}")
        text = tabulate(
            rows,
            headers=["", "s", "real steps", "peak MiB on the device beside the model"],
            tablefmt="github",
            disable_numparse=True,
        )
        head = (
            f"{count:,} parameters in bf16, one sequence of {ids.shape[1]} tokens; medians (4 steps after "
            "2, 3 analyses each, the first included)."
        )
        publish("size", "A Llama of 8 billion parameters on a GPU", [head, text], data, options)
    show(text)
    return 0


class _Clock:
    """Seconds on the wall of a call with the device idle before and after, and the most that it took of the
    device's memory."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def of(self, work: Any) -> tuple[float, int]:
        before = 0
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begin = time.perf_counter()
        work()
        if self.cuda:
            torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before if self.cuda else 0
        return time.perf_counter() - begin, int(peak)


if __name__ == "__main__":
    sys.exit(main())
