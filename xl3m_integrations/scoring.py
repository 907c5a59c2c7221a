"""Segments -> scored segments: one pass over the documents, of which only a few numbers per segment are kept."""

from __future__ import annotations

import math
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import torch

from xl3m_integrations.backends.base import Evidence, Reused, Scorer, evidence_many
from xl3m_integrations.certainty import Measure, SecondLook, standardised
from xl3m_integrations.documents import Document, Prepared
from xl3m_integrations.errors import SettingError
from xl3m_integrations.prefilter import Prefilter, bm25_scores, require_bm25
from xl3m_integrations.second_look import Look, above_the_others, in_step, look_again
from xl3m_integrations.segmentation import Segmenter, sentences
from xl3m_integrations.selection import Selector
from xl3m_integrations.types import Certainty, Progress, ScoredSegment, Segment, SegmentTable

ProgressCallback = Callable[[Progress], None]
_SECONDS_BETWEEN_REPORTS = 0.1
_LONGEST_EDGE = 200  # characters of a sentence that a segment's end may have cut off


class Scored:
    """All segments of some documents with their scores: 41 bytes a segment and 8 a number of evidence.

    What a prefilter left out is there too, unread: it has the score -inf and nan as evidence.

    Args:
        documents: The documents.
        measure: What scored.
    """

    def __init__(self, documents: Sequence[Document], measure: Measure) -> None:
        self._documents = documents
        self._measure = measure
        self._document, self._index, self._tokens = array("i"), array("i"), array("i")
        self._start, self._end = array("q"), array("q")
        self._evidence, self._scores, self._ranks = array("d"), array("d"), array("i")
        self._read = bytearray()  # 1 where the model read the segment
        self._document_tokens = [0] * len(documents)
        self._reused = [0] * len(documents)
        self._again: dict[int, dict[str, float]] = {}  # row -> what the second look saw
        self._lexical: float = getattr(measure, "lexical", 0.0)
        if self._lexical:
            require_bm25(f"The measure {measure.name}")
        self.certainty: Certainty | None = None
        self.lead = ""
        self.seconds = 0.0

    def __len__(self) -> int:
        """Number of segments."""
        return len(self._index)

    def add(self, segment: Segment, evidence: Evidence | None) -> None:
        """Note one segment and its evidence; None where it is not read, or `see` tells it later."""
        self._document.append(segment.document)
        self._index.append(segment.index)
        self._tokens.append(len(segment.ids))
        self._start.append(segment.start)
        self._end.append(segment.end)
        self._evidence.extend([math.nan] * len(self._measure.columns) if evidence is None else evidence)
        self._read.append(evidence is not None)
        self._reused[segment.document] += isinstance(evidence, Reused)
        self._document_tokens[segment.document] = segment.token + len(segment.ids)

    def see(self, segment: Segment, evidence: Evidence) -> None:
        """Note the evidence of a segment that was added without."""
        self._see(self._rows(segment.document).start + segment.index, evidence)
        self._reused[segment.document] += isinstance(evidence, Reused)

    def _see(self, row: int, evidence: Iterable[float]) -> None:
        columns = len(self._measure.columns)
        self._evidence[row * columns : (row + 1) * columns] = array("d", evidence)
        self._read[row] = 1

    def rank(self, scorer: Scorer, question: str) -> Look[None]:
        """Score all segments, and look again at the best of them where the measure does so; see `in_step`."""
        read = torch.tensor([row for row, was_read in enumerate(self._read) if was_read], dtype=torch.long)
        scores = self._measure.score(self._table()[read])
        if scores.shape != read.shape or not scores.isfinite().all():
            raise SettingError(
                f"The measure {self._measure.name!r} must give {len(read)} segments a finite score each; it gave "
                f"scores of shape {list(scores.shape)}, {int((~scores.isfinite()).sum())} of them not finite."
            )
        if self._lexical:
            scores = standardised(scores) + self._lexical * standardised(self._shared_words(question))
        second: SecondLook | None = getattr(self._measure, "second", None)
        best = scores.sort(descending=True, stable=True).indices[: second.reads(scores) if second else 0]
        rows = read[best].tolist()
        given = self._as_given(scorer, rows)
        seen = None if second is None else (yield from look_again(second, scorer, question, given, scores[best]))
        if seen is not None:
            self.certainty = seen.certainty
            self._again = dict(zip(rows, seen.figures, strict=True))
            scores[best] = above_the_others(seen.scores, scores, best)
        of_all = torch.full((len(self),), -math.inf, dtype=torch.float64)
        of_all[read] = scores.double()
        self._scores = array("d", of_all.tolist())

    def _shared_words(self, question: str) -> torch.Tensor:
        """BM25 of each segment that was read."""
        return torch.tensor(bm25_scores((text for _, text in self.texts()), question), dtype=torch.float64)

    def _as_given(self, scorer: Scorer, rows: Sequence[int]) -> list[Segment]:
        """These segments once more, as the scorer is given them."""
        texts = [self._documents[self._document[row]].slice(self._start[row], self._end[row]) for row in rows]
        return [
            Segment(
                self._index[row],
                self._start[row],
                self._end[row],
                text,
                scorer.tokenizer.ids(text),
                self._document[row],
            )
            for row, text in zip(rows, texts, strict=True)
        ]

    def _table(self) -> torch.Tensor:
        return torch.tensor(self._evidence, dtype=torch.float64).view(len(self), len(self._measure.columns))

    def keep(self, selector: Selector, keep_first: int = 0, keep_last: int = 0) -> list[tuple[ScoredSegment, ...]]:
        """The kept segments of each document, in its order. Of equal scores the earlier segment is better."""
        order = sorted(range(len(self)), key=lambda row: (not self._read[row], -self._scores[row], row))
        read = order[: sum(self._read)]
        count = selector.count([self._scores[row] for row in read], [self._tokens[row] for row in read])
        kept = set(order[:count]) | self._ends(keep_first, keep_last)
        self._ranks = array("i", bytes(4 * len(order)))
        for rank, row in enumerate(order, 1):
            self._ranks[row] = rank
        chosen: list[list[ScoredSegment]] = [[] for _ in self._documents]
        for row in sorted(kept):
            chosen[self._document[row]].append(self._segment(row))
        return [tuple(segments) for segments in chosen]

    def explaining(self, most: int) -> list[int]:
        """Rows of the segments that make the question likeliest, the best first; by score where that is not known."""
        names = self._measure.columns
        values = self._evidence[names.index("gain") :: len(names)] if "gain" in names else self._scores
        return sorted(compress(range(len(self)), self._read), key=lambda row: (-values[row], row))[:most]

    def texts(self) -> Iterator[tuple[int, str]]:
        """Row and text of each segment that was read, in order."""
        for row in compress(range(len(self)), self._read):
            yield row, self._documents[self._document[row]].slice(self._start[row], self._end[row])

    def sentences(self, row: int) -> list[str]:
        """The sentences and lines that begin in a segment, whole where its end has cut one."""
        start, end = self._start[row], self._end[row]
        text = self._documents[self._document[row]].slice(start, end + _LONGEST_EDGE)
        return [text[a:b] for a, b in sentences(text) if a < end - start]

    def join(self, later: Scored) -> None:
        """Take over what a later hop over the same segments has found; what it did not read comes after what it did."""
        lowest = min(compress(later._scores, later._read))
        columns = len(self._measure.columns)
        for row in range(len(self)):
            if later._read[row]:
                self._scores[row] = later._scores[row]
                self._see(row, later._evidence[row * columns : (row + 1) * columns])
            elif self._read[row]:
                self._scores[row] = lowest
        self._again |= later._again
        self.certainty = later.certainty
        self.seconds += later.seconds

    def prefer(self, rows: Iterable[int]) -> None:
        """Rank some segments with the best."""
        best = max(self._scores)
        for row in rows:
            self._scores[row] = best

    def scores(self, document: int) -> tuple[float, ...]:
        """Scores of all segments of a document, by index, once `rank` has computed them."""
        return tuple(self._scores[self._rows(document)])

    def table(self, document: int) -> SegmentTable:
        """Offsets, ranks and evidence of all segments of a document, once `keep` has computed the ranks."""
        rows, names = self._rows(document), self._measure.columns
        evidence = self._evidence[rows.start * len(names) : rows.stop * len(names)]
        return SegmentTable(
            starts=self._start[rows],
            ends=self._end[rows],
            ranks=self._ranks[rows],
            evidence={name: evidence[column :: len(names)] for column, name in enumerate(names)},
            again={self._index[row]: seen for row, seen in self._again.items() if rows.start <= row < rows.stop},
            cut=self._documents[document].slice,
        )

    def mean(self, column: str, otherwise: float) -> float:
        """Mean of a column of the evidence over the segments read; `otherwise` where the measure has no such column."""
        columns = self._measure.columns
        all_of_it = self._evidence[columns.index(column) :: len(columns)] if column in columns else ()
        own = list(compress(all_of_it, self._read))
        return sum(own) / len(own) if own else otherwise

    def reused(self, document: int) -> int:
        """How many of a document's segments were read by an earlier run, at the first look of the first hop."""
        return self._reused[document]

    def tokens(self, document: int) -> int:
        """Length of a document in tokens."""
        return self._document_tokens[document]

    def _rows(self, document: int) -> slice:
        """Where a document's segments are: the documents are scored one after the other."""
        return slice(bisect_left(self._document, document), bisect_right(self._document, document))

    def _ends(self, keep_first: int, keep_last: int) -> set[int]:
        if not (keep_first or keep_last):
            return set()
        own = (self._rows(document) for document in range(len(self._documents)))
        numbers = (range(rows.start, rows.stop) for rows in own)
        return {row for own in numbers for row in (*own[:keep_first], *own[max(0, len(own) - keep_last) :])}

    def _segment(self, row: int) -> ScoredSegment:
        start, end = self._start[row], self._end[row]
        names = self._measure.columns
        return ScoredSegment(
            index=self._index[row],
            start=start,
            end=end,
            text=self._documents[self._document[row]].slice(start, end),
            score=self._scores[row],
            rank=self._ranks[row],
            evidence=dict(zip(names, self._evidence[row * len(names) : (row + 1) * len(names)], strict=True))
            | self._again.get(row, {}),
            tokens=self._tokens[row],
        )


