"""The LlamaIndex postprocessor: what survives, what is said on the way, and that nothing is mutated."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from event_loop import assert_cancelling_stops, ticks_during
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import (
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from lockers import FACT, QUERY, RAIN, rain_around_the_fact
from pydantic import Field, ValidationError

from xl3m_integrations import XL3M, InputError, SettingError
from xl3m_integrations.llama_index import XL3MPostprocessor

OWN_KEYS = {"xl3m_spans", "xl3m_retrieval_score", "xl3m_certainty", "xl3m_found"}


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    source = RelatedNodeInfo(node_id="doc-1", metadata={"source": "book"})
    long = TextNode(
        id_="b",
        text=rain_around_the_fact(30),
        metadata={"page": 7, "tags": ["x"]},
        relationships={NodeRelationship.SOURCE: source},
        excluded_llm_metadata_keys=["tags"],
    )
    return [
        NodeWithScore(node=TextNode(id_="a", text=RAIN * 40), score=0.9),
        NodeWithScore(node=long, score=0.5),
        NodeWithScore(node=TextNode(id_="c", text=FACT)),
    ]


def ids(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.node_id for node in nodes]


def test_ids_metadata_and_relationships_survive_and_the_score_is_the_certainty(
    xl3m: XL3M, nodes: list[NodeWithScore]
) -> None:
    sources = {node.node.node_id: node for node in nodes}
    kept = XL3MPostprocessor(xl3m=xl3m, top_k=4).postprocess_nodes(nodes, query_str=QUERY)
    assert kept
    selections = xl3m.select_documents([node.node.get_content() for node in nodes], QUERY, top_k=4)
    expected = [max(s.score for s in selection.segments) for selection in selections if selection.segments]
    assert [node.score for node in kept] == pytest.approx(expected, abs=1e-4)
    for found in kept:
        source = sources[found.node.node_id]
        assert {k: v for k, v in found.node.metadata.items() if k not in OWN_KEYS} == source.node.metadata
        assert found.node.relationships == source.node.relationships
        assert found.node.metadata.get("xl3m_retrieval_score") == source.score


def test_a_huge_node_is_cut_to_its_excerpts_joined_by_blank_lines(xl3m: XL3M, nodes: list[NodeWithScore]) -> None:
    text = nodes[1].node.get_content()
    (found,) = XL3MPostprocessor(xl3m=xl3m, top_k=2).postprocess_nodes([nodes[1]], query_str=QUERY)
    excerpts = [text[start:end] for start, end in found.node.metadata["xl3m_spans"]]
    assert found.node.get_content() == "\n\n".join(excerpts)
    assert len(found.node.get_content()) < len(text)


def test_the_order_is_the_sources(xl3m: XL3M, nodes: list[NodeWithScore]) -> None:
    for order in (nodes, nodes[::-1]):
        kept = ids(XL3MPostprocessor(xl3m=xl3m, top_k=20).postprocess_nodes(order, query_str=QUERY))
        assert kept == [node for node in ids(order) if node in kept] and len(kept) == 3


def test_top_k_counts_over_all_nodes(xl3m: XL3M, nodes: list[NodeWithScore]) -> None:
    kept = XL3MPostprocessor(xl3m=xl3m, top_k=1).postprocess_nodes(nodes, query_str=QUERY)
    assert len(kept) == 1 and len(kept[0].node.metadata["xl3m_spans"]) == 1


def test_what_is_added_to_the_metadata_is_seen_by_no_model(xl3m: XL3M, nodes: list[NodeWithScore]) -> None:
    for found in XL3MPostprocessor(xl3m=xl3m, top_k=4).postprocess_nodes(nodes, query_str=QUERY):
        for mode in (MetadataMode.LLM, MetadataMode.EMBED):
            assert "xl3m_" not in found.node.get_content(mode)
    assert "tags" in found.node.excluded_llm_metadata_keys or found.node.node_id != "b"


def test_inputs_are_not_mutated_and_share_nothing_with_the_output(xl3m: XL3M, nodes: list[NodeWithScore]) -> None:
    before = deepcopy(nodes)
    for found in XL3MPostprocessor(xl3m=xl3m, top_k=20).postprocess_nodes(nodes, query_str=QUERY):
        found.node.metadata.setdefault("tags", []).append("changed")
        found.node.relationships.clear()
        found.node.excluded_llm_metadata_keys.append("page")
        found.node.set_content("changed")
        found.score = None
    assert nodes == before


def test_metadata_that_cannot_be_copied_are_shared(xl3m: XL3M) -> None:
    metadata = {"lock": threading.Lock(), "tags": ["x"]}
    source = RelatedNodeInfo(node_id="doc-1", metadata=metadata)
    node = TextNode(text=FACT, metadata=metadata, relationships={NodeRelationship.SOURCE: source})
    (found,) = XL3MPostprocessor(xl3m=xl3m).postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    assert found.node.metadata["lock"] is metadata["lock"] and found.node.ref_doc_id == "doc-1"
    assert found.node.metadata["tags"] is not metadata["tags"]


def test_twice_in_a_row_leaves_one_set_of_marks(xl3m: XL3M, nodes: list[NodeWithScore]) -> None:
    postprocessor = XL3MPostprocessor(xl3m=xl3m, top_k=2)
    once = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    for found in postprocessor.postprocess_nodes(once, query_str=QUERY):
        assert found.node.excluded_llm_metadata_keys.count("xl3m_spans") == 1


def test_images_pass_and_empty_texts_are_left_out(xl3m: XL3M) -> None:
    image = NodeWithScore(node=ImageNode(id_="i", image_url="https://example.org/a.png"), score=0.3)
    sound = NodeWithScore(node=Node(id_="s", audio_resource=MediaResource(url="https://example.org/a.mp3")))
    fact, blank = NodeWithScore(node=TextNode(id_="t", text=FACT)), NodeWithScore(node=TextNode(id_="e", text=" \n"))
    kept = XL3MPostprocessor(xl3m=xl3m).postprocess_nodes([image, blank, fact, sound], query_str=QUERY)
    assert ids(kept) == ["i", "t", "s"]
    assert kept[0] == image and kept[2] == sound
    assert XL3MPostprocessor(xl3m=xl3m).postprocess_nodes([image, blank], query_str=QUERY) == [image]


def test_a_multimodal_node_is_cut_like_any_other(xl3m: XL3M) -> None:
    text = RAIN * 30 + FACT
    node = NodeWithScore(node=Node(id_="m", text_resource=MediaResource(text=text)))
    (found,) = XL3MPostprocessor(xl3m=xl3m, top_k=1).postprocess_nodes([node], query_str=QUERY)
    ((start, end),) = found.node.metadata["xl3m_spans"]
    assert found.node.get_content() == text[start:end] != text
    assert node.node.get_content() == text


@pytest.mark.parametrize("mode", list(MetadataMode))
def test_the_metadata_mode_says_what_is_scored_and_excerpts_are_the_nodes_own(
    xl3m: XL3M, mode: MetadataMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = {"for_all": "A", "for_llm": "L", "for_embed": "E"}
    hidden: dict[str, Any] = {
        "excluded_llm_metadata_keys": ["for_embed"],
        "excluded_embed_metadata_keys": ["for_llm"],
    }
    text = "\n " + RAIN * 30 + FACT + " "
    node = NodeWithScore(node=TextNode(text=text, metadata=metadata, **hidden))
    seen: list[str] = []
    select = xl3m.select_documents
    monkeypatch.setattr(xl3m, "select_documents", lambda texts, *a, **k: seen.extend(texts) or select(texts, *a, **k))
    (found,) = XL3MPostprocessor(xl3m=xl3m, top_k=2, metadata_mode=mode).postprocess_nodes([node], query_str=QUERY)
    assert seen == [node.node.get_content(mode)]
    spans = found.node.metadata["xl3m_spans"]
    assert found.node.get_content() == "\n\n".join(text[start:end] for start, end in spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert "for_all" not in found.node.get_content()


def test_where_only_metadata_was_kept_the_node_speaks_with_its_beginning(xl3m: XL3M) -> None:
    node = NodeWithScore(node=TextNode(text=RAIN * 3, metadata={"abstract": rain_around_the_fact(40)}))
    postprocessor = XL3MPostprocessor(xl3m=xl3m, top_k=1, metadata_mode=MetadataMode.LLM)
    (found,) = postprocessor.postprocess_nodes([node], query_str=QUERY)
    assert found.node.get_content() and found.node.get_content() in RAIN * 3


@pytest.mark.parametrize("query", [None, "", "  \n"])
def test_without_a_query_it_refuses(xl3m: XL3M, nodes: list[NodeWithScore], query: str | None) -> None:
    with pytest.raises(InputError, match=r"no query|question is empty"):
        XL3MPostprocessor(xl3m=xl3m).postprocess_nodes(nodes, query_str=query)


def test_an_empty_list_gives_an_empty_list(xl3m: XL3M) -> None:
    assert XL3MPostprocessor(xl3m=xl3m).postprocess_nodes([], query_str=QUERY) == []


def test_bad_settings_are_refused(xl3m: XL3M) -> None:
    with pytest.raises(SettingError, match="at least 1"):
        XL3MPostprocessor(xl3m=xl3m, top_k=0)
    with pytest.raises(SettingError, match="alternatives"):
        XL3MPostprocessor(xl3m=xl3m, top_k=2, token_budget=100)
    with pytest.raises(SettingError, match="Unknown measure"):
        XL3MPostprocessor(xl3m=xl3m, measure="foo")
    with pytest.raises(ValidationError, match="not both"):
        XL3MPostprocessor(xl3m=xl3m, model="some/model")
    with pytest.raises(ValidationError, match="topk"):
        XL3MPostprocessor(xl3m=xl3m, topk=3)


class Events(BaseEventHandler):
    heard: list[Any] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.heard.append(event)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    root, handler = get_dispatcher(), Events()
    root.add_event_handler(handler)
    yield handler.heard
    root.event_handlers.remove(handler)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    root, handler = get_dispatcher(), SimpleSpanHandler()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


class Ear(BaseCallbackHandler):
    def __init__(self) -> None:
        super().__init__([], [])
        self.heard: list[tuple[str, CBEventType, dict[str, Any]]] = []

    def on_event_start(self, event_type: CBEventType, payload: Any = None, event_id: str = "", **_: Any) -> str:
        self.heard.append(("start", event_type, payload or {}))
        return event_id

    def on_event_end(self, event_type: CBEventType, payload: Any = None, event_id: str = "", **_: Any) -> None:
        self.heard.append(("end", event_type, payload or {}))

    def start_trace(self, trace_id: str | None = None) -> None: ...

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None: ...


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_events_spans_and_callbacks_are_fired_as_by_other_rerankers(
    xl3m: XL3M, nodes: list[NodeWithScore], events: list[Any], spans: SimpleSpanHandler, asynchronous: bool
) -> None:
    ear = Ear()
    postprocessor = XL3MPostprocessor(xl3m=xl3m, top_k=2, callback_manager=CallbackManager([ear]))
    bundle = QueryBundle(QUERY)
    if asynchronous:
        kept = await postprocessor.apostprocess_nodes(nodes, bundle)
    else:
        kept = postprocessor.postprocess_nodes(nodes, bundle)
    start, end = (e for e in events if isinstance(e, (ReRankStartEvent, ReRankEndEvent)))
    assert (start.query, start.nodes, start.top_n, start.model_name) == (bundle, nodes, 2, "xl3m-bundled")
    assert end.nodes == kept
    assert [(when, what) for when, what, _ in ear.heard] == [
        ("start", CBEventType.RERANKING),
        ("end", CBEventType.RERANKING),
    ]
    assert ear.heard[0][2][EventPayload.QUERY_STR] == QUERY and ear.heard[1][2][EventPayload.NODES] == kept
    name = "XL3MPostprocessor._apostprocess_nodes" if asynchronous else "XL3MPostprocessor._postprocess_nodes"
    assert any(span.id_.startswith(name) for span in spans.completed_spans)


async def test_async_gives_the_same_and_leaves_the_loop_free(xl3m: XL3M, nodes: list[NodeWithScore]) -> None:
    postprocessor = XL3MPostprocessor(xl3m=xl3m, top_k=3)
    kept, ticks = await ticks_during(postprocessor.apostprocess_nodes(nodes, query_str=QUERY))
    assert kept == postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    assert ticks > 20


async def test_cancelling_stops_the_work(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch) -> None:
    started, stopped = threading.Event(), threading.Event()
    select = xl3m.select_documents

    def watched(texts: Any, question: str, *, progress: Any, **how: Any) -> Any:
        def report(now: Any) -> None:
            started.set()
            progress(now)

        try:
            return select(texts, question, progress=report, **how)
        except asyncio.CancelledError:
            stopped.set()
            raise

    monkeypatch.setattr(xl3m, "select_documents", watched)
    huge = [NodeWithScore(node=TextNode(text=RAIN * 6_000))]
    work = XL3MPostprocessor(xl3m=xl3m, top_k=1).apostprocess_nodes(huge, query_str=QUERY)
    await assert_cancelling_stops(work, started, stopped)


def test_its_class_name_is_in_its_serialized_form(xl3m: XL3M) -> None:
    written = XL3MPostprocessor(xl3m=xl3m, top_k=3).to_dict()
    assert written["class_name"] == "XL3MPostprocessor" and written["top_k"] == 3 and "xl3m" not in written
