"""The regenerated module: a `torch.fx.GraphModule` called exactly as the model was, sharing the model's own parameters.

`CallingConvention` flattens a call's inputs in the order of the graph's placeholders, rebuilds the output's type and sets the buffers that
the forward rebinds; `Closure`, `function_apply` and the functions after them are the callables by which a graph refers to Python functions,
`autograd.Function`s and backward hooks of the user. What a forward leaves in plain attributes, lists or the caller's containers it does not
leave there again.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
import torch.fx
from torch import nn
from torch.autograd import forward_ad
from torch.fx.graph import CodeGen
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import BackwardHook

from fxgrad.records.errors import InputError
from fxgrad.torch_api import tree


class CallingConvention:
    """How the model is called and what it returns. Immutable; shared by copies of the graph."""

    def __init__(
        self,
        signature: inspect.Signature,
        inputs: tree.Structure,
        output: tree.Structure,
        order: Sequence[int],
        repeats: Sequence[tuple[int, int]] = (),
        buffers: Sequence[str] = (),
    ) -> None:
        self.signature = signature
        self.input_structure = inputs
        self.output_structure = output
        self.order = tuple(order)  # of each placeholder: the number of its tensor among those of a call
        self.repeats = tuple(repeats)  # pairs of numbers that were one tensor in the traced call
        self.buffers = tuple(buffers)  # rebound by the forward; their new values are the last results of the graph
        self.tensors = _tensors_alone(signature, inputs) if not repeats else None

    def __deepcopy__(self, memo: Any) -> CallingConvention:
        return self

    def inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """The tensors of a call, in placeholder order.

        Raises:
            InputError: the call does not have the structure of the one that was traced.
        """
        if self.tensors == len(args) and not kwargs and all(isinstance(a, torch.Tensor) for a in args):
            return [args[i] for i in self.order]  # nothing to bind or flatten: a small model would feel it
        leaves, structure = tree.flatten(bound_inputs(self.signature, args, kwargs))
        if len(leaves) <= max(self.order, default=-1) or not _alike(structure, self.input_structure):
            raise InputError(
                "the call does not match the traced one: another number of tensors or other Python arguments",
                hint="a graph stands for one way of calling the model; trace it again with these inputs",
            )
        if any(leaves[i] is not leaves[j] for i, j in self.repeats):
            raise InputError(
                "the call passes two tensors where the traced one passed the same tensor twice",
                hint="trace the model again with two tensors",
            )
        return [leaves[i] for i in self.order]

    def output(self, results: Sequence[Any], module: nn.Module | None = None) -> Any:
        """The model's output type around the graph's results; `module` gets its rebound buffers."""
        count = len(results) - len(self.buffers)
        if module is not None:
            for name, value in zip(self.buffers, results[count:], strict=True):
                path, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(path), attribute, value)
        return tree.unflatten(self.output_structure, results[:count])


def _tensors_alone(signature: inspect.Signature, structure: tree.Structure) -> int | None:
    """The number of parameters, if every one is a tensor of its own that may be passed by position; else None."""
    kinds = {p.kind for p in signature.parameters.values()}
    if not kinds <= {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD} or not isinstance(structure, tree.Branch):
        return None
    values = [pair.children[1] for pair in structure.children]
    alone = all(isinstance(v, tree.Leaf) and v.index == n for n, v in enumerate(values)) and len(values) == len(signature.parameters)
    return len(values) if alone else None


def bound_inputs(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """A call's arguments in the order of the signature, so that positional and keyword use come out alike."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"the inputs do not fit the model's signature: {error}") from None
    bound.apply_defaults()
    return tuple(bound.arguments.items())


def _alike(one: tree.Structure, other: tree.Structure) -> bool:
    if isinstance(one, tree.Leaf) and isinstance(other, tree.Leaf):
        return (one.index is None) == (other.index is None) and _same_constant(one.constant, other.constant)
    if isinstance(one, tree.Branch) and isinstance(other, tree.Branch):
        return len(one.children) == len(other.children) and all(map(_alike, one.children, other.children))
    if isinstance(one, tree.Attributes) and isinstance(other, tree.Attributes):
        return one.names == other.names and all(map(_alike, one.children, other.children))
    return False


def _same_constant(one: Any, other: Any) -> bool:
    if isinstance(one, str | int | float | bool | type(None)) or isinstance(other, str | int | float | bool | type(None)):
        return type(one) is type(other) and bool(one == other)
    return True  # objects without tensors: compared by the code that reads them


