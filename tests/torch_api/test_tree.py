"""Structures: their tensors are found in every holder, once each, and put back."""

from __future__ import annotations

import collections
import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import fxgrad
from fxgrad.torch_api import tree


class Batch(dict[str, Any]):
    pass


class Several(list[Any]):
    pass


@dataclasses.dataclass
class Output(collections.OrderedDict):  # type: ignore[type-arg]
    logits: Any = None
    hidden: Any = None

    def __post_init__(self) -> None:
        self["logits"] = self.logits


class Closed:
    """Raises what copying does not expect, whatever it is asked."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __getattr__(self, name: str) -> object:
        raise AssertionError(name)


class ClosedBatch(Batch):
    def __getattr__(self, name: str) -> object:
        raise KeyError(name)


def one() -> torch.Tensor:
    return torch.randn(4, 3)


def closed_batch() -> ClosedBatch:
    made = ClosedBatch(a=one())
    made.b = one()  # type: ignore[attr-defined]
    return made


HOLDERS: dict[str, tuple[Any, int]] = {
    "dict": (lambda: Batch(a=one(), n=3), 1),
    "list": (lambda: Several([one(), one()]), 2),
    "both": (lambda: Output(one(), one()), 3),
    "one in the other": (lambda: {"q": Several([Batch(a=one())])}, 1),
    "closed": (lambda: Closed(one()), 1),
    "closed dict": (closed_batch, 2),
    "with a module of Python's": (lambda: (one(), warnings.catch_warnings(record=True)), 1),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_tensors_are_found_and_put_back(name: str) -> None:
    make, count = HOLDERS[name]
    given = make()
    leaves, structure = tree.flatten(given)
    assert len(leaves) == count
    made = tree.unflatten(structure, [leaf + 1 for leaf in leaves])
    assert type(made) is type(given)
    again, _ = tree.flatten(made)
    assert all(torch.equal(a, b + 1) for a, b in zip(again, leaves, strict=True))
    assert all(a is b for a, b in zip(tree.flatten(given)[0], leaves, strict=True))  # untouched


def test_many_ways_to_one_object_take_no_time() -> None:
    class Node:
        pass

    below: Any = None
    for _ in range(12):
        node = Node()
        for number in range(12):
            setattr(node, f"a{number}", below)
        below = node
    assert tree.flatten((one(), below))[1] is not None


class Reads(nn.Module):
    def __init__(self, read: Any) -> None:
        super().__init__()
        self.read, self.layer = read, nn.Linear(3, 3)

    def forward(self, x: Any) -> Any:
        return self.read(self.layer, x)


READS: dict[str, tuple[Any, Any]] = {
    "dict in": (lambda layer, x: layer(x["a"]), HOLDERS["dict"][0]),
    "list in": (lambda layer, x: layer(x[0]) + x[1], HOLDERS["list"][0]),
    "both in": (lambda layer, x: layer(x["logits"]) + x.hidden, HOLDERS["both"][0]),
    "dict out": (lambda layer, x: Batch(a=layer(x), n=3), one),
    "list out": (lambda layer, x: Several([layer(x), 3]), one),
    "both out": (lambda layer, x: Output(layer(x), x), one),
    "closed in": (lambda layer, x: layer(x.x), HOLDERS["closed"][0]),
}


@pytest.mark.parametrize("name", READS)
def test_a_graph_takes_and_gives_them(name: str) -> None:
    read, make = READS[name]
    model = Reads(read)
    assert set(fxgrad.analyze(model, (make(),)).verdicts.values()) == {"flows"}
    module = fxgrad.fix(model, (make(),)).module
    other = make()
    got, want = module(other), model(other)
    assert type(got) is type(want)
    pairs = zip(tree.flatten(got)[0], tree.flatten(want)[0], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
