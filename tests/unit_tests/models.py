"""Tiny models of real architectures, made from configurations in code, and a small tokenizer: nothing is downloaded.

The weights are random and wide, so that logits differ a lot from place to place and equal results mean something.
"""

from __future__ import annotations

import itertools
import random
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, processors
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from xl3m_integrations import XL3M, Selection
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.bundled import corpus
from xl3m_integrations.bundled.tokenizer import BOS, EOS, PAD, train_tokenizer

WINDOW = 256
VOCABULARY = 600
HIDDEN = 32
QUESTION = "What is the special magic number for the harbour?"
MEASURES = ("entropy", "question_likelihood", "answer_entropy", "blend")

_COMMON = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": WINDOW}
_GATED = {**_COMMON, "intermediate_size": 48, "num_key_value_heads": 2}

ARCHITECTURES: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, _GATED),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {**_GATED, "tie_word_embeddings": True}),
    "mistral": (MistralConfig, MistralForCausalLM, {**_GATED, "sliding_window": 24}),  # shorter than the rows read
    "gpt2": (GPT2Config, GPT2LMHeadModel, {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": WINDOW}),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM, {**_COMMON, "intermediate_size": 64}),
    "gemma": (GemmaConfig, GemmaForCausalLM, {**_GATED, "head_dim": 8}),
    "phi": (PhiConfig, PhiForCausalLM, {**_COMMON, "intermediate_size": 64}),
}


def text_of(characters: int, seed: int = 0) -> str:
    """Generated English prose with facts in it."""
    rng = random.Random(seed)
    needles = [(rng.random(), corpus.magic_fact(rng))]
    return "".join(corpus.stream_document(rng, needles, characters))[:characters]


TEXT = text_of(3_000, seed=1)


@cache
def _trained(vocabulary: int) -> str:
    texts = [text_of(8_000, seed) for seed in range(4)]
    return train_tokenizer(texts, vocabulary, WINDOW).backend_tokenizer.to_str()


def make_tokenizer(
    *, vocabulary: int = VOCABULARY, bos: bool = True, eos: bool = True, pad: bool = True, chat: str | None = None
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of one's own, with or without each special token; `bos` is also put first."""
    backend = Tokenizer.from_str(_trained(vocabulary))
    if not bos:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    specials = {"bos_token": BOS if bos else None, "eos_token": EOS if eos else None, "pad_token": PAD if pad else None}
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in specials.items() if token is not None},
    )
    made.chat_template = chat
    return made


def make_model(architecture: str = "llama", *, seed: int = 0, vocabulary: int = VOCABULARY, **changes: Any) -> Any:
    """A model of one's own, in float32."""
    config_class, model_class, settings = ARCHITECTURES[architecture]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = model_class(config_class(vocab_size=vocabulary, **ids, **(settings | changes)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model.float().eval()


DEPTH = 3


@cache
def deep_model(architecture: str = "llama") -> Any:
    """One of `DEPTH` layers, so that some can be left out."""
    return make_model(architecture, **{"n_layer" if architecture == "gpt2" else "num_hidden_layers": DEPTH})


def deep_engine(architecture: str = "llama", **settings: Any) -> XL3M:
    """An engine on it."""
    return XL3M.from_pretrained(model=deep_model(architecture), tokenizer=shared_tokenizer(), **settings)


def final_norm(model: Any) -> torch.nn.Module:
    """The norm behind its last layer."""
    names = ("norm", "ln_f", "final_layer_norm", "final_layernorm")  # what the architectures of the suite call it
    (norm,) = (module for name, module in model.base_model.named_children() if name in names)
    return norm


EVIDENCE = 1e-4  # nats, of what scores are made from, in float32
ROUNDING = 1e-4  # of scores from float32
TIE = 1e-5  # scores that differ by less may change places


@cache
def shared_model(architecture: str = "llama") -> Any:
    """The same model for all tests that leave it as it is."""
    return make_model(architecture)


@cache
def shared_tokenizer() -> PreTrainedTokenizerFast:
    """The same tokenizer for all tests that leave it as it is."""
    return make_tokenizer()


def plain_ids(text: str) -> list[int]:
    """The ids of `text` in the shared tokenizer, with nothing put before or after."""
    return shared_tokenizer()(text, add_special_tokens=False).input_ids


def make_backend(architecture: str = "llama", **settings: Any) -> TransformersBackend:
    """A backend of one's own on the shared model and tokenizer."""
    return TransformersBackend(shared_model(architecture), shared_tokenizer(), **settings)


def assert_same(found: Selection, expected: Selection) -> None:
    """Two selections of one question: evidence, scores but for rounding, the ranking of scores that differ by more."""
    assert found.scores == pytest.approx(expected.scores, abs=ROUNDING)
    assert [(s.index, s.start, s.end, s.text) for s in found.segments] == [
        (s.index, s.start, s.end, s.text) for s in expected.segments
    ]
    assert found.table is not None and expected.table is not None
    assert found.table.evidence.keys() == expected.table.evidence.keys()
    for name, column in expected.table.evidence.items():
        assert list(found.table.evidence[name]) == pytest.approx(list(column), abs=EVIDENCE, nan_ok=True)
    assert found.table.again.keys() == expected.table.again.keys()
    for index, seen in expected.table.again.items():
        both = seen.keys() & found.table.again[index].keys()
        for name in both | {"regret"}:
            assert found.table.again[index][name] == pytest.approx(seen[name], abs=EVIDENCE)
    ranked = sorted(range(len(found.scores)), key=lambda index: found.table.ranks[index])
    scores = [expected.scores[index] for index in ranked]
    assert all(better >= worse - TIE for better, worse in itertools.pairwise(scores))
    assert (found.question, found.tokens, found.characters) == (
        expected.question,
        expected.tokens,
        expected.characters,
    )
