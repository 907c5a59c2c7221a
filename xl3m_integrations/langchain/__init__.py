"""XL3M for LangChain."""

from __future__ import annotations

from xl3m_integrations.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise MissingExtraError.of("xl3m_integrations.langchain", "langchain") from error

from xl3m_integrations.langchain.compressor import XL3MCompressor

__all__ = ["XL3MCompressor"]
