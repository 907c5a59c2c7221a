"""The certainty map as a matplotlib plot."""

from __future__ import annotations

import math
from collections.abc import Iterable
from textwrap import shorten
from typing import Any

from xl3m_integrations.errors import MissingExtraError
from xl3m_integrations.report.figures import best_of_stretches
from xl3m_integrations.types import Selection

try:
    from matplotlib import pyplot
    from matplotlib.axes import Axes
except ImportError as error:
    raise MissingExtraError.of("Plotting a selection", "report") from error

BARS = 600  # of more segments the best of each few neighbours is drawn, and every kept one
OTHERS, KEPT = "#b9b4ab", "#c2410c"


def draw(selection: Selection, ax: Axes | None = None) -> Axes:
    """Every segment's score along the document, kept ones marked."""
    if ax is None:
        _, ax = pyplot.subplots(figsize=(9, 2.4), layout="constrained")
    drawn = list(best_of_stretches(selection.scores, range(len(selection.scores)), BARS))
    few = len(drawn) == len(selection.scores)
    width = min(8.0, max(1.1, 450 / max(1, len(drawn))))
    floor = min(filter(math.isfinite, selection.scores), default=0.0)
    _bars(ax, selection, drawn, floor, color=OTHERS, linewidth=width, label="segments" if few else "best of neighbours")
    kept = [segment.index for segment in selection.segments]
    _bars(ax, selection, kept, floor, color=KEPT, linewidth=max(1.6, width), label="kept")
    ax.plot(*_tops(selection, kept), "o", color=KEPT, markersize=4)
    ax.set(xlim=(0, max(1, selection.characters)), xlabel="characters", ylabel=f"score ({selection.measure})")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.spines[["top", "right"]].set_visible(False)
    title = shorten(selection.question, 90, placeholder=" …")
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)  # a $ is a $
    ax.legend(frameon=False, fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return ax


def _bars(ax: Axes, selection: Selection, indices: Iterable[int], floor: float, **look: Any) -> None:
    middles, scores = _tops(selection, indices)
    ax.vlines(middles, floor, scores, **look)


def _tops(selection: Selection, indices: Iterable[int]) -> tuple[list[float], list[float]]:
    """Middles and scores of segments, without those whose score is no number."""
    scores, table = selection.scores, selection.table
    finite = [index for index in indices if math.isfinite(scores[index])]
    return [(table.starts[index] + table.ends[index]) / 2 for index in finite], [scores[index] for index in finite]
