"""Models with lazy modules (`nn.LazyLinear`, and what else holds parameters without a shape): a copy that was
called once stands for them.

Made from the model, its inputs and its optimizer, copied together so that the optimizer holds the copy's
parameters; the user's model stays lazy. Not handled: inputs without data, and models that cannot be copied;
those stay as they are, and recording them says what to do.
"""

from __future__ import annotations

import contextvars
import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

from fxgrad.program.inputs import inputs_of
from fxgrad.torch_api import registry
from fxgrad.world.reach import preserve


def shaped(model: object, inputs: object, optimizer: object) -> tuple[object, object, bool]:
    """The model and the optimizer, or copies of both in which every parameter has its shape; and whether they
    are copies."""
    if not isinstance(model, nn.Module) or not any(
        is_lazy(t) for t in (*registry.parameters(model), *registry.buffers(model))
    ):
        return model, optimizer, False
    given = inputs_of(inputs)
    try:
        # torch's own lazy buffers refuse to be copied.
        lazy: Callable[..., torch.Tensor] = UninitializedBuffer
        blank = {
            id(b): lazy(b.requires_grad, b.device, b.dtype) for b in registry.buffers(model) if is_lazy(b)
        }
        made, held, args, kwargs = copy.deepcopy((model, optimizer, given.args, dict(given.kwargs)), blank)
        # what the copy's forward touches beside itself
        with preserve(model, given.args, dict(given.kwargs)), torch.no_grad():
            contextvars.copy_context().run(made, *args, **kwargs)
    except Exception:  # whatever stands in the way is met again, and told, when the model itself is recorded
        return model, optimizer, False
    return made, held, True
