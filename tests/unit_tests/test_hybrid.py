"""The measure with BM25 beside certainty."""

from __future__ import annotations

import math
import sys
from statistics import mean, pstdev

import pytest
from models import make_backend, text_of

from xl3m_integrations import XL3M, MissingExtraError
from xl3m_integrations.certainty import Blend, Hybrid

pytest.importorskip("bm25s")
WORD = "zebracrossing"
TEXT = text_of(3_000, seed=11)


@pytest.fixture(scope="module")
def xl3m() -> XL3M:
    backend = make_backend()
    return XL3M(backend, backend, segment_tokens=48, overlap_tokens=0)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_word_that_one_segment_shares_counts_by_its_weight(xl3m: XL3M, weight: float):
    """BM25 is zero in all segments but one, so its z is sqrt(n - 1) there and -1 / sqrt(n - 1) elsewhere."""
    start, end = next((segment.start, segment.end) for segment in xl3m.segmenter.segments([TEXT]) if segment.index == 4)
    middle = TEXT.index(" ", (start + end) // 2)
    text = f"{TEXT[:middle]} {WORD}{TEXT[middle:]}"
    plain = xl3m.select(text, WORD, measure=Blend(second=None), top_k=10**6)
    found = xl3m.select(text, WORD, measure=Hybrid(second=None, lexical=weight), top_k=10**6)
    [shared] = [segment.index for segment in plain.segments if WORD in segment.text]
    n = len(plain.scores)
    average, spread = mean(plain.scores), pstdev(plain.scores)
    expected = [
        (score - average) / spread + weight * (math.sqrt(n - 1) if index == shared else -1 / math.sqrt(n - 1))
        for index, score in enumerate(plain.scores)
    ]
    assert found.scores == pytest.approx(expected, abs=1e-5)


def test_without_a_shared_word_the_ranking_is_that_of_blend(xl3m: XL3M):
    plain, found = (xl3m.select(TEXT, "xylophone", measure=measure, top_k=8) for measure in ("blend", "hybrid"))
    assert [segment.index for segment in found.segments] == [segment.index for segment in plain.segments]
    assert found.certainty == plain.certainty


def test_it_is_refused_before_anything_is_read_where_bm25s_is_missing(xl3m: XL3M, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    monkeypatch.setattr(xl3m.scorer, "evidence", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xl3m-integrations\[bm25\]"'):
        xl3m.select(TEXT, WORD, measure="hybrid")
