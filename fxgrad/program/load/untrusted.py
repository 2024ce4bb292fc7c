"""What an archive of `torch.export.save` may hold to be read without trust: plain data, names, sizes and
torch's own operators.

`torch.export.load` takes text of the archive for code: sizes go through sympy's `eval`, names into generated
functions, operators are looked up by dotted name from `torch` on (`torch.serialization.os.system`),
structures import modules, shared libraries are loaded, constants unpickled. So every string of its JSON must
be of the form that `torch.export.save` writes there, before torch sees the file. The default is a plain name;
what may be more is listed by its key. Not handled: archives made to use up memory or time.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fxgrad.torch_api.internals import archive_records

PICKLE = "a pickled object"

# Constants that torch unpickles without restriction, whatever torch.load is told: by the name in the archive,
# or in its table of constants.
_PICKLED = ("custom_obj_", "opaque_obj_")
_LIBRARIES = "aotinductor"  # a folder of shared libraries, which are loaded
_BEFORE_2_8 = "serialized_exported_program.json"  # what torch reads where the archive is not of today's form

_IDENTIFIER = re.compile(r"([^\W\d]\w*)?")
# of parameters, buffers and modules, with the keys of module dicts in them
_NAME = re.compile(r"[\w.\-+:/<> ]*")
# Kept as text or written as a literal: never looked up, compiled or put into code. Of `guards_code` nothing
# is used: see `archives`.
_TEXT = {
    "as_string",
    "as_strings",
    "custom",
    "from_node",
    "guards_code",
    "nn_module_stack",
    "source_fn_stack",
    "stack_trace",
    "torch_fn",
}

_TORCHS = re.compile(r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision)\.(?P<name>\w+)(\.\w+)?")
_TOUCHING_FILES = {"from_file", "save", "warn", "_print"}  # of aten's: what reads, writes or prints
_HIGHER = re.compile(r"torch\.ops\.higher_order\.(?P<name>\w+)")
_TAKING_GRAPHS = {
    *(
        "associative_scan",
        "auto_functionalized",
        "auto_functionalized_v2",
        "autograd_function_apply",
        "cond",
        "custom_function_call",
    ),
    *(
        "flex_attention",
        "flex_attention_backward",
        "hints_wrapper",
        "invoke_subgraph",
        "local_map_hop",
        "map_impl",
        "out_dtype",
    ),
    *(
        "run_and_save_rng_state",
        "run_with_rng_state",
        "scan",
        "strict_mode",
        "tag_activation_checkpoint",
        "while_loop",
    ),
    *(
        "while_loop_stack_output",
        "with_effects",
        "wrap",
        "wrap_activation_checkpoint",
        "wrap_with_autocast",
        "wrap_with_set_grad_enabled",
    ),
}
# the levels of vmap and jvp, entered and left
_TRANSFORM = re.compile(r"torch\._functorch\.predispatch\.(?P<name>\w+)")
_LEVELS = {
    *(
        "_add_batch_dim",
        "_enter_dual_level",
        "_exit_dual_level",
        "_jvp_decrement_nesting",
        "_jvp_increment_nesting",
        "_make_dual",
    ),
    *(
        "_remove_batch_dim",
        "_unpack_dual",
        "_unwrap_for_grad",
        "_vmap_decrement_nesting",
        "_vmap_increment_nesting",
    ),
    "lazy_load_decompositions",
}
_ON_NUMBERS = re.compile(r"math\.\w+|torch\._?sym_\w+|_operator\.(?P<name>\w+)")
_ARITHMETIC = {
    *("abs", "add", "and_", "eq", "floordiv", "ge", "getitem", "gt", "le", "lshift", "lt", "mod", "mul"),
    *("ne", "neg", "not_", "or_", "pos", "pow", "rshift", "sub", "truediv", "xor"),
}

# What sizes are written with: sympy's `srepr` of expressions of integers, and torch's functions of them.
_SIZE_FUNCTIONS = {
    *(
        "Abs",
        "Add",
        "And",
        "Eq",
        "Equality",
        "ExprCondPair",
        "Float",
        "Ge",
        "GreaterThan",
        "Gt",
        "ITE",
        "Integer",
        "Le",
        "LessThan",
        "Lt",
    ),
    *(
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Ne",
        "Not",
        "Or",
        "Piecewise",
        "Pow",
        "Rational",
        "StrictGreaterThan",
        "StrictLessThan",
        "Symbol",
    ),
    *("Unequality", "ceiling", "floor", "log", "sqrt"),
    *(
        "BitwiseFn_bitwise_and",
        "BitwiseFn_bitwise_or",
        "BitwiseFn_bitwise_xor",
        "CeilDiv",
        "CeilToInt",
        "CleanDiv",
        "FloatPow",
    ),
    *(
        "FloatTrueDiv",
        "FloorDiv",
        "FloorToInt",
        "Identity",
        "IntTrueDiv",
        "IsNonOverlappingAndDenseIndicator",
        "LShift",
        "ModularIndexing",
    ),
    *(
        "PowByNatural",
        "PythonMod",
        "RShift",
        "RoundDecimal",
        "RoundToInt",
        "ToFloat",
        "TruncToFloat",
        "TruncToInt",
        "Where",
    ),
    *("OpaqueUnaryFn_log2", "OpaqueUnaryFn_sqrt"),
}
_SIZE_PARTS = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Call,
    ast.keyword,
    ast.Name,
    ast.Constant,
)
_SIZE_MARKS = (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop)
_SIZE_TEXT = re.compile(r"[^\W\d]\w*|-?\d+(\.\d+)?(e[+-]?\d+)?")

# What a default dict may make for a missing key: torch imports the module that is named.
_FACTORIES = {"dict", "float", "int", "list", "set", "str", "tuple"}


def not_plain(file: str) -> str | None:
    """What in the archive torch might run as code, in words; None where there is nothing of the kind.

    Raises:
        OSError, zipfile.BadZipFile, ValueError, RecursionError: the archive or its JSON cannot be read.
    """
    for name, read in _read_by_torch(file):
        base = name.rpartition("/")[2]
        if base.lower().startswith(_PICKLED):
            return PICKLE
        if _LIBRARIES in name.lower():
            return "a compiled library"
        if name.startswith("models/") or base.lower().endswith(".json"):
            bad = _first_bad(json.loads(read()), "")
            if bad is not None:
                return bad
    return None


def _read_by_torch(file: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The records as torch's own reader sees them, without files that were only put beside the program; and
    what it falls back to.

    Two readers may see two archives in one file: each is asked for what torch asks it for.
    """
    for name, read in archive_records(file):
        if not name.startswith("extra/"):
            yield name, read
    with zipfile.ZipFile(file) as archive:
        if _BEFORE_2_8 in archive.namelist():
            yield _BEFORE_2_8, lambda: archive.read(_BEFORE_2_8)


