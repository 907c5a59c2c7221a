"""LangChain's own suites."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import ChatModelIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from xl3m_integrations import XL3M
from xl3m_integrations.langchain import ChatXL3M, XL3MCompressor, XL3MRetriever

_TEXTS = [f"The pin of the {colour} locker is {n}781. " + "It rained again. " * 30 for n, colour in
          enumerate(("red", "blue", "green", "black", "white"), 1)]  # fmt: skip


class _Chat:
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatXL3M

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model_options": {"dtype": "float32"}}

    # The own local model calls no tools; those of a wrapped model are tested in test_chat_model.py.
    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


class TestChatUnit(_Chat, ChatModelUnitTests):
    pass


class TestChatIntegration(_Chat, ChatModelIntegrationTests):
    pass


class _Documents(BaseRetriever):
    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents


class Compressed(ContextualCompressionRetriever):
    """A compressor in a retriever, with the `k` that the suite asks for."""

    def __init__(self, k: int = 3) -> None:
        super().__init__(
            base_compressor=XL3MCompressor(top_k=k, output="spans"),
            base_retriever=_Documents(documents=[Document(page_content=text) for text in _TEXTS]),
        )

    def _get_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        compressor = self.base_compressor
        if "k" in kwargs:
            compressor = compressor.model_copy(update={"top_k": kwargs["k"]})
        return list(compressor.compress_documents(self.base_retriever.invoke(query), query, run_manager.get_child()))

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any, **kwargs: Any) -> list[Document]:
        documents = await self.base_retriever.ainvoke(query)
        return list(await self.base_compressor.acompress_documents(documents, query, run_manager.get_child()))


class _Retrieved:
    @property
    def retriever_query_example(self) -> str:
        return "What is the pin of the blue locker?"


class TestCompressorInRetriever(_Retrieved, RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return Compressed

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {}


class TestRetriever(_Retrieved, RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return XL3MRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"documents": [Document(page_content=text) for text in _TEXTS]}


@pytest.fixture(autouse=True)
def _one_model(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suites construct many times; the engine is loaded once."""
    monkeypatch.setattr(XL3M, "default", classmethod(lambda cls, **settings: xl3m))
