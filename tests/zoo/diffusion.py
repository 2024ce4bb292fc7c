"""Models of diffusers, in small configurations."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.zoo.vision import have, seeded, torchvision_models

Entry = tuple[str, Callable[[], Any]]


def diffusers() -> Iterator[Entry]:
    """U-Nets, transformers and autoencoders."""
    if not have("diffusers"):
        return
    torchvision_models()
    library = importlib.import_module("diffusers")
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    conditioned = {**blocks, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
                   "cross_attention_dim": 16, "attention_head_dim": 4, "sample_size": 16}  # fmt: skip
    coder = {**blocks, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}
    latent, film, picture = torch.randn(2, 4, 16, 16), torch.randn(1, 4, 4, 8, 8), torch.randn(2, 3, 16, 16)
    text, pooled, time = torch.randn(2, 6, 16), torch.randn(2, 16), torch.tensor([3, 7])
    noisy = {"sample": latent, "timestep": time, "encoder_hidden_states": text}
    hidden = {"hidden_states": latent, "timestep": time, "encoder_hidden_states": text}
    rows = {"hidden_states": torch.randn(2, 16, 16), "timestep": time.float(), "encoder_hidden_states": text}
    video = {"hidden_states": film, "timestep": time[:1], "encoder_hidden_states": text[:1]}
    table: dict[str, tuple[str, dict[str, Any], Any]] = {
        "UNet2DModel": ("UNet2DModel", {**blocks, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "attention_head_dim": 4,
                                        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "sample_size": 16}, (picture, time)),
        "UNet2DModel, class": ("UNet2DModel", {**blocks, "down_block_types": ("DownBlock2D", "DownBlock2D"), "num_class_embeds": 4,
                               "up_block_types": ("UpBlock2D", "UpBlock2D")}, (picture, time, torch.tensor([0, 2]))),
        "UNet2DConditionModel": ("UNet2DConditionModel", conditioned, noisy),
        "UNet2DConditionModel, linear": ("UNet2DConditionModel", {**conditioned, "use_linear_projection": True, "dropout": 0.1}, noisy),
        "UNet1DModel": ("UNet1DModel", {"sample_size": 256, "in_channels": 2, "extra_in_channels": 16, "block_out_channels": (8, 8, 16)},
                        (torch.randn(2, 2, 256), time)),
        "UNet3DConditionModel": ("UNet3DConditionModel", {**blocks, "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"), "sample_size": 8,
                                 "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"), "cross_attention_dim": 16, "attention_head_dim": 4},
                                 {"sample": film, "timestep": time[:1], "encoder_hidden_states": text[:1]}),
        "UNetMotionModel": ("UNetMotionModel", {**blocks, "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"), "sample_size": 8,
                            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"), "cross_attention_dim": 16, "num_attention_heads": 2,
                            "motion_num_attention_heads": 2, "motion_max_seq_length": 8}, {"sample": film, "timestep": time[:1], "encoder_hidden_states": text[:1]}),
        "UNetSpatioTemporalConditionModel": ("UNetSpatioTemporalConditionModel", {
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"), "block_out_channels": (32, 32),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "layers_per_block": 1, "cross_attention_dim": 16,
            "num_attention_heads": 2, "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24},
            {"sample": torch.randn(1, 2, 8, 8, 8), "timestep": time[:1], "encoder_hidden_states": text[:1], "added_time_ids": torch.randn(1, 3)}),
        "ControlNetModel": ("ControlNetModel", {k: v for k, v in conditioned.items() if k not in ("up_block_types", "sample_size")}
                            | {"conditioning_embedding_out_channels": (4, 8)}, {**noisy, "controlnet_cond": torch.randn(2, 3, 32, 32)}),
        "AutoencoderKL": ("AutoencoderKL", coder, (picture,)),
        "AutoencoderKL, posterior": ("AutoencoderKL", coder, {"sample": picture, "sample_posterior": True}),
        "AutoencoderTiny": ("AutoencoderTiny", {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8),
                            "num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}, (picture,)),
        "AutoencoderDC": ("AutoencoderDC", {"latent_channels": 4, "attention_head_dim": 4, "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
                          "decoder_block_types": ("ResBlock", "EfficientViTBlock"), "encoder_block_out_channels": (8, 8),
                          "decoder_block_out_channels": (8, 8), "encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1),
                          "encoder_qkv_multiscales": ((), (5,)), "decoder_qkv_multiscales": ((), (5,)), "encoder_out_shortcut": False,
                          "decoder_in_shortcut": False}, (picture,)),
        "AutoencoderOobleck": ("AutoencoderOobleck", {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "channel_multiples": [1, 2],
                               "decoder_channels": 8, "decoder_input_channels": 4}, (torch.randn(1, 2, 64),)),
        "AutoencoderKLTemporalDecoder": ("AutoencoderKLTemporalDecoder", {"block_out_channels": (32, 32), "down_block_types":
                                         ("DownEncoderBlock2D",) * 2}, {"sample": picture, "num_frames": 2}),
        "AutoencoderKLCogVideoX": ("AutoencoderKLCogVideoX", {"down_block_types": ("CogVideoXDownBlock3D",) * 2, "block_out_channels": (8, 8),
                                   "up_block_types": ("CogVideoXUpBlock3D",) * 2, "layers_per_block": 1, "norm_num_groups": 2,
                                   "latent_channels": 4, "temporal_compression_ratio": 2}, (torch.randn(1, 3, 5, 16, 16),)),
        "AutoencoderKLMagvit": ("AutoencoderKLMagvit", {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 2,
                                "latent_channels": 4, "down_block_types": ["SpatialDownBlock3D"] * 2, "up_block_types": ["SpatialUpBlock3D"] * 2},
                                (torch.randn(1, 3, 1, 16, 16),)),
        "AutoencoderKLWan": ("AutoencoderKLWan", {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}, (torch.randn(1, 3, 5, 16, 16),)),
        "VQModel": ("VQModel", {**coder, "num_vq_embeddings": 16, "latent_channels": 3}, (picture,)),
        "DiTTransformer2DModel": ("DiTTransformer2DModel", {**heads, "sample_size": 16, "num_embeds_ada_norm": 8, "norm_num_groups": 4},
                                  {"hidden_states": latent, "timestep": time, "class_labels": torch.tensor([0, 5])}),
        "PixArtTransformer2DModel": ("PixArtTransformer2DModel", {**heads, "sample_size": 16, "cross_attention_dim": 16, "caption_channels": 16,
                                     "use_additional_conditions": False}, hidden),
        "SD3Transformer2DModel": ("SD3Transformer2DModel", {**heads, "sample_size": 16, "in_channels": 4, "joint_attention_dim": 16,
                                  "caption_projection_dim": 16, "pooled_projection_dim": 16, "out_channels": 4},
                                  {**hidden, "pooled_projections": pooled}),
        "FluxTransformer2DModel": ("FluxTransformer2DModel", {**heads, "in_channels": 16, "num_single_layers": 1, "joint_attention_dim": 16,
                                   "pooled_projection_dim": 16, "axes_dims_rope": (4, 2, 2)},
                                   {**rows, "pooled_projections": pooled, "img_ids": torch.rand(16, 3), "txt_ids": torch.rand(6, 3)}),
        "ChromaTransformer2DModel": ("ChromaTransformer2DModel", {**heads, "in_channels": 16, "num_single_layers": 1, "joint_attention_dim": 16,
                                     "axes_dims_rope": (4, 2, 2), "approximator_num_channels": 8, "approximator_hidden_dim": 16,
                                     "approximator_layers": 1}, {**rows, "img_ids": torch.rand(16, 3), "txt_ids": torch.rand(6, 3)}),
        "Transformer2DModel": ("Transformer2DModel", {**heads, "in_channels": 4, "norm_num_groups": 4, "cross_attention_dim": 16},
                               {"hidden_states": latent, "encoder_hidden_states": text}),
        "PriorTransformer": ("PriorTransformer", {**heads, "embedding_dim": 16, "num_embeddings": 6, "additional_embeddings": 4},
                             {"hidden_states": pooled, "timestep": 3, "proj_embedding": pooled, "encoder_hidden_states": text}),
        "AuraFlowTransformer2DModel": ("AuraFlowTransformer2DModel", {"sample_size": 16, "num_mmdit_layers": 1, "num_single_dit_layers": 1,
                                       "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 16, "caption_projection_dim": 16,
                                       "pos_embed_max_size": 64}, hidden),
        "CogView3PlusTransformer2DModel": ("CogView3PlusTransformer2DModel", {**heads, "in_channels": 4, "out_channels": 4, "text_embed_dim": 16,
                                           "time_embed_dim": 8, "condition_dim": 4, "pos_embed_max_size": 8, "sample_size": 16},
                                           {**hidden, "original_size": torch.rand(2, 2), "target_size": torch.rand(2, 2), "crop_coords": torch.rand(2, 2)}),
        "CogVideoXTransformer3DModel": ("CogVideoXTransformer3DModel", {**heads, "in_channels": 4, "out_channels": 4, "time_embed_dim": 4,
                                        "text_embed_dim": 16, "sample_width": 8, "sample_height": 8, "sample_frames": 13, "max_text_seq_length": 6},
                                        {"hidden_states": torch.randn(1, 4, 4, 8, 8), "timestep": time[:1], "encoder_hidden_states": text[:1]}),
        "LTXVideoTransformer3DModel": ("LTXVideoTransformer3DModel", {**heads, "in_channels": 16, "out_channels": 16, "cross_attention_dim": 16,
                                       "caption_channels": 16}, {**rows, "encoder_attention_mask": torch.ones(2, 6).bool(), "num_frames": 1,
                                                                 "height": 4, "width": 4}),
        "WanTransformer3DModel": ("WanTransformer3DModel", {"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4,
                                  "text_dim": 16, "freq_dim": 8, "ffn_dim": 16, "num_layers": 2, "rope_max_seq_len": 32}, video),
        "LatteTransformer3DModel": ("LatteTransformer3DModel", {**heads, "in_channels": 4, "out_channels": 4, "sample_size": 8, "patch_size": 2,
                                    "cross_attention_dim": 16, "caption_channels": 16, "norm_type": "ada_norm_single",
                                    "norm_elementwise_affine": False, "video_length": 4}, video),
        "SanaTransformer2DModel": ("SanaTransformer2DModel", {**heads, "in_channels": 4, "out_channels": 4, "num_cross_attention_heads": 2,
                                   "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 16, "sample_size": 16}, hidden),
        "HunyuanDiT2DModel": ("HunyuanDiT2DModel", {"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "patch_size": 2,
                              "sample_size": 16, "hidden_size": 16, "cross_attention_dim": 16, "cross_attention_dim_t5": 16, "text_len": 6,
                              "text_len_t5": 6, "pooled_projection_dim": 8, "use_style_cond_and_image_meta_size": False, "activation_fn": "gelu-approximate"},
                              {**hidden, "text_embedding_mask": torch.ones(2, 6), "encoder_hidden_states_t5": text,
                               "text_embedding_mask_t5": torch.ones(2, 6), "image_meta_size": None, "style": None,
                               "image_rotary_emb": [torch.randn(64, 8), torch.randn(64, 8)]}),
        "StableAudioDiTModel": ("StableAudioDiTModel", {"sample_size": 4, "in_channels": 4, "num_layers": 2, "attention_head_dim": 4,
                                "num_attention_heads": 2, "num_key_value_attention_heads": 2, "out_channels": 4, "cross_attention_dim": 4,
                                "time_proj_dim": 8, "global_states_input_dim": 8, "cross_attention_input_dim": 16},
                                {"hidden_states": torch.randn(2, 4, 4), "timestep": time.float(), "encoder_hidden_states": text,
                                 "global_hidden_states": torch.randn(2, 1, 8), "rotary_embedding": (torch.rand(5, 2), torch.rand(5, 2))}),
    }  # fmt: skip
    for name, (cls, options, inputs) in table.items():
        yield f"diffusers/{name}", seeded(_builder(library, cls, options, inputs))


def _builder(library: Any, cls: str, options: dict[str, Any], inputs: Any) -> Callable[[], Any]:
    return lambda: (getattr(library, cls)(**options), inputs)
