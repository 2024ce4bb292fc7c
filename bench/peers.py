"""Speed beside the peers: what one analysis costs, in real training steps of the same model, measured side by side in one run.

    python bench/peers.py [--models N] [--repeat K] [--markdown FILE] [--json FILE]

Per model the CPU time (`time.process_time`) and the peak of Python-visible memory are not comparable across machines, so every figure is a
ratio to one plain eager step (forward, loss, backward) of the same model in the same process. A tool that raises counts as not captured.
Rows: `analyze` on auto, real and fake values; our recorder alone; `torch.fx.symbolic_trace`; `torch.export.export` non-strict and strict;
one plain forward and backward under `FakeTensorMode`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.fx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import fxgrad  # noqa: E402  the path above first: the benchmark runs from a checkout
from fxgrad.trace import program, run  # noqa: E402
from tests.zoo.families import geometric, module_db, transformers_models, x_transformers  # noqa: E402
from tests.zoo.sweep import given, limited, loss_of  # noqa: E402

CHOSEN = (
    "LlamaForCausalLM", "GPT2LMHeadModel", "BertForMaskedLM", "MistralForCausalLM", "MixtralForCausalLM", "GemmaForCausalLM",
    "Qwen2ForCausalLM", "OPTForCausalLM", "BloomForCausalLM", "PhiForCausalLM", "MambaForCausalLM", "RobertaForMaskedLM",
    "ElectraForMaskedLM", "DebertaV2ForMaskedLM", "AlbertForMaskedLM", "DistilBertForMaskedLM", "ViTForImageClassification",
    "DeiTForImageClassification", "BeitForImageClassification", "T5ForConditionalGeneration", "BartForConditionalGeneration",
    "x_transformers/plain", "x_transformers/rotary_pos_emb", "pyg/GCN", "pyg/GAT", "pyg/GraphSAGE", "nn.Transformer/train",
    "nn.MultiheadAttention/train", "nn.LSTM/train", "nn.TransformerEncoderLayer/train",
)  # fmt: skip
SECONDS = 90


def models(limit: int) -> list[tuple[str, Callable[[], Any]]]:
    found: dict[str, Callable[[], Any]] = {}
    for family in (transformers_models, x_transformers, geometric, module_db):
        for name, build in family():
            for wanted in CHOSEN:
                if name.endswith(wanted) and wanted not in found:
                    found[wanted] = build
    return list(found.items())[:limit]


def step(model: Any, inputs: Any) -> None:
    args, kwargs = given(inputs)
    loss_of(model(*args, **kwargs)).backward()
    model.zero_grad(set_to_none=True)


def fake_step(model: Any, inputs: Any) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    args, kwargs = given(inputs)
    with mode:
        faked = {n: mode.from_tensor(t, static_shapes=True) for n, t in [*model.named_parameters(), *model.named_buffers()]}
        fake_args, fake_kwargs = torch.utils._pytree.tree_map_only(
            torch.Tensor, lambda t: mode.from_tensor(t, static_shapes=True), (args, kwargs)
        )
        loss_of(torch.func.functional_call(model, faked, fake_args, fake_kwargs)).backward()


def tools(model: Any, inputs: Any) -> dict[str, Callable[[], Any]]:
    args, kwargs = given(inputs)

    def analyze(values: Any) -> Callable[[], Any]:
        return lambda: fxgrad.analyze(model, inputs, options=fxgrad.Options(values=values))

    return {
        "analyze, auto": analyze("auto"),
        "analyze, real": analyze("real"),
        "analyze, fake": analyze("fake"),
        "recorder alone, real": lambda: run(program(model, inputs, None), values="real", backward=False),
        "torch.fx.symbolic_trace": lambda: torch.fx.symbolic_trace(model),
        "one fake step": lambda: fake_step(model, inputs),
        "torch.export non-strict": lambda: torch.export.export(model, args, kwargs, strict=False),
        "torch.export strict": lambda: torch.export.export(model, args, kwargs, strict=True),
    }


def cost(call: Callable[[], Any], repeat: int) -> float | None:
    """Median CPU seconds; None if it raises or takes too long."""
    times = []
    try:
        with limited(SECONDS), contextlib.redirect_stderr(io.StringIO()):
            call()  # warm-up: imports and caches are not the model's cost
            for _ in range(repeat):
                start = time.process_time()
                call()
                times.append(time.process_time() - start)
    except Exception:
        return None
    return statistics.median(times)


def measure(limit: int, repeat: int) -> tuple[dict[str, list[float | None]], list[str]]:
    ratios: dict[str, list[float | None]] = {}
    names = []
    for name, build in models(limit):
        try:
            model, inputs = build()
            real = cost(lambda model=model, inputs=inputs: step(model, inputs), max(repeat, 5))
        except Exception:
            real = None
        if real is None:
            continue
        names.append(name)
        for tool, call in tools(copy.deepcopy(model), inputs).items():
            seconds = cost(call, repeat)
            ratios.setdefault(tool, []).append(None if seconds is None else seconds / real)
        print(name, {t: None if v[-1] is None else round(v[-1], 1) for t, v in ratios.items()}, file=sys.stderr, flush=True)
    return ratios, names


def table(ratios: dict[str, list[float | None]], names: list[str]) -> str:
    rows = [
        f"{len(names)} models; torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads, CPU time",
        "",
        "| tool | ran on | median, in real steps | slowest |",
        "|---|---|---|---|",
    ]
    for tool, values in ratios.items():
        good = [v for v in values if v is not None]
        middle = f"{statistics.median(good):.1f}" if good else "-"
        worst = f"{max(good):.0f}" if good else "-"
        rows.append(f"| {tool} | {len(good)} of {len(values)} | {middle} | {worst} |")
    both = [
        (a, b) for a, b in zip(ratios["analyze, auto"], ratios["torch.export non-strict"], strict=True) if a is not None and b is not None
    ]
    faster = sum(a < b for a, b in both)
    rows += ["", f"`analyze` on auto values costs less than non-strict `export` on {faster} of the {len(both)} models that both ran."]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=len(CHOSEN))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # else CPU time counts threads that wait
    ratios, names = measure(arguments.models, arguments.repeat)
    text = table(ratios, names)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(json.dumps({"models": names, "ratios": ratios}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
