"""Kept segments -> key context: document order, overlaps merged, whole segments only, inside a token budget."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence

from xl3m_integrations.errors import SettingError
from xl3m_integrations.types import Certainty, KeyContext, ScoredSegment, Span

SEPARATOR = "\n\n"


def merged_spans(segments: Iterable[ScoredSegment]) -> tuple[Span, ...]:
    """The segments' (start, end), in order, overlapping and touching ones as one."""
    spans: list[Span] = []
    for start, end in sorted((segment.start, segment.end) for segment in segments):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return tuple(spans)


def assemble(
    segments: Sequence[ScoredSegment],
    cut: Callable[[int, int], str],
    fits: Callable[[str], bool] | None = None,
    certainty: Certainty | None = None,
    foremost: Container[int] = (),
) -> KeyContext:
    """Splice segments in document order.

    Args:
        segments: The kept segments, in any order.
        cut: Gives the document's text between two offsets.
        fits: Whether a text is within the reader's budget; None means any is. Where not all segments fit, the best are
            taken, by rank, as many as do; never a part of one.
        certainty: Handed on.
        foremost: Indexes of segments that are taken before all others, whatever their rank.

    Raises:
        SettingError: Not even the best segment fits.
    """
    ranked = sorted(segments, key=lambda segment: (segment.index not in foremost, segment.rank))

    def text_of(count: int) -> str:
        return SEPARATOR.join(cut(start, end) for start, end in merged_spans(ranked[:count]))

    count = len(ranked) if fits is None else most_that_fit(len(ranked), lambda n: fits(text_of(n)))
    if ranked and count == 0:
        raise no_room(ranked[0].tokens)
    return KeyContext(
        text=text_of(count),
        spans=merged_spans(ranked[:count]),
        segments=_in_order(ranked[:count]),
        dropped=_in_order(ranked[count:]),
        certainty=certainty,
    )


def no_room(tokens: int) -> SettingError:
    """What to tell the user where not even the best segment, of so many tokens, fits."""
    return SettingError(
        f"The reader's window has no room for one segment of {tokens} tokens beside the question and the answer. Lower "
        "segment_tokens or max_new_tokens, shorten the question, or use a reader with a longer window."
    )


def _in_order(segments: Iterable[ScoredSegment]) -> tuple[ScoredSegment, ...]:
    return tuple(sorted(segments, key=lambda segment: segment.index))


def most_that_fit(high: int, fits: Callable[[int], bool]) -> int:
    """The largest n in 0..high that fits, given that fewer always fit where more do."""
    if fits(high):
        return high
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
