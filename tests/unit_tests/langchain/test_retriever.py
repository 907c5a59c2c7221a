"""The LangChain retriever over texts in memory."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from lockers import FACT, QUERY, RAIN, rain_around_the_fact

from xl3m_integrations import XL3M, InputError
from xl3m_integrations.langchain import XL3MRetriever
from xl3m_integrations.segmentation import Segmenter


@pytest.fixture
def retriever(xl3m: XL3M) -> XL3MRetriever:
    texts = [RAIN * 80, rain_around_the_fact(60), RAIN * 10]
    return XL3MRetriever.from_texts(texts, [{"n": n} for n in range(3)], xl3m=xl3m, k=3)


def test_passages_come_best_first_with_their_place(retriever: XL3MRetriever) -> None:
    passages = retriever.invoke(QUERY)
    scores = [passage.metadata["relevance_score"] for passage in passages]
    assert 1 <= len(passages) <= 3 and scores == sorted(scores, reverse=True)
    for passage in passages:
        source = retriever.documents[passage.metadata["n"]].page_content
        start = passage.metadata["start_index"]
        assert source[start : start + len(passage.page_content)] == passage.page_content
    assert any(FACT in passage.page_content for passage in passages)


def test_k_can_be_given_with_the_call(retriever: XL3MRetriever) -> None:
    assert len(retriever.invoke(QUERY, k=1)) == 1


async def test_async_gives_the_same(retriever: XL3MRetriever) -> None:
    assert await retriever.ainvoke(QUERY) == retriever.invoke(QUERY)


def test_an_empty_collection_gives_nothing(xl3m: XL3M) -> None:
    assert XL3MRetriever(xl3m=xl3m).invoke(QUERY) == []


@pytest.mark.parametrize(("texts", "metadatas"), [("abc", None), (["a", "b"], [{}])])
def test_what_is_no_list_of_texts_with_metadata_is_refused(xl3m: XL3M, texts: Any, metadatas: Any) -> None:
    with pytest.raises(InputError, match="texts"):
        XL3MRetriever.from_texts(texts, metadatas, xl3m=xl3m)


def test_in_a_chain(retriever: XL3MRetriever) -> None:
    chain = {"context": retriever, "question": RunnablePassthrough()} | RunnableLambda(
        lambda inputs: (len(inputs["context"]), inputs["question"])
    )
    assert chain.invoke(QUERY) == (len(retriever.invoke(QUERY)), QUERY)


def test_from_documents_keeps_ids(xl3m: XL3M) -> None:
    (passage,) = XL3MRetriever.from_documents([Document(id="x", page_content=FACT)], xl3m=xl3m).invoke(QUERY)
    assert passage.id == f"x#0-{len(FACT)}"


def test_texts_are_cut_into_segments_once_until_they_change(
    retriever: XL3MRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[int] = []
    original = Segmenter.segments
    monkeypatch.setattr(Segmenter, "segments", lambda self, pieces, *n: cut.append(1) or original(self, pieces, *n))
    first = retriever.invoke(QUERY)
    assert retriever.invoke(QUERY) == first and len(cut) == 3
    retriever.documents.append(Document(page_content="The pin of the blue locker is 9999."))
    assert any("9999" in passage.page_content for passage in retriever.invoke(QUERY, k=8))
    assert len(cut) == 3 + 4