def score(
    documents: Sequence[Document],
    question: str,
    measure: Measure,
    segmenter: Segmenter,
    scorer: Scorer,
    progress: ProgressCallback | None = None,
    prefilter: Prefilter | None = None,
) -> Scored:
    """`score_many` for one question."""
    return score_many(documents, [question], measure, segmenter, scorer, progress, prefilter)[0]


def score_many(
    documents: Sequence[Document],
    questions: Sequence[str],
    measure: Measure,
    segmenter: Segmenter,
    scorer: Scorer,
    progress: ProgressCallback | None = None,
    prefilter: Prefilter | None = None,
) -> list[Scored]:
    """Let the scorer read every segment of every document, or those that a prefilter keeps, once for all questions.

    With a prefilter each question is asked in a pass of its own, over its own segments.

    Returns:
        The scores for each question.

    Raises:
        InputError: A document is empty or not valid Unicode, or a sub-context does not fit the window.
        ScoringError: The model failed on a segment.
    """
    if prefilter is not None and len(questions) > 1:
        return [score(documents, each, measure, segmenter, scorer, progress, prefilter) for each in questions]
    scored = [Scored(documents, measure) for _ in questions]
    began = reported = time.monotonic()
    overhead = sum(scorer.overhead(measure.asks(question)) for question in questions)
    lengths = [document.characters for document in documents]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    number = tokens = passed = count = 0
    segments = _segments(documents, segmenter)
    if prefilter is not None:
        segments = _filtered(documents, segmenter, questions[0], prefilter, scored[0])
    for count, (segment, evidence) in enumerate(evidence_many(scorer, segments, questions, measure), 1):
        for one, own in zip(scored, evidence, strict=True):
            one.add(segment, own) if prefilter is None else one.see(segment, own)
        tokens += len(segment.ids) + overhead
        passed += sum(document.characters or 0 for document in documents[number : segment.document])
        number = segment.document
        now = time.monotonic()
        if progress is not None and now - reported >= _SECONDS_BETWEEN_REPORTS:
            progress(Progress(passed + segment.end, total, count, tokens, now - began))
            reported = now
    in_step(scorer, [one.rank(scorer, question) for one, question in zip(scored, questions, strict=True)])
    for one in scored:
        one.seconds = time.monotonic() - began
    if progress is not None:
        total = sum(document.characters or 0 for document in documents)
        progress(Progress(total, total, count, tokens, scored[-1].seconds))
    return scored


