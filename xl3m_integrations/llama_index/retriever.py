"""A retriever over texts in memory, with neither embeddings nor an index: certainty alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import (
    BaseNode,
    Document,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from xl3m_integrations.adapting import EngineFields, HeldIndex
from xl3m_integrations.choice import Choice, selector_of
from xl3m_integrations.concurrency import Cancellation, in_thread
from xl3m_integrations.copying import copied
from xl3m_integrations.engine import CACHE_BYTES
from xl3m_integrations.errors import InputError, SettingError
from xl3m_integrations.index import cache_of
from xl3m_integrations.prompts import require_question
from xl3m_integrations.types import Selection

_FORMAT = ("metadata_template", "metadata_separator", "text_template", "mimetype")  # of the nodes that have them


class XL3MRetriever(BaseRetriever):
    """Finds the passages after which a local model is most certain of the answer to the query.

    Every query reads the whole collection, so it suits some books rather than a library. For more, retrieve with an
    index first and let `XL3MPostprocessor` choose among what it found.

    Setup:
        Install the extra.

        .. code-block:: bash

            pip install "xl3m-integrations[llama-index]"

    Key init args:
        nodes: sequence of BaseNode
            Documents or nodes, of any length. Empty ones are never found. They are not changed.
        similarity_top_k: int | None
            Find so many segments; neighbours that overlap are one result. None takes the best up to
            where the scores drop most, as many as fit the model's window and eight at most. May be called `top_k`.
        xl3m: XL3M | None
            An engine to share with others. Instead of `model`.
        model: str | None
            Hub id or folder of a causal language model. None takes the bundled model.
        model_options: dict
            Arguments of `XL3M.from_pretrained`, such as `device` or `segment_tokens`.
        token_budget: int | None
            Instead of `similarity_top_k`: as many segments as fit so many tokens of the scoring model.
        measure: str | None
            Name of the certainty measure. None takes the engine's.
        hops: int
            2 for questions that need two passages: the question is asked again, led by what was found first.
        prefilter: callable | None
            Chooses the segments that the model reads, such as `BM25(n=256)`. None lets it read all.
        cache_bytes, cache_dir, cache_dir_bytes:
            Where what the model computes for the nodes is kept for the next query; see `XL3M.index`.

    Instantiate:
        .. code-block:: python

            from xl3m_integrations.llama_index import XL3MRetriever

            retriever = XL3MRetriever.from_texts([report, minutes], similarity_top_k=4)

    Retrieve:
        .. code-block:: python

            retriever.retrieve("What is the access code?")

    In a query engine:
        .. code-block:: python

            RetrieverQueryEngine.from_args(retriever, llm=llm).query("What is the access code?")

    Async:
        .. code-block:: python

            await retriever.aretrieve("What is the access code?")

    Output:
        One `TextNode` per excerpt, best first, with the metadata of its document, `start_char_idx`, `end_char_idx` and
        the relationship `SOURCE`. Its id is made from the document's and the place, so that the same excerpt always
        has the same id. Scores are comparable within one call.

    Raises:
        InputError: A node is none.
        SettingError: A setting is unknown to the engine or out of its range.
    """

    def __init__(
        self,
        nodes: Sequence[BaseNode],
        *,
        similarity_top_k: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        cache_dir: str | Path | None = None,
        cache_dir_bytes: int | None = None,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        if similarity_top_k is not None:
            if settings.get("top_k") is not None:
                raise SettingError("similarity_top_k and top_k were given; they are the same, pass one.")
            settings["top_k"] = similarity_top_k
        self._settings = EngineFields(**settings)
        selector_of(**self._settings.choice)
        self._nodes = list(nodes)
        self._held = HeldIndex(cache_of(self._settings.engine.scorer, cache_bytes, cache_dir, cache_dir_bytes))
        wrong = next((node for node in self._nodes if not isinstance(node, BaseNode)), None)
        if wrong is not None:
            raise InputError(f"A node is a {type(wrong).__name__}; pass Documents or nodes, or use from_texts().")

    @classmethod
    def from_texts(
        cls, texts: Sequence[str], metadatas: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> XL3MRetriever:
        """A retriever over plain texts.

        Args:
            texts: The texts.
            metadatas: Metadata of each text, in the same order.
            **settings: The keyword arguments of the class.

        Raises:
            InputError: There are not as many `metadatas` as `texts`, or one of the texts is no string.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputError("texts must be a sequence of str, such as a list.")
        given = [{} for _ in texts] if metadatas is None else metadatas
        if len(given) != len(texts):
            raise InputError(f"There are {len(texts)} texts but {len(given)} metadatas; pass one for each text.")
        pairs = zip(texts, given, strict=True)
        return cls([Document(text=text, metadata=copied(known)) for text, known in pairs], **settings)

    @classmethod
    def from_documents(cls, documents: Sequence[BaseNode], **settings: Any) -> XL3MRetriever:
        """A retriever over documents or nodes; `settings` are the keyword arguments of the class."""
        return cls(documents, **settings)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._find(query_bundle, Cancellation())

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await in_thread(lambda cancellation: self._find(query_bundle, cancellation))

    def _find(self, query_bundle: QueryBundle, cancellation: Cancellation) -> list[NodeWithScore]:
        query = require_question(query_bundle.query_str)
        texts = {n: node.get_content(MetadataMode.NONE) for n, node in enumerate(self._nodes)}
        readable = [n for n, text in texts.items() if text.strip()]
        if not readable:
            return []
        how: Choice = {**self._settings.choice, "progress": cancellation}
        engine = self._settings.engine
        selections = self._held.of(engine, [texts[n] for n in readable]).select_documents(query, **how)
        found = [
            excerpt
            for n, selection in zip(readable, selections, strict=True)
            for excerpt in _excerpts(self._nodes[n], texts[n], selection)
        ]
        return sorted(found, key=lambda excerpt: -excerpt.get_score())


def _excerpts(node: BaseNode, text: str, selection: Selection) -> Iterator[NodeWithScore]:
    origin, base = _origin(node)
    for start, end in selection.key_context.spans:
        inside = [segment.score for segment in selection.segments if segment.start < end and segment.end > start]
        excerpt = TextNode(
            id_=f"{node.node_id}#{start}-{end}",
            text=text[start:end],
            start_char_idx=start + base,
            end_char_idx=end + base,
            metadata=copied(node.metadata),
            excluded_llm_metadata_keys=list(node.excluded_llm_metadata_keys),
            excluded_embed_metadata_keys=list(node.excluded_embed_metadata_keys),
            relationships=copied({NodeRelationship.SOURCE: origin}),
            **{name: getattr(node, name) for name in _FORMAT if hasattr(node, name)},
        )
        yield NodeWithScore(node=excerpt, score=max(inside))


def _origin(node: BaseNode) -> tuple[RelatedNodeInfo, int]:
    """The document that a node is, or is a piece of, and where in it the node begins."""
    start = getattr(node, "start_char_idx", None)
    if node.source_node is None or start is None:
        return node.as_related_node_info(), 0
    return node.source_node, start
