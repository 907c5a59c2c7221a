"""Every segment's figures, packed for the page's script, in a size that does not grow without bound."""

from __future__ import annotations

import base64
import json
import math
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from xl3m_integrations.types import Answer, Selection, Source

DRAWN = 200_000  # segments; of a longer document the best of each few neighbours are drawn
TEXT_BYTES = 1_200_000  # of all segments' excerpts together
EXCERPT = 320  # characters, where there are many segments
LONGEST_EXCERPT = 4_000
STRETCHES = 1_000  # the best segment of each has an excerpt before others do


def packed(shown: Selection | Answer, sources: Sequence[Source]) -> str:
    """JSON, deflated, in base64: harmless in a page whatever the document holds."""
    data = json.dumps(figures(shown, sources), separators=(",", ":"), ensure_ascii=True)
    return base64.b64encode(zlib.compress(data.encode("ascii"))).decode("ascii")


def figures(shown: Selection | Answer, sources: Sequence[Source]) -> dict[str, object]:
    """What the script draws. Rows are the drawn segments; offsets and indices are given as differences.

    `kept` maps rows to 1 where the reader read the segment and to 2 where it did not fit; `text` and `source` map rows
    to excerpts and to what they are from.
    """
    selection = shown.selection if isinstance(shown, Answer) else shown
    if selection is None or not selection.table.starts:
        return {"rows": 0}
    table = selection.table
    state = {segment.index: 1 for segment in selection.segments}
    if isinstance(shown, Answer):
        state |= {segment.index: 2 for segment in shown.key_context.dropped}
    rows = drawn(selection.scores, state)
    texts = dict(excerpts(selection, rows, state))
    row_of = {index: row for row, index in enumerate(rows)}
    second = {
        index: {name: rounded(value) for name, value in seen.items()}
        for index, seen in table.again.items()
        if index in row_of
    }
    firsts = [start for _, start, _ in sources]
    return {
        "rows": len(rows),
        "segments": len(selection.scores),
        "characters": selection.characters,
        "index": differences(rows),
        "start": differences(table.starts[index] for index in rows),
        "length": [table.ends[index] - table.starts[index] for index in rows],
        "rank": [table.ranks[index] for index in rows],
        "score": [rounded(selection.scores[index]) for index in rows],
        "evidence": {name: [rounded(column[index]) for index in rows] for name, column in table.evidence.items()},
        "again": {row_of[index]: again for index, again in second.items()},
        "kept": {row_of[index]: value for index, value in state.items()},
        "text": {row_of[index]: text for index, text in texts.items()},
        "names": [shortened(name) for name, _, _ in sources] if len(sources) <= STRETCHES else [],
        "source": {row_of[index]: bisect_right(firsts, table.starts[index]) - 1 for index in texts} if sources else {},
    }


def drawn(scores: Sequence[float], kept: Iterable[int], limit: int = DRAWN) -> Sequence[int]:
    """Indices of the segments to draw, in order: all up to `limit`, else the best of each few neighbours and the kept.

    Of equals the earlier is taken, as in ranking.
    """
    if len(scores) <= limit:
        return range(len(scores))
    return sorted({*best_of_stretches(scores, range(len(scores)), limit), *kept})


def best_of_stretches(scores: Sequence[float], rows: Sequence[int], stretches: int) -> Iterator[int]:
    """The best of the rows in each of at most so many stretches of equally many."""
    size = max(1, math.ceil(len(rows) / stretches))
    for at in range(0, len(rows), size):
        yield max(rows[at : at + size], key=lambda row: scores[row])


def excerpts(
    selection: Selection, rows: Sequence[int], kept: Iterable[int], budget: int = TEXT_BYTES
) -> Iterator[tuple[int, str]]:
    """(index, beginning of the text) of as many segments as the budget allows.

    First come the kept ones, then the best of each stretch of the document, then the others by rank.
    """
    table, scores = selection.table, selection.scores
    texts = {segment.index: segment.text for segment in selection.segments}
    by_rank = sorted(rows, key=lambda row: table.ranks[row])
    wanted = dict.fromkeys(chain(kept, best_of_stretches(scores, rows, STRETCHES), by_rank))
    length = min(LONGEST_EXCERPT, max(EXCERPT, budget // (2 * len(rows))))
    for index in wanted:
        start, end = table.starts[index], table.ends[index]
        if table.cut is not None:
            text = table.cut(start, min(end, start + length))
        elif index in texts:
            text = texts[index][:length]
        else:
            continue
        budget -= len(text.encode("utf-8", "replace")) + 8
        if budget < 0:
            return
        yield index, text


def differences(values: Iterable[int]) -> list[int]:
    """Each value less the one before it."""
    last, found = 0, []
    for value in values:
        found.append(value - last)
        last = value
    return found


def rounded(value: float) -> float | None:
    """Three decimals; None for what is not a number."""
    return round(value, 3) if math.isfinite(value) else None


def shortened(name: str, longest: int = 100) -> str:
    """A name's end, where the difference between paths is."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"
