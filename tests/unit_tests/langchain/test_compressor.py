"""The LangChain compressor: what survives, what is said on the way, and that nothing is mutated."""

from __future__ import annotations

import threading
from copy import deepcopy

import pytest
from event_loop import assert_cancelling_stops, ticks_during
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from lockers import FACT, QUERY, RAIN, rain_around_the_fact
from pydantic import ValidationError

from xl3m_integrations import XL3M, InputError, SettingError
from xl3m_integrations.langchain import XL3MCompressor


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(id="a", page_content=RAIN * 60, metadata={"source": "a.txt", "tags": ["x"]}),
        Document(id="b", page_content=rain_around_the_fact(40), metadata={"source": "b.txt", "page": 7}),
        Document(page_content="Nothing to see here.", metadata={}),
        Document(id="d", page_content=FACT, metadata={"source": "d.txt"}),
    ]


class ListRetriever(BaseRetriever):
    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.documents


def test_documents_keep_id_and_metadata_and_gain_score_and_spans(xl3m: XL3M, documents: list[Document]) -> None:
    sources = {document.id: document for document in documents}
    kept = XL3MCompressor(xl3m=xl3m, top_k=3).compress_documents(documents, QUERY)
    assert kept
    for document in kept:
        source = sources[document.id]
        own = {"relevance_score", "xl3m_spans", "xl3m_certainty", "xl3m_found"}
        assert document.metadata["xl3m_found"] == (document.metadata["xl3m_certainty"] >= 0.5)
        assert {k: v for k, v in document.metadata.items() if k not in own} == source.metadata
        excerpts = [source.page_content[start:end] for start, end in document.metadata["xl3m_spans"]]
        assert document.page_content == "\n\n".join(excerpts)
        assert isinstance(document.metadata["relevance_score"], float)


def test_metadata_that_cannot_be_copied_is_shared(xl3m: XL3M) -> None:
    lock, tags = threading.Lock(), ["x"]
    document = Document(page_content=FACT, metadata={"lock": lock, "tags": tags})
    (kept,) = XL3MCompressor(xl3m=xl3m).compress_documents([document], QUERY)
    assert kept.metadata["lock"] is lock
    assert kept.metadata["tags"] == tags and kept.metadata["tags"] is not tags


def test_the_passage_that_answers_is_kept(xl3m: XL3M, documents: list[Document]) -> None:
    kept = XL3MCompressor(xl3m=xl3m, top_k=2).compress_documents(documents, QUERY)
    assert any(FACT in document.page_content for document in kept)


def test_output_is_in_source_order_and_top_k_counts_over_all_documents(xl3m: XL3M, documents: list[Document]) -> None:
    order = [document.id for document in documents]
    for top_k in (1, 2, 5):
        kept = XL3MCompressor(xl3m=xl3m, top_k=top_k, output="spans").compress_documents(documents, QUERY)
        places = [(order.index(_source(document)), document.metadata["start_index"]) for document in kept]
        assert places == sorted(places)
        assert 1 <= len(kept) <= top_k  # neighbours that overlap are one span


def _source(document: Document) -> str | None:
    return document.id.split("#")[0] if document.id else None


def test_spans_give_one_document_per_excerpt_with_its_place(xl3m: XL3M, documents: list[Document]) -> None:
    sources = {document.id: document.page_content for document in documents}
    for document in XL3MCompressor(xl3m=xl3m, top_k=4, output="spans").compress_documents(documents, QUERY):
        start = document.metadata["start_index"]
        assert sources[_source(document)][start : start + len(document.page_content)] == document.page_content
        assert document.metadata["xl3m_spans"] == [[start, start + len(document.page_content)]]


def test_start_index_counts_from_the_original_where_the_source_is_itself_a_piece(xl3m: XL3M) -> None:
    piece = Document(page_content=RAIN * 60 + FACT, metadata={"start_index": 1_000})
    (best,) = XL3MCompressor(xl3m=xl3m, top_k=1, output="spans").compress_documents([piece], QUERY)
    assert best.metadata["start_index"] == 1_000 + best.metadata["xl3m_spans"][0][0]


def test_inputs_are_not_mutated_and_share_nothing_with_the_output(xl3m: XL3M, documents: list[Document]) -> None:
    before = deepcopy(documents)
    kept = XL3MCompressor(xl3m=xl3m, top_k=8).compress_documents(documents, QUERY)
    for document in kept:
        document.metadata.setdefault("tags", []).append("changed")
    assert documents == before


def test_an_empty_list_gives_an_empty_list(xl3m: XL3M) -> None:
    assert XL3MCompressor(xl3m=xl3m).compress_documents([], QUERY) == []


def test_empty_documents_are_left_out(xl3m: XL3M) -> None:
    compressor = XL3MCompressor(xl3m=xl3m)
    empty = [Document(page_content=""), Document(page_content=" \n")]
    assert compressor.compress_documents(empty, QUERY) == []
    assert [d.id for d in compressor.compress_documents([empty[0], Document(id="k", page_content=FACT)], QUERY)] == [
        "k"
    ]


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_refused(xl3m: XL3M, documents: list[Document], query: str) -> None:
    with pytest.raises(InputError, match="question is empty"):
        XL3MCompressor(xl3m=xl3m).compress_documents(documents, query)


