"""Scored segments from a scorer that needs no model: ranks, ties, ends, several documents, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.certainty import Blend, Entropy, Measure
from xl3m_integrations.documents import Document
from xl3m_integrations.errors import InputError
from xl3m_integrations.scoring import Scored, score
from xl3m_integrations.segmentation import Segmenter
from xl3m_integrations.selection import Budget, TopK
from xl3m_integrations.tokens import TextTokenizer
from xl3m_integrations.types import Progress, Segment

QUESTION = "Which?"


@dataclass
class FakeScorer:
    """Says of each segment what `judge` says; nothing else."""

    tokenizer: TextTokenizer
    judge: Callable[[Segment], Evidence]
    window: int = 4096
    asked: list[str] = field(default_factory=list)

    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        self.asked.append(question)
        for segment in segments:
            yield segment, self.judge(segment)

    def overhead(self, question: str) -> int:
        return len(question)


@pytest.fixture
def run(byte_level_tokenizer):
    def scored(texts, judge, measure=None, progress=None, overlap=0) -> Scored:
        scorer = FakeScorer(byte_level_tokenizer, judge)
        documents = [Document(text) for text in texts]
        segmenter = Segmenter(byte_level_tokenizer, 16, overlap)
        return score(documents, QUESTION, measure or Entropy(), segmenter, scorer, progress)

    return scored


def lines(count: int) -> str:
    return "".join(f"line {i:03d} of the text\n" for i in range(count))


def by_index(segment: Segment) -> Evidence:
    return (float(segment.index),)


def test_least_entropy_ranks_first_and_segments_come_in_document_order(run):
    scored = run([lines(20)], lambda s: (-float(s.index),))
    [kept] = scored.keep(TopK(3))
    assert [s.index for s in kept] == [len(scored) - 3, len(scored) - 2, len(scored) - 1]
    assert [s.rank for s in kept] == [3, 2, 1]
    assert [s.score for s in kept] == [s.index for s in kept]
    assert [s.evidence for s in kept] == [{"entropy": -float(s.index)} for s in kept]


def test_kept_segments_are_exact_excerpts_with_their_length(run, byte_level_tokenizer):
    text = lines(20)
    [kept] = run([[text[:100], text[100:]]], by_index, overlap=4).keep(TopK(5))
    cut = list(Segmenter(byte_level_tokenizer, 16, 4).segments([text]))
    assert [(s.start, s.end, s.text, s.tokens) for s in kept] == [(c.start, c.end, c.text, len(c.ids)) for c in cut[:5]]
    assert all(text[s.start : s.end] == s.text for s in kept)


def test_of_equal_scores_the_earlier_segment_is_better(run):
    [kept] = run([lines(40)], lambda s: (0.5,)).keep(TopK(3))
    assert [(s.index, s.rank) for s in kept] == [(0, 1), (1, 2), (2, 3)]


def test_documents_compete_and_an_equal_score_goes_to_the_earlier_document(run):
    judged = {(0, 1): 0.5, (1, 2): 0.1, (2, 0): 0.5}
    scored = run([lines(5)] * 3, lambda s: (judged.get((s.document, s.index), 9.0),))
    first, second, third = scored.keep(TopK(2))
    assert [(s.index, s.rank) for s in first] == [(1, 2)]
    assert [(s.index, s.rank) for s in second] == [(2, 1)]
    assert third == ()
    assert [len(own) for own in scored.keep(TopK(3))] == [1, 1, 1]


def test_scores_and_lengths_are_told_apart_by_document(run, byte_level_tokenizer):
    texts = [lines(3), lines(9)]
    scored = run(texts, lambda s: (s.document * 10.0 + s.index,))
    scored.keep(TopK(1))
    assert len(scored.scores(0)) + len(scored.scores(1)) == len(scored)
    assert scored.scores(0)[:2] == (0.0, -1.0)
    assert scored.scores(1)[:2] == (-10.0, -11.0)
    assert [scored.tokens(n) for n in (0, 1)] == [byte_level_tokenizer.count(text) for text in texts]


def test_tokens_of_a_document_count_overlaps_once(run, byte_level_tokenizer):
    assert run([lines(9)], by_index, overlap=6).tokens(0) == byte_level_tokenizer.count(lines(9))


def test_the_ends_are_kept_beside_the_best_with_the_ranks_they_earned(run):
    scored = run([lines(20), lines(4)], lambda s: (abs(s.index - 5.0) + 100 * s.document,))
    first, second = scored.keep(TopK(1), keep_first=1, keep_last=2)
    last = len(scored.scores(0)) - 1
    assert [s.index for s in first] == [0, 5, last - 1, last]
    assert next(s for s in first if s.index == 5).rank == 1
    best_first = sorted(scored.scores(0) + scored.scores(1), reverse=True)
    assert all(best_first[s.rank - 1] == s.score for s in (*first, *second))
    ends = len(scored.scores(1))
    assert [s.index for s in second] == sorted({0, ends - 2, ends - 1})


def test_keeping_more_ends_than_there_are_keeps_each_segment_once(run):
    scored = run([lines(2)], by_index)
    [kept] = scored.keep(TopK(1), keep_first=50, keep_last=50)
    assert [s.index for s in kept] == list(range(len(scored)))


def test_a_budget_counts_the_segments_own_tokens(run):
    scored = run([lines(20)], by_index)
    [kept] = scored.keep(Budget(40))
    assert [s.index for s in kept] == [0, 1]
    assert sum(s.tokens for s in kept) <= 40


def test_a_measure_with_two_columns_keeps_both_by_name(run):
    scored = run([lines(20)], lambda s: (1.0, float(s.index == 4)), measure=Blend(second=None))
    [[best]] = scored.keep(TopK(1))
    assert (best.index, best.rank, best.evidence) == (4, 1, {"entropy": 1.0, "gain": 1.0})


# ---------------------------------------------------------------------------------------------- progress
def test_progress_ends_with_everything_read(run, byte_level_tokenizer):
    reports: list[Progress] = []
    texts = [lines(10), lines(4)]
    scored = run(texts, by_index, progress=reports.append)
    tokens = sum(map(byte_level_tokenizer.count, texts)) + len(scored) * len(QUESTION)
    characters = sum(map(len, texts))
    last = reports[-1]
    assert (last.characters, last.total, last.segments, last.tokens) == (characters, characters, len(scored), tokens)
    assert last.seconds == scored.seconds


@pytest.mark.usefixtures("unhurried")
def test_progress_grows_and_knows_no_total_while_a_stream_comes_in(run):
    reports: list[Progress] = []
    scored = run([lines(10), iter([lines(4)])], by_index, progress=reports.append)
    assert [r.segments for r in reports] == [*range(1, len(scored) + 1), len(scored)]
    assert {r.total for r in reports[:-1]} == {None}
    assert [r.characters for r in reports] == sorted(r.characters for r in reports)
    assert reports[-1].total == reports[-1].characters == len(lines(10)) + len(lines(4))


def test_an_empty_document_is_refused(run):
    with pytest.raises(InputError, match="The document is empty"):
        run([lines(2), "  "], by_index)


def test_the_table_tells_every_segment_of_each_document(run, byte_level_tokenizer):
    texts = [lines(30), lines(3), [lines(20), lines(9)]]
    scored = run(texts, lambda s: (float(7 * s.index % 5),), overlap=4)
    kept = scored.keep(TopK(6))
    ranks = []
    for number, text in enumerate("".join(text) for text in texts):
        table, scores = scored.table(number), scored.scores(number)
        cut = list(Segmenter(byte_level_tokenizer, 16, 4).segments([text]))
        assert [(s.start, s.end) for s in cut] == list(zip(table.starts, table.ends, strict=True))
        assert [table.cut(s.start, s.end) for s in cut] == [s.text for s in cut]
        assert list(table.evidence["entropy"]) == [float(7 * s.index % 5) for s in cut]
        assert scores == tuple(-value for value in table.evidence["entropy"])
        assert [(table.ranks[s.index], scores[s.index]) for s in kept[number]] == [
            (s.rank, s.score) for s in kept[number]
        ]
        ranks += zip(table.ranks, scores, strict=True)
    assert [rank for rank, _ in sorted(ranks)] == list(range(1, len(scored) + 1))
    assert [score for _, score in sorted(ranks)] == sorted((score for _, score in ranks), reverse=True)
