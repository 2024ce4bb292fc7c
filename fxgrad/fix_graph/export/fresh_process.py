"""One step of an exported package in a process of its own: `python -P fresh_process.py JOB`, with fxgrad out
of reach.

The folder JOB holds the package and `given.pt`, what `fxgrad.fix_graph.export.trial` gives; `found.pt` is
what the step left. This file is run by its path and imports torch alone. Not handled: errors; whatever the
package raises ends the process.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

PACKAGE, GIVEN, FOUND = "package", "given.pt", "found.pt"


def main(job: Path) -> None:
    """Load the package, carry out one step, and write down what it left."""
    sys.modules["fxgrad"] = None  # type: ignore[assignment]  # an import of it raises
    given = torch.load(job / GIVEN, weights_only=False)
    torch.set_num_threads(given["threads"])
    torch.set_default_dtype(given["dtype"])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    model = _package(job / PACKAGE).load()
    if given["device"] is not None:
        model.to(given["device"])
    args, kwargs = given["call"]
    torch.manual_seed(given["seed"])
    output = model(*args, **kwargs)
    results = [*tensors_of(output)]
    found: dict[str, Any] = {
        "outputs": [t.detach().clone() for t in results],
        "requires_grad": tuple(t.requires_grad for t in results),
        "type": type(output).__name__,
    }
    loss = weighed(results)
    if loss is not None:
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found["gradients"] = {name: parameter.grad for name, parameter in parameters.items()}
    state = {**parameters, **dict(model.named_buffers(remove_duplicate=False))}
    found["buffers"] = {name: tensor.detach() for name, tensor in state.items()}
    found["inputs"] = {f"input {number}": t.detach() for number, t in enumerate(given["tensors"])}
    found["gradients"].update({f"input {number}": t.grad for number, t in enumerate(given["tensors"])})
    torch.save(found, job / FOUND)


def _package(folder: Path) -> Any:
    file = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location("exported", file, submodule_search_locations=[str(folder)])
    assert spec is not None, file
    assert spec.loader is not None, file
    module = sys.modules["exported"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tensors_of(item: object) -> Iterator[torch.Tensor]:
    """The tensors of an output, in order."""
    if isinstance(item, torch.Tensor):
        yield item
    elif isinstance(item, Mapping):
        yield from _tensors(item.values())
    elif isinstance(item, list | tuple):
        yield from _tensors(item)
    elif dataclasses.is_dataclass(item):
        yield from _tensors(getattr(item, field.name) for field in dataclasses.fields(item))


def _tensors(items: Iterable[object]) -> Iterator[torch.Tensor]:
    for item in items:
        yield from tensors_of(item)


def weighed(results: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """A scalar whose gradient by each element of the results is another, so that none stands for another;
    None where none requires grad."""
    total = None
    for tensor in results:
        if not tensor.requires_grad:
            continue
        if tensor.layout is torch.strided:
            weights = 1 + torch.arange(tensor.numel(), device=tensor.device) % 7 / 8  # exact in every dtype
            tensor = tensor * weights.view(tensor.shape).to(tensor.dtype)
        part = tensor.sum().abs() if tensor.is_complex() else tensor.sum()
        total = part if total is None else total + part
    return total


if __name__ == "__main__":
    main(Path(sys.argv[1]))
