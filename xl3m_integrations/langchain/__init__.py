"""XL3M for LangChain."""

from __future__ import annotations

from xl3m_integrations.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise MissingExtraError.of("xl3m_integrations.langchain", "langchain") from error

from xl3m_integrations.langchain.chat_model import ChatXL3M
from xl3m_integrations.langchain.compressor import XL3MCompressor
from xl3m_integrations.langchain.llm import XL3MLLM
from xl3m_integrations.langchain.retriever import XL3MRetriever

__all__ = ["XL3MLLM", "ChatXL3M", "XL3MCompressor", "XL3MRetriever"]
