"""What a constructor's argument might be, by its name and its annotation: small sizes that fit each other,
the likeliest first.

Pure data. All widths are the same, so that layers which meet fit; none is 1, for a softmax or a norm over one
number has a gradient of zero by construction. Not handled: what a name does not say; such an argument is
tried as a size, a count and settings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fxgrad.program.load import sequences
from fxgrad.source.objects import module_of

WIDTH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value to try, `text` as Python or `--arg` writes it, `why` it may be right. `choice`: another would
    be another model; `unfounded`: nothing speaks for it."""

    value: Any
    text: str
    why: str = ""
    choice: bool = False
    unfounded: bool = False


class Settings:
    """Stands for an object whose attributes are guessed as they are read; made by `construct`."""


_SETTINGS = (
    r"(\w+_)?(config|configs|configuration|cfg|conf|args|arg|opt|opts|options|hparams?"
    r"|hyperparams|hyper_params|params|hp|settings|flags)"
)
_WIDTHS = (WIDTH, 32, 128)
_LAYERS = (nn.Linear(WIDTH, WIDTH), nn.Identity(), WIDTH)
_PAIRS = r"(n|num|no|nb|number)?(_of)?_?"

# The whole name, in lower case -> values. The first that fits counts.
_NAMED: tuple[tuple[str, Sequence[object]], ...] = (
    (r"device", ("cpu",)),
    (r"(torch_)?dtype", (torch.float32,)),
    (r"n_?gpus?|num_gpus|world_size|groups?|stride|dilation|scale_factor", (1, 2)),
    (r"padding|pad|output_padding", (1, 0)),
    (r"pad(ding)?_(idx|index|token|id|token_id)|\w*_(pad|idx|index|token_id)", (0,)),
    (r"(k|ks|\w*kernel(_?size)?|filter_?sizes?|\w*_kernel)", (3, (3, 3))),
    (r"moving_av(era)?ge?|(smooth\w*_)?window", (3, 5)),  # around each point: odd
    (r"kernel_?sizes|ks_list", ((3, 5), 3)),
    (rf"(\w+_)?{_PAIRS}(attention_|attn_|self_)?heads?|h|n_?heads?|heads_num", (4, 2, 1)),
    (
        r"(\w+_)?(vocab(ulary)?_?(size|len)|n_?vocab|n_?tokens?|ntoken|n(um)?_\w*vocab|num_(tokens"
        r"|words|embeddings|items|users)|vocab_num|dict_?size)",
        (100,),
    ),
    (
        r"embed_num|user_num|item_num|n_(users?|items?|words|entities|relations)|(src|tgt|trg|source"
        r"|target)_vocab",
        (100,),
    ),
    (r"(2d_)?(img|image|im|picture|input|inp)_(shape|dims?)", ((3, 64, 64), WIDTH, (64, 64))),
    (
        r"(img|image|im|picture|crop|input_image)_?(size|dim|res(olution)?)|resolution|(img_"
        r"|image_)?(height|width)|img_[hw]",
        (64, (64, 64), 32),
    ),
    (r"patch(_size|_dim)?|p_size|(patch|seg(ment)?|chunk|label)_?(len|length|size)", (8, 4)),
    (
        r"(\w+_)?(max|maximum|seq|sequence|context|block|ctx|window|pred|history)_?(\w+_)?(len|length"
        r"|size|window|positions)",
        (32, 16),
    ),
    (r"n_positions|max_position_embeddings|(time)?steps|horizon|seqlen|lookback", (32, 16)),
    (r"(\w+_)?(drops|drop_?outs|drop(out)?_?(rates|probs))(_\w+)?", ([0.1, 0.1], 0.1)),
    (
        r"(\w+_)?(dropout|drop|dp_ratio|drop_?prob|dropout_?(rate|p|prob)|drop_?rate"
        r"|drop_?path(_rate)?|droprate|p_?drop|keep_prob)(_\w+)?",
        (0.1,),
    ),
    (r"growth_rate|base_?width|n[zgd]f?|z_?dim|latent(_\w+)?|n_mels?|num_nodes|n_ctx", _WIDTHS),
    (
        r"p|prob|\w+_prob|rate|\w+_rate|alpha|beta|gamma|momentum|ratio|lambd?a?|decay|temperature|tau"
        r"|sigma|\w*_std\w*",
        (0.1, 0.5),
    ),
    (r"eps|epsilon|\w+_eps", (1e-5,)),
    (r"lr|learning_rate", (1e-3,)),
    (r"margin|scale|max_action|action_(scale|bound|bias)|init_\w+|\w+_init", (0.5, 1)),
    (
        rf"(in|input|inp|img|image|image_|img_|{_PAIRS})_?(channels?|chans?|ch|nc)|nc|colou?r_channels"
        rf"|c_?in|chnls",
        (3, WIDTH, 1),
    ),
    (
        rf"{_PAIRS}(\w+_)?(class(es)?|labels?|categories|tags?|actions?|n_?class)(_?(num|count|size"
        rf"|dim))?|nclass(es)?|k_classes",
        (10, 4),
    ),
    (
        r"act(ion)?_(dim|size|num)|output_(channels?|nc)|out_(channels?|chans?|ch|c|nc)|c_?out"
        r"|noutputs?",
        (8, 3, WIDTH),
    ),
    (
        rf"{_PAIRS}(\w+_)?(mixtures?|experts?|anchors?|components?|groups|clusters|queries"
        rf"|codes)(_num)?",
        (4, 2),
    ),
    (
        r"(\w+_)?depths|(num_)?blocks|layers|stages|block_config|layer_list|repeats"
        r"|num_?layers_list",
        ([2, 2, 2, 2], 2),
    ),
    (
        rf"(\w+_)?{_PAIRS}(\w+_)?(layers?|blocks?|depth|stages?|levels?|stacks?|repeats?|cells?"
        rf"|residuals?|convs?|n)|l|no_layers",
        (2, [2, 2]),
    ),
    (r"(\w+_)?(mult|multiplier|expansion|expand|expand_ratio|factor|reduction|mlp_ratio)", (2, 4)),
    # three of them: of two there is one pair, and a softmax over one number has no gradient
    (r"(fields?|sparse|cat(egor(y|ical))?)_(dims|sizes|cardinalities)", ([WIDTH] * 3, WIDTH)),
    (
        r"((\w+_)?(dims|widths|hidden_?(dims|sizes|units)|layer_?sizes|sizes|units|filters"
        r"|features_list|channels_list|neurons))",
        ([64, 64], WIDTH),
    ),
    (r"(\w+_)?(channels|feature_maps)", (WIDTH, [64, 64])),
    (
        r"in_features|out_features|(\w+_)?(dim|dims|size|sz|width|features?|units?|planes|inplanes"
        r"|hidden|hid|nhid|nfeat|d|ch|chans?|c)",
        _WIDTHS,
    ),
    (
        rf"d_\w+|n_(embd?|embed|hidden|state|units|observations|obs|inputs?|features?|filters|feats?)"
        rf"|[dnu]?(inp|hid|embd?|feat|ff)|{_PAIRS}\w+_(dim|size)",
        _WIDTHS,
    ),
    (r"(n|num|no|nb|number)_(of_)?\w+", (2, WIDTH)),
    (r"norm(_layer|_cls|_type)?", (nn.BatchNorm2d, nn.LayerNorm, "batch")),
    (
        r"act(ivation)?(_(layer|fn|func|function|cls|type|fun))?|nonlinearity"
        r"|non_?lin(earity)?",
        (nn.ReLU(), nn.ReLU, "relu"),
    ),
    (r"(\w+_)?(rnn|cell)_?type", ("LSTM", "GRU")),
    (
        r"pretrained|freeze\w*|frozen|static|checkpoint(ing)?|use_checkpoint|verbose|debug|tie_\w+"
        r"|deterministic",
        (False, True),
    ),
    (
        r"(use|with|is|has|have|do|enable|no|add|apply|if|need)_\w+|bias|\w+_bias|bidirectional"
        r"|batch_first|bilinear|causal|residual",
        (True, False),
    ),
    (
        r"learn(able|ed)\w*|norm_first|affine|downsample|upsample|shortcut|attention|bn|batch_?norm"
        r"|flag",
        (True, False),
    ),
    (
        r"\w*(2|_to_)(ix|idx|index|indices|id|ids|inx)|(\w+_)?vocab(ulary)?|mapping|word_?map|stoi"
        r"|itos",
        (dict(zip("abcdefgh", range(8), strict=True)),),
    ),
    (
        r"(\w+_)?(encoder|decoder|backbone|net|network|module|layer|\w+_embed|embedder|generator|body"
        r"|stem|neck|fn|sublayer|trunk|base|classifier|extractor|head)",
        _LAYERS,
    ),
    (r"(\w+_)?(anchors?|weights?|mean|std|adj|adjacency)", (torch.full((8, 8), 0.5), WIDTH)),
)  # fmt: skip

