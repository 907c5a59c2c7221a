"""Less work for nearly the same choice: a cheap ranking keeps the segments that the model is to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Protocol

from xl3m_integrations.errors import MissingExtraError, SettingError
from xl3m_integrations.types import Segment


class Prefilter(Protocol):
    """Decides, before the model reads anything, which segments it is to read. Any function will do."""

    def __call__(self, question: str, segments: Iterable[Segment], /) -> Iterable[Segment]:
        """Those of `segments` that the model reads, in any order; at least one.

        Args:
            question: The question; in later hops with what earlier ones found ahead of it.
            segments: Those of all documents, in order. May be gone through more than once.
        """


@dataclass(frozen=True, slots=True)
class BM25:
    """The segments that share the rarest words with the question, by `bm25s`. Misses what is said in other words.

    Attributes:
        n: How many to keep; of equals the earlier.

    Raises:
        MissingExtraError: The extra `bm25` is not installed.
        SettingError: `n` is no whole number, or below 1.
    """

    n: int = 256

    def __post_init__(self) -> None:
        """Refuse what would fail only once the document has been cut."""
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise SettingError(f"The prefilter's n is {self.n!r}; it must be a whole number, at least 1.")
        require_bm25("The prefilter BM25")

    def __call__(self, question: str, segments: Iterable[Segment], /) -> Iterable[Segment]:
        """See `Prefilter`."""
        scores = bm25_scores((segment.text for segment in segments), question)
        best = set(nsmallest(self.n, range(len(scores)), key=lambda number: (-scores[number], number)))
        return (segment for number, segment in enumerate(segments) if number in best)


def require_bm25(what: str) -> None:
    """Raise `MissingExtraError` where `what` needs `bm25s` and it is not installed."""
    try:
        import bm25s  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of(what, "bm25") from error


def bm25_scores(passages: Iterable[str], question: str) -> Sequence[float]:
    """BM25 of each passage for the question; all 0 where they share no word. Needs `bm25s`."""
    import bm25s

    words = bm25s.tokenize(passages, show_progress=False)
    [asked] = bm25s.tokenize([question], return_ids=False, show_progress=False)
    if not asked or not words.vocab:
        return [0.0] * len(words.ids)
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    return [float(score) for score in index.get_scores(asked)]
