"""Attention, mixtures of experts, recurrence, memory: packages of one idea each over a row of vectors or tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoo.others import entries

Entry = tuple[str, Callable[[], Any]]

ROWS, TOKENS = torch.randn(2, 16, 32), torch.randint(1, 32, (2, 16))
LM = {"num_tokens": 32, "dim": 32, "depth": 2, "max_seq_len": 16, "heads": 2}


class First(nn.Module):
    """The named ones among what a module returns; the others are numbers and states."""

    def __init__(self, inner: nn.Module, *kept: int, **named: Any) -> None:
        super().__init__()
        self.inner, self.kept, self.named = inner, kept or (0,), named

    def forward(self, *args: Any) -> Any:
        out = self.inner(*args, **self.named)
        return tuple(out[i] for i in self.kept)


def linear_attention() -> Iterator[Entry]:
    """Attention that is not quadratic."""
    yield from entries("linformer", {
        "Linformer": lambda p: (p.Linformer(32, 16, 2, k=8, heads=2, dropout=0.1), (ROWS,)),
        "LinformerLM": lambda p: (p.LinformerLM(32, 32, 16, 2, k=8, heads=2, one_kv_head=True, share_kv=True), (TOKENS,)),
        "LinformerLM, reversible": lambda p: (p.LinformerLM(32, 32, 16, 2, k=8, heads=2, reversible=True), (TOKENS,)),
    }, "linformer")  # fmt: skip
    yield from entries("reformer_pytorch", {
        "LSHSelfAttention": lambda p: (p.LSHSelfAttention(dim=32, heads=2, bucket_size=4, n_hashes=2), (ROWS,)),
        "ReformerLM": lambda p: (p.ReformerLM(**LM, bucket_size=4, n_hashes=2), (TOKENS,)),
        "ReformerLM, causal": lambda p: (p.ReformerLM(**LM, bucket_size=4, n_hashes=2, causal=True, weight_tie=True, axial_position_emb=True,
                                         axial_position_shape=(4, 4)), (TOKENS,)),
        "ReformerLM, full": lambda p: (p.ReformerLM(**LM, bucket_size=4, full_attn_thres=16, ff_chunks=2), (TOKENS,)),
    }, "reformer")  # fmt: skip
    yield from entries("sinkhorn_transformer", {
        "SinkhornTransformerLM": lambda p: (p.SinkhornTransformerLM(**LM, bucket_size=4), (TOKENS,)),
        "SinkhornTransformerLM, causal": lambda p: (p.SinkhornTransformerLM(**LM, bucket_size=4, causal=True, reversible=True), (TOKENS,)),
        "SinkhornTransformerLM, sortcut": lambda p: (p.SinkhornTransformerLM(**LM, bucket_size=4, n_sortcut=1, n_local_attn_heads=1), (TOKENS,)),
    }, "sinkhorn_transformer")  # fmt: skip
    yield from entries("nystrom_attention", {
        "NystromAttention": lambda p: (p.NystromAttention(dim=32, dim_head=16, heads=2, num_landmarks=4), (ROWS,)),
        "Nystromformer": lambda p: (p.Nystromformer(dim=32, depth=2, dim_head=16, heads=2, num_landmarks=4), (ROWS,)),
    }, "nystrom_attention")  # fmt: skip
    yield from entries("h_transformer_1d", {
        "HTransformer1D": lambda p: (p.HTransformer1D(**LM, block_size=4), (TOKENS,)),
        "HTransformer1D, causal": lambda p: (p.HTransformer1D(**LM, block_size=4, causal=True, reversible=True, shift_tokens=True), (TOKENS,)),
    }, "h_transformer_1d")  # fmt: skip
    yield from entries("axial_attention", {
        "AxialAttention": lambda p: (p.AxialAttention(dim=8, dim_index=1, heads=2, num_dimensions=2), (torch.randn(1, 8, 6, 6),)),
        "AxialImageTransformer": lambda p: (p.AxialImageTransformer(dim=8, depth=2, heads=2, reversible=True, axial_pos_emb_shape=(6, 6)), (torch.randn(1, 8, 6, 6),)),
    }, "axial_attention")  # fmt: skip
    yield from entries("native_sparse_attention_pytorch", {
        "SparseAttention": lambda p: (p.SparseAttention(dim=32, dim_head=16, heads=2, sliding_window_size=2, compress_block_size=4, compress_block_sliding_stride=2,
                                      selection_block_size=4, num_selected_blocks=2), (ROWS,)),
    }, "native_sparse_attention")  # fmt: skip
    yield from entries("bidirectional_cross_attention", {
        "BidirectionalCrossAttention": lambda p: (p.BidirectionalCrossAttention(dim=32, heads=2, dim_head=16, context_dim=16, talking_heads=True), (ROWS, torch.randn(2, 6, 16))),
    }, "bidirectional_cross_attention")  # fmt: skip
    yield from entries("colt5_attention", {
        "ConditionalRoutedFeedForward": lambda p: (p.ConditionalRoutedFeedForward(32, num_heavy_tokens=4), (ROWS,)),
        "ConditionalRoutedAttention": lambda p: (p.ConditionalRoutedAttention(32, light_dim_head=16, light_heads=2, light_window_size=4, heavy_dim_head=16, heavy_heads=2,
                                                 num_heavy_tokens_q=4, num_heavy_tokens_kv=4), (ROWS,)),
    }, "colt5_attention")  # fmt: skip


def memory() -> Iterator[Entry]:
    """Recurrence, state spaces, memories, mixtures of experts."""
    yield from entries("mambapy.mamba", {
        "Mamba": lambda p: (p.Mamba(p.MambaConfig(d_model=16, n_layers=2, d_state=4)), (torch.randn(2, 8, 16),)),
        "Mamba, sequential": lambda p: (p.Mamba(p.MambaConfig(d_model=16, n_layers=2, d_state=4, pscan=False)), (torch.randn(2, 8, 16),)),
        "Mamba, inner norms": lambda p: (p.Mamba(p.MambaConfig(d_model=16, n_layers=1, d_state=4, inner_layernorms=True, conv_bias=False)), (torch.randn(2, 7, 16),)),
    }, "mambapy")  # fmt: skip
    yield from entries("minGRU_pytorch", {
        "minGRU": lambda p: (p.minGRU(32, expansion_factor=1.5), (ROWS,)),
    }, "minGRU")  # fmt: skip
    yield from entries("gateloop_transformer", {
        "Transformer": lambda p: (p.Transformer(dim=32, num_tokens=32, depth=2, dim_head=16, heads=2, use_gate_looped_attn=False), (TOKENS,)),
        "SimpleGateLoopLayer": lambda p: (p.SimpleGateLoopLayer(32, post_ln=True), (ROWS,)),
        "GateLoopedAttention": lambda p: (p.GateLoopedAttention(32, heads=2), (ROWS,)),
    }, "gateloop")  # fmt: skip
    yield from entries("xlstm", {
        "mLSTM": lambda p: (p.xLSTMBlockStack(p.xLSTMBlockStackConfig(mlstm_block=p.mLSTMBlockConfig(mlstm=p.mLSTMLayerConfig(conv1d_kernel_size=4, qkv_proj_blocksize=4,
                            num_heads=2)), context_length=16, num_blocks=2, embedding_dim=32)), (ROWS,)),
        "sLSTM": lambda p: (p.xLSTMBlockStack(p.xLSTMBlockStackConfig(slstm_block=p.sLSTMBlockConfig(slstm=p.sLSTMLayerConfig(backend="vanilla", num_heads=2,
                            conv1d_kernel_size=4), feedforward=p.FeedForwardConfig(proj_factor=1.3, act_fn="gelu")), context_length=16, num_blocks=1, embedding_dim=32,
                            slstm_at=[0])), (ROWS,)),
    }, "xlstm")  # fmt: skip
    yield from entries("titans_pytorch", {
        "NeuralMemory": lambda p: (First(p.NeuralMemory(dim=16, chunk_size=4)), (torch.randn(2, 16, 16),)),
        "NeuralMemory, momentum": lambda p: (First(p.NeuralMemory(dim=16, chunk_size=4, heads=2, dim_head=8, momentum=True, qk_rmsnorm=True)), (torch.randn(2, 16, 16),)),
        "MemoryAsContextTransformer": lambda p: (p.MemoryAsContextTransformer(num_tokens=32, dim=16, depth=2, segment_len=4, num_persist_mem_tokens=2, num_longterm_mem_tokens=2,
                                                 heads=2, dim_head=8, neural_memory_layers=(2,), use_flex_attn=False), {"x": TOKENS, "return_loss": True}),
    }, "titans")  # fmt: skip
    yield from entries("block_recurrent_transformer_pytorch", {
        "BlockRecurrentTransformer": lambda p: (First(p.BlockRecurrentTransformer(num_tokens=32, dim=32, depth=2, dim_head=16, heads=2, max_seq_len=16, block_width=8,
                                                num_state_vectors=8, recurrent_layers=(2,))), (TOKENS,)),
    }, "block_recurrent")  # fmt: skip
    yield from entries("recurrent_memory_transformer_pytorch", {
        "RecurrentMemoryTransformer": lambda p: (First(p.RecurrentMemoryTransformer(dim=32, num_tokens=32, depth=2, num_memory_tokens=4, seq_len=16, heads=2,
                                                                             dim_head=16)), (TOKENS,)),
    }, "recurrent_memory")  # fmt: skip
    yield from entries("hourglass_transformer_pytorch", {
        "HourglassTransformerLM": lambda p: (p.HourglassTransformerLM(num_tokens=32, dim=32, max_seq_len=16, shorten_factor=2, depth=(1, (1, 1, 1), 1), attn_resampling=True,
                                             updown_sample_type="linear", heads=2, dim_head=16, causal=True), (TOKENS,)),
    }, "hourglass")  # fmt: skip
    yield from entries("charformer_pytorch", {
        "GBST": lambda p: (First(p.GBST(num_tokens=32, dim=32, max_block_size=4, downsample_factor=4, score_consensus_attn=True)), (TOKENS,)),
    }, "charformer")  # fmt: skip
    yield from entries("soft_moe_pytorch", {
        "SoftMoE": lambda p: (p.SoftMoE(dim=32, seq_len=16, num_experts=4), (ROWS,)),
        "DynamicSlotsSoftMoE": lambda p: (p.DynamicSlotsSoftMoE(dim=32, num_experts=4, geglu=True), (ROWS,)),
    }, "soft_moe")  # fmt: skip
    yield from entries("st_moe_pytorch", {
        "MoE": lambda p: (First(p.MoE(dim=32, num_experts=4), 0, 1, 2, 3), (ROWS,)),
        "SparseMoEBlock": lambda p: (First(p.SparseMoEBlock(p.MoE(dim=32, num_experts=4, gating_top_n=2), add_ff_before=True), 0, 1), (ROWS,)),
    }, "st_moe")  # fmt: skip
    yield from entries("mixture_of_experts", {
        "MoE": lambda p: (First(p.MoE(dim=32, num_experts=4), 0, 1), (ROWS,)),
        "HeirarchicalMoE": lambda p: (First(p.HeirarchicalMoE(dim=32, num_experts=(2, 2)), 0, 1), (ROWS,)),
    }, "mixture_of_experts")  # fmt: skip
    yield from entries(
        "product_key_memory", {"PKM": lambda p: (p.PKM(dim=32, heads=2, num_keys=8, topk=4, dim_head=16), (ROWS,))}, "product_key_memory"
    )
    yield from entries("x_mlps_pytorch", {
        "ResidualNormedMLP": lambda p: (p.ResidualNormedMLP(dim=32, depth=4), (ROWS,)),
        "nFeedforwards": lambda p: (p.nFeedforwards(32, 2), (ROWS,)),
        "GroupedMLP": lambda p: (p.GroupedMLP(32, 16, 8, groups=2), (torch.randn(2, 2, 32),)),
        "Noisable": lambda p: (p.Noisable(p.MLP(32, 16, 8), noise_scale=0.1), (ROWS,)),
    }, "x_mlps")  # fmt: skip
    yield from entries(
        "conformer",
        {"Conformer": lambda p: (p.Conformer(dim=32, depth=2, dim_head=16, heads=2, conv_kernel_size=7, conv_dropout=0.1), (ROWS,))},
        "conformer",
    )
    yield from entries("g_mlp_pytorch", {
        "gMLP": lambda p: (p.gMLP(num_tokens=32, dim=32, depth=2, seq_len=16, causal=True, circulant_matrix=True, heads=2), (TOKENS,)),
        "gMLP, survival": lambda p: (p.gMLP(num_tokens=32, dim=32, depth=4, seq_len=16, attn_dim=8, prob_survival=0.5), (TOKENS,)),
        "gMLPVision": lambda p: (p.gMLPVision(image_size=16, patch_size=8, num_classes=5, dim=32, depth=2), (torch.randn(2, 3, 16, 16),)),
    }, "g_mlp")  # fmt: skip
    yield from entries("slot_attention", {
        "SlotAttention": lambda p: (p.SlotAttention(num_slots=3, dim=32, iters=2), (ROWS,)),
        "MultiHeadSlotAttention": lambda p: (p.MultiHeadSlotAttention(num_slots=3, dim=32, heads=2, iters=2), (ROWS,)),
        "AdaptiveSlotWrapper": lambda p: (First(p.AdaptiveSlotWrapper(p.MultiHeadSlotAttention(num_slots=3, dim=32, heads=2, iters=2)), 0, 1), (ROWS,)),
    }, "slot_attention")  # fmt: skip


FAMILIES: tuple[Callable[[], Iterator[Entry]], ...] = (linear_attention, memory)
