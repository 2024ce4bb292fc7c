"""What an input might be: candidates from its name and annotation, and from the first layer that its data
reaches.

Pure data: nothing here runs a model. The likeliest candidate comes first; the batch is 2, because batch norm
refuses 1. Not handled: what only a data set knows (sequence lengths that a model hard-codes, graphs, boxes in
order).
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch

from fxgrad.program.infer.spec import Group, Spec, specs_in

BATCH = 2
LENGTH = 16
LARGEST = 2**28  # elements of an input
_SIZES = {
    1: (64, 256, 1024, 4000, 16, 8),
    2: (64, 32, 28, 224, 128, 96, 256, 84, 16, 299, 512, 8),
    3: (16, 32, 8, 64),
}
_INT = torch.int64


class Ground(Enum):
    """What speaks for a candidate that the search comes back to."""

    NOTHING = "anything may do for its input"
    FEATURES = "a layer takes rows of that many features"


class Change(Enum):
    """What the search made of a candidate that failed, as its reason goes on."""

    TOLD = ", of a size that its error names"
    TOLD_AGAIN = ", of sizes that its errors name"
    LENGTHENED = ", and flattened it fits the linear layer"
    ENLARGED = ", larger than the first that ran, on whose size the verdict hung"
    FOLDED = ", in proportion to the channels that the convolution takes"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tensor or a tuple of tensors to make (`spec`), or where that is None the Python constant `value`;
    `why` it may be right, for the report, and the last `change` of it."""

    spec: Spec | Group | None
    value: object = None
    why: str = ""
    ground: Ground | None = None
    change: Change | None = None

    @property
    def reason(self) -> str:
        return f"{self.why}{self.change.value}" if self.change is not None else self.why

    def changed(self, shape: tuple[int, ...], change: Change) -> Candidate:
        """The tensor in another shape."""
        assert isinstance(self.spec, Spec)
        # two changes of one kind are told as one
        why = self.why if change is Change.TOLD_AGAIN else self.reason
        return Candidate(replace(self.spec, shape=shape), why=why, change=change)

    def text(self) -> str:
        """As `--input` would write it; a constant as Python does."""
        return str(self.spec) if self.spec is not None else repr(self.value)


@dataclass(frozen=True, slots=True)
class Need:
    """What the first layer that an input reaches takes: `kind` is "ids", "channels", "features", "sequence"
    (features of a recurrent or attention layer), "flat" (rows of `size`), "index", "target", "like" or
    "state" (of a recurrent layer, of `shapes`).

    `size` counts embedding rows, channels, features or classes; `dims` the spatial dimensions of channels;
    `shape` is that of an index, a target or a like, `shapes` what else a like may be. `ground`: FEATURES
    where rows of features of the input itself are taken.
    """

    kind: str
    size: int = 0
    dims: int = 0
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    why: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()
    ground: Ground | None = None


def from_need(need: Need) -> list[Candidate]:
    """The candidates for an input that must fit the need."""
    return [replace(one, ground=need.ground) for one in _fitting(need)]


def _fitting(need: Need) -> list[Candidate]:
    if need.kind == "ids":
        shapes = [
            (BATCH, LENGTH),
            (BATCH,),
            (BATCH, 8),
            (BATCH, 4),
            (BATCH, 1),
            (LENGTH,),
            (BATCH, 4, LENGTH),
            (),
        ]
        return [_tensor(shape, _INT, 0, need.size, need.why) for shape in shapes]
    if need.kind == "index":
        shapes = [need.shape, (BATCH,), (BATCH, 1), (BATCH, LENGTH)]
        return [_tensor(shape, _INT, 0, need.size, need.why) for shape in shapes]
    if need.kind == "target":
        return [_tensor(need.shape, _INT, 0, max(need.size, 1), need.why)]
    if need.kind == "state":
        return [state(need.shapes, need.why)]
    if need.kind == "like":
        return [_tensor(shape, need.dtype, why=need.why) for shape in (need.shape, *need.shapes)]
    if need.kind == "channels":
        shapes = _with_channels(need.size, need.dims)
    else:
        shapes = _with_features(need.size, sequence=need.kind == "sequence")
    return [_tensor(shape, why=need.why) for shape in shapes]


