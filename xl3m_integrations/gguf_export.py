"""A Llama model with a byte-level tokenizer -> one GGUF file, which llama.cpp and its servers read.

llama.cpp rotates neighbouring numbers where transformers rotates the two halves of a head: the rows of `q_proj` and
`k_proj`, weights and biases, change places accordingly. It cuts words by a fixed set of rules, of which the tokenizer's
must be one. The bundled tokenizer's own rule is that of GPT-2 but for two things: digits stand alone, which changes
nothing, since no merge joins two; and 'S, 'T, 'RE, … after an apostrophe are cut off in capitals too, so that in
llama.cpp such a place may be cut into other tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xl3m_integrations.errors import MissingExtraError, ModelLoadError
from xl3m_integrations.writing import replacing

Array = NDArray[np.float32]
_LIKE_GPT2 = r"'(?i:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def export_gguf(name: str | Path, path: str | Path) -> None:
    """Write a model as one GGUF file, in float32.

    Args:
        name: Hub id or folder of a Llama model (`LlamaForCausalLM`) with a byte-level BPE tokenizer.
        path: The file; what it held is replaced once the new one is whole.

    Raises:
        MissingExtraError: The extra `gguf` is not installed.
        ModelLoadError: There is no such model, or it is not of this kind.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError.of("xl3m export-gguf", "gguf") from error
    from xl3m_integrations.backends.loading import load

    model, tokenizer = load(name, device="cpu", dtype="float32")
    rotary = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type")
    if type(model).__name__ != "LlamaForCausalLM" or rotary != "default":
        raise ModelLoadError(
            f"{str(name)!r} is a {type(model).__name__}; export-gguf writes LlamaForCausalLM with plain rotary "
            "positions alone. llama.cpp's convert_hf_to_gguf.py knows the others."
        )
    with replacing(Path(path)) as part:
        writer = gguf.GGUFWriter(part, "llama")
        _add_configuration(writer, model.config, Path(str(name)).name)
        _add_tokenizer(writer, gguf.TokenType, tokenizer, model.config.vocab_size)
        for tensor, values in _tensors(model):
            writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add_configuration(writer: Any, config: Any, name: str) -> None:
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, kinds: Any, tokenizer: Any, vocabulary: int) -> None:
    saved = json.loads(tokenizer.backend_tokenizer.to_str())
    _require_gpt2_words(saved)
    names = {number: token for token, number in saved["model"]["vocab"].items()}
    added = {token["id"]: token["content"] for token in saved["added_tokens"]}
    names |= added
    controls = {number for number in added if names[number] in tokenizer.all_special_tokens}
    controls |= {token["id"] for token in saved["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([names.get(number, f"[UNUSED{number}]") for number in range(vocabulary)])
    writer.add_token_types(
        [
            kinds.CONTROL if number in controls else kinds.NORMAL if number in names else kinds.UNUSED
            for number in range(vocabulary)
        ]
    )
    writer.add_token_merges([" ".join(merge) for merge in saved["model"]["merges"]])
    for token, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if token is not None:
            add(token)
    leads = tokenizer.backend_tokenizer.encode("").ids
    writer.add_add_bos_token(leads[:1] == [tokenizer.bos_token_id])
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _require_gpt2_words(saved: dict[str, Any]) -> None:
    """Refuse a tokenizer that llama.cpp would not imitate with its rules for GPT-2."""
    parts = saved["pre_tokenizer"] or {}
    parts = parts.get("pretokenizers", [parts])
    split = next((part["pattern"].get("Regex") for part in parts if part.get("type") == "Split"), None)
    whole = any(part.get("type") == "ByteLevel" and part.get("use_regex", True) for part in parts)
    bytes_alone = any(part.get("type") == "ByteLevel" for part in parts) and split == _LIKE_GPT2
    if saved["model"]["type"] != "BPE" or not (bytes_alone or (whole and split is None)):
        raise ModelLoadError(
            "export-gguf knows byte-level BPE tokenizers that cut words as GPT-2 does, which this one does not; "
            "llama.cpp's convert_hf_to_gguf.py knows more."
        )


def _tensors(model: Any) -> Iterator[tuple[str, Array]]:
    config = model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        module, _, kind = name.rpartition(".")
        values = tensor.numpy()
        if module in _WHOLE:
            yield f"{_WHOLE[module]}.{kind}", values
            continue
        _, _, layer, inner = module.split(".", 3)
        to = _LAYER[inner]
        yield f"blk.{layer}.{to}.{kind}", _neighbours(values, heads[to]) if to in heads else values


def _neighbours(values: Array, heads: int) -> Array:
    """Rows of rotated halves -> rows of rotated neighbours, head by head; of a weight or a bias."""
    return np.ascontiguousarray(
        values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    )
