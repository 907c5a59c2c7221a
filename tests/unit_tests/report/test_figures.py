"""Which segments are drawn and described, and what is said of them."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xl3m_integrations.report.figures import best_of_stretches, drawn, excerpts, figures, shortened

scores = st.lists(st.floats(-9, 9), min_size=1, max_size=200)


def text_at(start: int, end: int) -> str:
    return "".join(chr(97 + place % 26) for place in range(start, end))


@given(scores=scores, stretches=st.integers(1, 30))
def test_every_stretch_is_shown_by_its_best(scores, stretches):
    best = list(best_of_stretches(scores, range(len(scores)), stretches))
    assert len(best) <= stretches
    assert best == sorted(set(best))
    edges = [index for index in range(len(scores)) if index not in best]
    for index in edges:  # whatever is not shown has a better neighbour that is
        near = [row for row in best if abs(row - index) < math.ceil(len(scores) / stretches)]
        assert any(scores[row] >= scores[index] for row in near)
    assert max(scores) in [scores[row] for row in best]


@given(scores=scores, data=st.data())
def test_kept_segments_are_always_drawn(scores, data):
    kept = data.draw(st.sets(st.integers(0, len(scores) - 1)))
    limit = data.draw(st.integers(1, 300))
    rows = list(drawn(scores, kept, limit))
    assert kept <= set(rows) or len(scores) <= limit
    assert rows == sorted(set(rows))
    assert len(rows) <= limit + len(kept)
    if len(scores) <= limit:
        assert rows == list(range(len(scores)))


def test_figures_tell_every_segment(make_selection):
    selection = make_selection(50, 4, text_at)
    told = figures(selection, ())
    assert list(accumulate(told["index"])) == list(range(50))
    starts = list(accumulate(told["start"]))
    assert starts == list(selection.table.starts)
    assert [start + length for start, length in zip(starts, told["length"], strict=True)] == list(selection.table.ends)
    assert told["rank"] == list(selection.table.ranks)
    assert told["score"] == pytest.approx(list(selection.scores), abs=5e-4)
    assert told["evidence"]["gain"] == pytest.approx(list(selection.table.evidence["gain"]), abs=5e-4)
    assert told["kept"] == {segment.index: 1 for segment in selection.segments}
    assert told["text"] == {row: text_at(start, start + 60) for row, start in enumerate(starts)}


def test_what_a_second_look_saw_is_told_of_the_segments_it_was_given(make_selection):
    selection = make_selection(9, 2, text_at)
    table = replace(selection.table, again={4: {"regret": 0.12345}, 7: {"regret": math.nan}})
    assert figures(replace(selection, table=table), ())["again"] == {4: {"regret": 0.123}, 7: {"regret": None}}


def test_a_score_that_is_no_number_is_told_as_none(make_selection):
    selection = make_selection(3, 1, text_at)
    told = figures(replace(selection, scores=(math.nan, math.inf, 1.0)), ())
    assert told["score"] == [None, None, 1.0]


def test_the_kept_and_the_best_of_every_part_have_their_text_first(make_selection):
    selection = make_selection(3_000, 5, text_at)
    kept = [segment.index for segment in selection.segments]
    found = dict(excerpts(selection, range(3_000), kept, budget=1_100 * 68))
    assert len(found) == 1_100
    assert list(found)[:5] == kept
    for first in range(0, 3_000, 3):
        stretch = range(first, first + 3)
        assert max(stretch, key=lambda row: selection.scores[row]) in found
    left = set(range(3_000)) - set(found)
    others = [row for row in list(found)[1_005:]]
    assert max(selection.table.ranks[row] for row in others) < min(selection.table.ranks[row] for row in left)


def test_a_selection_that_lost_its_document_tells_what_it_kept(make_selection):
    selection = make_selection(30, 3, text_at)
    copied = pickle.loads(pickle.dumps(replace(selection, table=selection.table)))
    assert copied == selection
    assert figures(copied, ())["text"] == {segment.index: segment.text for segment in selection.segments}
    assert "not hold the text" not in copied.to_html().partition("<script")[0]


def test_sources_are_told_by_their_number(make_selection):
    selection = make_selection(4, 1, text_at)
    told = figures(selection, [("a", 0, 50), ("b", 50, 500)])
    assert told["names"] == ["a", "b"]
    assert told["source"] == {0: 0, 1: 0, 2: 1, 3: 1}


def test_a_long_name_keeps_its_end():
    name = "/a/very/long" * 30 + "/file.txt"
    assert shortened("a.txt") == "a.txt"
    assert shortened(name)[0] == "…"
    assert name.endswith(shortened(name)[1:])
    assert len(shortened(name)) == 100
