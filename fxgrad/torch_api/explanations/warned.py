"""What torch warns of, and goes on."""

from __future__ import annotations

from fxgrad.torch_api import errors
from fxgrad.torch_api.explanations.entry import Entry

WARNED = (
    Entry(
        name="gradient-of-non-leaf",
        kind=errors.WARNED_NON_LEAF_GRAD,
        means="`.grad` of a tensor that an operation made is read: it is None, for backward leaves gradients "
        "on leaves alone",
        causes=(
            "`x = x.to(device)`, `x = x / 255` or `w = w - lr * w.grad` after `requires_grad_()`: the name "
            "means a new tensor now",
        ),
        remedy="call `requires_grad_()` on the last tensor, or `retain_grad()` to look at the gradient of a "
        "result",
        code="FXG111",
        warning=True,
    ),
    Entry(
        name="checkpoint-without-gradients",
        kind=errors.WARNED_CHECKPOINT,
        means="no input of a reentrant checkpoint requires grad: every parameter inside gets no gradient",
        causes=(
            "the first block of a model, or one behind a frozen embedding, under `checkpoint(..., "
            "use_reentrant=True)`",
        ),
        remedy="pass use_reentrant=False",
        code="FXG114",
        warning=True,
    ),
    Entry(
        name="scheduler-first",
        kind=errors.WARNED_SCHEDULER,
        means="the scheduler stepped before the optimizer had: the first value of the schedule is skipped",
        causes=(
            "the two calls stand in the wrong order",
            "a GradScaler skipped the first step because of an overflow: harmless then",
        ),
        remedy="call `optimizer.step()` first",
        warning=True,
    ),
    Entry(
        name="hook-without-inputs",
        kind=errors.WARNED_HOOK_OUTPUTS,
        means="no input of a module with a full backward hook requires grad: the hook is given None for them",
        causes=("a hook on the first layer, to read the gradient of an image that does not require grad",),
        remedy="call `requires_grad_()` on the input before the forward",
        warning=True,
    ),
    Entry(
        name="old-hook",
        kind=errors.WARNED_OLD_HOOK,
        means="`register_backward_hook` is given a module of several operations: it sees the gradients of "
        "the last one only",
        causes=("the old call is used",),
        remedy="use `register_full_backward_hook`",
        warning=True,
    ),
    Entry(
        name="copied-tensor",
        kind=errors.WARNED_COPY,
        means="`torch.tensor(t)` makes a new leaf from a tensor: no gradient goes back to t",
        causes=("a loss, a target or a state is wrapped anew",),
        remedy="use t itself where the gradient matters, `t.detach().clone()` where it does not",
        code="FXG108",
        warning=True,
    ),
    Entry(
        name="number-of-tensor",
        kind=errors.WARNED_NUMBER,
        means="a tensor with a history becomes a Python number: its gradient ends there",
        causes=("`float(loss)`, `math.sqrt(t)`, `np.mean([...])` of tensors",),
        remedy="stay in torch (`t.sqrt()`, `torch.stack(...)`); for a log write `t.item()` or `t.detach()`",
        code="FXG107",
        warning=True,
    ),
    Entry(
        name="gradient-cycle",
        kind=errors.WARNED_CYCLE,
        means="`backward(create_graph=True)` leaves gradients in `.grad` that hold the graph: memory is not "
        "given back",
        causes=("second derivatives by `backward` in place of `autograd.grad`",),
        remedy="use `torch.autograd.grad(..., create_graph=True)`",
        warning=True,
    ),
    Entry(
        name="needless-search",
        kind=errors.WARNED_UNUSED_FLAG,
        means="find_unused_parameters=True costs a walk over the graph in every step, and every parameter is "
        "used",
        causes=("the flag was set to silence an error that is mended, or that another branch raises",),
        remedy="drop the flag, unless another branch leaves parameters out",
        code="FXG501",
        warning=True,
    ),
    Entry(
        name="fallback-kernel",
        kind=errors.WARNED_NO_KERNEL,
        means="a custom operator has no derivative of its own: torch differentiates what its kernel happens "
        "to do, if anything",
        causes=("a `torch.library` operator without `register_autograd`",),
        remedy="register one with `torch.library.register_autograd`",
        code="FXG113",
        warning=True,
    ),
    Entry(
        name="imaginary-part",
        kind=errors.WARNED_COMPLEX,
        means="a complex tensor is cast to real numbers: the imaginary part and its gradient are dropped",
        causes=("`.float()`, `.to(torch.float32)` or a copy of a complex result into a real tensor",),
        remedy="say which part is meant: `.real`, `.abs()`, `torch.view_as_real(...)`",
        warning=True,
    ),
)
