"""A real model with a real gradient fault: BigBird for masked language modelling (built from a configuration, no weights)."""

import torch
from transformers import BigBirdConfig, BigBirdForMaskedLM

config = BigBirdConfig(
    vocab_size=128,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
    attention_type="original_full",
)
model = BigBirdForMaskedLM(config)

ids = torch.randint(0, 128, (2, 16))
example_inputs = {"input_ids": ids, "labels": ids}
