"""Which inputs a model of the transformers library takes: all are optional in its signature, so the
configuration has to say.

Made from `main_input_name`, `dummy_inputs`, the signature of `forward` and the sizes in `config`;
transformers itself is not imported. Labels come along where the model takes them, so that its output has a
loss. Not handled: processors, and inputs that only they can make.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from fxgrad.program.infer.candidates import BATCH, Candidate
from fxgrad.program.infer.spec import Spec

LABELS = ("labels", "next_sentence_label", "start_positions", "end_positions", "return_loss")
_INPUTS = (
    "input_ids",
    "pixel_values",
    "input_values",
    "input_features",
    "decoder_input_ids",
    "bbox",
    "pixel_values_videos",
)


def is_pretrained(model: object) -> bool:
    """Whether the model is one of transformers' `PreTrainedModel`s, or looks like one."""
    return hasattr(model, "config") and isinstance(getattr(model, "main_input_name", None), str)


def input_names(model: Any, accepted: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Sets of inputs to try, the likeliest first, each with the labels that the model accepts and then
    without."""
    labels = tuple(name for name in LABELS if name in accepted)
    main = (model.main_input_name,)
    decoder = (*main, "decoder_input_ids")
    dummy = tuple(_dummy_inputs(model))
    known = tuple(name for name in _INPUTS if name in accepted)
    sets = [
        (*base, *extra) for extra in dict.fromkeys((labels, ())) for base in (main, decoder, dummy, known)
    ]
    usable = (tuple(name for name in dict.fromkeys(names) if name in accepted) for names in sets)
    yield from dict.fromkeys(names for names in usable if names and names != labels)


def configured(model: Any) -> Mapping[str, list[Candidate]]:
    """Candidates by input name from the sizes in the configuration, then from `dummy_inputs`."""
    found: dict[str, list[Candidate]] = {}
    vision = getattr(model.config, "vision_config", model.config)
    channels, size = getattr(vision, "num_channels", None), getattr(vision, "image_size", None)
    if isinstance(channels, int) and size is not None:
        height, width = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
        if isinstance(height, int) and isinstance(width, int):
            shape = (BATCH, channels, height, width)
            found["pixel_values"] = [
                Candidate(Spec(None, shape), why="by `config.image_size` and `config.num_channels`")
            ]
    mels, frames = (
        getattr(model.config, "num_mel_bins", None),
        getattr(model.config, "max_source_positions", None),
    )
    if isinstance(mels, int):
        lengths = (2 * frames, 128, 1024) if isinstance(frames, int) else (128, 1024)
        shapes = [shape for length in lengths for shape in ((BATCH, mels, length), (BATCH, length, mels))]
        found["input_features"] = [
            Candidate(Spec(None, shape), why="by `config.num_mel_bins`") for shape in shapes
        ]
        found["input_values"] = found["input_features"]
    found["return_loss"] = [Candidate(None, True, "so that the output has a loss")]
    dummy = _dummy_inputs(model)
    if "input_ids" in dummy:  # a label for each token is the commonest
        found["labels"] = [
            Candidate(
                replace(_like(dummy["input_ids"]), low=None, high=None), why="as the ids in `dummy_inputs`"
            )
        ]
    for name, tensor in dummy.items():
        found.setdefault(name, []).append(Candidate(_like(tensor), why="as in `dummy_inputs`"))
    return found


def _dummy_inputs(model: Any) -> dict[str, torch.Tensor]:
    with contextlib.suppress(Exception):  # a property of the user's class
        dummy = model.dummy_inputs
        return {
            name: value
            for name, value in dummy.items()
            if isinstance(name, str) and isinstance(value, torch.Tensor)
        }
    return {}


def _like(tensor: torch.Tensor) -> Spec:
    """The same but for the batch, which all inputs must share."""
    shape = (BATCH, *tensor.shape[1:]) if tensor.dim() else ()
    if tensor.dtype.is_floating_point or tensor.dtype is torch.bool or tensor.is_meta or not tensor.numel():
        return Spec(None, shape, tensor.dtype)
    low, high = int(tensor.min()), int(tensor.max())
    return Spec(None, shape, tensor.dtype, low, high + 1)
