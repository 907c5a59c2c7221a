"""Segments -> scored segments: one pass over the documents, of which only a few numbers per segment are kept."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from xl3m_integrations.backends.base import Evidence, Scorer
from xl3m_integrations.certainty import Measure
from xl3m_integrations.documents import Document
from xl3m_integrations.segmentation import Segmenter
from xl3m_integrations.selection import Selector
from xl3m_integrations.types import Progress, ScoredSegment, Segment

ProgressCallback = Callable[[Progress], None]
_SECONDS_BETWEEN_REPORTS = 0.1


class Scored:
    """All segments of some documents with their scores: 36 bytes a segment and 8 a number of evidence.

    Args:
        documents: The documents.
        measure: What scored.
    """

    def __init__(self, documents: Sequence[Document], measure: Measure) -> None:
        self._documents = documents
        self._measure = measure
        self._document, self._index, self._tokens = array("i"), array("i"), array("i")
        self._start, self._end = array("q"), array("q")
        self._evidence, self._scores = array("d"), array("d")
        self._document_tokens = [0] * len(documents)
        self.seconds = 0.0

    def __len__(self) -> int:
        """Number of segments."""
        return len(self._index)

    def add(self, segment: Segment, evidence: Evidence) -> None:
        """Note one segment's evidence."""
        self._document.append(segment.document)
        self._index.append(segment.index)
        self._tokens.append(len(segment.ids))
        self._start.append(segment.start)
        self._end.append(segment.end)
        self._evidence.extend(evidence)
        self._document_tokens[segment.document] = segment.token + len(segment.ids)

    def keep(self, selector: Selector, keep_first: int = 0, keep_last: int = 0) -> list[tuple[ScoredSegment, ...]]:
        """The kept segments of each document, in its order. Of equal scores the earlier segment is better."""
        evidence = torch.tensor(self._evidence, dtype=torch.float64).view(len(self), len(self._measure.columns))
        scores = self._measure.score(evidence)
        order = scores.sort(descending=True, stable=True).indices.tolist()
        self._scores = array("d", scores.tolist())
        count = selector.count([self._scores[row] for row in order], [self._tokens[row] for row in order])
        kept = set(order[:count]) | self._ends(keep_first, keep_last)
        chosen: list[list[ScoredSegment]] = [[] for _ in self._documents]
        ranks = {row: rank for rank, row in enumerate(order, 1) if row in kept}
        for row in sorted(kept):
            chosen[self._document[row]].append(self._segment(row, ranks[row], evidence[row].tolist()))
        return [tuple(segments) for segments in chosen]

    def scores(self, document: int) -> tuple[float, ...]:
        """Scores of all segments of a document, by index, once `keep` has computed them."""
        return tuple(value for value, own in zip(self._scores, self._document, strict=True) if own == document)

    def tokens(self, document: int) -> int:
        """Length of a document in tokens."""
        return self._document_tokens[document]

    def _ends(self, keep_first: int, keep_last: int) -> set[int]:
        if not (keep_first or keep_last):
            return set()
        rows: list[list[int]] = [[] for _ in self._documents]
        for row, document in enumerate(self._document):
            rows[document].append(row)
        return {row for own in rows for row in own[:keep_first] + own[max(0, len(own) - keep_last) :]}

    def _segment(self, row: int, rank: int, evidence: list[float]) -> ScoredSegment:
        start, end = self._start[row], self._end[row]
        return ScoredSegment(
            index=self._index[row],
            start=start,
            end=end,
            text=self._documents[self._document[row]].slice(start, end),
            score=self._scores[row],
            rank=rank,
            evidence=dict(zip(self._measure.columns, evidence, strict=True)),
            tokens=self._tokens[row],
        )


def score(
    documents: Sequence[Document],
    question: str,
    measure: Measure,
    segmenter: Segmenter,
    scorer: Scorer,
    progress: ProgressCallback | None = None,
) -> Scored:
    """Let the scorer read every segment of every document.

    Raises:
        InputError: A document is empty or not valid Unicode, or a sub-context does not fit the window.
        ScoringError: The model failed on a segment.
    """
    scored = Scored(documents, measure)
    began = reported = time.monotonic()
    overhead = scorer.overhead(measure.asks(question))
    lengths = [document.characters for document in documents]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    done = tokens = passed = 0
    for segment, evidence in scorer.evidence(_segments(documents, segmenter), question, measure):
        scored.add(segment, evidence)
        tokens += len(segment.ids) + overhead
        passed, done = _advance(segment, passed, done)
        now = time.monotonic()
        if progress is not None and now - reported >= _SECONDS_BETWEEN_REPORTS:
            progress(Progress(passed + done, total, len(scored), tokens, now - began))
            reported = now
    scored.seconds = time.monotonic() - began
    if progress is not None:
        progress(Progress(passed + done, passed + done, len(scored), tokens, scored.seconds))
    return scored


def _segments(documents: Sequence[Document], segmenter: Segmenter) -> Iterator[Segment]:
    for number, document in enumerate(documents):
        if document.prepared is None:
            yield from segmenter.segments(document.pieces(), number)
        else:
            yield from (replace(segment, document=number) for segment in document.prepared)


def _advance(segment: Segment, passed: int, done: int) -> tuple[int, int]:
    """Characters of the documents before this segment's, and of its document up to its end."""
    return (passed + done, segment.end) if segment.index == 0 else (passed, segment.end)