_ANNOTATED: dict[str, Sequence[object]] = {
    "int": _WIDTHS,
    "float": (0.5, 0.1),
    "bool": (True, False),
    "str": (),
    "torch.device": ("cpu",),
    "torch.dtype": (torch.float32,),
}
_SEQUENCE = re.compile(r"(typing\.)?(list|tuple|sequence|iterable)\b.*", re.IGNORECASE)
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


def by_name(
    name: str, annotation: str = "", texts: Sequence[str] = (), read: sequences.Sequence | None = None
) -> list[Value]:
    """Values for an argument. `texts`: what the class compares it with; `read`: what it reads as a sequence.

    A plain annotation (`int`) leaves of the values those that are of the kind.
    """
    if texts and annotation in ("", "str"):
        return [
            *(Value(text, repr(text), f"the class compares `{name}` with it", choice=True) for text in texts),
            Value("other", "'other'", f"the class compares `{name}` with {', '.join(texts)}", choice=True),
        ]
    found = next((values for pattern, values in _NAMED if re.fullmatch(pattern, name.lower())), None)
    why = f"by the name `{name}`"
    annotated = _annotated(annotation, found or ())
    if annotated is not None:
        found, is_named = annotated
        why = why if is_named else f"`{name}` is annotated {annotation}"
    if read is not None:
        found = _like(read, found or ())
    if found is None:
        return [*settings(name), *unknown(name)] if is_settings(name) else unknown(name)
    return [Value(value, written(value), why, choice=isinstance(value, bool)) for value in found]


