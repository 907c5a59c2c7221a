"""A prefilter: the model reads what it keeps, and nothing else changes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator

import pytest
from models import ROUNDING, make_backend, text_of

from xl3m_integrations import BM25, XL3M, MissingExtraError, Progress, Segment, Selection, SettingError
from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.certainty import Measure
from xl3m_integrations.report.figures import figures

pytest.importorskip("bm25s")
QUESTION = "What is the access code for the north gate?"
NEEDLE = " The access code for the north gate is 48213. "
TEXT = text_of(12_000, seed=5)[:6_000] + NEEDLE + text_of(12_000, seed=6)[:6_000]


class Counting:
    """A scorer that notes which segments it is given in a pass over the document."""

    def __init__(self, scorer) -> None:
        self._scorer = scorer
        self.read: list[list[int]] = []

    def __getattr__(self, name: str):
        if name in ("evidence_many", "default_measure"):
            raise AttributeError(name)
        return getattr(self._scorer, name)

    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        given = list(segments)
        self.read.append([segment.index for segment in given])
        return self._scorer.evidence(given, question, measure)


@pytest.fixture(scope="module")
def xl3m() -> XL3M:
    backend = make_backend(window=512)
    return XL3M(backend, backend, segment_tokens=48)


def keep(*indices: int) -> Callable[[str, Iterable[Segment]], Iterator[Segment]]:
    return lambda question, segments: (segment for segment in segments if segment.index in indices)


def unread(selection: Selection) -> set[int]:
    return {index for index, score in enumerate(selection.scores) if score == -math.inf}


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("streamed", [False, True])
def test_keeping_all_segments_changes_nothing(xl3m: XL3M, hops: int, streamed: bool):
    text = (lambda: iter([TEXT[:777], TEXT[777:]])) if streamed else lambda: TEXT
    plain = xl3m.select(text(), QUESTION, hops=hops)
    found = xl3m.select(text(), QUESTION, hops=hops, prefilter=BM25(n=len(plain.scores)))
    assert [segment.index for segment in found.segments] == [segment.index for segment in plain.segments]
    assert found.scores == pytest.approx(plain.scores, abs=ROUNDING)
    assert list(found.table.ranks) == list(plain.table.ranks)
    assert (found.key_context.text, found.lead, found.tokens) == (plain.key_context.text, plain.lead, plain.tokens)
    assert found.certainty == pytest.approx(plain.certainty) or found.certainty.nats == pytest.approx(
        plain.certainty.nats, abs=ROUNDING
    )


def test_the_model_reads_at_most_n_and_the_table_tells_which():
    backend = make_backend(window=512)
    scorer = Counting(backend)
    found = XL3M(scorer, segment_tokens=48).select(TEXT, QUESTION, top_k=3, prefilter=BM25(n=10))
    first = scorer.read[0]
    assert len(first) == 10 == len(set(first)) and first == sorted(first)
    assert all(set(read) <= set(first) for read in scorer.read)
    assert unread(found) == set(range(len(found.scores))) - set(first)
    assert {segment.index for segment in found.segments} <= set(first)
    assert sorted(found.table.ranks) == list(range(1, len(found.scores) + 1))
    assert max(found.table.ranks[index] for index in first) == 10
    evidence = next(iter(found.table.evidence.values()))
    assert {index for index, value in enumerate(evidence) if math.isnan(value)} == unread(found)
    assert found.settings["prefilter"] == "BM25(n=10)"


def test_bm25_keeps_the_segment_with_the_questions_words(xl3m: XL3M):
    at = TEXT.index("48213", TEXT.index(NEEDLE))
    [only] = xl3m.select(TEXT, QUESTION, prefilter=BM25(n=1)).segments
    assert only.start <= at < only.end
    assert only.rank == 1 and math.isfinite(only.score)


def test_where_no_word_is_shared_the_first_segments_are_read(xl3m: XL3M):
    found = xl3m.select(TEXT, "Zyzzyva?", prefilter=BM25(n=4))
    assert unread(found) == set(range(4, len(found.scores)))


def test_scores_are_those_of_the_plain_pass(xl3m: XL3M):
    plain = xl3m.select(TEXT, QUESTION, measure="entropy")
    found = xl3m.select(TEXT, QUESTION, measure="entropy", prefilter=keep(3, 5, 8))
    assert [found.scores[index] for index in (3, 5, 8)] == pytest.approx(
        [plain.scores[index] for index in (3, 5, 8)], abs=ROUNDING
    )


def test_more_may_be_asked_for_than_was_read(xl3m: XL3M):
    found = xl3m.select(TEXT, QUESTION, top_k=10, prefilter=keep(8, 3))
    assert [segment.index for segment in found.segments] == [3, 8]


def test_ends_that_were_not_read_are_kept_without_a_score(xl3m: XL3M):
    found = xl3m.select(TEXT, QUESTION, top_k=1, keep_first=1, prefilter=keep(4, 5))
    first, best = found.segments
    assert (first.index, first.score) == (0, -math.inf)
    assert first.rank > 2 and best.rank == 1


def test_documents_compete_before_the_model_too(xl3m: XL3M):
    texts = [text_of(3_000, seed=1), text_of(1_000, seed=2) + NEEDLE, text_of(3_000, seed=3)]
    seen: list[Progress] = []
    found = xl3m.select_documents(texts, QUESTION, prefilter=BM25(n=1), progress=seen.append)
    assert [len(selection.segments) for selection in found] == [0, 1, 0]
    assert [selection.characters for selection in found] == [len(text) for text in texts]
    assert (seen[-1].characters, seen[-1].total, seen[-1].segments) == (*[sum(map(len, texts))] * 2, 1)


def test_many_questions_are_each_asked_of_their_own_segments(xl3m: XL3M):
    questions = [QUESTION, "Where did the ferry go?"]
    together = xl3m.select_many(TEXT, questions, prefilter=BM25(n=6))
    for question, found in zip(questions, together, strict=True):
        alone = xl3m.select(TEXT, question, prefilter=BM25(n=6))
        assert found.scores == pytest.approx(alone.scores, abs=ROUNDING)


def test_an_index_takes_it_too(xl3m: XL3M):
    alone = xl3m.select(TEXT, QUESTION, prefilter=BM25(n=6))
    index = xl3m.index(TEXT)
    for _ in range(2):
        assert index.select(QUESTION, prefilter=BM25(n=6)).scores == pytest.approx(alone.scores, abs=1e-4)


def test_a_later_hop_reads_its_own_segments(xl3m: XL3M):
    asked: list[str] = []

    def by_hop(question: str, segments: Iterable[Segment]) -> Iterator[Segment]:
        asked.append(question)
        return (segment for segment in segments if segment.index in ((1, 2) if len(asked) == 1 else (2, 7)))

    found = xl3m.select(TEXT, QUESTION, hops=2, top_k=2, prefilter=by_hop)
    assert asked == [QUESTION, found.lead + QUESTION]
    assert unread(found) == set(range(len(found.scores))) - {1, 2, 7}
    assert all(math.isfinite(column[7]) for column in found.table.evidence.values())


def test_an_answer_is_read_from_what_was_kept(xl3m: XL3M):
    answer = xl3m.answer(TEXT, QUESTION, prefilter=BM25(n=8))
    assert answer.selection is not None and len(unread(answer.selection)) == len(answer.selection.scores) - 8


def test_the_page_and_its_figures_show_what_was_not_read(xl3m: XL3M):
    found = xl3m.select(TEXT, QUESTION, prefilter=keep(3, 4))
    assert [index for index, score in enumerate(figures(found, ())["score"]) if score is not None] == [3, 4]
    pytest.importorskip("jinja2")
    assert f"{len(found.scores):,}, of which the model read 2" in found.to_html()


@pytest.mark.parametrize(
    ("prefilter", "words"),
    [
        (keep(), r"kept none of \d+ segments"),
        (lambda question, segments: [0, 1], "gave a int; let it give some of the segments"),
        (256, r"prefilter is 256; pass BM25\(n=…\)"),
    ],
)
def test_prefilters_that_cannot_be_used(xl3m: XL3M, prefilter: object, words: str):
    with pytest.raises(SettingError, match=words):
        xl3m.select(TEXT, QUESTION, prefilter=prefilter)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_n_must_be_a_count(n: object):
    with pytest.raises(SettingError, match="at least 1"):
        BM25(n)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xl3m-integrations\[bm25\]"'):
        BM25()
