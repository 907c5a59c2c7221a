"""The key context against a brute-force reference: whole segments, in document order, the best that fit."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xl3m_integrations.assembly import SEPARATOR, assemble, merged_spans
from xl3m_integrations.errors import SettingError
from xl3m_integrations.types import KeyContext, ScoredSegment

TEXT = "".join(chr(0x4E00 + i) for i in range(120))  # every character is another, so a text tells its place
quick = settings(deadline=None, max_examples=150)


def segment(index: int, start: int, end: int, rank: int) -> ScoredSegment:
    return ScoredSegment(index, start, end, TEXT[start:end], score=-float(rank), rank=rank, tokens=end - start)


@st.composite
def kept_segments(draw: st.DrawFn) -> list[ScoredSegment]:
    """Some of the windows of one sliding-window cut, ranked and listed in any order."""
    size = draw(st.integers(2, 20))
    step = draw(st.integers(1, size))
    windows = [(at, min(at + size, len(TEXT))) for at in range(0, len(TEXT) - 1, step)]
    chosen = draw(st.lists(st.integers(0, len(windows) - 1), unique=True, max_size=12))
    ranks = draw(st.permutations(range(1, len(chosen) + 1)))
    return [segment(index, *windows[index], rank) for index, rank in zip(chosen, ranks, strict=True)]


def cut(start: int, end: int) -> str:
    return TEXT[start:end]


def runs_by_marking(segments: list[ScoredSegment]) -> list[tuple[int, int]]:
    """The same spans by marking each covered character; two that only touch are joined by the mark at their seam."""
    inside = {at for s in segments for at in range(2 * s.start, 2 * s.end + 1)}
    starts = sorted(at for at in inside if at - 1 not in inside)
    ends = sorted(at for at in inside if at + 1 not in inside)
    return [(start // 2, end // 2) for start, end in zip(starts, ends, strict=True)]


def assemble_by_trying(segments: list[ScoredSegment], limit: int) -> KeyContext | None:
    ranked = sorted(segments, key=lambda s: s.rank)
    for count in range(len(ranked), 0, -1):
        best = ranked[:count]
        text = SEPARATOR.join(TEXT[a:b] for a, b in runs_by_marking(best))
        if len(text) <= limit:
            spans = tuple(runs_by_marking(best))
            inside = tuple(s for s in sorted(segments, key=lambda s: s.start) if s.rank <= count)
            left_out = tuple(s for s in sorted(segments, key=lambda s: s.start) if s.rank > count)
            return KeyContext(text, spans, inside, left_out)
    return None


@quick
@given(segments=kept_segments())
def test_spans_are_ordered_disjoint_and_cover_exactly_the_segments(segments):
    assert list(merged_spans(segments)) == runs_by_marking(segments)


@quick
@given(segments=kept_segments())
def test_without_a_budget_every_segment_is_in(segments):
    assert assemble(segments, cut) == (assemble_by_trying(segments, 10**9) or KeyContext("", ()))


@quick
@given(segments=kept_segments().filter(bool), limit=st.integers(0, 140))
def test_the_best_segments_that_fit_the_budget_are_taken_whole(segments, limit):
    """Lengths grow with each rank here unless a segment fills a gap, which saves a separator of two characters."""
    expected = assemble_by_trying(segments, limit)
    best = min(segments, key=lambda s: s.rank)
    if expected is None:
        assert len(best.text) > limit
        with pytest.raises(SettingError):
            assemble(segments, cut, lambda text: len(text) <= limit)
        return
    result = assemble(segments, cut, lambda text: len(text) <= limit)
    assert len(result.text) <= limit
    assert all(s.text in result.text for s in result.segments)
    assert max(s.rank for s in result.segments) == len(result.segments)
    grows = all(len(s.text) > len(SEPARATOR) for s in segments) and not _fills_a_gap(segments)
    assert not grows or result == expected


def _fills_a_gap(segments: list[ScoredSegment]) -> bool:
    ranked = sorted(segments, key=lambda s: s.rank)
    lengths = [len(assemble(ranked[:n], cut).text) for n in range(1, len(ranked) + 1)]
    return lengths != sorted(lengths)


def test_touching_and_overlapping_segments_become_one_excerpt_and_others_are_set_apart():
    context = assemble([segment(7, 50, 60, 1), segment(1, 8, 12, 3), segment(0, 0, 10, 2), segment(2, 12, 15, 4)], cut)
    assert context.spans == ((0, 15), (50, 60))
    assert context.text == TEXT[0:15] + "\n\n" + TEXT[50:60]
    assert [s.index for s in context.segments] == [0, 1, 2, 7]
    assert context.dropped == ()


def test_the_worst_ranked_is_dropped_first_wherever_it_stands():
    segments = [segment(0, 0, 10, 3), segment(5, 50, 60, 1), segment(9, 90, 100, 2)]
    context = assemble(segments, cut, lambda text: len(text) <= 25)
    assert [s.index for s in context.segments] == [5, 9]
    assert [s.index for s in context.dropped] == [0]


def test_no_room_for_one_segment_is_an_error_that_names_its_length_and_remedies():
    with pytest.raises(SettingError, match=r"no room for one segment of 10 tokens .* Lower segment_tokens"):
        assemble([segment(0, 0, 10, 1)], cut, lambda text: False)


def test_no_segments_make_an_empty_context():
    assert assemble([], cut, lambda text: True) == KeyContext("", ())


def test_segments_are_not_reordered_in_the_callers_list():
    segments = [segment(i, 10 * i, 10 * i + 5, i + 1) for i in range(8)]
    random.Random(0).shuffle(segments)
    before = list(segments)
    assemble(segments, cut)
    assert segments == before