class CallingCodeGen(CodeGen):
    """Generates `forward` with the model's calling convention."""

    def __init__(self, convention: CallingConvention, *, guarded: bool) -> None:
        super().__init__()
        self.convention = convention
        self.guarded = guarded

    def gen_fn_def(self, free_vars: list[str], maybe_return_annotation: str, **rest: Any) -> str:
        guard = "@_calling_guard\n" if self.guarded else ""
        names = [v.split(":")[0].split("=")[0].strip() for v in free_vars]
        lines = [f"{guard}def {self._func_name}(self, *args, **kwargs){maybe_return_annotation}:"]
        if names:
            lines.append(f"    {', '.join(names)}, = _calling.inputs(args, kwargs)")
        return "\n".join(lines)

    def generate_output(self, output_args: Any, **rest: Any) -> str:
        show = rest.get("repr_fn") or repr
        return f"return _calling.output({show(output_args)}, self)"

    def process_inputs(self, *args: Any) -> Any:
        return self.convention.inputs(args, {})

    def process_outputs(self, outputs: Any) -> Any:
        return self.convention.output(outputs)

    def additional_globals(self) -> list[tuple[str, Any]]:
        return [("_calling", self.convention), ("_calling_guard", restores_modes)]


def restores_modes(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A graph switches modes by calls, not by `with`: when it raises in between, the caller's modes come back all the same."""

    @functools.wraps(forward)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        grad = torch.is_grad_enabled()
        try:
            return forward(*args, **kwargs)
        except BaseException as error:
            for region in _open_regions(error.__traceback__, forward):
                region.__exit__(None, None, None)
            raise
        finally:
            torch._C._set_grad_enabled(grad)

    return guarded


def _open_regions(traceback: TracebackType | None, forward: Callable[..., Any]) -> list[Any]:
    """The regions that the generated code was in, innermost first: it sets a variable to None where it leaves one."""
    while traceback is not None and traceback.tb_frame.f_code is not forward.__code__:
        traceback = traceback.tb_next
    values = list(traceback.tb_frame.f_locals.values()) if traceback is not None else []
    return [value for value in reversed(values) if isinstance(value, torch.autocast | torch.inference_mode)]


class _Swap(TorchFunctionMode):
    """Hands a function the values of this run in place of those of the recorded one."""

    def __init__(self, values: Mapping[int, torch.Tensor]) -> None:
        super().__init__()
        self.values = values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*self._swap(args), **self._swap(kwargs or {}))

    def _swap(self, item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return self.values.get(id(item), item)
        if isinstance(item, tuple | list) and not hasattr(item, "_fields"):
            return type(item)(self._swap(x) for x in item)
        if type(item) is dict:
            return {k: self._swap(v) for k, v in item.items()}
        return item


class Closure:
    """A Python function of the program in the graph. `captured`: the tensors of the recorded run that it closes over."""

    def __init__(self, function: Callable[..., Any], captured: tuple[torch.Tensor, ...] = ()) -> None:
        self.function = function
        self.captured = captured
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __deepcopy__(self, memo: Any) -> Closure:
        return self  # the function's own tensors are the user's

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def bind(self, *values: torch.Tensor) -> Callable[..., Any]:
        """The function with this run's values for `captured`."""
        by_id = {id(old): new for old, new in zip(self.captured, values, strict=True)}

        def bound(*args: Any, **kwargs: Any) -> Any:
            with _Swap(by_id):
                return self.function(*args, **kwargs)

        return bound


_applies: weakref.WeakValueDictionary[type, Callable[..., Any]] = weakref.WeakValueDictionary()


class GeneratorState:
    """A random generator of the recorded run as it is now; a call makes another that goes on from there."""

    def __init__(self, generator: torch.Generator) -> None:
        self.device, self.state = generator.device, generator.get_state()

    def __call__(self) -> torch.Generator:
        generator = torch.Generator(self.device)
        generator.set_state(self.state)
        return generator


def function_apply(cls: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`cls.apply` as a graph target with a name of its own, the same one as long as a graph has it."""
    known = _applies.get(cls)
    if known is not None:
        return known

    def apply(*args: Any, **kwargs: Any) -> Any:
        return cls.apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    apply.__name__ = apply.__qualname__ = f"{cls.__name__}_apply"
    apply.__module__ = "fxgrad.fix_graph.convention"
    apply.function = cls  # type: ignore[attr-defined]
    _applies[cls] = apply
    return apply


def call_object(target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a Python object that the graph holds: a compiled TorchScript function, a script module."""
    return target(*args, **kwargs)


def leave_dual_level(level: int) -> None:
    """Leave a level of forward-mode differentiation."""
    forward_ad.exit_dual_level(level=level)  # type: ignore[no-untyped-call]


def backward_hook(module: nn.Module) -> BackwardHook:
    """The full backward hooks of a module as they are now, for one call of it."""
    full, _ = module._get_backward_hooks()  # type: ignore[no-untyped-call]
    return BackwardHook(module, full, module._get_backward_pre_hooks())  # type: ignore[no-untyped-call]


def hooked_inputs(hook: BackwardHook, args: Any) -> Any:
    """A module's arguments, marked so that the hook gets their gradients."""
    return hook.setup_input_hook(args)  # type: ignore[no-untyped-call]


def hooked_outputs(hook: BackwardHook, result: Any) -> Any:
    """A module's result, marked so that the hook gets its gradient."""
    return hook.setup_output_hook(result)  # type: ignore[no-untyped-call]


def put_legacy_hooks(module: nn.Module, result: Any) -> None:
    """What `nn.Module.__call__` does for hooks of the deprecated `register_backward_hook`."""
    while not isinstance(result, torch.Tensor):
        result = next(iter(result.values())) if isinstance(result, dict) else result[0]
    if result.grad_fn is not None:
        for hook in module._backward_hooks.values():
            result.grad_fn.register_hook(functools.partial(hook, module))


def skeleton(model: nn.Module, leaves: set[str]) -> nn.Module:
    """Empty modules in the shape of `model`, holding the model's own parameters, buffers and (whole) leaf modules."""
    made: dict[int, nn.Module] = {}

    def build(module: nn.Module, path: str) -> nn.Module:
        if path and path in leaves:
            return module
        if id(module) in made:
            return made[id(module)]
        copy = made[id(module)] = nn.Module()
        copy.training = module.training
        for name, child in module._modules.items():
            copy._modules[name] = build(child, f"{path}.{name}" if path else name) if child is not None else None
        for name, parameter in module._parameters.items():
            holder, key = _holder(copy, name)
            holder._parameters[key] = parameter
        for name, buffer in module._buffers.items():
            holder, key = _holder(copy, name)
            holder._buffers[key] = buffer
            if name in module._non_persistent_buffers_set:
                holder._non_persistent_buffers_set.add(key)
        return copy

    return build(model, "")


def _holder(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Where a tensor of this name is registered: a name with dots, as tensordict's modules register, leads through modules of its own."""
    *path, key = name.split(".")
    for part in path:
        found = module._modules.get(part)
        if found is None:
            found = module._modules[part] = nn.Module()
        module = found
    return module, key


_MODE_SWITCHES = (
    torch._C._set_grad_enabled,
    torch.autograd.grad_mode._enter_inference_mode,
    torch.amp.autocast_mode._enter_autocast,
)


def graph_module(
    model: nn.Module, graph: torch.fx.Graph, attributes: Mapping[str, Any], convention: CallingConvention, name: str
) -> torch.fx.GraphModule:
    """The graph as a module with `model`'s state-dict keys and the user's own tensors."""
    leaves = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    root = skeleton(model, leaves)
    module = empty_module(name)
    module.training = model.training
    module._parameters.update(root._parameters)
    module._buffers.update(root._buffers)
    module._non_persistent_buffers_set = set(root._non_persistent_buffers_set)
    module._modules.update(root._modules)
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for attribute, value in attributes.items():
        if attribute not in used:
            continue
        if isinstance(value, torch.Tensor) and not value.requires_grad:
            module.register_buffer(attribute, value, persistent=False)
        else:
            # Not `setattr`: a Parameter nobody registered must not become one by being regenerated.
            module.__dict__[attribute] = value
    guarded = any(node.target in _MODE_SWITCHES for node in graph.nodes if node.op == "call_function")
    graph.set_codegen(CallingCodeGen(convention, guarded=guarded))
    set_graph(module, graph)
    return module


def empty_module(name: str) -> torch.fx.GraphModule:
    """A graph module without a graph, of a class called `name`."""
    module = torch.fx.GraphModule(nn.Module(), torch.fx.Graph(), class_name=name)
    _text_goes_with(module)
    return module


def set_graph(module: torch.fx.GraphModule, graph: torch.fx.Graph) -> None:
    """`module.graph = graph`."""
    module.graph = graph
    _text_goes_with(module)


_texts: dict[int, weakref.ref[Any]] = {}


def _text_goes_with(module: torch.fx.GraphModule) -> None:
    """torch keeps the text of every graph module's code for tracebacks, for good: here until the code is gone."""
    code = inspect.unwrap(type(module).forward).__code__
    key, name = id(code), code.co_filename

    def forget(_: Any) -> None:
        _texts.pop(key, None)
        kept = getattr(getattr(torch.fx.graph_module, "_loader", None), "eval_cache", {})
        for texts in (kept, linecache.cache):
            texts.pop(name, None)

    _texts[key] = weakref.ref(code, forget)
