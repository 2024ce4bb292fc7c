"""Models of transformers, built from small configurations without weights: eager step == step of the regenerated graph.

Where a program asks for data (experts by `nonzero`, CTC by `masked_select`) fake values must be refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

IDS = torch.randint(5, 90, (2, 12), generator=torch.Generator().manual_seed(1))
LONG = torch.randint(5, 90, (1, 64), generator=torch.Generator().manual_seed(1))
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TEXT = {"input_ids": IDS, "labels": IDS.clone(), "attention_mask": torch.ones_like(IDS)}
PICTURE = {"pixel_values": PIXELS, "labels": torch.tensor([0, 1])}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
WORDS = {"vocab_size": 99, **SMALL}
PAIR = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}


def _build(name: str, config: str, **values: Any) -> Callable[[], torch.nn.Module]:
    def build() -> torch.nn.Module:
        model: torch.nn.Module = getattr(transformers, name)(getattr(transformers, config)(**values))
        return model.train()

    return build


def _clip() -> torch.nn.Module:
    text = {**WORDS, "max_position_embeddings": 32, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 98}
    vision = {**SMALL, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).train()


# (build, inputs, parameters without a gradient, whether fake values do)
MODELS: dict[str, tuple[Callable[[], torch.nn.Module], dict[str, Any], int, bool]] = {
    "llama": (_build("LlamaForCausalLM", "LlamaConfig", **WORDS, num_key_value_heads=2), TEXT, 0, True),
    "gpt2": (
        _build("GPT2LMHeadModel", "GPT2Config", vocab_size=99, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2),
        TEXT,
        0,
        True,
    ),
    "bert": (_build("BertForMaskedLM", "BertConfig", **WORDS), TEXT, 0, True),
    "bigbird": (
        _build("BigBirdForMaskedLM", "BigBirdConfig", **WORDS, attention_type="original_full", max_position_embeddings=64),
        TEXT,
        2,
        True,
    ),
    "bigbird-sparse": (
        _build("BigBirdForMaskedLM", "BigBirdConfig", **WORDS, block_size=4, num_random_blocks=2, max_position_embeddings=64),
        {"input_ids": LONG, "labels": LONG.clone()},
        2,
        True,
    ),
    "bart-causal": (_build("BartForCausalLM", "BartConfig", **PAIR, max_position_embeddings=64), TEXT, 20, True),
    "t5": (
        _build(
            "T5ForConditionalGeneration",
            "T5Config",
            vocab_size=99,
            d_model=32,
            d_kv=8,
            d_ff=37,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
        ),
        TEXT,
        0,
        True,
    ),
    "mixtral": (
        _build(
            "MixtralForCausalLM",
            "MixtralConfig",
            **WORDS,
            num_key_value_heads=2,
            num_local_experts=4,
            experts_implementation="eager",
        ),
        TEXT,
        0,
        False,
    ),
    "mixtral-grouped": (
        _build(
            "MixtralForCausalLM",
            "MixtralConfig",
            **{**WORDS, "intermediate_size": 64},
            num_key_value_heads=2,
            num_local_experts=4,
            experts_implementation="grouped_mm",
        ),
        TEXT,
        0,
        True,
    ),
    "mamba": (
        _build("MambaForCausalLM", "MambaConfig", vocab_size=99, hidden_size=32, num_hidden_layers=2, state_size=4),
        {"input_ids": IDS, "labels": IDS.clone()},
        0,
        True,
    ),
    "vit": (_build("ViTForImageClassification", "ViTConfig", **SMALL, image_size=32, patch_size=8), PICTURE, 0, True),
    "swin": (
        _build(
            "SwinForImageClassification",
            "SwinConfig",
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
        ),
        PICTURE,
        0,
        True,
    ),
    "clip": (_clip, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "pixel_values": PIXELS, "return_loss": True}, 0, True),
    "whisper": (
        _build(
            "WhisperForConditionalGeneration",
            "WhisperConfig",
            **PAIR,
            **SPECIAL,
            num_mel_bins=8,
            max_source_positions=30,
            max_target_positions=32,
        ),
        {"input_features": torch.randn(2, 8, 60), "labels": IDS},
        1,
        True,
    ),
    "wav2vec2": (
        _build(
            "Wav2Vec2ForCTC",
            "Wav2Vec2Config",
            **SMALL,
            vocab_size=32,
            conv_dim=(16, 16),
            conv_stride=(5, 2),
            conv_kernel=(10, 3),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            mask_time_length=2,
            layerdrop=0.0,
        ),
        {"input_values": torch.randn(2, 400), "labels": torch.randint(1, 30, (2, 5))},
        0,
        False,
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_regenerated_model_is_the_model(name: str, same_as_eager: Callable[..., Any]) -> None:
    build, inputs, starved, fake = MODELS[name]
    runs = same_as_eager(build(), inputs, fake=fake)
    assert [state for state in runs["real"].gradients.values()].count("none") == starved


def test_bart_as_causal_lm_starves_its_cross_attention(same_as_eager: Callable[..., Any]) -> None:
    build, inputs, _, _ = MODELS["bart-causal"]
    gradients = same_as_eager(build(), inputs)["real"].gradients
    starved = [name for name, state in gradients.items() if state == "none"]
    assert all("encoder_attn" in name for name in starved)


def test_a_faulty_fake_kernel_asks_for_values(caplog: pytest.LogCaptureFixture) -> None:
    from fxgrad.program.program import program
    from fxgrad.trace.experiment import Experiment
    from fxgrad.trace.recorder import NeedsValue
    from fxgrad.trace.run import run

    def experts(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch._grouped_mm(x, weight, offs=torch.tensor([2, 4], dtype=torch.int32))  # in a dtype that its fake kernel does not take

    inputs = (torch.ones(4, 8, dtype=torch.float64), torch.ones(2, 8, 8, dtype=torch.float64))
    with pytest.raises(NeedsValue, match="grouped_mm"):
        run(program(experts, inputs, None), Experiment("fake"))
    assert caplog.records == []
