"""XL3M for LlamaIndex."""

from __future__ import annotations

from xl3m_integrations.errors import MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise MissingExtraError.of("xl3m_integrations.llama_index", "llama-index") from error

from xl3m_integrations.llama_index.llm import XL3MLLM
from xl3m_integrations.llama_index.postprocessor import XL3MPostprocessor
from xl3m_integrations.llama_index.retriever import XL3MRetriever

__all__ = ["XL3MLLM", "XL3MPostprocessor", "XL3MRetriever"]
