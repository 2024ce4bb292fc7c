"""The forward of a graph module as readable Python: the model's own signature, a line for each step, its
source line as a comment.

Made from the graph and its calling convention. Not handled: graphs that refer to Python objects which text
cannot name; they are refused.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import types
from collections import namedtuple
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
import torch.fx
from torch.fx.graph import CodeGen

from fxgrad.fix_graph.convention import CallingCodeGen, CallingConvention
from fxgrad.fix_graph.export.definitions import Definitions, identifier, literal
from fxgrad.fix_graph.guards import Guard, Holds
from fxgrad.records import Site
from fxgrad.records.errors import FixError
from fxgrad.source import line_text
from fxgrad.torch_api import tree
from fxgrad.torch_api.internals import set_grad_enabled
from fxgrad.torch_api.module_internals import codegen_of

_HINT = "keep the module in the program that made it"
_FREED = re.compile(r";\s+(?:\w+ = )+None\s*$")
_NAMED = re.compile(r"^(\w+) = |;\s+(\w+) = \w+$")  # `mul = …`; a store is `x[i] = v;  setitem = x`


def forward_lines(module: torch.fx.GraphModule, definitions: Definitions) -> list[str]:
    """`def forward(...)` and its body, indented by four spaces.

    Raises:
        FixError: something in the graph, the inputs or the output has no text.
    """
    codegen = codegen_of(module.graph)
    if not isinstance(codegen, CallingCodeGen):
        raise FixError(
            "only a module that fxgrad made can be exported", hint="use torch.fx.GraphModule.to_folder"
        )
    convention = codegen.convention
    _check_attributes(module)
    body = _statements(module, definitions)
    lines = [f"    def forward({', '.join(['self', *_parameters(convention, definitions)])}):"]
    lines += [f"        {line}" for line in _inputs(module, convention, definitions)]
    lines += [f"        {line}" for line in _guards(convention, definitions)]
    lines += _steps(module, body, definitions)
    return [*lines, *(f"        {line}" for line in _outputs(module, convention, definitions))]


def _steps(module: torch.fx.GraphModule, body: Mapping[str, str], definitions: Definitions) -> list[str]:
    """The graph's own steps, each below its comment."""
    lines: list[str] = []
    outside, inside = " " * 8, " " * 12
    indent = outside
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        if node.target is set_grad_enabled:
            # The graph switches by calls. As blocks they end also when something raises, and in the caller's
            # mode.
            on = bool(node.args[0])
            if not on and indent == outside:
                lines.append(f"{indent}with torch.no_grad():")
            indent = outside if on else inside
        elif isinstance(node.target, Holds):
            lines += [f"{indent}{line}" for line in _held(node.target.guard, node.args[0], definitions)]
        else:
            lines += [f"{indent}{line}" for line in _comment(node.meta.get("site"), lines)]
            lines.append(f"{indent}{body[node.name]}")
    if lines and lines[-1].endswith("with torch.no_grad():"):
        lines.append(f"{indent}pass")
    return lines


def _statements(module: torch.fx.GraphModule, definitions: Definitions) -> dict[str, str]:
    """A line of Python by the name of each node, from torch.fx's own code generator: as the module itself
    runs it."""
    code = _plain_graph(module).python_code("self")
    lines = dict(_by_name(code.src))
    for name, item in code.globals.items():
        if inspect.ismodule(item):
            if any(re.search(rf"\b{re.escape(name)}\.", line) for line in lines.values()):
                definitions.imports[
                    f"import {item.__name__}"
                    if item.__name__ == name
                    else f"import {item.__name__} as {name}"
                ] = None
        elif re.search(rf"\b{re.escape(name)}\b", code.src):
            said = _said(item, lines, definitions)
            lines = {key: _renamed(line, name, said) for key, line in lines.items()}
    return {key: _tidy(key, line) for key, line in lines.items()}


def _plain_graph(module: torch.fx.GraphModule) -> torch.fx.Graph:
    """The graph under torch's own way of calling, without guards and output."""
    graph = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in module.graph.nodes:
        if node.op != "output" and not isinstance(node.target, Holds):
            copied[node] = graph.node_copy(node, copied.__getitem__)
            copied[node].name = node.name
            copied[node].type = None
    graph.set_codegen(CodeGen())
    return graph


def _by_name(text: str) -> Iterator[tuple[str, str]]:
    """The statements of generated code, each with the name that it binds."""
    for line in text.splitlines():
        statement = _FREED.sub("", line.strip())
        bound = _NAMED.search(statement)
        if bound is not None:
            yield bound[1] or bound[2], statement


def _said(item: object, lines: Mapping[str, str], definitions: Definitions) -> str:
    """How the file names a thing of the graph's globals."""
    said = _named(item, definitions)
    root = said.partition(".")[0]
    if root in lines and root in definitions.bound:  # a step of the graph has the same name
        definitions.texts[f"_{root}"] = f"_{root} = {root}"
        return f"_{said}"
    return said


