"""The plot shows every part of the document and what was kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def text_at(start: int, end: int) -> str:
    return "x" * (end - start)


def tops(ax, label: str) -> list[tuple[float, float]]:
    [lines] = [c for c in ax.collections if isinstance(c, LineCollection) and c.get_label() == label]
    return [tuple(segment[1]) for segment in lines.get_segments()]


def test_few_segments_are_all_drawn_at_their_places(make_selection):
    selection = make_selection(12, 3, text_at)
    ax = selection.plot()
    starts, ends = selection.table.starts, selection.table.ends
    places = [((start + end) / 2, score) for start, end, score in zip(starts, ends, selection.scores, strict=True)]
    assert tops(ax, "segments") == places
    assert tops(ax, "kept") == [places[segment.index] for segment in selection.segments]


def test_of_many_segments_the_best_and_the_kept_are_drawn(make_selection):
    selection = make_selection(5_000, 7, text_at)
    ax = selection.plot()
    assert len(tops(ax, "best of neighbours")) <= 600
    assert max(score for _, score in tops(ax, "best of neighbours")) == pytest.approx(max(selection.scores))
    assert len(tops(ax, "kept")) == 7


def test_it_draws_on_the_axes_it_is_given_and_opens_no_other(make_selection):
    figure, ax = pyplot.subplots()
    assert make_selection(5, 1, text_at).plot(ax) is ax
    assert pyplot.get_fignums() == [figure.number]


@pytest.mark.parametrize("question", ["Is it $5 or $6_{?", "Why? " * 100, "\\frac{"])
def test_any_question_and_any_score_can_be_drawn(make_selection, question):
    selection = replace(make_selection(4, 1, text_at), question=question, scores=(math.nan, math.inf, 0.0, 0.0))
    selection.plot().figure.canvas.draw()


def test_no_segments_can_be_drawn(make_selection):
    make_selection(0, 0, text_at).plot().figure.canvas.draw()
