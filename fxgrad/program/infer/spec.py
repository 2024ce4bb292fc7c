"""One input as the command line writes it: `x=2x3x224x224:float32`, `ids=2x16:int64[0,1000)`, `2x3` by
position, `t=:float32` a scalar, `state=(2x4x16,2x4x16)` a tuple, `batch={image=2x3x64x64,label=2:int64}` a
dict.

`[name=]SHAPE[:DTYPE][RANGE][:grad]`: SHAPE is sizes joined by `x`, nothing for a scalar; DTYPE a torch dtype
(default float32); RANGE `[low,high)` or `[low,high]`, by default standard normal for floats and {0, 1} for
integers; `:grad` that it requires grad. Tensors are drawn from a generator of their own with a fixed seed,
never from torch's global one.
Not handled: inputs that are no tensor, and lists of tensors; a file's `example_inputs` can hold those.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fxgrad.records import Inputs
from fxgrad.records.errors import InputError

SEED = 0
_DRAWS = 16  # of whole numbers until two examples differ
_HINT = "write it like x=2x3x224x224:float32 or ids=2x16:int64[0,1000)"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_TENSOR = (
    r"(?P<shape>(?:\d+(?:x\d+)*)?)"
    r"(?::(?P<dtype>(?!grad\b)\w+))?"
    rf"(?:\[(?P<low>{_NUMBER}),(?P<high>{_NUMBER})(?P<close>[)\]]))?"
    r"(?P<grad>:grad\b)?"
)
_SPEC = re.compile(rf"(?:(?P<name>[^\W\d]\w*)=)?{_TENSOR}", re.IGNORECASE)
_GROUP = re.compile(r"(?:(?P<name>[^\W\d]\w*)=)?\((?P<parts>.*)\)", re.DOTALL)
_DICT = re.compile(r"(?:(?P<name>[^\W\d]\w*)=)?\{(?P<parts>.*)\}", re.DOTALL)
_KEY = re.compile(r"([^\W\d]\w*)=")
_PART = re.compile(_TENSOR, re.IGNORECASE)
_SHORT = {"fp16": "float16", "fp32": "float32", "fp64": "float64", "bf16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Spec:
    """A tensor to make. `name` None: by position. `low` and `high` None: the default range; `high` itself is
    not drawn. `grad`: it requires grad."""

    name: str | None
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    low: float | None = None
    high: float | None = None
    grad: bool = False

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        bounds = "" if self.low is None or self.high is None else f"[{self.low:.10g},{self.high:.10g})"
        size, dtype = "x".join(map(str, self.shape)), str(self.dtype).removeprefix("torch.")
        return f"{name}{size}:{dtype}{bounds}{':grad' if self.grad else ''}"


@dataclass(frozen=True, slots=True)
class Group:
    """A tuple of tensors to make, such as the state of an LSTM; with `keys` a dict of them."""

    name: str | None
    parts: tuple[Spec | Group, ...]
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        if self.keys:
            items = (f"{key}={part}" for key, part in zip(self.keys, self.parts, strict=True))
            return f"{name}{{{','.join(items)}}}"
        comma = "," if len(self.parts) == 1 else ""  # as Python writes a tuple of one
        return f"{name}({','.join(map(str, self.parts))}{comma})"


def specs_in(spec: Spec | Group | None) -> tuple[Spec, ...]:
    """The tensors of an input, in order."""
    if isinstance(spec, Group):
        return tuple(inner for part in spec.parts for inner in specs_in(part))
    return () if spec is None else (spec,)


def requiring_grad(spec: Spec | Group) -> Spec | Group:
    """The same with all of it requiring grad that can."""
    if isinstance(spec, Group):
        return replace(spec, parts=tuple(map(requiring_grad, spec.parts)))
    return replace(spec, grad=spec.dtype.is_floating_point or spec.dtype.is_complex)


def parse(text: str) -> Spec | Group:
    """What the text writes: a tensor, a tuple or a dict of them.

    Raises:
        InputError: it cannot be read; the reason says which part.
    """
    plain = "".join(text.split())
    keyed = _DICT.fullmatch(plain)
    if keyed is not None:
        keys, texts = _items(keyed["parts"], text)
        return Group(keyed["name"], tuple(map(parse, texts)), keys)
    group = _GROUP.fullmatch(plain)
    if group is None:
        return _tensor(plain, text)
    return Group(group["name"], tuple(parse(part) for part in _parts(group["parts"], text)))


def _items(inner: str, text: str) -> tuple[tuple[str, ...], list[str]]:
    """The keys and the parts of a dict."""
    keys, values = [], ""
    position = 0
    while match := _KEY.match(inner, position):
        keys.append(match[1])
        end = _end(inner, match.end(), text)
        values += f"{',' if values else ''}{inner[match.end() : end]}"
        position = end + 1 if inner[end : end + 1] == "," else end
        if position == end:
            break
    if not keys or position < len(inner) or len(set(keys)) < len(keys):
        raise InputError(
            f"cannot read the input {text!r}", hint="write a dict like batch={image=2x3x64x64,label=2:int64}"
        )
    return tuple(keys), _parts(values, text)


def _end(inner: str, position: int, text: str) -> int:
    """Where the part that begins here ends."""
    if inner[position : position + 1] == "(":
        return position + _closing(inner[position:], text) + 1
    part = _PART.match(inner, position)
    return part.end() if part else position


def _parts(inner: str, text: str) -> list[str]:
    """The parts of a tuple. A range has a comma and may end in a parenthesis, so each part is read to its own
    end."""
    found, position = [], 0
    while position < len(inner):
        end = _end(inner, position, text)
        if end == position or inner[end : end + 1] not in ("", ","):
            break
        found.append(inner[position:end])
        position = end + 1
    if not found or position < len(inner):
        raise InputError(f"cannot read the input {text!r}", hint="write a tuple like state=(2x4x16,2x4x16)")
    return found


def _closing(inner: str, text: str) -> int:
    """Where the parenthesis that the text begins with is closed; that of a half-open range is none."""
    depth = 0
    for position, character in enumerate(re.sub(r"\[[^\[\])]*\)", lambda m: "." * len(m[0]), inner)):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return position
    raise InputError(f"cannot read the input {text!r}", hint="write a tuple like state=(2x4x16,2x4x16)")


def _tensor(plain: str, text: str) -> Spec:
    """The tensor that the text writes.

    Raises:
        InputError: it cannot be read; the reason says which part.
    """
    match = _SPEC.fullmatch(plain)
    if match is None or not (match["shape"] or match["dtype"]):
        raise InputError(f"cannot read the input {text!r}", hint=_HINT)
    dtype = _dtype(match["dtype"] or "float32", text)
    shape = tuple(int(size) for size in match["shape"].lower().split("x")) if match["shape"] else ()
    grad = match["grad"] is not None
    if grad and not (dtype.is_floating_point or dtype.is_complex):
        raise InputError(
            f"the input {text!r} is {str(dtype).removeprefix('torch.')}, which requires no grad", hint=_HINT
        )
    if match["low"] is None:
        return Spec(match["name"], shape, dtype, grad=grad)
    low, high = float(match["low"]), float(match["high"])
    if match["close"] == "]":
        high = high + 1 if not dtype.is_floating_point else math.nextafter(high, math.inf)
    _refuse_range(low, high, dtype, text)
    return Spec(match["name"], shape, dtype, low, high, grad)


def _refuse_range(low: float, high: float, dtype: torch.dtype, text: str) -> None:
    """Raise where a dtype has no values from `low` up to `high`."""
    if not low < high:
        raise InputError(f"the range of the input {text!r} is empty", hint=_HINT)
    if dtype.is_complex or dtype is torch.bool:
        raise InputError(
            f"the input {text!r} is {str(dtype).removeprefix('torch.')}, which takes no range", hint=_HINT
        )
    if not dtype.is_floating_point and not (low.is_integer() and high.is_integer()):
        raise InputError(f"the range of the input {text!r} must be integers", hint=_HINT)


def _dtype(name: str, text: str) -> torch.dtype:
    found = getattr(torch, _SHORT.get(name.lower(), name), None)
    if not isinstance(found, torch.dtype):
        raise InputError(f"{name!r} in the input {text!r} is no torch dtype", hint=_HINT)
    return found


def build(spec: Spec | Group, generator: torch.Generator) -> object:
    """A tensor on the CPU, or a tuple or dict of them, with values from `generator`.

    Raises:
        InputError: torch cannot make one (out of memory, a dtype without values).
    """
    if isinstance(spec, Group):
        made = tuple(build(part, generator) for part in spec.parts)
        return dict(zip(spec.keys, made, strict=True)) if spec.keys else made
    try:
        return _built(spec, generator).requires_grad_(spec.grad)
    except (RuntimeError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"the input {spec} cannot be made: {reason}", hint=_HINT) from error


def _built(spec: Spec, generator: torch.Generator) -> torch.Tensor:
    low, high = spec.low, spec.high
    if not (spec.dtype.is_floating_point or spec.dtype.is_complex):
        told = low is not None and high is not None and spec.dtype is not torch.bool
        bounds = (int(low or 0), int(high or 0)) if told else (0, 2)
        return _unlike_rows(spec.shape, bounds, generator).to(spec.dtype)
    if spec.dtype.is_complex:
        return torch.randn(spec.shape, generator=generator, dtype=torch.complex64, device="cpu").to(
            spec.dtype
        )
    if low is None or high is None:
        return torch.randn(spec.shape, generator=generator, dtype=torch.float32, device="cpu").to(spec.dtype)
    return (
        torch.rand(spec.shape, generator=generator, dtype=torch.float64, device="cpu") * (high - low) + low
    ).to(spec.dtype)


def _unlike_rows(shape: Sequence[int], bounds: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Whole numbers, drawn anew where one example comes out as every other: a norm over the batch has no
    gradient there."""
    made = torch.randint(*bounds, shape, generator=generator, device="cpu")
    for _ in range(_DRAWS if len(shape) and shape[0] > 1 and bounds[1] - bounds[0] > 1 else 0):
        if made.numel() == 0 or bool((made != made[:1]).any()):
            break
        made = torch.randint(*bounds, shape, generator=generator, device="cpu")
    return made


def inputs_from_specs(texts: Sequence[str]) -> Inputs:
    """The inputs that the texts describe: those without a name by position, in order, the others by keyword.

    Raises:
        InputError: a text cannot be read, or two have the same name.
    """
    specs = [parse(text) for text in texts]
    names = [spec.name for spec in specs if spec.name is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two inputs are named {twice!r}", hint="give each input once")
    generator = torch.Generator().manual_seed(SEED)
    made: list[tuple[str | None, object]] = [(spec.name, build(spec, generator)) for spec in specs]
    return Inputs(
        tuple(t for name, t in made if name is None), {name: t for name, t in made if name is not None}
    )
