"""States that recurrent layers of the model take, as candidates for inputs that are named like one.

From the layers' own sizes. Not handled: states of cells that the user wrote; those are found by what they are
joined with.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

from torch import nn

from fxgrad.program.infer.candidates import BATCH, LENGTH, Candidate, distinct, state
from fxgrad.program.infer.provenance import state_shapes
from fxgrad.program.infer.spec import Group
from fxgrad.torch_api import registry

_NAMES = re.compile(
    r"(\w+_)?(hidden|hiddens|state|states|hx|cx|h|c|hc|h_?0|c_?0|h_?t|c_?t|h_?prev|c_?prev|cell"
    r"|memory|mems)(_\w+)?"
)


def _of_all(layers: Sequence[nn.RNNBase | nn.RNNCellBase], batch: int) -> Candidate:
    """One state for each layer: a model that goes through its layers by hand takes a list of them."""
    parts = [state(state_shapes(layer, batch), "").spec for layer in layers]
    group = Group(None, tuple(part for part in parts if part is not None))
    return Candidate(group, why=f"one state for each of {len(layers)} recurrent layers")


def states(model: object, signature: inspect.Signature) -> dict[str, list[Candidate]]:
    """Candidates for each input that is named like a state; a batch may be the usual one or, where a sequence
    comes first, its length."""
    layers = (
        [part for part in registry.modules(model) if isinstance(part, nn.RNNBase | nn.RNNCellBase)]
        if isinstance(model, nn.Module)
        else []
    )
    found: list[Candidate] = []
    for batch in (BATCH, LENGTH):
        for layer in layers:
            shapes = state_shapes(layer, batch)
            why = f"`{type(layer).__name__}` has a state of {layer.hidden_size}"
            found += [state(shapes, why), state(shapes[:1], why)]
    if len(layers) > 1:  # after those of the first layer alone
        found[2:2] = [_of_all(layers, batch) for batch in (BATCH, LENGTH)]
    named = [name for name in signature.parameters if _NAMES.fullmatch(name.lower())]
    if not found:  # a cell of the user's own: what it is joined with says its sizes
        pair = state(((BATCH, LENGTH), (BATCH, LENGTH)), "it may be a pair")
        return {name: [state(((BATCH, LENGTH),), f"by the name `{name}`"), pair] for name in named}
    if len(named) > 1:  # `h, c`: each is one of the two
        found.sort(key=lambda candidate: isinstance(candidate.spec, Group))
    return {name: distinct(found) for name in named}
