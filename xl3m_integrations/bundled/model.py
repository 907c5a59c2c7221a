"""The bundled model: a small Llama whose first layers are initialised to copy.

A model this small does not find out how to copy within minutes of training. So layer 0 starts with heads that look one
and two tokens back, whatever stands there, and layers 1 and 2 start with heads that look for places whose preceding
token equals the current one: together an induction circuit. All of it stays trainable.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

PREVIOUS_OFFSETS = (1, 1, 2)  # layer 0, one head each: how many tokens back it looks
MATCH_GAINS = {1: 1.5, 2: 1.0}  # layer -> gain of its content-match heads
PEAK_PAIRS = 7  # rotary pairs that carry a previous-token head's position
PEAK_SQUARED = 20.0  # squared length of the constant key on each of those pairs
WRITE_SCALE = 0.1


def llama_config(
    vocab_size: int,
    window: int,
    bos: int,
    eos: int,
    pad: int,
    hidden: int = 128,
    intermediate: int = 384,
    layers: int = 4,
) -> LlamaConfig:
    """The architecture: heads of size 32, tied embeddings, attention biases for the initial heads."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        max_position_embeddings=window,
        rope_parameters={"rope_type": "default", "rope_theta": 200_000.0},
        attention_bias=True,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )


def build_model(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """A freshly initialised model in float32, copy heads in place."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.08)
    for layer in model.model.layers:
        for name in ("o_proj", "q_proj", "k_proj", "v_proj"):
            torch.nn.init.zeros_(getattr(layer.self_attn, name).bias)
    with torch.no_grad():
        _add_copy_heads(model, config)
    return model


def _add_copy_heads(model: LlamaForCausalLM, config: LlamaConfig) -> None:
    size = config.hidden_size // config.num_attention_heads
    basis = torch.linalg.qr(torch.randn(config.hidden_size, config.hidden_size)).Q.T  # rows are orthonormal
    reads = basis[:size]  # what a previous-token head reads of a token
    writes = [basis[size * (1 + k) : size * (2 + k)] for k in range(len(PREVIOUS_OFFSETS))]
    for head, offset in enumerate(PREVIOUS_OFFSETS):
        # Both heads at offset 1 read and write the same blocks, which doubles that signal.
        block = writes[PREVIOUS_OFFSETS.index(offset)]
        _previous_token_head(model.model.layers[0].self_attn, head, size, offset, reads, block, config)
    for layer, gain in MATCH_GAINS.items():
        attention = model.model.layers[layer].self_attn
        for head, offset in enumerate(PREVIOUS_OFFSETS):
            block = writes[PREVIOUS_OFFSETS.index(offset)]
            copies = torch.linalg.qr(torch.randn(config.hidden_size, size)).Q.T
            _content_match_head(attention, head, size, gain, reads, block, copies)


def _previous_token_head(
    attention: Any,
    head: int,
    size: int,
    offset: int,
    reads: torch.Tensor,
    writes: torch.Tensor,
    config: LlamaConfig,
) -> None:
    """Constant keys, and queries that are the same constant rotated back by `offset` positions."""
    rows = slice(head * size, (head + 1) * size)
    half = size // 2
    theta = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    length = math.sqrt(PEAK_SQUARED)
    key, query = torch.zeros(size), torch.zeros(size)
    key[:PEAK_PAIRS] = length
    query[:PEAK_PAIRS] = length * torch.cos(offset * theta[:PEAK_PAIRS])
    query[half : half + PEAK_PAIRS] = -length * torch.sin(offset * theta[:PEAK_PAIRS])
    attention.k_proj.weight[rows] = 0
    attention.q_proj.weight[rows] = 0
    attention.k_proj.bias[rows] = key
    attention.q_proj.bias[rows] = query
    attention.v_proj.weight[rows] = reads
    attention.o_proj.weight[:, rows] = WRITE_SCALE * writes.T


def _content_match_head(
    attention: Any,
    head: int,
    size: int,
    gain: float,
    reads: torch.Tensor,
    writes: torch.Tensor,
    copies: torch.Tensor,
) -> None:
    """Queries of the current token against keys of what stood before each position, on slow rotary pairs only."""
    half, quarter = size // 2, size // 4
    rows = slice(head * size, (head + 1) * size)
    slow = torch.cat([torch.arange(quarter, half), torch.arange(half + quarter, size)])
    query, key = torch.zeros(size, reads.shape[1]), torch.zeros(size, reads.shape[1])
    query[slow] = gain * reads[: len(slow)]
    key[slow] = gain * writes[: len(slow)]
    attention.q_proj.weight[rows] = query
    attention.k_proj.weight[rows] = key
    attention.v_proj.weight[rows] = copies
    attention.o_proj.weight[:, rows] = WRITE_SCALE * copies.T
