"""A retriever over texts in memory: no index, no embeddings, a local model reads them all for every question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field, PrivateAttr, model_validator
from typing_extensions import Self

from xl3m_integrations.adapting import STRICT, EngineFields, HeldIndex
from xl3m_integrations.choice import Choice
from xl3m_integrations.engine import CACHE_BYTES
from xl3m_integrations.errors import InputError
from xl3m_integrations.index import cache_of
from xl3m_integrations.langchain.compressor import XL3MCompressor
from xl3m_integrations.types import Selection


class XL3MRetriever(EngineFields, BaseRetriever):
    """Finds the passages of a collection after which a local model is most certain of the answer.

    Setup:
        .. code-block:: bash

            pip install "xl3m-integrations[langchain]"

    Key init args:
        documents: list[Document]
            The collection; documents may be of any length.
        k: int
            How many passages to return.
        xl3m, model, model_options, measure, hops, prefilter:
            See `XL3MCompressor`.
        top_k: int | None
            Segments that passages are made of; None takes twice `k`, since neighbours that overlap become one passage.
        token_budget: int | None
            Instead of `top_k`: as many segments as fit so many tokens of the scoring model.
        cache_bytes, cache_dir, cache_dir_bytes:
            Where what the model computes for the documents is kept for the next query; see `XL3M.index`.

    Instantiate:
        .. code-block:: python

            from xl3m_integrations.langchain import XL3MRetriever

            retriever = XL3MRetriever.from_texts([report, minutes], k=4)

    Usage:
        .. code-block:: python

            retriever.invoke("What is the access code?")

    Within a chain:
        .. code-block:: python

            {"context": retriever, "question": RunnablePassthrough()} | prompt | llm

    Returns:
        Documents of one passage each, best first, with the metadata of `XL3MCompressor(output="spans")`.
    """

    model_config = STRICT

    documents: list[Document] = Field(default_factory=list, repr=False)
    k: int = Field(default=4, ge=1)
    cache_bytes: int = CACHE_BYTES
    cache_dir: str | Path | None = None
    cache_dir_bytes: int | None = None
    _held: HeldIndex = PrivateAttr()

    @model_validator(mode="after")
    def _make_cache(self) -> Self:
        cache = cache_of(self.engine.scorer, self.cache_bytes, self.cache_dir, self.cache_dir_bytes)
        self._held = HeldIndex(cache)
        return self

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], metadatas: Sequence[dict[str, Any]] | None = None, **settings: Any
    ) -> Self:
        """A retriever over plain texts.

        Args:
            texts: The texts.
            metadatas: Metadata of each, in the same order; None for none.
            **settings: Other fields of the class.

        Raises:
            InputError: `texts` is one string, or there are not as many `metadatas` as texts.
        """
        if isinstance(texts, str):
            raise InputError("texts is one string; pass a list of texts, such as [text].")
        held = list(texts)
        known = metadatas if metadatas is not None else [{}] * len(held)
        if len(known) != len(held):
            raise InputError(f"There are {len(held)} texts but {len(known)} metadatas; pass one for each text.")
        return cls(
            documents=[Document(page_content=t, metadata=dict(m)) for t, m in zip(held, known, strict=True)], **settings
        )

    @classmethod
    def from_documents(cls, documents: Iterable[Document], **settings: Any) -> Self:
        """A retriever over documents; `settings` are the other fields of the class."""
        return cls(documents=list(documents), **settings)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        compressor, k = self._compressor(kwargs)
        return _best(compressor.compress_documents(self.documents, query, run_manager.get_child()), k)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        compressor, k = self._compressor(kwargs)
        return _best(await compressor.acompress_documents(self.documents, query, run_manager.get_child()), k)

    def _compressor(self, kwargs: dict[str, Any]) -> tuple[XL3MCompressor, int]:
        k = kwargs.get("k", self.k)
        choice = self.choice
        if self.token_budget is None:
            # Neighbours that overlap become one passage, so more segments are kept than passages are wanted.
            choice["top_k"] = self.top_k or 2 * k
        compressor = _OfIndex(xl3m=self.engine, output="spans", **choice)
        compressor._held = self._held
        return compressor, k


class _OfIndex(XL3MCompressor):
    """A compressor of texts that are asked many times."""

    _held: HeldIndex = PrivateAttr()

    def _selections(self, texts: list[str], query: str, how: Choice) -> list[Selection]:
        return self._held.of(self.engine, texts).select_documents(query, **how)


def _best(passages: list[Document], k: int) -> list[Document]:
    return sorted(passages, key=lambda passage: -passage.metadata["relevance_score"])[:k]
