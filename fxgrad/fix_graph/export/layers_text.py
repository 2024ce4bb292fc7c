"""The modules of a graph as constructor calls: what `__init__` of the exported class does.

Made from the live modules. A layer of torch.nn is written as a call if the call, tried here, gives the same
layer (type, settings, shapes); another is stored whole and loaded from the file beside. Not handled: hooks on
layers; they are refused.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import nn

from fxgrad.records.errors import FixError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_TENSORS = ("_parameters", "_buffers", "_modules")


def constructor_lines(module: nn.Module, stored: dict[str, nn.Module]) -> list[str]:
    """The statements of `__init__`, values apart; layers that no call makes go to `stored` by name.

    Raises:
        FixError: a layer has hooks.
    """
    layout = _Layout(stored)
    lines: list[str] = []
    for name, part in layout.parts(module, "self", ""):
        lines += _spread(
            f"self.{name} = " if name.isidentifier() else f"setattr(self, {name!r}, ",
            part,
            "" if name.isidentifier() else ")",
        )
    for name, tensor in plain_tensors(module).items():
        made = (
            f"nn.Parameter({_empty(tensor)})"
            if isinstance(tensor, nn.Parameter)
            else f"{_empty(tensor)}.requires_grad_({tensor.requires_grad})"
        )
        lines.append(f'self.__dict__["{name}"] = {made}  # not registered, as in the model')
    return [*lines, *layout.after, *_modes(module, "self", True)]


def plain_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that the graph uses and the model does not list."""
    return {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor)}


def _modes(module: nn.Module, target: str, inherited: bool) -> list[str]:
    """`train(False)` where a module is in another mode than the one around it."""
    lines = [f"{target}.train({module.training})"] if module.training is not inherited else []
    for name, child in module._modules.items():
        if child is not None:
            lines += _modes(child, _member(target, name), module.training)
    return lines


def _member(holder: str, name: str) -> str:
    return f"{holder}.{name}" if name.isidentifier() else f'{holder}.get_submodule("{name}")'


Part = str | list[tuple[str, "Part"]]  # an expression, or what a container holds, by name


class _Layout:
    """Every module, parameter and buffer where it is met first; `after`: statements for what stands in two
    places."""

    def __init__(self, stored: dict[str, nn.Module]) -> None:
        self.stored = stored
        self.after: list[str] = []
        self._first: dict[int, str] = {}

    def parts(self, module: nn.Module, target: str, path: str) -> list[tuple[str, Part]]:
        """What a container holds."""
        found: list[tuple[str, Part]] = []
        for name, parameter in module._parameters.items():
            frozen = "" if parameter is None or parameter.requires_grad else ", requires_grad=False"
            self._add(
                found,
                name,
                parameter,
                target,
                f"nn.Parameter({_empty(parameter)}{frozen})" if parameter is not None else "None",
            )
        for name, buffer in module._buffers.items():
            kept = "" if name not in module._non_persistent_buffers_set else ", persistent=False"
            self._add(
                found,
                name,
                buffer,
                target,
                f"nn.Buffer({_empty(buffer)}{kept})" if buffer is not None else "None",
            )
        for name, child in module._modules.items():
            place, full = _member(target, name), f"{path}.{name}" if path else name
            if child is not None and id(child) not in self._first:
                self._first[id(child)] = place
                found.append((name, self._module(child, place, full)))
            else:
                self._add(found, name, child, target, "None")
        return found

    def _add(self, found: list[tuple[str, Part]], name: str, item: object, target: str, text: str) -> None:
        place = _member(target, name)
        if item is not None and id(item) in self._first:
            self.after.append(f"setattr({target}, {name!r}, {self._first[id(item)]})")
            return
        self._first[id(item)] = place
        found.append((name, text))

    def _module(self, child: nn.Module, place: str, full: str) -> Part:
        if any(getattr(child, hooks) for hooks in _HOOKS):
            raise FixError(
                f"`{full}` has hooks, which no file can hold",
                hint="remove them, or keep the module in the program that made it",
            )
        if type(child) is nn.Module:
            return self.parts(child, place, full)
        call = layer_call(child)
        if call is None:
            self.stored[full] = child
        for name, parameter in child.named_parameters():
            if id(parameter) in self._first:
                holder, _, last = name.rpartition(".")
                owner = f'{place}.get_submodule("{holder}")' if holder else place
                self.after.append(f"{owner}.{last} = {self._first[id(parameter)]}")
            else:
                self._first[id(parameter)] = f"{place}.{name}"
                if not parameter.requires_grad:
                    self.after.append(f"{place}.{name}.requires_grad_(False)")
        self.after += _dtypes(child, place)
        return call if call is not None else f"stored[{full!r}]"


def _spread(head: str, part: Part, tail: str) -> list[str]:
    """An expression on one line, a container over as many as it needs."""
    if isinstance(part, str):
        return [f"{head}{part}{tail}"]
    if not part:
        return [f"{head}container({{}}){tail}"]
    lines = [f"{head}container({{"]
    for name, inner in part:
        lines += [f"    {line}" for line in _spread(f"{name!r}: ", inner, ",")]
    return [*lines, f"}}){tail}"]


def _dtypes(child: nn.Module, target: str) -> list[str]:
    dtypes = {t.dtype for t in child.parameters()} - {torch.float32}
    return [f"{target}.to({dtype})" for dtype in sorted(dtypes, key=str)]


def _empty(tensor: torch.Tensor) -> str:
    if tensor.is_contiguous():
        return f"torch.empty({tuple(tensor.shape)}, dtype={tensor.dtype})"
    return f"torch.empty_strided({tuple(tensor.shape)}, {tensor.stride()}, dtype={tensor.dtype})"


def layer_call(layer: nn.Module) -> str | None:
    """`nn.Linear(4, 2)` for a layer that this call gives again; None for one that it does not."""
    kind = type(layer)
    if getattr(nn, kind.__name__, None) is not kind:
        return None
    for arguments in (layer.extra_repr(), _settings(layer)):
        call = f"nn.{kind.__name__}({arguments})"
        # A guess: what the constructor makes of it is up to that. On the meta device it draws no random
        # numbers.
        with contextlib.suppress(Exception), torch.device("meta"):
            if _same(layer, eval(call, {"nn": nn, "torch": torch})):
                return call
    return None


def _settings(layer: nn.Module) -> str:
    """The constructor's arguments as the layer's attributes of the same names have them, defaults left
    out."""
    found = []
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        value = vars(layer).get(name)
        if isinstance(value, int | float | str | bool) and value != parameter.default:
            found.append(f"{name}={value!r}")
    return ", ".join(found)


def _same(one: nn.Module, other: nn.Module) -> bool:
    if type(one) is not type(other) or _shapes(one) != _shapes(other):
        return False
    settings = [
        {k: v for k, v in vars(m).items() if k not in (*_TENSORS, "training") and not k.endswith("hooks")}
        for m in (one, other)
    ]
    # what a library notes on its layers, torch does not read
    if not settings[0].keys() >= settings[1].keys():
        return False
    names = list(one._modules)
    if names != list(other._modules):
        return False
    return all(_equal(settings[0][k], settings[1][k]) for k in settings[1]) and all(
        _same(a, b) if a is not None and b is not None else a is b
        for a, b in zip(one._modules.values(), other._modules.values(), strict=True)
    )


def _equal(one: object, other: Any) -> bool:
    if isinstance(one, list) and any(not isinstance(item, int | float | str | list) for item in one):
        return len(one) == len(other)  # weak references to the weights, in recurrent layers
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):
        return False


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...] | None]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
