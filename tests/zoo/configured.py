"""The models of transformers, each from its own configuration made small: every entry of the library's mappings from configuration to class.

No one way of shrinking fits them all, so a builder goes from small to large (`LEVELS`) and from the plain inputs to what the model may ask
for (`_variants`), and takes the first pair whose forward runs; a model that none of them runs is listed with its first error.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo import vision

Built = tuple[nn.Module, Any]
Entry = tuple[str, Callable[[], Built]]

DEPTHS = {
    "num_hidden_layers": 2, "num_layers": 2, "n_layer": 2, "n_layers": 2, "encoder_layers": 2, "decoder_layers": 2, "num_decoder_layers": 2,
    "encoder_num_layers": 2, "decoder_num_layers": 2, "num_encoder_layers": 2, "vocab_size": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
WIDTHS = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embed_dim": 32, "embedding_size": 32, "hidden_dim": 32,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "ffn_dim": 64, "d_ff": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "n_inner": 64, "d_inner": 64,
    "moe_intermediate_size": 32, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "max_position_embeddings": 128, "n_positions": 128, "type_vocab_size": 2, "projection_dim": 16,
}  # fmt: skip
HEADS = {
    "head_dim": 8, "d_kv": 8, "rotary_dim": 4, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}  # fmt: skip
PICTURES = {
    "image_size": 32, "patch_size": 8, "num_channels": 3, "num_mel_bins": 16, "max_source_positions": 32, "max_target_positions": 32,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
MAMBA = {
    "num_heads": 8, "head_dim": 8, "mamba_n_heads": 8, "n_mamba_heads": 8, "mamba_d_head": 8, "mamba_headdim": 8, "mamba_d_state": 8,
    "state_size": 8, "n_groups": 1, "mamba_n_groups": 1, "mamba_ngroups": 1, "num_hidden_layers": 4, "kv_lora_rank": 8, "q_lora_rank": 8,
    "n_group": 1, "topk_group": 1,
}  # fmt: skip
ABSENT = {
    "vocab_size": 128, "pad_token_id": 0, "decoder_start_token_id": 1, "num_key_value_heads": 2, "dropout": 0.0, "default_language": "en_XX",
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "prediction_length": 4,
}  # fmt: skip
LEVELS = (
    {**DEPTHS, **WIDTHS, **HEADS, **PICTURES},
    {**DEPTHS, **WIDTHS, **HEADS, **PICTURES, "head_dim": 4, "qk_head_dim": 8, "num_hidden_layers": 4, "n_group": 1, "topk_group": 1},
    {**DEPTHS, **WIDTHS, **PICTURES, **MAMBA},
    {**DEPTHS, **WIDTHS, **PICTURES, **EXPERTS},
    {**DEPTHS, **WIDTHS, **EXPERTS, "num_key_value_heads": 4},
    {**DEPTHS, **EXPERTS},
    {**DEPTHS, **EXPERTS, "num_hidden_layers": 6},
)  # fmt: skip
OFFLINE = ("states", "actions", "rewards", "returns_to_go", "timesteps")  # what a model of decisions learns from
LARGEST = 45_000_000  # parameters; the last levels leave the widths as they are published
_MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_MASKED_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES", "MODEL_MAPPING_NAMES",
)  # fmt: skip


def transformers_models() -> Iterator[Entry]:
    """The base model and, where there is one, a head with a loss, of every configuration in the library's own mappings."""
    try:
        vision.torchvision_models()  # transformers imports it where it is installed
        transformers = importlib.import_module("transformers")
        auto = importlib.import_module("transformers.models.auto.modeling_auto")
        configs = importlib.import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    except ImportError:
        return
    for mapping in _MAPPINGS:
        for kind, names in getattr(auto, mapping, {}).items():
            for name in (names if isinstance(names, tuple | list) else (names,))[:1]:
                yield f"transformers/{name}", _builder(transformers, configs, kind, name, mapping)


