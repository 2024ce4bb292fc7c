"""The regenerated module: a `torch.fx.GraphModule` called exactly as the model was, sharing the model's own
parameters.

`CallingConvention` flattens a call's inputs in the order of the graph's placeholders, rebuilds the output's
type and sets the buffers that the forward rebinds. What a forward leaves in plain attributes, lists or the
caller's containers it does not leave there again.
"""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, NoReturn

import torch
import torch.fx
from torch import nn
from torch.fx.graph import CodeGen

from fxgrad.fix_graph.guards import Guard, Guards, Holds
from fxgrad.program.inputs import bound_inputs
from fxgrad.records import Site
from fxgrad.records.errors import GuardError, InputError
from fxgrad.torch_api import tree
from fxgrad.torch_api.graph_modules import empty_module, set_graph
from fxgrad.torch_api.internals import InferenceRegion, enter_autocast, enter_inference_mode, set_grad_enabled
from fxgrad.torch_api.module_internals import codegen_of
from fxgrad.world.snapshots import snapshot


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
        site: Site | None = None,
    ) -> None:
        self.signature = signature
        self.input_structure = inputs
        self.output_structure = output
        self.order = tuple(order)  # of each placeholder: the number of its tensor among those of a call
        self.repeats = tuple(repeats)  # pairs of numbers that were one tensor in the traced call
        # rebound by the forward; their new values are the last results of the graph
        self.buffers = tuple(buffers)
        self.tensors = _tensors_alone(signature, inputs) if not repeats else None
        self.simple = _simple(signature, inputs) if not repeats else None
        self.constants: dict[int, object] = {}  # of leaves that are Python values: what they are compared by
        self.arguments = dict(self._arguments(site))
        self.guards = Guards()

    def __deepcopy__(self, memo: object) -> CallingConvention:
        return self

    def inputs(self, args: Sequence[Any], kwargs: Mapping[str, object]) -> list[torch.Tensor]:
        """The tensors of a call, in placeholder order.

        Raises:
            InputError: the call does not have the structure of the one that was traced.
        """
        if self.tensors == len(args) and not kwargs and all(isinstance(a, torch.Tensor) for a in args):
            return [args[i] for i in self.order]  # nothing to bind or flatten: a small model would feel it
        found = self._simply(args, kwargs)
        if found is not None:
            return found
        leaves, structure = tree.flatten(bound_inputs(self.signature, args, kwargs))
        if self.guards.enabled:
            self._check_arguments(structure)
        if len(leaves) <= max(self.order, default=-1) or not self._alike(
            structure, self.input_structure, self.guards.enabled
        ):
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

    def _simply(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[torch.Tensor] | None:
        """The tensors of a call whose arguments are tensors and the traced call's plain values; None of
        another, which is looked into."""
        if self.simple is None:
            return None
        leaves: dict[int, torch.Tensor] = {}
        named = 0
        for position, one in enumerate(self.simple):
            value = one.default
            if one.name in kwargs:
                value, named = kwargs[one.name], named + 1
            if position < len(args):
                if one.name in kwargs or not one.positional:
                    return None
                value = args[position]
            if one.index is not None and isinstance(value, torch.Tensor):
                leaves[one.index] = value
            elif one.index is not None or type(value) is not type(one.constant) or value != one.constant:
                return None
        return (
            [leaves[i] for i in self.order]
            if named == len(kwargs) and len(args) <= len(self.simple)
            else None
        )

    def _arguments(self, site: Site | None) -> Iterator[tuple[str, tuple[tree.Structure, Guard | None]]]:
        """Each argument by name: its structure, and the guard that it is that; None for a tensor, which may
        be any."""
        structure = self.input_structure
        if not isinstance(structure, tree.Branch):
            return
        for leaf in _leaves(structure):
            if leaf.index is None:
                self.constants[id(leaf)] = snapshot(leaf.constant)
        for pair in structure.children:
            name, value = str(pair.children[0].constant), pair.children[1]
            told = _told(value)
            what = f"`{name}` is {told if len(told) <= 80 else told[:77] + '...'}"
            yield name, (value, None if _is_tensor(value) else Guard(what, site, "", told))

    def _check_arguments(self, structure: tree.Structure) -> None:
        """Raises GuardError if an argument's Python values are not those of the traced call."""
        if not isinstance(structure, tree.Branch):
            return
        for pair in structure.children:
            name, value = str(pair.children[0].constant), pair.children[1]
            traced, guard = self.arguments.get(name, (value, None))
            if guard is not None and not self._alike(value, traced, True):
                raise guard.broken(f"it is {_told(value)}")

    def _alike(self, now: tree.Structure, traced: tree.Structure, values: bool) -> bool:
        """Whether a call has the structure of the traced one, and its Python `values`."""
        if isinstance(now, tree.Leaf) and isinstance(traced, tree.Leaf):
            if (now.index is None) != (traced.index is None):
                return False
            return (
                traced.index is not None or not values or snapshot(now.constant) == self.constants[id(traced)]
            )
        if isinstance(now, tree.Branch) and isinstance(traced, tree.Branch):
            if now.spec.type is not traced.spec.type or now.spec.context != traced.spec.context:
                return False
        elif (
            not isinstance(now, tree.Attributes)
            or not isinstance(traced, tree.Attributes)
            or now.names != traced.names
        ):
            return False
        children = zip(now.children, traced.children, strict=False)
        return len(now.children) == len(traced.children) and all(
            self._alike(a, b, values) for a, b in children
        )

    def output(self, results: Sequence[object], module: nn.Module | None = None) -> Any:
        """The model's output type around the graph's results; `module` gets its rebound buffers."""
        count = len(results) - len(self.buffers)
        if module is not None:
            for name, value in zip(self.buffers, results[count:], strict=True):
                path, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(path), attribute, value)
        return tree.unflatten(self.output_structure, results[:count])


