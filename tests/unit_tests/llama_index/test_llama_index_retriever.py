"""The LlamaIndex retriever: excerpts, their places, and their order."""

from __future__ import annotations

from copy import deepcopy
from threading import Lock
from typing import Any

import pytest
from event_loop import ticks_during
from llama_index.core.schema import Document, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode
from lockers import FACT, QUERY, RAIN, rain_around_the_fact

from xl3m_integrations import XL3M, InputError, SettingError
from xl3m_integrations.llama_index import XL3MRetriever


@pytest.fixture
def documents() -> list[Document]:
    return [
        Document(id_="a", text=RAIN * 40, metadata={"source": "a.txt"}),
        Document(id_="b", text=rain_around_the_fact(30), metadata={"source": "b.txt", "tags": ["x"]}),
        Document(id_="e", text=" \n"),
    ]


def test_every_result_is_a_verbatim_excerpt_with_its_place_and_source(xl3m: XL3M, documents: list[Document]) -> None:
    sources = {document.node_id: document for document in documents}
    found = XL3MRetriever.from_documents(documents, similarity_top_k=4, xl3m=xl3m).retrieve(QUERY)
    assert 1 <= len(found) <= 4
    for result in found:
        node = result.node
        assert isinstance(node, TextNode) and node.ref_doc_id is not None
        source = sources[node.ref_doc_id]
        assert node.text == source.text[node.start_char_idx : node.end_char_idx]
        assert node.metadata == source.metadata
        assert node.node_id == f"{source.node_id}#{node.start_char_idx}-{node.end_char_idx}"
    assert len({result.node.node_id for result in found}) == len(found)


def test_best_first(xl3m: XL3M, documents: list[Document]) -> None:
    found = XL3MRetriever(documents, similarity_top_k=6, xl3m=xl3m).retrieve(QUERY)
    scores = [result.get_score() for result in found]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1
    best = max(s.score for s in xl3m.select_documents([d.text for d in documents[:2]], QUERY, top_k=1)[1].segments)
    assert scores[0] == pytest.approx(best, abs=1e-4)


def test_a_piece_of_a_document_leads_back_to_the_document(xl3m: XL3M) -> None:
    source = RelatedNodeInfo(node_id="whole")
    piece = TextNode(text=RAIN * 3, start_char_idx=1_000, relationships={NodeRelationship.SOURCE: source})
    (found,) = XL3MRetriever([piece], similarity_top_k=1, xl3m=xl3m).retrieve(QUERY)
    assert isinstance(found.node, TextNode)
    assert found.node.ref_doc_id == "whole"
    assert found.node.start_char_idx == 1_000
    assert found.node.end_char_idx == 1_000 + len(found.node.text)


def test_texts_and_metadatas_become_documents(xl3m: XL3M) -> None:
    metadata = {"source": "f", "tags": ["x"]}
    retriever = XL3MRetriever.from_texts([RAIN, FACT], [{}, metadata], similarity_top_k=2, xl3m=xl3m)
    found = {result.node.get_content(): result.node.metadata for result in retriever.retrieve(QUERY)}
    assert found[FACT] == metadata
    found[FACT]["tags"].append("changed")
    assert metadata["tags"] == ["x"]
    assert all(result.node.metadata != found[FACT] for result in retriever.retrieve(QUERY))


def test_inputs_are_not_mutated(xl3m: XL3M, documents: list[Document]) -> None:
    before = deepcopy(documents)
    for result in XL3MRetriever(documents, xl3m=xl3m).retrieve(QUERY):
        result.node.metadata.setdefault("tags", []).append("changed")
        result.node.relationships.clear()
    assert documents == before


def test_excerpts_are_shown_as_their_document_is(xl3m: XL3M) -> None:
    shown: dict[str, Any] = {
        "text_template": "<{content}|{metadata_str}>",
        "metadata_template": "{key}={value}",
        "metadata_separator": ";",
    }
    for kind in (Document, TextNode):
        node = kind(text=FACT, metadata={"source": "f", "page": 1}, excluded_llm_metadata_keys=["page"], **shown)
        (found,) = XL3MRetriever([node], xl3m=xl3m).retrieve(QUERY)
        assert found.node.get_content(MetadataMode.LLM) == f"<{FACT}|source=f>"
        assert found.node.get_content(MetadataMode.EMBED) == f"<{FACT}|source=f;page=1>"


def test_top_k_is_another_name_of_similarity_top_k(xl3m: XL3M) -> None:
    texts = [RAIN * 40, rain_around_the_fact(30)]
    found = XL3MRetriever.from_texts(texts, top_k=1, xl3m=xl3m).retrieve(QUERY)
    same = XL3MRetriever.from_texts(texts, similarity_top_k=1, xl3m=xl3m).retrieve(QUERY)
    assert [result.text for result in found] == [result.text for result in same] and len(found) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 1, "similarity_top_k": 1}, "the same"),
        ({"top_k": 0}, "top_k is 0"),
        ({"similarity_top_k": 1, "token_budget": 100}, "alternatives"),
        ({"measure": "foo"}, "Unknown measure"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(xl3m: XL3M, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        XL3MRetriever.from_texts([FACT], xl3m=xl3m, **settings)


def test_metadata_that_cannot_be_copied_are_shared(xl3m: XL3M) -> None:
    lock = Lock()
    (found,) = XL3MRetriever.from_texts([FACT], [{"lock": lock}], xl3m=xl3m).retrieve(QUERY)
    assert found.node.metadata["lock"] is lock


def test_nothing_to_find_gives_nothing(xl3m: XL3M) -> None:
    assert XL3MRetriever([], xl3m=xl3m).retrieve(QUERY) == []
    assert XL3MRetriever.from_texts(["", " \n"], xl3m=xl3m).retrieve(QUERY) == []


def test_bad_input_is_refused(xl3m: XL3M) -> None:
    with pytest.raises(InputError, match="question is empty"):
        XL3MRetriever.from_texts([FACT], xl3m=xl3m).retrieve(" ")
    with pytest.raises(InputError, match="from_texts"):
        XL3MRetriever([FACT], xl3m=xl3m)  # type: ignore[list-item]
    with pytest.raises(InputError, match="sequence of str"):
        XL3MRetriever.from_texts(FACT, xl3m=xl3m)
    with pytest.raises(InputError, match="1 texts but 2 metadatas"):
        XL3MRetriever.from_texts([FACT], [{}, {}], xl3m=xl3m)
    with pytest.raises(ValueError, match="not both"):
        XL3MRetriever.from_texts([FACT], xl3m=xl3m, model="some/model")


async def test_async_gives_the_same_and_leaves_the_loop_free(xl3m: XL3M, documents: list[Document]) -> None:
    retriever = XL3MRetriever(documents, similarity_top_k=3, xl3m=xl3m)
    found, ticks = await ticks_during(retriever.aretrieve(QUERY))
    assert found == retriever.retrieve(QUERY)
    assert ticks > 20
