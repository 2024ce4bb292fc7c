"""A training script: `python tests/wrapped/train.py FILE PROGRAM [WRAPPER]` trains a program of `tests/cases` for three steps."""

import importlib.util
import sys

import torch

from tests.wrapped.wrappers import AVERAGED, WRAPPERS


def built(file, program):
    spec = importlib.util.spec_from_file_location(f"program_{abs(hash(file))}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, program)()


if __name__ == "__main__":
    torch.manual_seed(11)
    case = built(*sys.argv[1:3])
    model, inputs, loss_of = case.pop("model"), case["inputs"], case.get("loss") or (lambda out: out)
    wrapper = sys.argv[3] if len(sys.argv) > 3 else ""
    average = WRAPPERS[AVERAGED](model) if wrapper == AVERAGED else None
    if wrapper and average is None:
        model = WRAPPERS[wrapper](model)
    optimizer = case.get("optimizer") or torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        out = model(*inputs) if isinstance(inputs, tuple) else model(**inputs)
        loss = loss_of(out)
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)
