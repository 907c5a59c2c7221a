"""What a call may say of how much to keep, and by which measure."""

from __future__ import annotations

from pathlib import Path

from typing_extensions import TypedDict

from xl3m_integrations.certainty import Measure, get_measure
from xl3m_integrations.errors import SettingError
from xl3m_integrations.prefilter import Prefilter
from xl3m_integrations.scoring import ProgressCallback
from xl3m_integrations.selection import Budget, Selector, TopK


class Choice(TypedDict, total=False):
    """How much to keep, by which measure: the keyword arguments that `select`, `answer` and `stream` share.

    Attributes:
        top_k: Keep so many segments.
        token_budget: Keep as many of the best segments as fit so many tokens of the scoring model.
        selection: Any other strategy, such as `AdaptiveGap()`. Of these three, one at most.
        measure: Name of a measure, or a measure object; None takes the engine's.
        keep_first: Keep so many segments from the document's beginning in any case.
        keep_last: Keep so many segments from its end in any case.
        hops: How often the document is read. For questions whose answer needs two passages: with 2, it is read again
            with the sentence that explains of the question what few others do ahead of it; with 3, …
        progress: Called about ten times a second with the pass's `Progress`.
        journal: File that keeps each segment's evidence as it comes, so that the same call after a crash goes on where
            it stopped; it is made where there is none. What another model, setting or question left is never used.
        prefilter: Chooses the segments that the model reads, such as `BM25(n=256)`, or a function of the question and
            the segments; None lets it read all. A segment left out has the score -inf, nan as evidence, and a rank
            behind all that were read; it is kept only where `keep_first` or `keep_last` asks for it. Several questions
            are then read one after the other, since each has its own segments.
    """

    top_k: int | None
    token_budget: int | None
    selection: Selector | None
    measure: str | Measure | None
    keep_first: int
    keep_last: int
    hops: int
    progress: ProgressCallback | None
    journal: str | Path | None
    prefilter: Prefilter | None


def selector_of(
    top_k: int | None = None,
    token_budget: int | None = None,
    selection: Selector | None = None,
    measure: str | Measure | None = None,
    keep_first: int = 0,
    keep_last: int = 0,
    hops: int = 1,
    progress: ProgressCallback | None = None,
    journal: str | Path | None = None,
    prefilter: Prefilter | None = None,
) -> Selector | None:
    """The strategy that a `Choice` asks for, None where it asks for none.

    Raises:
        SettingError: Something of it is unknown or out of its range.
    """
    get_measure(measure)
    for name, kept in (("keep_first", keep_first), ("keep_last", keep_last)):
        if not isinstance(kept, int) or kept < 0:
            raise SettingError(f"{name} is {kept!r}; it must be a whole number, not negative.")
    if not isinstance(hops, int) or hops < 1:
        raise SettingError(f"hops is {hops!r}; it must be a whole number, at least 1.")
    if prefilter is not None and not callable(prefilter):
        raise SettingError(f"prefilter is {prefilter!r}; pass BM25(n=…), or a function of question and segments.")
    given = [
        name
        for name, value in (("top_k", top_k), ("token_budget", token_budget), ("selection", selection))
        if value is not None
    ]
    if len(given) > 1:
        raise SettingError(f"{' and '.join(given)} were given; they are alternatives, pass one.")
    if top_k is not None:
        return TopK(top_k)
    return Budget(token_budget) if token_budget is not None else selection