def _annotated(annotation: str, named: Sequence[Any]) -> tuple[Sequence[object], bool] | None:
    """The values of an annotated kind, those by the name first, and whether there are such; None where the
    annotation says nothing."""
    if annotation in _KINDS:
        fitting = [value for value in named if type(value) in _KINDS[annotation]]
        others = [value for value in _ANNOTATED[annotation] if value not in fitting]
        return [*fitting, *others], bool(fitting)
    if annotation in _ANNOTATED:
        return _ANNOTATED[annotation], False
    if _SEQUENCE.fullmatch(annotation):
        kind = tuple if annotation.lower().startswith("tuple") else list
        fitting = [value for value in named if isinstance(value, tuple | list)]
        return [kind(value) for value in (*fitting, (WIDTH, WIDTH), (2, 2), (3, 3))], False
    return None


def _like(read: sequences.Sequence, values: Sequence[object]) -> Sequence[object]:
    """The values that are sequences, made as long as is read, and such of the others."""
    if read.inner is not None:
        return [[_like(read.inner, ())[0]] * max(read.length, 1)]
    found = [value for value in values if isinstance(value, tuple | list)]
    found += [[value, value] for value in values if type(value) in (int, float)]
    found = found or [[WIDTH, WIDTH], [2, 2]]
    return [
        (value * read.length)[: read.length] if read.exact or len(value) < read.length else value
        for value in found
    ]


def is_settings(name: str) -> bool:
    """Whether the name is what people call an object of settings."""
    return re.fullmatch(_SETTINGS, name.lower()) is not None


def settings(name: str) -> list[Value]:
    """An object whose attributes are guessed as they are read."""
    return [Value(Settings, "", f"its attributes are guessed as they are read from `{name}`")]


def unknown(name: str) -> list[Value]:
    """A size, settings, a layer, a count: what an argument of any name may be."""
    why = f"`{name}` may be any"
    size, layer, count, share, sizes = (
        Value(value, written(value), why, unfounded=True)
        for value in (WIDTH, _LAYERS[0], 2, 0.1, [WIDTH, WIDTH])
    )
    return [size, *settings(name), layer, count, share, sizes]


def annotation_of(parameter: inspect.Parameter) -> str:
    """The annotation as text, without `Optional`, `None` and `typing.`; "" where there is none."""
    kind = parameter.annotation
    if kind is inspect.Parameter.empty:
        return ""
    text = kind if isinstance(kind, str) else kind.__name__ if type(kind) is type else str(kind)
    text = re.sub(r"^(typing\.)?Optional\[(.*)\]$", r"\2", text.strip()).replace("typing.", "")
    return "|".join(part.strip() for part in text.split("|") if part.strip() != "None")


def written(value: object) -> str:
    """The value as it is written in Python."""
    if isinstance(value, type):
        return f"nn.{value.__name__}" if module_of(value).startswith("torch.nn") else value.__name__
    if isinstance(value, nn.Linear):
        return f"nn.Linear({value.in_features}, {value.out_features})"
    if isinstance(value, nn.Module):
        return f"nn.{type(value).__name__}()"
    if isinstance(value, torch.Tensor):
        return f"torch.full({tuple(value.shape)}, 0.5)"
    return repr(value)
