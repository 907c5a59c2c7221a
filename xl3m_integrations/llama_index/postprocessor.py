"""A node postprocessor: of many nodes, or one huge one, only the passages that the query needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from xl3m_integrations.adapting import EngineFields
from xl3m_integrations.assembly import SEPARATOR
from xl3m_integrations.choice import Choice, selector_of
from xl3m_integrations.concurrency import Cancellation, in_thread
from xl3m_integrations.copying import copied
from xl3m_integrations.errors import InputError
from xl3m_integrations.prompts import require_question
from xl3m_integrations.types import Selection, Span

SPANS, RETRIEVAL_SCORE = "xl3m_spans", "xl3m_retrieval_score"

_dispatcher = get_dispatcher(__name__)


class XL3MPostprocessor(EngineFields, BaseNodePostprocessor):
    """Keeps the passages after which a local model is most certain of the answer to the query.

    Segments of all nodes compete with each other. What is kept comes back verbatim, in copies of the nodes, in the
    order of the input; ids, metadata and relationships survive. Nothing that is passed in is changed.

    Setup:
        Install the extra.

        .. code-block:: bash

            pip install "xl3m-integrations[llama-index]"

    Key init args:
        xl3m: XL3M | None
            An engine to share with others. Instead of `model`.
        model: str | None
            Hub id or folder of a causal language model. None takes the bundled model.
        model_options: dict
            Arguments of `XL3M.from_pretrained`, such as `device` or `segment_tokens`.
        top_k: int | None
            Keep so many segments over all nodes.
        token_budget: int | None
            Keep as many as fit so many tokens of the scoring model. With neither, the best up to where
            the scores drop most, as many as fit its window and eight at most.
        measure: str | None
            Name of the certainty measure. None takes the engine's.
        hops: int
            2 for questions that need two passages: the question is asked again, led by what was found first.
        prefilter: callable | None
            Chooses the segments that the model reads, such as `BM25(n=256)`. None lets it read all.
        metadata_mode: MetadataMode
            What of a node is scored: its text alone (NONE), or with the metadata that an LLM, or an embedding model,
            sees. Excerpts are cut from the node's own text in any case.

    Instantiate:
        .. code-block:: python

            from xl3m_integrations.llama_index import XL3MPostprocessor

            postprocessor = XL3MPostprocessor(top_k=4)

    Postprocess:
        .. code-block:: python

            postprocessor.postprocess_nodes(nodes, query_str="What is the access code?")

    In a query engine:
        .. code-block:: python

            engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[postprocessor])

    Async:
        .. code-block:: python

            await postprocessor.apostprocess_nodes(nodes, query_str="What is the access code?")

    Output:
        score: float
            The best score among the node's kept segments; higher is better, comparable within one call.
        metadata["xl3m_spans"]: list of [start, end]
            Where the excerpts stand in the source node's text, in characters.
        metadata["xl3m_retrieval_score"]: float
            The score that the node came with, if it had one.
        metadata["xl3m_certainty"]: float, metadata["xl3m_found"]: bool
            How sure the model is, from 0 to 1, that the best passage of all holds the answer, and whether that is at
            least one half; absent where the measure takes one look only.

        These metadata keys are excluded from what LLMs and embedding models see. Nodes without text, such as images,
        come back as they are, at their place; nodes whose text is empty are left out.

    Events:
        `ReRankStartEvent` and `ReRankEndEvent`, and the callback event `RERANKING`.

    Raises:
        SettingError: A field is unknown to the engine or out of its range.
    """

    metadata_mode: MetadataMode = MetadataMode.NONE

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        selector_of(**self.choice)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialized form."""
        return "XL3MPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return self._rerank(nodes, query_bundle, Cancellation())

    @_dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await in_thread(lambda cancellation: self._rerank(nodes, query_bundle, cancellation))

    def _rerank(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None, cancellation: Cancellation
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("There is no query to select by; pass query_str= or query_bundle=.")
        query = require_question(query_bundle.query_str)
        if not nodes:
            return []
        top, name = self.top_k or len(nodes), self.engine_name
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top, model_name=name))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            kept = self._select(nodes, query, cancellation)
            event.on_end(payload={EventPayload.NODES: kept})
        _dispatcher.event(ReRankEndEvent(nodes=kept))
        return kept

    def _select(self, nodes: list[NodeWithScore], query: str, cancellation: Cancellation) -> list[NodeWithScore]:
        texts = [_scored_text(node.node, self.metadata_mode) for node in nodes]
        readable = [text for text in texts if text is not None]
        how: Choice = {**self.choice, "progress": cancellation}
        selections = iter(self.engine.select_documents(readable, query, **how) if readable else [])
        kept: list[NodeWithScore] = []
        for node, text in zip(nodes, texts, strict=True):
            if text is not None:
                selection = next(selections)
                kept += [_cut(node, text, selection)] if selection.segments else []
            elif _has_no_text(node.node):
                kept.append(node.model_copy())
        return kept


def _scored_text(node: BaseNode, mode: MetadataMode) -> str | None:
    """What is scored of a node; None where it has no text of its own."""
    return node.get_content(mode) if node.get_content(MetadataMode.NONE).strip() else None


def _has_no_text(node: BaseNode) -> bool:
    """Whether a node is an image or the like, rather than a text that is empty."""
    media = ("image", "image_path", "image_url", "image_resource", "audio_resource", "video_resource")
    return any(getattr(node, name, None) for name in media)


def _cut(source: NodeWithScore, scored: str, selection: Selection) -> NodeWithScore:
    text = source.node.get_content(MetadataMode.NONE)
    spans = _within(text, scored, selection.key_context.spans)
    marks: dict[str, Any] = {SPANS: [list(span) for span in spans]}
    if selection.certainty is not None:
        marks |= selection.certainty.info()
    if source.score is not None:
        marks[RETRIEVAL_SCORE] = source.score
    node = _copied(source.node, marks)
    excerpts = SEPARATOR.join(text[start:end] for start, end in spans)
    if excerpts != text:
        node.set_content(excerpts)
    return NodeWithScore(node=node, score=max(segment.score for segment in selection.segments))


def _copied(node: BaseNode, marks: dict[str, Any]) -> BaseNode:
    """A copy with more metadata, which no model sees. Not a deep one: an index node may hold a whole query engine."""
    update = {
        "metadata": copied(node.metadata) | marks,
        "relationships": copied(node.relationships),
        "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, *marks])),
        "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, *marks])),
    }
    return node.model_copy(update=update)


def _within(text: str, scored: str, spans: Sequence[Span]) -> list[Span]:
    """Spans of the scored text as spans of the node's own, which stands somewhere in it."""
    own = text.strip() if text not in scored else text
    at = scored.rfind(own)
    lead = text.find(own) - at
    inside = [(max(start, at) + lead, min(end, at + len(own)) + lead) for start, end in spans]
    found = [(start, end) for start, end in inside if start < end]
    # Where nothing but metadata was kept, the node speaks with its beginning.
    return found or [(0, min(len(text), max(end - start for start, end in spans)))]
