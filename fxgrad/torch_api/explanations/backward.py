"""Errors that `backward()` and `autograd.grad` raise: what they are called on, and what they meet on their
way."""

from __future__ import annotations

from fxgrad.torch_api import errors
from fxgrad.torch_api.explanations.entry import Entry

BACKWARD = (
    Entry(
        name="second-time",
        kind=errors.SECOND_TIME,
        means="this backward came to a part of the graph that an earlier backward had walked: that one freed "
        "what forward had saved there",
        causes=(
            "a tensor computed before an earlier backward is used again: two losses share a forward, one "
            "forward stands above the loop, "
            "a hidden state is kept from step to step, a product of parameters was made once in `__init__`",
            "`loss.backward()` is called twice on one loss",
        ),
        beliefs=(
            (
                "pass retain_graph=True, as the message says",
                "it silences the error; a state kept over steps then makes every backward longer, and where "
                "a step has "
                "changed the weights it raises again or the gradients are stale",
            ),
            (
                "detach it",
                "right for a state that is kept; wrong for what a second loss needs: that loss then trains "
                "less or nothing",
            ),
        ),
        remedy="add the losses and call backward once, or compute what is shared again for the second loss; "
        "detach a state kept over steps",
        code="FXG201",
    ),
    Entry(
        name="nothing-recorded",
        kind=errors.NO_GRAD_FN,
        means="backward was called on a tensor that no recorded operation made and that is no leaf to be "
        "trained: there is nothing to walk",
        causes=(
            "the way from the parameters to the loss is cut: `detach`, `.data`, `.item()`, NumPy, argmax, a "
            "cast to integers, "
            "`torch.tensor(loss)`",
            "it was computed under `no_grad`, in inference mode, or in the forward of an "
            "`autograd.Function`, where nothing is recorded",
            "all parameters are frozen, or none took part",
        ),
        beliefs=(
            (
                "loss.requires_grad_() mends it",
                "it makes the loss a leaf: backward runs, and no parameter gets a gradient",
            ),
            (
                "the inputs need requires_grad=True",
                "only if gradients of the inputs are wanted: parameters are enough",
            ),
        ),
        remedy="find what cuts the way from the parameters to this tensor, and compute it in torch with "
        "gradients on",
        code="FXG116",
    ),
    Entry(
        name="complex-loss",
        kind=errors.COMPLEX_LOSS,
        means="the loss is a complex number: it has no direction that is down",
        causes=(
            "a complex tensor (`fft`, `view_as_complex`, a complex parameter) reached the loss without "
            "`.abs()` or `.real`",
        ),
        beliefs=(
            ("squaring makes it real", "the square of a complex number is complex: `.abs().pow(2)` is real"),
        ),
        remedy="make the loss real before it is reduced: `.abs().pow(2).mean()`, or "
        "`torch.view_as_real(...)`",
        code="FXG116",
    ),
    Entry(
        name="not-a-scalar",
        kind=errors.NOT_SCALAR,
        means="backward was called on a tensor of several elements: which of them is to go down is not said",
        causes=(
            "a loss with `reduction='none'`, or a model's output in place of a loss",
            "one loss for each sample or each device",
        ),
        beliefs=(
            (
                "pass torch.ones_like(loss)",
                "that is the sum of the elements: right only if the sum is meant, not the mean",
            ),
        ),
        remedy="reduce it to one number: `loss.mean().backward()`",
        code="FXG116",
    ),
    Entry(
        name="not-differentiated",
        kind=errors.NOT_DIFFERENTIATED,
        means="`autograd.grad` (or `backward(inputs=...)`) is asked for the gradient of a tensor that does "
        "not require one",
        causes=(
            "the input is made without `requires_grad_()`, or that was called after the forward had used it",
            "a frozen parameter is among `model.parameters()`",
        ),
        beliefs=(
            (
                "allow_unused=True helps",
                "it is about tensors that require grad and were not used: this one does not require grad",
            ),
        ),
        remedy="call `x.requires_grad_()` before the forward; of parameters pass those with requires_grad",
    ),
    Entry(
        name="not-used",
        kind=errors.NOT_USED,
        means="`autograd.grad` is asked for the gradient of a tensor from which no way leads to the output",
        causes=(
            "a parameter of a layer that forward does not call is in the list",
            "the tensor in the list is another one than forward used: a copy, the result of `.to()`, "
            "`x.detach()`, `x[:, :1]` made after",
            "the way is cut between the two",
        ),
        beliefs=(
            (
                "set allow_unused=True, as the message says",
                "it gives None in that place; whether it should be so is the question",
            ),
            ("the gradient is zero then", "it is None; `materialize_grads=True` gives zeros"),
        ),
        remedy="differentiate with respect to the very tensor that forward used; drop what is not used, or "
        "pass allow_unused=True",
        code="FXG101",
    ),
    Entry(
        name="no-inputs",
        kind=errors.NO_INPUTS,
        means="`autograd.grad` or `backward(inputs=...)` got an empty list of tensors to differentiate by",
        causes=(
            "a generator (`model.parameters()`) that was used up before",
            "a filter that leaves no parameter",
        ),
        remedy="make the list anew for each call: `list(model.parameters())`",
    ),
    Entry(
        name="gradient-shape",
        kind=errors.GRADIENT_SHAPE,
        means="the gradient given to `backward(gradient)` or as `grad_outputs` has another shape than the "
        "tensor it belongs to",
        causes=("`torch.ones(batch)` for an output of shape (batch, 1)", "several outputs and one gradient"),
        remedy="give `torch.ones_like(output)`",
    ),
    Entry(
        name="no-formula",
        kind=errors.NO_FORMULA,
        means="backward came to a custom operator for which nobody has registered a derivative",
        causes=("`torch.library.custom_op` or a C++ extension without `register_autograd`",),
        remedy="register one: `op.register_autograd(backward, setup_context=...)`",
        code="FXG113",
    ),
    Entry(
        name="no-derivative",
        kind=errors.NO_DERIVATIVE,
        means="backward came to an operation whose derivative torch does not have",
        causes=(
            "a second derivative (a gradient penalty, `create_graph=True`, a Hessian) through an operation "
            "with a first one only: fused "
            "attention, a fused recurrent net, some losses and samplers",
            "an operation that has no derivative at all: `unique`, `heaviside`, `geqrf`, an integer kernel",
        ),
        beliefs=(
            (
                "it is a bug in the model",
                "the model is right; the fused kernel lacks the formula, the same in plain operations has it",
            ),
        ),
        remedy="write it with operations that have one; for attention: `with "
        "torch.nn.attention.sdpa_kernel(SDPBackend.MATH):`",
        code="FXG105",
    ),
    Entry(
        name="complex-output",
        kind=errors.COMPLEX_OUTPUT,
        means="an operation of real numbers made a complex result whose derivative torch does not have",
        causes=("a complex input to an operation that is differentiated for real ones only",),
        remedy="go on with `.abs()`, `.real` or `torch.view_as_real(...)` before this operation",
    ),
    Entry(
        name="nan-gradient",
        kind=errors.NAN_GRADIENT,
        means="anomaly detection is on, and the derivative of this operation came out as NaN",
        causes=(
            "`sqrt`, `norm` or `std` at exactly 0, `log` or a division at 0, `acos` at 1, `atan2(0, 0)`",
            "`torch.where(x > 0, x.log(), 0)`: the branch that is not taken is differentiated as well, and 0 "
            "* inf is NaN",
            "a softmax over a row that is masked whole; an overflow in half precision",
        ),
        beliefs=(("clip_grad_norm_ helps", "the norm is NaN then, and so is every gradient"),),
        remedy="keep the argument away from the edge: `(x + 1e-8).sqrt()`, `x.clamp_min(1e-8).log()`, a safe "
        "argument inside `where`",
    ),
    Entry(
        name="negative-slope",
        kind=errors.NEGATIVE_SLOPE,
        means="an activation with a negative slope was applied in place: from its result its argument cannot "
        "be told any more",
        causes=(
            "`nn.LeakyReLU(-0.1, inplace=True)`, `F.elu_` or `F.rrelu_` with a negative coefficient: mostly "
            "a sign too many",
        ),
        remedy="give a positive slope, or inplace=False",
        code="FXG201",
    ),
    Entry(
        name="cudnn-eval",
        kind=errors.CUDNN_EVAL,
        means="a recurrent layer ran in eval mode on cuDNN, which saves nothing for backward then",
        causes=(
            "`model.eval()` before a backward through an LSTM or GRU: an attack, a saliency map, frozen "
            "batch norms",
        ),
        remedy="keep that layer in train mode, or run its forward under "
        "`torch.backends.cudnn.flags(enabled=False)`",
    ),
    Entry(
        name="cudnn-twice",
        kind=errors.CUDNN_TWICE,
        means="cuDNN's recurrent layers have no second derivative",
        causes=("a gradient penalty or another double backward through an LSTM or GRU on a GPU",),
        remedy="run the forward of that layer under `torch.backends.cudnn.flags(enabled=False)`",
    ),
    Entry(
        name="flex-attention",
        kind=errors.FLEX_CPU,
        means="FlexAttention has no backward on this device",
        causes=("a model made for a GPU is trained on the CPU",),
        remedy="use `scaled_dot_product_attention` with a mask on this device",
    ),
    Entry(
        name="forked",
        kind=errors.FORKED,
        means="a forked process calls backward, and the threads of autograd do not exist in it",
        causes=("`multiprocessing` with start method fork after a backward ran in the parent",),
        remedy="start processes with `spawn` or `forkserver`",
    ),
    Entry(
        name="poisoned",
        kind=errors.POISONED,
        means="the parameters were swapped for others (`module.to()` under `swap_module_params`) between "
        "forward and backward",
        causes=("`.to()`, `load_state_dict` or `fully_shard` between the forward and its backward",),
        remedy="move or load the model before the forward",
    ),
    Entry(
        name="assigned-gradient",
        kind=errors.ASSIGNED_GRADIENT,
        means="a tensor is stored into `.grad` that does not fit its tensor: another size, type or device",
        causes=(
            "gradients put together by hand: flattened and not given their shape back, from another device, "
            "in half precision",
        ),
        remedy="give it the parameter's own form: `p.grad = g.view_as(p).to(p)`",
    ),
    Entry(
        name="overwritten",
        kind=errors.OVERWRITTEN,
        means="backward needs a value that forward saved, and the program has written over it since",
        causes=(
            "an in-place operation after a use that saves its operand: `x += y`, `relu_`, "
            "`nn.ReLU(inplace=True)`, `x[i] = ...`",
            "`optimizer.step()` between a forward and its backward: the weights are what was saved",
            "a buffer that a second forward writes (batch norm, spectral norm), or DDP that broadcasts "
            "buffers",
        ),
        beliefs=(
            (
                "every in-place operation is forbidden",
                "only a write to what was saved: `y += 1` after `y = 2 * x` is harmless",
            ),
            ("use .data to write past it", "it runs then, and the gradients are silently wrong"),
            ("retain_graph=True", "it has nothing to do with it"),
        ),
        remedy="write out of place (`x = x + y`), clone what was saved, or move the step behind the backward",
        code="FXG201",
    ),
    Entry(
        name="detached-saved",
        kind=errors.DETACHED_SAVED,
        means="a tensor that was saved for backward was detached in place afterwards",
        causes=("`y.detach_()` after y was used in a recorded operation",),
        remedy="use `y = y.detach()`",
        code="FXG201",
    ),
)
