"""Errors about leaves and what is no leaf, about optimizers and gradient scalers, and what Python says of
numbers and None."""

from __future__ import annotations

from fxgrad.torch_api import errors
from fxgrad.torch_api.explanations.entry import Entry

LEAVES = (
    Entry(
        name="non-leaf-optimized",
        kind=errors.NON_LEAF_OPTIMIZED,
        means="the optimizer is given the result of an operation: backward leaves gradients on leaves alone",
        causes=(
            "`torch.randn(3, requires_grad=True).cuda()` or `* 0.1` or `.view(...)`: the last call made a "
            "new tensor",
        ),
        remedy="compute first, then make the leaf: `(0.1 * torch.randn(3)).requires_grad_()`",
        code="FXG302",
    ),
    Entry(
        name="no-parameters",
        kind=errors.NO_PARAMETERS,
        means="the optimizer is given nothing",
        causes=(
            "the layers stand in a plain list or dict, where the module does not see them",
            "a generator (`model.parameters()`, `filter(...)`) was used up before",
            "every parameter is frozen and filtered out",
        ),
        remedy="register layers as attributes or in nn.ModuleList, and call `model.parameters()` anew for "
        "every use",
        code="FXG301",
    ),
    Entry(
        name="not-tensors",
        kind=errors.NOT_TENSORS,
        means="the optimizer is given something other than tensors",
        causes=(
            "`model.named_parameters()` mixed with tensors, `model.children()`, the model itself in a list",
            "a parameter that became a number or an array",
        ),
        remedy="give it `model.parameters()`",
        code="FXG301",
    ),
    Entry(
        name="shared-groups",
        kind=errors.SHARED_GROUPS,
        means="one parameter is in two groups of an optimizer",
        causes=(
            "a tied weight (embedding and head) appears under both modules",
            "`model.parameters()` beside a group of some of them",
        ),
        remedy="leave out of the second group what the first has: `ids = {id(p) for p in first}`",
    ),
    Entry(
        name="non-leaf-flag",
        kind=errors.NON_LEAF_FLAG,
        means="`requires_grad` is set on the result of an operation: such a tensor requires grad if its "
        "operands do",
        causes=(
            "`requires_grad_(False)` on an output, to stop its gradient",
            "a weight that is computed (weight_norm, a parametrization, LoRA merged in) is frozen by a loop "
            "over attributes",
        ),
        remedy="to stop a gradient use `.detach()`; to freeze a computed weight freeze the parameters that "
        "it is computed from",
        code="FXG102",
    ),
    Entry(
        name="integers",
        kind=errors.NO_FLOATS,
        means="a tensor of integers or booleans is asked to require grad",
        causes=(
            "`torch.tensor([1, 2], requires_grad=True)`, `nn.Parameter(torch.arange(3))`, a quantized weight "
            "in `nn.Parameter`",
        ),
        remedy="make it of floats: `torch.tensor([1.0, 2.0])`; for integers pass `requires_grad=False`, or "
        "register a buffer",
        code="FXG106",
    ),
    Entry(
        name="numpy",
        kind=errors.NUMPY_OF_HISTORY,
        means="a tensor with a history is handed to NumPy, which would lose its gradient",
        causes=(
            "a plot, a metric or a log of a loss or an output",
            "`np.asarray`, `np.mean` and their kind called on a tensor",
        ),
        beliefs=(
            (
                "add .detach() wherever it is raised",
                "right for a log; on the way to the loss it cuts the gradient",
            ),
        ),
        remedy="for a log or a plot write `.detach().numpy()`; on the way to the loss stay in torch",
        code="FXG107",
    ),
    Entry(
        name="deepcopy",
        kind=errors.DEEPCOPY,
        means="`copy.deepcopy` meets a tensor that an operation made: only leaves can be copied",
        causes=(
            "a module keeps an output, a hidden state or a computed weight (weight_norm's `weight`) as an "
            "attribute, and the model is copied "
            "for an average, a target network, or by a trainer",
        ),
        remedy="keep it detached (`self.state = h.detach()`), or copy the model before its first forward",
    ),
    Entry(
        name="serialized",
        kind=errors.SERIALIZED,
        means="a tensor with a history is sent to another process",
        causes=(
            "a data set yields tensors that require grad: an embedding or a trainable transform was applied "
            "in it",
        ),
        remedy="detach in the data set, and apply what is trained in the training loop",
    ),
    Entry(
        name="parameter-replaced",
        kind=errors.PARAMETER_REPLACED,
        means="a plain tensor is assigned where the module has a parameter",
        causes=("`self.weight = self.weight * mask` in forward, `layer.weight = torch.zeros(...)`",),
        beliefs=(
            (
                "wrap it in nn.Parameter",
                "in forward that makes a new parameter each time, which no optimizer holds",
            ),
        ),
        remedy="compute under another name (`w = self.weight * mask`); to set values: `with torch.no_grad(): "
        "layer.weight.copy_(t)`",
        code="FXG111",
    ),
    Entry(
        name="non-leaf-parameter",
        kind=errors.NON_LEAF_PARAMETER,
        means="the result of an operation is registered as a parameter",
        causes=("`register_parameter('w', other.weight * 1)`, a tied and scaled weight",),
        remedy="register the leaf, and compute from it in forward",
        code="FXG111",
    ),
    Entry(
        name="none",
        kind=errors.NONE,
        means="something is None where a tensor was expected; where it is a gradient, no backward left one "
        "there",
        causes=(
            "`.grad` of a tensor that no backward reached, that is no leaf, that does not require grad, or "
            "before the first backward",
            "`autograd.grad(..., allow_unused=True)` gives None for what is not used",
            "a module's backward hook gets None for inputs that require no gradient",
        ),
        beliefs=(
            ("backward() returns the gradients", "it returns None and leaves them in `.grad` of the leaves"),
        ),
        remedy="find out why it got no gradient before skipping it: `if p.grad is not None` hides a "
        "parameter that never trains",
        python=True,
    ),
    Entry(
        name="not-a-loss",
        kind=errors.NOT_A_LOSS,
        means="backward is called on something that is no tensor",
        causes=(
            "the loss is a Python number: `.item()`, `float(...)`, or `sum` of numbers taken from tensors",
            "the loss function returns nothing, or several things; a model's output object in place of its "
            "`.loss`",
        ),
        remedy="keep the loss a tensor up to backward; read `.item()` of it only to log it",
        code="FXG116",
        python=True,
    ),
)

