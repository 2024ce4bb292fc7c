"""What is private to torch in modules, graphs and function transforms: each name once, with what it is for.

Every name is there on torch 2.11.0, 2.12.1, 2.13.0, 2.14.1 and 2.15.0. The core (modes, storages, engine,
fake tensors) is in `internals`. `ATTRIBUTES` are names of torch's own objects that any file may use as they
are: a function around each would say less than its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
import torch.fx
import torch.fx.graph
import torch.fx.graph_module
import torch.fx.node
import torch.nn.modules.module
from torch import nn
from torch.nn.modules.loss import _Loss
from torch.utils.hooks import BackwardHook

# ------------------------------------------------------------------------------------------------- attributes

# Used as they are, also as text. `named_parameters()` and its kind leave out None and say each tensor once.
ATTRIBUTES: Mapping[str, str] = {
    "_modules": "a module's children by name, None among them",
    "_parameters": "a module's own parameters by name, None among them",
    "_buffers": "a module's own buffers by name, None among them",
    "_non_persistent_buffers_set": "the names of its buffers that no state dict has",
    "_forward_hooks": "a module's hooks by kind: a module that has some is no leaf, and no text",
    "_forward_pre_hooks": "as above",
    "_backward_hooks": "as above, and a tensor's hooks on its gradient",
    "_backward_pre_hooks": "as above",
    "_post_accumulate_grad_hooks": "a leaf's hooks after its gradient was written",
    "_call_impl": "where every call of a module ends, whoever calls it: patched while a run is recorded",
    "_compiled_call_impl": "what `module.compile()` puts before `_call_impl`",
}

# ---------------------------------------------------------------------------------------------------- modules

Loss = _Loss  # the base class of torch.nn's losses: such a module is no model
ScriptFunction = torch._C.ScriptFunction
# Whether code is being compiled by `torch.jit.script` or traced.
is_scripting: Callable[[], bool] = torch._jit_internal.is_scripting
# The hooks on all modules at once are attributes of `torch.nn.modules.module`.
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def global_hooks() -> tuple[object, ...]:
    """The registries of hooks on all modules, by kind."""
    return tuple(getattr(torch.nn.modules.module, name) for name in _GLOBAL_HOOKS)


def backward_hooks(module: nn.Module) -> BackwardHook:
    """The full backward hooks of a module as they are now, for one call of it."""
    full, _ = module._get_backward_hooks()  # type: ignore[no-untyped-call]
    return BackwardHook(module, full, module._get_backward_pre_hooks())  # type: ignore[no-untyped-call]


def has_legacy_hooks(module: nn.Module) -> bool:
    """Whether it has hooks of the deprecated `register_backward_hook`."""
    return module._is_full_backward_hook is False and bool(module._backward_hooks)


def eager_module(model: object) -> object:
    """The module inside `torch.compile`'s wrapper; None where there is none."""
    return getattr(model, "_orig_mod", None)


def is_scripted(module: object) -> bool:
    """Whether a module is compiled by TorchScript. Under `PYTORCH_JIT=0` a `ScriptModule` is a module like
    others."""
    return isinstance(module, torch.jit.ScriptModule) and hasattr(module, "original_name")


def set_scripted(module: Any, name: str, value: object) -> None:
    """Set an attribute of a compiled module in C++, where it lives: past all checks and `__setattr__`."""
    module._c.setattr(name, value)


def source_of_script(function: object) -> Any:
    """The Python function that `torch.jit.script` compiled; None where torch did not keep it."""
    return getattr(function, "_torchdynamo_inline", None)


# `sdpa_kernel` switches attention kernels by a function that it looks up at every call: (module, attribute).
ATTENTION_KERNELS: tuple[ModuleType, str] = (torch.nn.attention, "_sdpa_kernel")
# The `autograd.Function` by which a module's full backward hooks mark its inputs and outputs.
HookFunction: type[torch.autograd.Function] = torch.nn.modules._functions.BackwardHookFunction
# A recurrent layer's own list of its weights is this attribute.
FLAT_WEIGHTS = "_flat_weights"

# ----------------------------------------------------------------------------------------------------- graphs


def codegen_of(graph: torch.fx.Graph) -> Any:
    """What writes a graph's code, to hand on to another graph by `set_codegen`."""
    return graph._codegen


# Whether `torch.fx` takes a function for one of torch's, and the text that it writes for it.
is_from_torch: Callable[[object], bool] = torch.fx.graph._is_from_torch


def fill_node(node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Give a node of a graph its arguments, both kinds at once: what `node.args = ...` comes down to."""
    node._update_args_kwargs(args, kwargs)


def name_stem(target: Any) -> str:
    """What `torch.fx` makes the name of a node from, where it is given none."""
    return torch.fx.Graph()._target_to_str(target)


qualified_name: Callable[[Any], str] = torch.fx.node._get_qualified_name


def texts_of_graphs() -> dict[str, object]:
    """Where torch keeps the code of every graph module for good, by file name."""
    return getattr(getattr(torch.fx.graph_module, "_loader", None), "eval_cache", {})


# ------------------------------------------------------------------------------------------------- transforms

# (module, attribute). Looked up by torch.func's own functions at every call, however a program imported
# those.
TRANSFORMS = (
    ("torch._functorch.apis", "vmap_impl"),
    ("torch._functorch.eager_transforms", "grad_impl"),
    ("torch._functorch.eager_transforms", "grad_and_value_impl"),
)
# These give back functions too.
TRANSFORMS_WITH_FUNCTIONS = (
    ("torch._functorch.eager_transforms", "_jvp_with_argnums"),
    ("torch._functorch.eager_transforms", "_vjp_with_argnums"),
)
# Where they take a derivative, backward and forward: of the tensors that the first is given, and of the first
# tensor that the second returns.
TAKES_DERIVATIVE = ("torch._functorch.eager_transforms", "_autograd_grad")
UNPACKS_DERIVATIVE = ("torch._functorch.eager_transforms", "safe_unpack_dual")