def _tensors_alone(signature: inspect.Signature, structure: tree.Structure) -> int | None:
    """How many tensors, each of its own, may be passed by position, where that is all of a call: other
    arguments keep their defaults."""
    kinds = {p.kind for p in signature.parameters.values()}
    if not kinds <= {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    } or not isinstance(structure, tree.Branch):
        return None
    values = [pair.children[1] for pair in structure.children]
    count = next(
        (n for n, v in enumerate(values) if not (isinstance(v, tree.Leaf) and v.index == n)), len(values)
    )
    if len(values) != len(signature.parameters):
        return None
    rest = zip(values[count:], list(signature.parameters.values())[count:], strict=True)
    kept = all(
        isinstance(v, tree.Leaf)
        and v.index is None
        and type(v.constant) in _FIXED
        and v.constant is p.default
        for v, p in rest
    )
    return count if kept else None


_FIXED = (bool, int, float, str, type(None))


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One of a signature, in a call of tensors and plain values: the number of its tensor, or the value that
    the traced call had."""

    name: str
    positional: bool
    default: object
    index: int | None
    constant: object


def _simple(signature: inspect.Signature, structure: tree.Structure) -> tuple[_Parameter, ...] | None:
    """The parameters of a call of tensors and plain values; None where the traced call has anything else."""
    if not isinstance(structure, tree.Branch):
        return None
    traced = {str(pair.children[0].constant): pair.children[1] for pair in structure.children}
    found = []
    for name, parameter in signature.parameters.items():
        value = traced.get(name)
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            if isinstance(value, tree.Branch) and not value.children:
                continue
            return None
        if not isinstance(value, tree.Leaf) or (value.index is None and type(value.constant) not in _FIXED):
            return None
        positional = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            return None
        found.append(_Parameter(name, positional, parameter.default, value.index, value.constant))
    return tuple(found)


def _leaves(structure: tree.Structure) -> Iterator[tree.Leaf]:
    if isinstance(structure, tree.Leaf):
        yield structure
    else:
        for child in structure.children:
            yield from _leaves(child)


def _is_tensor(structure: tree.Structure) -> bool:
    return isinstance(structure, tree.Leaf) and structure.index is not None


def _told(structure: tree.Structure) -> str:
    """An argument as a person would write it down."""
    if isinstance(structure, tree.Leaf):
        return "Tensor" if structure.index is not None else repr(structure.constant)
    if isinstance(structure, tree.Attributes):
        parts = (
            f"{name}={_told(child)}" for name, child in zip(structure.names, structure.children, strict=True)
        )
        return f"{type(structure.template).__name__}({', '.join(parts)})"
    inner = [_told(child) for child in structure.children]
    context = structure.spec.context
    if structure.spec.type is dict and isinstance(context, list):
        return "{" + ", ".join(f"{key!r}: {part}" for key, part in zip(context, inner, strict=True)) + "}"
    kind = "" if structure.spec.type in (list, tuple) else structure.spec.type.__name__
    return f"{kind}[{', '.join(inner)}]" if structure.spec.type is list else f"{kind}({', '.join(inner)})"


class GuardedModule(torch.fx.GraphModule):
    """A regenerated module; `guards` is what its graph took for granted."""

    @property
    def guards(self) -> Guards:
        """Checked at each call; `guards.enabled = False` switches the checks off."""
        codegen = codegen_of(self.graph)
        return codegen.convention.guards if isinstance(codegen, CallingCodeGen) else Guards()

    def __reduce__(self) -> NoReturn:
        # torch pickles the text of a graph and what it names: what this one calls has no name to be found by
        raise pickle.PicklingError(
            "a fixed module cannot be pickled: it holds objects of the model's. Save its state_dict(), "
            "which has the model's keys; `fxgrad fix MODEL --module DIR` writes its code"
        )


@functools.cache
def own_names() -> frozenset[str]:
    """What a regenerated module has beside what every module has: no layer of that name could be reached."""
    made, plain = GuardedModule(nn.Module(), torch.fx.Graph()), nn.Module()
    return frozenset((*dir(GuardedModule), *vars(made))) - frozenset(dir(plain))


def say_narrow(module: torch.fx.GraphModule, errors: Sequence[GuardError]) -> None:
    """Have the guards that raised these errors say that the graph was right without them."""
    codegen = codegen_of(module.graph)
    if not errors or not isinstance(codegen, CallingCodeGen):
        return
    convention = codegen.convention
    before = convention.guards
    told = [any(guard.what in error.reason for error in errors) for guard in before]
    made = [
        replace(guard, what=guard.what + NARROW) if narrow else guard
        for guard, narrow in zip(before, told, strict=True)
    ]
    convention.guards = before.with_guards(made)
    others = dict(zip(before, made, strict=True))
    convention.arguments = {
        name: (value, others[guard] if guard is not None else None)
        for name, (value, guard) in convention.arguments.items()
    }
    for node in module.graph.nodes:
        if isinstance(node.target, Holds):
            node.target.guard, node.target.guards = others[node.target.guard], convention.guards
    set_graph(module, module.graph)


NARROW = " (narrower than need be: on another batch the graph was right without this guard)"


class CallingCodeGen(CodeGen):
    """Generates `forward` with the model's calling convention."""

    def __init__(self, convention: CallingConvention, *, restoring: bool) -> None:
        super().__init__()
        self.convention = convention
        self.restoring = restoring

    def gen_fn_def(self, free_vars: list[str], maybe_return_annotation: str, **rest: object) -> str:
        guard = "@_calling_guard\n" if self.restoring else ""
        names = [v.split(":")[0].split("=")[0].strip() for v in free_vars]
        lines = [f"{guard}def {self._func_name}(self, *args, **kwargs){maybe_return_annotation}:"]
        if names:
            lines.append(f"    {', '.join(names)}, = _calling.inputs(args, kwargs)")
        if self.convention.guards.armed:
            lines.append(f"    _guards.check({', '.join(['self', *names])})")
        return "\n".join(lines)

    def generate_output(self, output_args: object, **rest: Any) -> str:
        show = rest.get("repr_fn") or repr
        return f"return _calling.output({show(output_args)}, self)"

    def process_inputs(self, *args: object) -> object:
        return self.convention.inputs(args, {})

    def process_outputs(self, outputs: Any) -> object:
        return self.convention.output(outputs)

    def additional_globals(self) -> list[tuple[str, object]]:
        return [
            ("_calling", self.convention),
            ("_calling_guard", restores_modes),
            ("_guards", self.convention.guards),
        ]