def _builder(transformers: Any, configs: Any, kind: str, name: str, mapping: str) -> Callable[[], Built]:
    def build() -> Built:
        first: Exception | None = None
        for level in range(len(LEVELS)):
            try:
                config = shrink(configs[kind](), level)
                if mapping != _MAPPINGS[-1]:  # heads go through the experts one by one, base models compute them together
                    _one_by_one(config)
                cls = getattr(transformers, name)
                if _parameters(cls, config) > LARGEST:
                    raise ValueError(f"more than {LARGEST:,} parameters")
                return _first_that_runs(lambda cls=cls, config=config: _model(cls, config), mapping)
            except Exception as error:
                first = first or error
                first.add_note(f"level {level}: {type(error).__name__}: {str(error)[:200]}")
        assert first is not None
        raise first

    return build


def _one_by_one(config: Any) -> None:
    for part in (config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))):
        with contextlib.suppress(Exception):
            part._experts_implementation = "eager"


def _model(cls: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return cls(copy.deepcopy(config)).train()


def _parameters(cls: Any, config: Any) -> int:
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in cls(copy.deepcopy(config)).parameters())
    except (RuntimeError, NotImplementedError):  # it computes with its weights as it is built, or cannot be built at all
        return 0


def _first_that_runs(make: Callable[[], Any], mapping: str) -> Built:
    """The model as it is built, with the first inputs that its forward takes."""
    model = make()
    first: Exception | None = None
    inputs: dict[str, Any] | None
    for vary in _variants():
        torch.manual_seed(1)
        try:
            inputs = vary(_inputs(model, mapping), model, first)
            if inputs is None:
                continue
            with torch.no_grad():
                model(**copy.deepcopy(inputs))
        except Exception as error:
            first = first or error
            continue
        return make(), inputs
    assert first is not None
    raise first


def shrink(config: Any, level: int = 0, depth: int = 0) -> Any:
    """Every size that the configuration knows, made small; sub-configurations too."""
    layers = _read(config, "num_hidden_layers")
    for name, value in LEVELS[level].items():
        old = _read(config, name)
        if isinstance(old, int) and not isinstance(old, bool):
            with contextlib.suppress(Exception):
                setattr(config, name, min(value, old) if level else value)
    if level:
        _shrink_lists(config, layers, _read(config, "num_hidden_layers"))
        _shrink_tokens(config)
        for name, value in ABSENT.items():
            if _read(config, name) is None:
                with contextlib.suppress(Exception):
                    setattr(config, name, value)
        rope = _read(config, "rope_parameters")
        if isinstance(rope, dict) and rope.get("rope_theta", 0) is None:
            rope["rope_theta"] = 10000.0
        for name, value in {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}.items():
            if isinstance(_read(config, name), int):
                setattr(config, name, value)
    if depth < 3:
        for value in list(vars(config).values()):
            if hasattr(value, "to_dict"):
                shrink(value, level, depth + 1)
    return config


