"""Documents asked many times: cut into segments once, and what the model computed for the segments kept.

A segment stands before the question in every sub-context, so its keys and values do not depend on the question. They
are computed with the first question and kept within a budget of bytes; the next question costs its own tokens alone.
What is kept in files outlives the index. So there is nothing to close: an index dropped lets go of its memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import chain, islice
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from xl3m_integrations.backends.base import Evidence, Scorer, SharingScorer, evidence_each, evidence_many, in_turn
from xl3m_integrations.backends.kv_blocks import KVStore
from xl3m_integrations.backends.kv_cache import HeldRows, KVCache
from xl3m_integrations.backends.kv_files import KVFiles
from xl3m_integrations.certainty import Measure, SentenceLook
from xl3m_integrations.choice import Choice
from xl3m_integrations.documents import Document, Text
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import InputError, SettingError
from xl3m_integrations.types import Answer, Segment, Selection


class Index:
    """Documents to ask of many times; made by `XL3M.index`.

    Scores are those of `XL3M.select`. Several threads may ask at once.

    Args:
        xl3m: The engine.
        texts: The documents, each a string, the `Path` of a UTF-8 file, or an iterable of strings.
        cache: Keeps keys and values; several indexes of one engine may share it.

    Raises:
        InputError: A document is empty or not valid Unicode.
    """

    def __init__(self, xl3m: XL3M, texts: Sequence[Text], cache: KVCache) -> None:
        self.cache = cache
        self._xl3m = copy(xl3m)
        self._documents = xl3m.prepare(texts)
        if not self._documents:
            raise InputError("There is no document to index; pass one at least.")
        if isinstance(xl3m.scorer, SharingScorer):
            self._xl3m.scorer = _KeepingScorer(xl3m.scorer, cache, self._documents[0])

    def __len__(self) -> int:
        """Number of segments."""
        return sum(len(document.prepared or ()) for document in self._documents)

    def select(self, question: str, **how: Unpack[Choice]) -> Selection:
        """See `XL3M.select`."""
        return self._xl3m.select(self._only(), question, **how)

    def select_many(self, questions: Sequence[str], **how: Unpack[Choice]) -> list[Selection]:
        """See `XL3M.select_many`."""
        return self._xl3m.select_many(self._only(), questions, **how)

    def select_documents(self, question: str, **how: Unpack[Choice]) -> list[Selection]:
        """See `XL3M.select_documents`: one selection per document."""
        return self._xl3m.select_documents(self._documents, question, **how)

    def answer(self, question: str, **how: Any) -> Answer:
        """See `XL3M.answer`, whose arguments it takes."""
        return self._xl3m.answer(self._only(), question, **how)

    def answer_many(self, questions: Sequence[str], **how: Any) -> list[Answer]:
        """See `XL3M.answer_many`, whose arguments it takes."""
        return self._xl3m.answer_many(self._only(), questions, **how)

    def stream(self, question: str, **how: Any) -> Iterator[str]:
        """See `XL3M.stream`, whose arguments it takes."""
        return self._xl3m.stream(self._only(), question, **how)

    def _only(self) -> Document:
        if len(self._documents) != 1:
            raise SettingError(f"The index holds {len(self._documents)} documents; use select_documents().")
        return self._documents[0]


def cache_of(scorer: Scorer, cache_bytes: int, cache_dir: str | Path | None, cache_dir_bytes: int | None) -> KVCache:
    """What keeps a scorer's keys and values; see `XL3M.index`."""
    if cache_dir is None:
        if cache_dir_bytes is not None:
            raise SettingError(f"cache_dir_bytes is {cache_dir_bytes}, but there is no cache_dir; pass a folder too.")
        return KVCache(cache_bytes)
    if not isinstance(scorer, SharingScorer):
        raise SettingError(
            f"{type(scorer).__name__} keeps no keys and values, so there is nothing to write to {cache_dir}; leave "
            "cache_dir= out, or select with a model in this process."
        )
    return KVCache(cache_bytes, KVFiles(cache_dir, scorer.fingerprint, cache_dir_bytes))


_HEAD = 32  # segments at the beginning of a pass that tell whether it goes over the whole index


class _KeepingScorer:
    """A scorer that keeps what it computes for the segments of an index.

    Only passes over the whole index add something. A second look at the best segments, or a pass over those that a
    prefilter keeps, makes use of what is there; what it would add depends on the question, and would push out what the
    next pass needs.
    """

    def __init__(self, scorer: SharingScorer, cache: KVCache, first: Document) -> None:
        self._scorer = scorer
        self.window, self.tokenizer, self.overhead = scorer.window, scorer.tokenizer, scorer.overhead
        self._cache = cache
        self._first = list(islice(first.prepared.segments(first), _HEAD)) if first.prepared else []

    @property
    def fingerprint(self) -> str:
        """See `Fingerprinted.fingerprint`; the whole model is read for it, so only if somebody asks."""
        return self._scorer.fingerprint

    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        """See `Scorer.evidence`."""
        if isinstance(measure, SentenceLook):  # of sentences nothing is kept
            yield from self._scorer.evidence(segments, question, measure)
            return
        for segment, (found,) in self.evidence_many(segments, [question], measure):
            yield segment, found

    def evidence_each(self, asked: Sequence[tuple[str, Sequence[Segment]]], measure: Measure) -> list[list[Evidence]]:
        """See `evidence_each` of the backends' base: what is kept is of more use than common batches."""
        if isinstance(measure, SentenceLook):
            return evidence_each(self._scorer, asked, measure)
        return in_turn(self, asked, measure)

    def evidence_many(
        self, segments: Iterable[Segment], questions: Sequence[str], measure: Measure, cache: KVStore | None = None
    ) -> Iterator[tuple[Segment, tuple[Evidence, ...]]]:
        """See `SharingScorer.evidence_many`."""
        source = iter(segments)
        head = list(islice(source, _HEAD))
        whole = bool(head) and head[: len(self._first)] == self._first
        keep = self._cache if whole else HeldRows(self._cache)
        return evidence_many(self._scorer, chain(head, source), questions, measure, keep)