def _named(item: Any, definitions: Definitions) -> str:
    function = getattr(item, "function", None)
    if getattr(item, "__name__", "").endswith("_apply") and isinstance(function, type):
        return f"{definitions.reference(function)}.apply"
    if isinstance(item, float):
        return literal(item, definitions)
    return definitions.reference(item)


def _renamed(line: str, name: str, said: str) -> str:
    return re.sub(rf"(?<![\w.]){re.escape(name)}\b", lambda _: said, line)


def _tidy(name: str, line: str) -> str:
    """What is called for its effect needs no name."""
    if not name.startswith(("setattr", "setitem")):
        return line
    return line.removeprefix(f"{name} = ").partition(f";  {name} = ")[0]


def _check_attributes(module: torch.fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op == "get_attr" and str(node.target).startswith("_object"):
            held = getattr(module, str(node.target))
            raise FixError(
                f"the graph holds a {type(held).__name__} of the program, which no file can hold", hint=_HINT
            )


def _comment(site: Site | None, lines: list[str]) -> Iterator[str]:
    """`# net.py:12: h = self.fc(x)` where the line is not the one of the comment before."""
    if site is None:
        return
    text = f"# {os.path.basename(site.file)}:{site.line}: {line_text(site.file, site.line).strip()}".rstrip(
        ": "
    )
    last = next((line.strip() for line in reversed(lines) if line.strip().startswith("# ")), "")
    if text != last:
        yield text


# ------------------------------------------------------------------------------------------------- the inputs


def _parameters(convention: CallingConvention, definitions: Definitions) -> Iterator[str]:
    kinds = inspect.Parameter
    starred = False
    parameters = list(convention.signature.parameters.values())
    for index, parameter in enumerate(parameters):
        if parameter.kind is kinds.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        mark = (
            "*"
            if parameter.kind is kinds.VAR_POSITIONAL
            else "**"
            if parameter.kind is kinds.VAR_KEYWORD
            else ""
        )
        starred = starred or mark == "*"
        default = "" if parameter.default is kinds.empty else f"={literal(parameter.default, definitions)}"
        yield f"{mark}{parameter.name}{default}"
        following = parameters[index + 1].kind if index + 1 < len(parameters) else None
        if parameter.kind is kinds.POSITIONAL_ONLY and following is not kinds.POSITIONAL_ONLY:
            yield "/"


def _inputs(
    module: torch.fx.GraphModule, convention: CallingConvention, definitions: Definitions
) -> Iterator[str]:
    """Each placeholder's value from the arguments; a Python argument that the graph was made for is
    compared."""
    places: dict[int, str] = {}
    constants: list[tuple[str, object]] = []
    structure = convention.input_structure
    assert isinstance(structure, tree.Branch)
    for pair in structure.children:
        _walk(pair.children[1], pair.children[0].constant, places, constants)
    for place, value in constants:
        if isinstance(value, bool | int | float | str | types.NoneType) and place.isidentifier():
            yield f"if {_unlike(place, value, definitions)}:"
            yield f'    raise GuardError("this module was made for {place}={value!r}")'
    yield from _given(convention, places.values())
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, index in zip(placeholders, convention.order, strict=True):
        if places[index] != node.name:
            yield f"{node.name} = {places[index]}"


def _unlike(place: str, value: object, definitions: Definitions) -> str:
    """Whether an argument is not this one; NaN differs from itself."""
    if value is None:
        return f"{place} is not None"
    if value != value:
        return f"{place} == {place}"
    return f"{place} != {literal(value, definitions)}"


def _given(convention: CallingConvention, places: Collection[str]) -> Iterator[str]:
    """An argument that may be left out was not: there is a tensor in it."""
    for name, parameter in convention.signature.parameters.items():
        if parameter.default is None and any(re.match(rf"{name}\b", place) for place in places):
            yield f"if {name} is None:"
            yield f'    raise GuardError("this module was made for calls with {name}")'


def _guards(convention: CallingConvention, definitions: Definitions) -> Iterator[str]:
    """What the graph took for granted of its inputs and modes. The program's own attributes are no longer
    there to change."""
    for guard in convention.guards:
        if guard.expression and not guard.inside:
            now = ", ".join(f"{term} is {{{term}}}" for term in guard.terms or (guard.expression,))
            yield from _broken(guard, guard.expression, now, definitions)


def _held(guard: Guard, value: object, definitions: Definitions) -> Iterator[str]:
    said = value.name if isinstance(value, torch.fx.Node) else literal(value, definitions)
    yield from _broken(guard, said, f"it is {{{said}}}", definitions)


def _broken(guard: Guard, expression: str, now: str, definitions: Definitions) -> Iterator[str]:
    taken = guard.taken
    if isinstance(taken, bool):
        yield (
            f"if not {expression}:"
            if taken and expression.isidentifier()
            else f"if not ({expression}):"
            if taken
            else f"if {expression}:"
        )
    else:
        yield f"if {expression} != {literal(taken, definitions)}:"
    place = f"{os.path.basename(guard.site.file)}:{guard.site.line}: " if guard.site is not None else ""
    what = f"{place}this module takes for granted: {guard.what}; now ".replace("{", "{{").replace("}", "}}")
    yield f"    raise GuardError(f{_quoted(what + now)})"


def _quoted(text: str) -> str:
    """Text for an f-string: its braces stay."""
    return '"' + text.replace("\\", "\\\\").replace('"', "'").replace("\n", " ") + '"'


def _walk(
    structure: tree.Structure, place: str, places: dict[int, str], constants: list[tuple[str, object]]
) -> None:
    if isinstance(structure, tree.Leaf):
        if structure.index is not None:
            places[structure.index] = place
        else:
            constants.append((place, structure.constant))
    elif isinstance(structure, tree.Branch):
        for key, child in zip(_keys(structure), structure.children, strict=True):
            _walk(child, f"{place}{key}", places, constants)
    else:
        for name, child in zip(structure.names, structure.children, strict=True):
            _walk(child, f"{place}{tree.place(name)}", places, constants)


def _keys(branch: tree.Branch) -> list[str]:
    """How each child is reached: `[0]`, `['ids']`, `.x`."""
    kind, context = _kind(branch), branch.spec.context
    if kind in (list, tuple, torch.Size):
        return [f"[{index}]" for index in range(len(branch.children))]
    fields = getattr(kind, "_fields", None)
    if fields is not None:
        return [f".{name}" for name in fields]
    keys = context if isinstance(context, list) else None
    if isinstance(context, tuple) and context and isinstance(context[-1], list):
        keys = context[-1]
    if keys is None or len(keys) != len(branch.children):
        raise FixError(f"an input of type {getattr(kind, '__name__', kind)} has no text", hint=_HINT)
    return [f"[{key!r}]" for key in keys]


def _kind(branch: tree.Branch) -> object:
    """The type of a pytree node; torch files every named tuple under one."""
    return branch.spec.context if branch.spec.type is namedtuple else branch.spec.type


# ------------------------------------------------------------------------------------------------- the output


def _outputs(
    module: torch.fx.GraphModule, convention: CallingConvention, definitions: Definitions
) -> Iterator[str]:
    output = next(node for node in module.graph.nodes if node.op == "output")
    results = [
        node.name if isinstance(node, torch.fx.Node) else literal(node, definitions)
        for node in output.args[0]
    ]
    count = len(results) - len(convention.buffers)
    for name, value in zip(convention.buffers, results[count:], strict=True):
        path, _, attribute = name.rpartition(".")
        holder = f'self.get_submodule("{path}")' if path else "self"
        yield f"{holder}.{attribute} = {value}"
    yield f"return {_built(convention.output_structure, results, definitions)}"


def _built(structure: tree.Structure, results: list[str], definitions: Definitions) -> str:
    """The expression that puts the results in the output's type."""
    if isinstance(structure, tree.Leaf):
        return (
            results[structure.index]
            if structure.index is not None
            else literal(structure.constant, definitions)
        )
    if isinstance(structure, tree.Attributes):
        return _object(structure, results, definitions)
    parts = [_built(child, results, definitions) for child in structure.children]
    kind = _kind(structure)
    if kind is tuple:
        return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"
    if kind is list:
        return f"[{', '.join(parts)}]"
    if kind is torch.Size:
        return f"torch.Size([{', '.join(parts)}])"
    name = "" if kind is dict else definitions.reference(kind)
    keys = [key.strip("[].").strip("'\"") for key in _keys(structure)]
    if kind is dict:
        return "{" + ", ".join(f"{key!r}: {part}" for key, part in zip(keys, parts, strict=True)) + "}"
    return f"{name}({', '.join(f'{identifier(key)}={part}' for key, part in zip(keys, parts, strict=True))})"


def _object(structure: tree.Attributes, results: list[str], definitions: Definitions) -> str:
    kind = type(structure.template)
    if not dataclasses.is_dataclass(kind) or any(isinstance(name, tree.Key) for name in structure.names):
        raise FixError(
            f"the output is a {kind.__name__}, which no file can build",
            hint="return tensors, tuples, dicts or dataclasses",
        )
    parts = [
        f"{n}={_built(c, results, definitions)}"
        for n, c in zip(structure.names, structure.children, strict=True)
    ]
    return f"{definitions.reference(kind)}({', '.join(parts)})"