def test_top_k_of_zero_is_refused(xl3m: XL3M, documents: list[Document]) -> None:
    with pytest.raises(SettingError, match="at least 1"):
        XL3MCompressor(xl3m=xl3m, top_k=0).compress_documents(documents, QUERY)


def test_an_engine_and_a_model_exclude_each_other_and_unknown_arguments_are_refused(xl3m: XL3M) -> None:
    with pytest.raises(ValidationError, match="not both"):
        XL3MCompressor(xl3m=xl3m, model="some/model")
    with pytest.raises(ValidationError, match="topk"):
        XL3MCompressor(xl3m=xl3m, topk=3)


async def test_async_gives_the_same_and_leaves_the_loop_free(xl3m: XL3M, documents: list[Document]) -> None:
    compressor = XL3MCompressor(xl3m=xl3m, top_k=3)
    long = [*documents, Document(id="long", page_content=RAIN * 2_000)]
    kept, ticks = await ticks_during(compressor.acompress_documents(long, QUERY))
    assert kept == compressor.compress_documents(long, QUERY)
    assert ticks > 20


async def test_cancelling_stops_the_work(xl3m: XL3M) -> None:
    started, stopped = threading.Event(), threading.Event()

    class Watch(BaseCallbackHandler):
        def on_custom_event(self, name: str, data: object, **kwargs: object) -> None:
            started.set()

        def on_chain_error(self, error: BaseException, **kwargs: object) -> None:
            stopped.set()

    compressor = XL3MCompressor(xl3m=xl3m, top_k=1)
    huge = [Document(page_content=RAIN * 40_000)]
    work = compressor.acompress_documents(huge, QUERY, callbacks=[Watch()])
    await assert_cancelling_stops(work, started, stopped)


def test_callbacks_hear_start_progress_selection_and_end(xl3m: XL3M, documents: list[Document]) -> None:
    heard: list[str] = []

    class Ear(BaseCallbackHandler):
        def on_chain_start(self, serialized: object, inputs: object, **kwargs: object) -> None:
            heard.append("start")

        def on_custom_event(self, name: str, data: object, **kwargs: object) -> None:
            heard.append(name)

        def on_chain_end(self, outputs: object, **kwargs: object) -> None:
            heard.append("end")

    XL3MCompressor(xl3m=xl3m).compress_documents(documents, QUERY, callbacks=[Ear()])
    assert heard[0] == "start" and heard[-1] == "end" and heard[-2] == "xl3m_selection"
    assert set(heard[1:-2]) == {"xl3m_progress"}


def test_in_a_contextual_compression_retriever(xl3m: XL3M, documents: list[Document]) -> None:
    compressor = XL3MCompressor(xl3m=xl3m, top_k=2)
    retriever = ContextualCompressionRetriever(
        base_compressor=compressor, base_retriever=ListRetriever(documents=documents)
    )
    assert retriever.invoke(QUERY) == compressor.compress_documents(documents, QUERY)


async def test_in_an_async_compressor_pipeline(xl3m: XL3M, documents: list[Document]) -> None:
    wide, narrow = XL3MCompressor(xl3m=xl3m, top_k=6), XL3MCompressor(xl3m=xl3m, top_k=1)
    pipeline = DocumentCompressorPipeline(transformers=[wide, narrow])
    retriever = ContextualCompressionRetriever(
        base_compressor=pipeline, base_retriever=ListRetriever(documents=documents)
    )
    kept = await retriever.ainvoke(QUERY)
    assert kept == narrow.compress_documents(wide.compress_documents(documents, QUERY), QUERY)


async def test_as_a_step_of_a_chain_its_events_are_streamed(xl3m: XL3M, documents: list[Document]) -> None:
    step = XL3MCompressor(xl3m=xl3m, top_k=1).as_runnable(query_key="question")
    chain = (
        RunnableLambda(lambda question: {"question": question, "documents": documents})
        | RunnablePassthrough.assign(context=step)
        | RunnableLambda(lambda inputs: inputs["context"][0].page_content)
    )
    names, last = [], None
    async for event in chain.astream_events(QUERY, version="v2"):
        if event["event"] == "on_custom_event":
            names.append(event["name"])
        last = event
    assert "xl3m_selection" in names and "xl3m_progress" in names
    assert last is not None and last["data"]["output"] == chain.invoke(QUERY)


async def test_the_retriever_streams_its_events_too(xl3m: XL3M, documents: list[Document]) -> None:
    retriever = ContextualCompressionRetriever(
        base_compressor=XL3MCompressor(xl3m=xl3m, top_k=1), base_retriever=ListRetriever(documents=documents)
    )
    names = [event["name"] async for event in retriever.astream_events(QUERY, version="v2")]
    assert "xl3m_selection" in names