OPTIMIZERS = (
    Entry(
        name="dense-gradient",
        kind=errors.DENSE_GRADIENT,
        means="SparseAdam holds a parameter whose gradient is dense",
        causes=(
            "all of `model.parameters()` is given to SparseAdam, not only the embeddings made with "
            "`sparse=True`",
        ),
        remedy="give SparseAdam the sparse embeddings and an ordinary optimizer the rest",
    ),
    Entry(
        name="sparse-gradient",
        kind=errors.SPARSE_GRADIENT,
        means="the optimizer holds a parameter whose gradient is a sparse tensor, and this optimizer takes "
        "dense ones only",
        causes=(
            "`nn.Embedding(..., sparse=True)` or `nn.EmbeddingBag(..., sparse=True)` with Adam, AdamW, or "
            "weight decay",
        ),
        remedy="give the sparse table to `torch.optim.SparseAdam` or plain SGD, or make it with sparse=False",
    ),
    Entry(
        name="foreach",
        kind=errors.FOREACH,
        means="a differentiable optimizer is asked to work with foreach kernels, which are not recorded",
        causes=("`differentiable=True` together with `foreach=True`",),
        remedy="pass foreach=False",
    ),
    Entry(
        name="no-closure",
        kind=errors.NO_CLOSURE,
        means="this optimizer evaluates the loss itself, several times a step, and is given no function for "
        "it",
        causes=("`torch.optim.LBFGS` is used like Adam: `optimizer.step()`",),
        remedy="pass `step(closure)`: a function that clears the gradients, calls backward and returns the "
        "loss",
    ),
    Entry(
        name="no-inf-checks",
        kind=errors.NO_INF_CHECKS,
        means="the gradient scaler found no gradient at all in the optimizer that it is to step",
        causes=(
            "the optimizer holds the parameters of another model: it was built before a copy, `deepcopy`, a "
            "replaced layer, or from another one",
            "`scaler.scale(loss).backward()` was not called since the last step, or the gradients were "
            "cleared after it",
            "no parameter of this optimizer takes part in this loss (a GAN's other half)",
        ),
        beliefs=(("lower the scale", "no gradient is infinite: there is none"),),
        remedy="build the optimizer from the model that is trained, and step it after a backward that "
        "reaches its parameters",
        code="FXG302",
    ),
    Entry(
        name="unscaled-loss",
        kind=errors.UNSCALED_LOSS,
        means="the gradient scaler is to step or unscale, and has scaled no loss yet",
        causes=(
            "`loss.backward()` in place of `scaler.scale(loss).backward()`",
            "a step before the first backward",
        ),
        remedy="call `scaler.scale(loss).backward()`",
    ),
    Entry(
        name="unscaled-twice",
        kind=errors.UNSCALED_TWICE,
        means="the scaler is asked to unscale the gradients of one optimizer twice between two updates",
        causes=(
            "`scaler.unscale_(optimizer)` in every micro-batch of an accumulation, or by the program and by "
            "a clipping helper",
        ),
        remedy="call it once, right before clipping and `scaler.step`, and `scaler.update()` after",
    ),
    Entry(
        name="unscaled-late",
        kind=errors.UNSCALED_LATE,
        means="the scaler is asked to unscale after `scaler.step` of the same optimizer",
        causes=("clipping stands behind the step",),
        remedy="order: `unscale_`, clip, `scaler.step`, `scaler.update`",
    ),
    Entry(
        name="stepped-twice",
        kind=errors.STEPPED_TWICE,
        means="`scaler.step` is called twice for one optimizer without `scaler.update()` between",
        causes=("`update` stands outside the loop, or is missing",),
        remedy="call `scaler.update()` once after the steps of each iteration",
    ),
    Entry(
        name="half-gradients",
        kind=errors.HALF_GRADIENTS,
        means="the parameters themselves are in half precision, so their gradients are: the scaler cannot "
        "unscale them",
        causes=("`model.half()` together with autocast and a GradScaler",),
        remedy="keep the parameters in float32: autocast casts where it should",
    ),
    Entry(
        name="not-finite",
        kind=errors.NOT_FINITE,
        means="the norm of all gradients is infinite or NaN, and `error_if_nonfinite=True` makes that an "
        "error",
        causes=(
            "an overflow in half precision without a scaler, or clipped before `unscale_`",
            "a NaN in the loss or in one derivative",
        ),
        remedy="run once under `torch.autograd.set_detect_anomaly(True)` to see which derivative is NaN",
    ),
)