def of_dimensions(count: int, why: str) -> list[Candidate]:
    """What has that many dimensions, if there is something usual."""
    shapes = [one.spec.shape for one in _ANY if isinstance(one.spec, Spec) and len(one.spec.shape) == count]
    return [_tensor(shape, why=why) for shape in dict.fromkeys(shapes)]


def state(shapes: Sequence[tuple[int, ...]], why: str) -> Candidate:
    """A recurrent layer's state: a tensor, or for an LSTM a pair."""
    specs = tuple(Spec(None, shape) for shape in shapes)
    return Candidate(specs[0] if len(specs) == 1 else Group(None, specs), why=why)


def _with_channels(channels: int, dims: int) -> list[tuple[int, ...]]:
    if dims == 0:
        return [(BATCH, channels), (BATCH, channels, LENGTH), (BATCH, LENGTH, channels)]
    sizes = _SIZES.get(dims, _SIZES[2])
    if channels == 1 and dims == 2:
        sizes = (28, *(size for size in sizes if size != 28))
    first = [(BATCH, channels, *(size,) * dims) for size in sizes]
    images = [(BATCH, channels, 8, 64, 64), (BATCH, channels, 16, 112, 112)] if dims == 3 else []
    some = sizes[:2]
    last = [(BATCH, *(size,) * dims, channels) for size in some]
    bare = [(BATCH, *(size,) * dims) for size in some] if channels == 1 else []
    frames = [(BATCH, 4, channels, *(size,) * dims) for size in some]
    single = [(channels, *(size,) * dims) for size in some]
    return [*first, *images, *bare, *last, *frames, *single]