def restores_modes(forward: Callable[..., object]) -> Callable[..., object]:
    """A graph switches modes by calls, not by `with`: when it raises in between, the caller's modes come back
    all the same."""

    @functools.wraps(forward)
    def guarded(*args: object, **kwargs: object) -> object:
        grad = torch.is_grad_enabled()
        try:
            return forward(*args, **kwargs)
        except BaseException as error:
            for region in _open_regions(error.__traceback__, forward):
                region.__exit__(None, None, None)
            raise
        finally:
            set_grad_enabled(grad)

    return guarded


def _open_regions(traceback: TracebackType | None, forward: Callable[..., object]) -> list[Any]:
    """The regions that the generated code was in, innermost first: it sets a variable to None where it leaves
    one."""
    while traceback is not None and traceback.tb_frame.f_code is not forward.__code__:
        traceback = traceback.tb_next
    values = list(traceback.tb_frame.f_locals.values()) if traceback is not None else []
    return [value for value in reversed(values) if isinstance(value, torch.autocast | InferenceRegion)]


def skeleton(model: nn.Module, leaves: set[str]) -> nn.Module:
    """Empty modules in the shape of `model`, holding the model's own parameters, buffers and (whole) leaf
    modules."""
    made: dict[int, nn.Module] = {}

    def build(module: nn.Module, path: str) -> nn.Module:
        if path and path in leaves:
            return module
        if id(module) in made:
            return made[id(module)]
        copy = made[id(module)] = nn.Module()
        copy.training = module.training
        for name, child in module._modules.items():
            copy._modules[name] = (
                build(child, f"{path}.{name}" if path else name) if child is not None else None
            )
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
    """Where a tensor of this name is registered: a name with dots, as tensordict's modules register, leads
    through modules of its own."""
    *path, key = name.split(".")
    for part in path:
        found = module._modules.get(part)
        if found is None:
            found = module._modules[part] = nn.Module()
        module = found
    return module, key


_MODE_SWITCHES = (
    set_grad_enabled,
    enter_inference_mode,
    enter_autocast,
)


def graph_module(
    model: nn.Module,
    graph: torch.fx.Graph,
    attributes: Mapping[str, object],
    convention: CallingConvention,
    name: str,
) -> torch.fx.GraphModule:
    """The graph as a module with `model`'s state-dict keys and the user's own tensors."""
    leaves = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    root = skeleton(model, leaves)
    module = empty_module(name, GuardedModule)
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
    restoring = any(node.target in _MODE_SWITCHES for node in graph.nodes if node.op == "call_function")
    graph.set_codegen(CallingCodeGen(convention, restoring=restoring))
    set_graph(module, graph)
    return module
