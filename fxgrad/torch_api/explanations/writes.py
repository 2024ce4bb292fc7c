"""Errors of writes that autograd refuses, and of tensors made in inference mode."""

from __future__ import annotations

from fxgrad.torch_api import errors
from fxgrad.torch_api.explanations.entry import Entry

_UPDATE = "for an update by hand write inside `with torch.no_grad():`; in forward compute a new tensor"

WRITES = (
    Entry(
        name="hooked-view",
        kind=errors.HOOKED_VIEW,
        means="a module with a full backward hook hands out a view, and that result is written in place",
        causes=(
            "`nn.ReLU(inplace=True)`, `x += y` after a layer that carries a hook: Grad-CAM, saliency and "
            "profiling tools set one",
        ),
        remedy="set inplace=False on what follows the hooked module, or put the hook on the tensor: "
        "`out.register_hook(...)`",
        code="FXG202",
    ),
    Entry(
        name="view-of-leaf",
        kind=errors.VIEW_OF_LEAF,
        means="part of a trainable leaf (`w[0]`, `w.view(...)`) is written while gradients are recorded",
        causes=("`weight[i] = ...`, `weight.t().mul_(...)`, an initialisation without `no_grad`",),
        remedy=_UPDATE,
        code="FXG202",
    ),
    Entry(
        name="leaf",
        kind=errors.LEAF,
        means="a trainable leaf is written in place while gradients are recorded: its own value would have a "
        "history",
        causes=(
            "`w -= lr * w.grad`, an initialisation or a clamp of weights without `no_grad`",
            "a model's input with requires_grad that forward writes",
        ),
        beliefs=(
            (
                "use .data",
                "it works and hides the write from autograd's checks; `torch.no_grad()` says the same and is "
                "checked",
            ),
        ),
        remedy=_UPDATE,
        code="FXG202",
    ),
    Entry(
        name="several-views",
        kind=errors.SEVERAL_VIEWS,
        means="one of several views that one call returned (`chunk`, `split`, `unbind`) is written in place",
        causes=("`a, b = x.chunk(2); a += b`, a loop over `x.unbind()` that writes",),
        remedy="write out of place: `a = a + b`; or index in place of unbinding: `x[:, :n]`",
        code="FXG202",
    ),
    Entry(
        name="function-view",
        kind=errors.FUNCTION_VIEW,
        means="the result of an `autograd.Function` is a view, or its input as it was, and it is written in "
        "place",
        causes=(
            "forward of the Function returns `x` or `x.view(...)`, and `+=` or an in-place activation "
            "follows",
        ),
        remedy="write out of place, or return `x.clone()` from the Function",
        code="FXG202",
    ),
    Entry(
        name="no-grad-view",
        kind=errors.NO_GRAD_VIEW,
        means="a view that was made under `no_grad` is written while gradients are recorded",
        causes=("slices prepared under `no_grad` and filled outside",),
        remedy="make the view and write it on the same side of `no_grad`",
        code="FXG202",
    ),
    Entry(
        name="inference-view",
        kind=errors.INFERENCE_VIEW,
        means="a view that was made in inference mode is written outside of it",
        causes=("slices prepared under `torch.inference_mode()`",),
        remedy="make the view and write it on the same side of inference mode",
        code="FXG202",
    ),
    Entry(
        name="detached-view",
        kind=errors.DETACHED_VIEW,
        means="`detach_()` is called on a view",
        causes=("a slice, a chunk or `x.t()` is detached in place",),
        remedy="use `y = y.detach()`",
        code="FXG202",
    ),
    Entry(
        name="written-view",
        kind=errors.MODIFIED_VIEW,
        means="a view is written, or its base was, in a way that autograd cannot follow",
        causes=(
            "an in-place operation on the result of a call that returns several views or of a custom "
            "Function",
        ),
        remedy="write out of place, or clone the view first",
        code="FXG202",
    ),
    Entry(
        name="overlap",
        kind=errors.OVERLAP,
        means="a tensor is written several of whose elements lie at one place in memory",
        causes=("the result of `expand` or `as_strided` is written: `bias.expand(4, -1).add_(1)`",),
        remedy="clone it first: `x.expand(...).clone()`",
        code="FXG202",
    ),
    Entry(
        name="input-overlap",
        kind=errors.INPUT_OVERLAP,
        means="a tensor is written from one that lies over a part of it",
        causes=("`x[1:] = x[:-1]`: it depends on the order of the elements",),
        remedy="clone what is read: `x[1:] = x[:-1].clone()`",
        code="FXG202",
    ),
    Entry(
        name="out-argument",
        kind=errors.OUT_ARGUMENT,
        means="a call writes into `out=` and one of its arguments requires grad: that is not recorded",
        causes=("`torch.mul(w, x, out=buffer)` with a trainable `w`",),
        remedy="take the result: `buffer = torch.mul(w, x)`",
        code="FXG202",
    ),
    Entry(
        name="resized",
        kind=errors.RESIZED,
        means="`resize_` is called on a tensor that requires grad",
        causes=("a trainable tensor is given another size in place",),
        remedy="make a new tensor: `reshape`, `F.pad`, a slice",
        code="FXG202",
    ),
    Entry(
        name="elementwise-python",
        kind=errors.ELEMENTWISE,
        means="`apply_` or `map_` runs Python on each element: nothing of it can be recorded",
        causes=("a Python function is applied to a tensor with a history",),
        remedy="write it with torch operations; for a look without gradients: `x.detach().apply_(f)`",
        code="FXG202",
    ),
    Entry(
        name="inference-saved",
        kind=errors.INFERENCE_SAVED,
        means="a tensor made in inference mode takes part in what is differentiated",
        causes=(
            "features or a mask computed under `torch.inference_mode()` are fed to a layer that trains",
            "a model or a buffer was made or moved to a device in inference mode",
        ),
        beliefs=(
            (
                "inference_mode is a faster no_grad",
                "what it makes may never be recorded; what no_grad makes may",
            ),
        ),
        remedy="use `torch.no_grad()` there, or clone the tensor outside",
        code="FXG104",
    ),
    Entry(
        name="inference-write",
        kind=errors.INFERENCE_WRITE,
        means="a tensor made in inference mode is written outside of it",
        causes=("a cache or a buffer made under `torch.inference_mode()` is updated in training",),
        remedy="make it under `torch.no_grad()`, or clone it before it is written",
        code="FXG202",
    ),
    Entry(
        name="inference-flag",
        kind=errors.INFERENCE_FLAG,
        means="a tensor made in inference mode is asked to require grad",
        causes=("`x.requires_grad_()` on a tensor that came out of `torch.inference_mode()`",),
        remedy="clone it outside of inference mode first: `x.clone().requires_grad_()`",
        code="FXG104",
    ),
)