def _with_features(features: int, *, sequence: bool) -> list[tuple[int, ...]]:
    """A linear layer takes any leading dimensions; 784 or 3072 features are often a flattened image."""
    shapes: list[tuple[int, ...]] = [(BATCH, features), (BATCH, LENGTH, features)]
    if sequence:
        shapes.reverse()
    for channels in (1, 3):
        side = round((features / channels) ** 0.5)
        if side > 4 and side * side * channels == features:
            shapes.append((BATCH, channels, side, side))
    halves = [(BATCH, 4, features // 4)] if features % 4 == 0 and features > 4 else []
    return [*shapes, (features,), (BATCH, 4, LENGTH, features), (BATCH, features, LENGTH), *halves]


def _tensor(
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    low: int | None = None,
    high: int | None = None,
    why: str = "",
) -> Candidate:
    return Candidate(Spec(None, tuple(shape), dtype, low, high), why=why)


_IMAGE = [
    *(_tensor((BATCH, channels, size, size)) for channels in (3, 1) for size in (64, 28)),
    *(_tensor((BATCH, 3, size, size)) for size in (224, 256)),  # cut into windows of a fixed size
]
_ANY = [
    _tensor((BATCH, LENGTH)),
    _tensor((BATCH, 3, 64, 64)),
    _tensor((BATCH, LENGTH, LENGTH)),
    _tensor((BATCH, LENGTH), _INT),
    _tensor((BATCH, 8), _INT),
    _tensor((BATCH,)),
    _tensor((BATCH, 3, 8, 64, 64)),
    _tensor(()),
    _tensor((BATCH, 3, 224, 224)),
]
_IDS = [_tensor((BATCH, LENGTH), _INT), _tensor((BATCH, 8), _INT), _tensor((BATCH,), _INT)]
_CLASSES = [_tensor((BATCH,), _INT), *_IDS[:1], _tensor((BATCH, 1)), _tensor((BATCH,))]

# The name as a whole, in lower case -> what it usually is. The first that fits counts.
_NAMED: tuple[tuple[str, list[Candidate]], ...] = (
    (r"attention_mask|decoder_attention_mask", [_tensor((BATCH, LENGTH), _INT, 1, 2)]),
    (
        r"(\w+_)?mask",
        [
            _tensor((BATCH, LENGTH), torch.bool),
            _tensor((LENGTH, LENGTH), torch.bool),
            _tensor((BATCH, LENGTH)),
        ],
    ),
    (r"token_type_ids|position_ids|segment_ids", _IDS),
    (
        r"(\w+_)?(input_)?ids|idxs?|tokens?|token_ids|words?|src|tgt|trg|sentences?|seqs?",
        [*_IDS, _tensor((BATCH, LENGTH, LENGTH))],
    ),
    (r"labels", [*_IDS, _tensor((BATCH, 1)), _tensor((BATCH,))]),
    (r"labels?|targets?|y|gt|start_positions|end_positions|next_sentence_label", _CLASSES),
    (
        r"t|timesteps?|time_?steps?|times?|steps?",
        [_tensor((BATCH,), _INT, 0, 1000), _tensor((BATCH,)), _tensor((BATCH, 1)), _tensor(())],
    ),
    (r"sigmas?|noise_levels?|log_snr", [_tensor((BATCH,)), _tensor((BATCH, 1)), _tensor(())]),
    (
        (
            r"pixel_values|(\w+_)?(images?|imgs?|pictures?|pixels?)(_\w)?|seg(_?map|mentation)?"
            r"|label_?map"
            r"|depth|flow"
        ),
        _IMAGE,
    ),
    (r"input_values|wave(form)?s?|wavs?|audios?", [_tensor((BATCH, 4000)), _tensor((BATCH, 1, 4000))]),
    (r"input_features|mels?|spec(trogram)?s?", [_tensor((BATCH, 80, size)) for size in (128, 3000)]),
    (r"edge_index", [_tensor((2, 8), _INT)]),
    (r"batch", [_tensor((BATCH,), _INT, 0, 1)]),
    (r"(\w+_)?(lengths?|lens?)", [_tensor((BATCH,), _INT, LENGTH, LENGTH + 1)]),
    (r"bbox(es)?|boxes", [_tensor((BATCH, LENGTH, 4), _INT), _tensor((BATCH, 4))]),
)

_CONSTANTS: dict[str, list[object]] = {"int": [1, 2], "float": [0.5], "bool": [False, True]}
_NO_TENSOR = re.compile(
    r"(typing\.)?(str|dict|list|tuple|sequence|mapping|iterable|callable)\b.*", re.IGNORECASE
)


def from_signature(parameter: inspect.Parameter) -> list[Candidate]:
    """The candidates for a parameter before anything was run; [] for one that is annotated as text, a
    container or a function."""
    kind = _annotation(parameter)
    if kind in _CONSTANTS:
        return [
            Candidate(None, value, f"`{parameter.name}` is annotated {kind}") for value in _CONSTANTS[kind]
        ]
    if _NO_TENSOR.fullmatch(kind):
        return []
    named = _named(parameter.name)
    named = [replace(candidate, why=f"by the name `{parameter.name}`") for candidate in named]
    general = [*_IDS, *_ANY] if "LongTensor" in kind or "IntTensor" in kind else _ANY
    return distinct(
        [
            *named,
            *(
                replace(candidate, why=f"`{parameter.name}` may be any", ground=Ground.NOTHING)
                for candidate in general
            ),
        ]
    )


def is_tensors_name(name: str) -> bool:
    """Whether people call a tensor so."""
    return bool(_named(name))


def _named(name: str) -> list[Candidate]:
    return next((found for pattern, found in _NAMED if re.fullmatch(pattern, name.lower())), [])


def _annotation(parameter: inspect.Parameter) -> str:
    """The annotation as text, without `Optional` and `None`; "" where there is none."""
    kind = parameter.annotation
    if kind is inspect.Parameter.empty:
        return ""
    text = kind if isinstance(kind, str) else kind.__name__ if type(kind) is type else str(kind)
    text = re.sub(r"^(typing\.)?Optional\[(.*)\]$", r"\2", text.strip())
    return "|".join(part.strip() for part in text.split("|") if part.strip() != "None")


def distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Without those that make the same tensor as an earlier one, or one that is too large to be meant."""
    seen: dict[str, Candidate] = {}
    for candidate in candidates:
        if all(math.prod(spec.shape) <= LARGEST for spec in specs_in(candidate.spec)):
            seen.setdefault(candidate.text(), candidate)
    return list(seen.values())