def _read(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # a property that may not be read, an attribute that differs by layer
        return None


def _shrink_lists(config: Any, before: Any, after: Any) -> None:
    """One entry a layer: the first of each kind stays; stages of an image model get one block each."""
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and value and isinstance(before, int) and len(value) == before and isinstance(after, int):
            kinds = [value.index(kind) for kind in dict.fromkeys(map(_hashable, value))] if isinstance(value[0], str) else []
            chosen = sorted([*kinds, *(i for i in range(len(value)) if i not in kinds)][:after])
            with contextlib.suppress(Exception):
                setattr(config, name, [value[i] for i in chosen])
        elif name in ("depths", "num_blocks", "layers") and isinstance(value, list | tuple) and all(isinstance(v, int) for v in value):
            with contextlib.suppress(Exception):
                setattr(config, name, type(value)(1 for _ in value))
        elif name == "attn_layer_indices":
            config.attn_layer_indices = [1]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else repr(value)


def _shrink_tokens(config: Any) -> None:
    """Tokens of a kind of their own, inside the small vocabulary and outside of the ids that are drawn."""
    taken = 127
    for name in sorted(vars(config)):
        value = _read(config, name)
        if name.endswith(("_token_id", "_token_index", "_token")) and isinstance(value, int) and value >= 100:
            with contextlib.suppress(Exception):
                setattr(config, name, taken)
                taken -= 1


def _inputs(model: Any, mapping: str) -> dict[str, Any]:
    parameters = inspect.signature(model.forward).parameters
    ids = torch.randint(3, 100, (2, 12))
    inputs: dict[str, Any] = {}
    main = getattr(model, "main_input_name", "input_ids")
    config = model.config
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", 32)
    size = size if isinstance(size, int) else 32
    if "pixel_values" in parameters and (main == "pixel_values" or "vision_config" in vars(config)):
        inputs["pixel_values"] = torch.randn(2, getattr(vision, "num_channels", 3), size, size)
    if "input_ids" in parameters:
        inputs["input_ids"] = ids
    if "input_values" in parameters:
        inputs["input_values"] = torch.randn(2, 1600)
    if "input_features" in parameters:
        inputs["input_features"] = torch.randn(2, getattr(config, "num_mel_bins", 80), 2 * getattr(config, "max_source_positions", 32))
    if "decoder_input_ids" in parameters and "labels" not in parameters:
        inputs["decoder_input_ids"] = ids
    if "labels" in parameters:
        if "CLASSIFICATION" in mapping:
            inputs["labels"] = torch.tensor([0, 1])
        elif "LM" in mapping:
            inputs["labels"] = ids
    return inputs


Vary = Callable[[dict[str, Any], Any, Exception | None], "dict[str, Any] | None"]


def _variants() -> tuple[Vary, ...]:
    return (
        lambda inputs, model, error: inputs,
        _image_tokens,
        _without_cache,
        _longer_sound,
        lambda inputs, model, error: _features(inputs, model, last=False),
        lambda inputs, model, error: _features(inputs, model, last=True),
        lambda inputs, model, error: _pictures(inputs, 64),
        _frames,
        lambda inputs, model, error: _pictures(inputs, 224),
        _asked_for,
        lambda inputs, model, error: _asked_for(_without_pictures(inputs) or {}, model, error),
        _text_only,
        lambda inputs, model, error: {k: v for k, v in inputs.items() if k != "labels"},
        _dummy,
    )


def _image_tokens(inputs: dict[str, Any], model: Any, error: Exception | None) -> dict[str, Any] | None:
    """As many image tokens as the model said that it has features."""
    said = re.search(r"features:? (\d+)", str(error))
    token = next((t for n in ("image_token_id", "image_token_index") if isinstance(t := _read(model.config, n), int)), None)
    if said is None or token is None or "input_ids" not in inputs:
        return None
    count, width = int(said[1]), _read(getattr(model.config, "text_config", model.config), "hidden_size") or 1
    count = max(1, (count // width if count >= 2 * width and count % width == 0 else count) // 2)
    ids = torch.cat([torch.full((2, count), token), inputs["input_ids"]], 1)
    return {**inputs, **{name: ids for name in ("input_ids", "labels") if name in inputs}}


def _without_cache(inputs: dict[str, Any], model: Any, error: Exception | None) -> dict[str, Any] | None:
    return {**inputs, "use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else None


def _longer_sound(inputs: dict[str, Any], model: Any, error: Exception | None) -> dict[str, Any] | None:
    shape = (2, 1, 3200) if "unpack" in str(error) or "channel" in str(error) else (2, 8000)
    return {**inputs, "input_values": torch.randn(shape)} if "input_values" in inputs else None


def _features(inputs: dict[str, Any], model: Any, *, last: bool) -> dict[str, Any] | None:
    """Features of sound with the width that a sub-configuration tells, before or behind the time."""
    name = next((n for n in ("input_features", "input_values") if n in inputs), None)
    if name is None:
        return None
    configs = [model.config, *(v for n, v in vars(model.config).items() if n.endswith("_config"))]
    names = ("num_mel_bins", "feature_projection_input_dim", "feature_size", "input_dim", "input_channels", "feat_dim")
    width = next((w for c in configs for n in names if isinstance(w := _read(c, n), int)), 80)
    positions = next((w for c in configs if isinstance(w := _read(c, "max_source_positions"), int)), 32)
    time = 2 * positions
    given = {**inputs, name: torch.randn((2, time, width) if last else (2, width, time))}
    return _asked_masks(given, model, time)


def _asked_masks(inputs: dict[str, Any], model: Any, time: int) -> dict[str, Any]:
    parameters = inspect.signature(model.forward).parameters
    for name in ("input_features_mask", "feature_attention_mask"):
        if name in parameters:
            inputs[name] = torch.ones(2, time, dtype=torch.long)
    return inputs


def _pictures(inputs: dict[str, Any], size: int) -> dict[str, Any] | None:
    if "pixel_values" not in inputs:
        return None
    return {**inputs, "pixel_values": torch.randn(2, inputs["pixel_values"].shape[1], size, size)}


def _frames(inputs: dict[str, Any], model: Any, error: Exception | None) -> dict[str, Any] | None:
    """A film instead of a picture."""
    if "pixel_values" not in inputs or "unpack" not in str(error):
        return None
    count = next((n for name in ("num_frames", "frames_per_clip") if isinstance(n := _read(model.config, name), int)), 4)
    return {**inputs, "pixel_values": torch.randn(2, count, *inputs["pixel_values"].shape[1:])}


def _without_pictures(inputs: dict[str, Any]) -> dict[str, Any] | None:
    return {k: v for k, v in inputs.items() if k != "pixel_values"} if "input_ids" in inputs else None


def _text_only(inputs: dict[str, Any], model: Any, error: Exception | None) -> dict[str, Any] | None:
    parameters = inspect.signature(model.forward).parameters
    kept = {k: v for k, v in inputs.items() if k in ("input_ids", "decoder_input_ids", "labels")}
    if "input_ids" not in kept:
        return None
    more = {
        "mm_token_type_ids": torch.zeros(2, 12, dtype=torch.long),
        "use_cache": False,
        "attention_mask": torch.ones(2, 12, dtype=torch.long),
    }
    return {**kept, **{name: value for name, value in more.items() if name in parameters}}


def _asked_for(inputs: dict[str, Any], model: Any, error: Exception | None) -> dict[str, Any] | None:
    """What a forward takes beside the usual: boxes, grids, queries, masks."""
    config = model.config
    parameters = inspect.signature(model.forward).parameters
    width = _read(config, "hidden_size") or 32
    patch = next((p for c in (config, getattr(config, "vision_config", config)) if isinstance(p := _read(c, "patch_size"), int)), 8)
    length = inputs["input_ids"].shape[1] if "input_ids" in inputs else 12
    known: dict[str, Any] = {
        "bbox": torch.tensor([1, 2, 30, 40]).expand(2, length, 4).clone(),
        "query_embeds": torch.randn(2, 4, width),
        "grid_thw": torch.tensor([[1, 4, 4]]),
        "inputs": torch.randint(3, 100, (2, 12)),
        "inputs_embeds": torch.randn(2, 12, width),
        "encoder_hidden_states": torch.randn(2, 6, width),
        "hidden_states": torch.randn(16, 6 * patch**2) if "grid_thw" in parameters else torch.randn(2, 12, width),
        "speaker_embeddings": torch.randn(2, 512),
        "pixel_values_videos": torch.randn(1, 4, 3, 32, 32),
        "lang_ids": torch.zeros(2, dtype=torch.long),
        "pixel_values": torch.randn(2, 3, 32, 32),
        "states": torch.randn(2, 5, _read(config, "state_dim") or 17),
        "actions": torch.randn(2, 5, _read(config, "act_dim") or 4),
        "rewards": torch.randn(2, 5, 1),
        "returns_to_go": torch.randn(2, 5, 1),
        "timesteps": torch.arange(5).expand(2, 5).clone(),
        "past_values": torch.randn(2, _read(config, "context_length") or 24, *_channels(config)),
        "decoder_input_ids": torch.randint(3, 100, (2, 12)),
    }
    required = {n for n, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD} - inputs.keys()
    wanted = required | {name for name in known if name in str(error)} | ({*OFFLINE} if "states" in parameters else set())
    if not wanted or not required <= known.keys():
        return None
    return {**inputs, **{name: known[name] for name in sorted(wanted) if name in parameters}}


def _channels(config: Any) -> tuple[int, ...]:
    channels = _read(config, "num_input_channels") or _read(config, "num_channels")
    return (channels,) if isinstance(channels, int) else ()


def _dummy(inputs: dict[str, Any], model: Any, error: Exception | None) -> dict[str, Any] | None:
    return dict(model.dummy_inputs)
