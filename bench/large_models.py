"""Time and memory of analysing language models too large to hold: configurations on the meta device, each in
a process of its own.

Prints per model: parameters, graph nodes, seconds to import, build and analyse (wall and CPU), peak memory of
the process, findings.

    python bench/large_models.py [--models llama-8b llama-70b deepseek-671b] [--tokens 2048]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama-8b": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "vocab_size": 128256,
        },
    ),
    "llama-70b": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {
            "hidden_size": 8192,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "intermediate_size": 28672,
            "vocab_size": 128256,
        },
    ),
    "llama-405b": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {
            "hidden_size": 16384,
            "num_hidden_layers": 126,
            "num_attention_heads": 128,
            "num_key_value_heads": 8,
            "intermediate_size": 53248,
            "vocab_size": 128256,
        },
    ),
    "mixtral-8x7b": ("MixtralForCausalLM", "MixtralConfig", {}),
    "qwen3-235b": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {
            "hidden_size": 4096,
            "num_hidden_layers": 94,
            "num_attention_heads": 64,
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 1536,
            "head_dim": 128,
        },
    ),
    "deepseek-671b": ("DeepseekV3ForCausalLM", "DeepseekV3Config", {}),
    "gpt2-xl": ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
}
HEADERS = [
    "model",
    "parameters / 10^9",
    "nodes",
    "import s",
    "build s",
    "analyse s",
    "analyse CPU s",
    "peak GB",
    "ok",
    "findings",
]


def analyse(name: str, tokens: int) -> list[Any]:
    """One row, measured in this process."""
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    import torch
    import transformers

    import fxgrad

    transformers.logging.set_verbosity_error()
    kind, configuration, values = MODELS[name]
    config = getattr(transformers, configuration)(**values, use_cache=False)
    cls = getattr(transformers, kind)
    imported = time.perf_counter()
    with torch.device("meta"):
        model = cls(config).train()
        ids = torch.zeros(1, tokens, dtype=torch.long)
    built, worked = time.perf_counter(), time.process_time()
    report = fxgrad.analyze(model, {"input_ids": ids, "labels": ids})
    done, worked = time.perf_counter(), time.process_time() - worked
    billions = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    )
    times = [round(t, 1) for t in (imported - start, built - imported, done - built, worked)]
    return [name, round(billions, 1), report.nodes, *times, round(peak, 2), report.ok, len(report.findings)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument(
        "--one", choices=list(MODELS), help="measure this model in this process and print a line of JSON"
    )
    options = parser.parse_args()
    if options.one:
        print(json.dumps(analyse(options.one, options.tokens)))
        return
    from tabulate import tabulate

    rows = []
    for name in options.models:
        command = [sys.executable, __file__, "--one", name, "--tokens", str(options.tokens)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed = done.stderr.strip().splitlines() or ["no output"]
        rows.append(json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else [name, failed[-1]])
    print(tabulate(rows, headers=HEADERS))


if __name__ == "__main__":
    main()