def _segments(documents: Sequence[Document], segmenter: Segmenter) -> Iterator[Segment]:
    for number, document in enumerate(documents):
        if document.prepared is None:
            yield from segmenter.segments(document.pieces(), number)
        else:
            yield from document.prepared.segments(document, number)


@dataclass(frozen=True, slots=True)
class _Segments:
    """The segments of prepared documents, to go through as often as it takes."""

    documents: Sequence[Document]
    segmenter: Segmenter

    def __iter__(self) -> Iterator[Segment]:
        return _segments(self.documents, self.segmenter)


def _filtered(
    documents: Sequence[Document], segmenter: Segmenter, question: str, prefilter: Prefilter, scored: Scored
) -> Iterator[Segment]:
    """Add all segments to `scored`; those that the prefilter keeps, in order.

    The documents' segments are kept for it (`Prepared`), so that no hop and no second look into them cuts again.
    """
    for document in documents:
        if document.prepared is None:
            document.prepared = Prepared(segmenter.segments(document.pieces()))
    segments = _Segments(documents, segmenter)
    for segment in segments:
        scored.add(segment, None)
    kept = {_numbers(segment) for segment in prefilter(question, segments)}
    if not kept:
        raise SettingError(
            f"The prefilter kept none of {len(scored)} segments, so the model would read nothing; let it keep one."
        )
    return (segment for segment in segments if _numbers(segment) in kept)


def _numbers(segment: Segment) -> tuple[int, int]:
    if not isinstance(segment, Segment):
        raise SettingError(f"The prefilter gave a {type(segment).__name__}; let it give some of the segments it got.")
    return segment.document, segment.index