def _first_bad(value: object, key: str) -> str | None:
    """The first string that is not of its key's form, in words. Those of a list stand under the list's
    key."""
    pending: list[tuple[object, str]] = [(value, key)]
    while pending:
        value, key = pending.pop()
        if isinstance(value, dict):
            for name, inner in value.items():
                if not _NAME.fullmatch(name):
                    return f"{_shown(name)} where a name should stand"
                pending.append((inner, name))
        elif isinstance(value, list):
            pending.extend((inner, key) for inner in value)
        elif isinstance(value, str):
            wanted = _unlike(value, key)
            if wanted is not None:
                return wanted
    return None


def _unlike(text: str, key: str) -> str | None:
    if key in _TEXT:
        return None
    form, is_one = _FORMS.get(key, ("a name", _is_name))
    return None if is_one(text) else f"{_shown(text)} where {form} should stand"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _is_identifier(text: str) -> bool:
    return _IDENTIFIER.fullmatch(text) is not None


def _is_record(text: str) -> bool:
    return _is_name(text) and not text.lower().startswith(_PICKLED)


def is_operator(text: str) -> bool:
    """Whether torch looks it up and finds a function of tensors or numbers, and no other."""
    if match := _TORCHS.fullmatch(text):
        return match["name"] not in _TOUCHING_FILES
    if match := _HIGHER.fullmatch(text):
        return match["name"] in _TAKING_GRAPHS
    if match := _TRANSFORM.fullmatch(text):
        return match["name"] in _LEVELS
    match = _ON_NUMBERS.fullmatch(text)
    return match is not None and (match["name"] is None or match["name"] in _ARITHMETIC)


def _is_size(text: str) -> bool:
    """Whether it is an expression of numbers, symbols and the known functions: no attribute, no index, no
    other call."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in _SIZE_FUNCTIONS:
                return False
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not _SIZE_TEXT.fullmatch(node.value):
                return False
        elif isinstance(node, ast.Name):
            if node.id.startswith("__"):
                return False
        elif not isinstance(node, (*_SIZE_PARTS, *_SIZE_MARKS)):
            return False
    return True


def _is_structure(text: str) -> bool:
    """Whether a `TreeSpec` names no module to be imported, and its keys are names: those of keyword arguments
    go into generated code."""
    return all(_is_plain(item) for item in _items(json.loads(text)))


def _items(value: object) -> Iterator[object]:
    """All dicts and strings in JSON; a context is JSON in a string, a text that is none is itself."""
    if isinstance(value, str):
        try:
            inside = json.loads(value)
        except ValueError:
            inside = None
        if isinstance(inside, dict | list):
            yield from _items(inside)
        else:
            yield value
    elif isinstance(value, Mapping):
        yield value
        for inner in [*value, *value.values()]:
            yield from _items(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _items(inner)


def _is_plain(item: Any) -> bool:
    if isinstance(item, str):
        return _is_name(item)
    if "__enum__" in item or "fqn" in item:  # an enum's class, which is imported
        return False
    if "default_factory_module" in item:
        return item["default_factory_module"] == "builtins" and item.get("default_factory_name") in _FACTORIES
    return True


_FORMS: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "expr_str": ("a size", _is_size),
    "target": ("an operator of torch", is_operator),
    "as_operator": ("an operator of torch", is_operator),
    "in_spec": ("a structure of plain types", _is_structure),
    "out_spec": ("a structure of plain types", _is_structure),
    "path_name": ("a tensor's file", _is_record),
    # These become names in a generated function.
    "name": ("a name", _is_identifier),
    "as_name": ("a name", _is_identifier),
    "forward_arg_names": ("a name", _is_identifier),
}
