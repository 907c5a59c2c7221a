"""A document compressor: of many documents, or one huge one, only the passages that the query needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from langchain_core.callbacks import CallbackManager, Callbacks, dispatch_custom_event
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.config import ensure_config

from xl3m_integrations.adapting import STRICT, EngineFields
from xl3m_integrations.choice import Choice
from xl3m_integrations.concurrency import Cancellation, in_thread
from xl3m_integrations.copying import copied
from xl3m_integrations.prompts import require_question
from xl3m_integrations.types import Progress, Selection, Span

PROGRESS_EVENT = "xl3m_progress"
SELECTION_EVENT = "xl3m_selection"


class XL3MCompressor(EngineFields, BaseDocumentCompressor):
    """Keeps the passages after which a local model is most certain of the answer to the query.

    Segments of all documents compete with each other; what is kept comes back verbatim, in the order of the input,
    with ids, metadata and exact character spans. Nothing that is passed in is changed.

    Setup:
        Install the extra.

        .. code-block:: bash

            pip install "xl3m-integrations[langchain]"

    Key init args:
        xl3m: XL3M | None
            An engine to share with others. Instead of `model`.
        model: str | None
            Hub id or folder of a causal language model. None takes the bundled model.
        model_options: dict
            Arguments of `XL3M.from_pretrained`, such as `device` or `segment_tokens`.
        top_k: int | None
            Keep so many segments over all documents.
        token_budget: int | None
            Keep as many as fit so many tokens of the scoring model. With neither, the best up to where
            the scores drop most, as many as fit its window and eight at most.
        measure: str | None
            Name of the certainty measure. None takes the engine's.
        hops: int
            2 for questions that need two passages: the question is asked again, led by what was found first.
        prefilter: callable | None
            Chooses the segments that the model reads, such as `BM25(n=256)`. None lets it read all.
        output: "documents" or "spans"
            "documents" gives a copy of each document of which something was kept, its excerpts joined by blank lines.
            "spans" gives one document per excerpt, with `start_index`.

    Instantiate:
        .. code-block:: python

            from xl3m_integrations.langchain import XL3MCompressor

            compressor = XL3MCompressor(top_k=4)

    Compress:
        .. code-block:: python

            compressor.compress_documents(documents, "What is the access code?")

    In a retriever:
        .. code-block:: python

            from langchain_classic.retrievers import ContextualCompressionRetriever

            retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=base)

    Async:
        .. code-block:: python

            await compressor.acompress_documents(documents, "What is the access code?")

    Output metadata:
        relevance_score: float
            The best score among the document's kept segments; higher is better, comparable within one call.
        xl3m_spans: list of [start, end]
            Where the excerpts stand in the source's `page_content`, in characters.
        xl3m_certainty: float, xl3m_found: bool
            How sure the model is, from 0 to 1, that the best passage of all holds the answer, and whether that is at
            least one half; absent where the measure takes one look only.
        start_index: int
            With output="spans": where the excerpt begins in the source (added to the source's own `start_index`, if it
            has one).

    Events:
        `xl3m_progress` and `xl3m_selection`, visible in `astream_events`.
    """

    model_config = STRICT

    output: Literal["documents", "spans"] = "documents"

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Keep the passages of `documents` that `query` needs.

        Args:
            documents: Any number, of any length. Empty ones have nothing to keep and are left out.
            query: The question.
            callbacks: Told of start, progress, end and error.

        Returns:
            New documents in the order of the input; an empty list for an empty list.

        Raises:
            InputError: The query is empty, or too long for the scoring model's window.
        """
        return self._compress(documents, query, callbacks, Cancellation())

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents` in a thread, so that the event loop goes on. Cancelling stops the work."""
        return await in_thread(lambda cancellation: self._compress(documents, query, callbacks, cancellation))

    def as_runnable(
        self, documents_key: str = "documents", query_key: str = "query"
    ) -> Runnable[dict[str, Any], list[Document]]:
        """A step of a chain: takes a dict with documents and query, gives the compressed documents.

        Args:
            documents_key: Where the documents are in the input.
            query_key: Where the query is in the input.
        """

        def compress(inputs: dict[str, Any], config: RunnableConfig) -> list[Document]:
            return self.compress_documents(inputs[documents_key], inputs[query_key], config.get("callbacks"))

        async def acompress(inputs: dict[str, Any], config: RunnableConfig) -> list[Document]:
            return await self.acompress_documents(inputs[documents_key], inputs[query_key], config.get("callbacks"))

        return RunnableLambda(compress, afunc=acompress, name=type(self).__name__)

    def _compress(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None, cancellation: Cancellation
    ) -> list[Document]:
        # Called within a chain without callbacks, the chain's own are in the context. An async chain hands over an
        # async manager; configured as a sync one, its handlers still hear everything.
        manager = CallbackManager.configure(callbacks or ensure_config().get("callbacks"))
        run = manager.on_chain_start(
            {"name": type(self).__name__}, {"query": query, "documents": len(documents)}, name=type(self).__name__
        )
        config: RunnableConfig = {"callbacks": run.get_child()}

        def report(now: Progress) -> None:
            cancellation(now)
            figures = {name: getattr(now, name) for name in ("characters", "total", "segments", "tokens", "seconds")}
            dispatch_custom_event(PROGRESS_EVENT, figures, config=config)

        try:
            kept = self._select(documents, require_question(query), report)
        except BaseException as error:
            run.on_chain_error(error)
            raise
        dispatch_custom_event(SELECTION_EVENT, _summary(kept), config=config)
        render = _as_documents if self.output == "documents" else _as_spans
        compressed = [piece for document, selection in kept for piece in render(document, selection)]
        run.on_chain_end({"documents": compressed})
        return compressed

    def _selections(self, texts: list[str], query: str, how: Choice) -> list[Selection]:
        return self.engine.select_documents(texts, query, **how)

    def _select(
        self, documents: Sequence[Document], query: str, progress: Callable[[Progress], None]
    ) -> list[tuple[Document, Selection]]:
        readable = [document for document in documents if document.page_content.strip()]
        if not readable:
            return []
        texts = [document.page_content for document in readable]
        how: Choice = {**self.choice, "progress": progress}
        selections = self._selections(texts, query, how)
        return [(document, kept) for document, kept in zip(readable, selections, strict=True) if kept.segments]


def _summary(kept: list[tuple[Document, Selection]]) -> dict[str, Any]:
    segments = sum(len(selection.segments) for _, selection in kept)
    scored = sum(len(selection.scores) for _, selection in kept)
    return {"documents": len(kept), "segments": segments, "of_segments": scored}


def _metadata(document: Document, selection: Selection, spans: Sequence[Span], **more: Any) -> dict[str, Any]:
    touching = [s for s in selection.segments if any(s.start < end and s.end > start for start, end in spans)]
    score = max(segment.score for segment in touching)
    marks = {"relevance_score": score, "xl3m_spans": [list(span) for span in spans]}
    sure = selection.certainty.info() if selection.certainty else {}
    return copied(document.metadata) | marks | sure | more


def _as_documents(document: Document, selection: Selection) -> Iterator[Document]:
    context = selection.key_context
    metadata = _metadata(document, selection, context.spans)
    yield document.model_copy(update={"page_content": context.text, "metadata": metadata})


def _as_spans(document: Document, selection: Selection) -> Iterator[Document]:
    base = document.metadata.get("start_index")
    for start, end in selection.key_context.spans:
        at = start + base if isinstance(base, int) else start
        metadata = _metadata(document, selection, [(start, end)], start_index=at)
        name = None if document.id is None else f"{document.id}#{start}-{end}"
        update = {"page_content": document.page_content[start:end], "metadata": metadata, "id": name}
        yield document.model_copy(update=update)
