"""What flows from stage to stage: frozen values. Offsets are characters (code points) of the document."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Span = tuple[int, int]
Source = tuple[str, int, int]  # (name, start, end): which characters of the document came from where


@dataclass(frozen=True, slots=True)
class Segment:
    """A token window of a document.

    Attributes:
        index: Position among the document's segments, from 0.
        start: Offset of its first character.
        end: Offset after its last character.
        text: `document[start:end]`.
        ids: Its token ids, from the one encoding of the document.
        document: Which of the documents scored together it belongs to; 0 where there is one.
        token: Number of its first token among the document's.
    """

    index: int
    start: int
    end: int
    text: str
    ids: Sequence[int] = field(repr=False, default=())
    document: int = 0
    token: int = 0


@dataclass(frozen=True, slots=True)
class ScoredSegment:
    """A segment that was kept, and why.

    Attributes:
        index: Position among the document's segments, from 0.
        start: Offset of its first character.
        end: Offset after its last character.
        text: `document[start:end]`.
        score: The measure's score; higher is more certain. Comparable within one selection only.
        rank: 1 for the best segment of the selection's documents, 2 for the next, …
        evidence: What the score was made from, by name, in nats (`entropy`, `gain`, …).
        tokens: Length in tokens of the scoring model.
    """

    index: int
    start: int
    end: int
    text: str
    score: float
    rank: int
    evidence: Mapping[str, float] = field(default_factory=dict, repr=False)
    tokens: int = 0


FOUND = 0.5  # probability from which on the answer counts as found


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure the model is that the text holds the answer.

    Attributes:
        nats: Doubt: mean entropy of the greedy answer's tokens, and half the mean over the question's tokens of what
            another sentence explains better. 0 is none.
        probability: The same between 0 and 1, calibrated on the bundled model; `float()` gives it.
    """

    nats: float
    probability: float

    @property
    def found(self) -> bool:
        """Whether the probability is at least `FOUND`, one half."""
        return self.probability >= FOUND

    def __float__(self) -> float:
        return self.probability

    def info(self) -> dict[str, Any]:
        """As frameworks put it beside a passage or an answer."""
        return {"xl3m_certainty": self.probability, "xl3m_found": self.found}


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The kept segments spliced in document order.

    Attributes:
        text: What the reader reads: the spans' texts, joined by blank lines.
        spans: (start, end) of each excerpt in the document; overlapping and touching segments are merged.
        segments: The segments in it, in document order. Empty where the whole text was taken without scoring.
        dropped: Kept segments that did not fit the token budget, in document order.
        certainty: How sure the model is that the best segment, of all documents selected from together, holds the
            answer; None where the measure takes one look only, or where nothing was scored.
    """

    text: str
    spans: tuple[Span, ...]
    segments: tuple[ScoredSegment, ...] = field(repr=False, default=())
    dropped: tuple[ScoredSegment, ...] = field(repr=False, default=())
    certainty: Certainty | None = None


@dataclass(frozen=True, slots=True)
class SegmentTable:
    """All segments of a document, kept or not, in columns: entry i is the segment of index i.

    Attributes:
        starts: Offsets of their first characters.
        ends: Offsets after their last characters.
        ranks: As in `ScoredSegment`.
        evidence: By name, in nats, what every segment's score was made from at first; nan of what was not read.
        again: What a second look saw, by index, of the segments that it was given.
        cut: Gives the document's text between two offsets, and so keeps the document (of a streamed one its temporary
            file) as long as the table lives; None where there is none. A copied or pickled table leaves it behind.
    """

    starts: Sequence[int] = ()
    ends: Sequence[int] = ()
    ranks: Sequence[int] = ()
    evidence: Mapping[str, Sequence[float]] = field(default_factory=dict)
    again: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    cut: Callable[[int, int], str] | None = field(compare=False, default=None)

    def __reduce__(self) -> tuple[Any, ...]:
        return SegmentTable, (self.starts, self.ends, self.ranks, self.evidence, self.again)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which segments of a document were kept for a question.

    Attributes:
        question: The question.
        measure: Name of the measure that scored.
        segments: The kept segments, in document order.
        key_context: The same, spliced.
        scores: Every segment's score, by segment index; -inf of what a prefilter kept from the model.
        tokens: Tokens of the document, in the scoring model's tokens; overlaps counted once.
        characters: Characters of the document.
        seconds: Time that selection took.
        lead: Sentences that earlier hops found, each followed by a space; in later hops, and when the reader is asked,
            they stand ahead of the question. Empty with one hop.
        exact: Whether the measure saw the model's whole distribution; false where a server told its top alone.
        covered_mass: Probability that what it saw covers, on average over all segments; 1 where it saw all.
        reused: Segments whose evidence came from a journal, not from the model.
        table: Offsets, ranks and evidence of every segment.
        settings: What else decided: the model, the length of a segment, the strategy, by name.
    """

    question: str
    measure: str
    segments: tuple[ScoredSegment, ...]
    key_context: KeyContext
    scores: tuple[float, ...] = field(repr=False, default=())
    tokens: int = 0
    characters: int = 0
    seconds: float = 0.0
    lead: str = ""
    exact: bool = True
    covered_mass: float = 1.0
    reused: int = 0
    table: SegmentTable = field(repr=False, default_factory=SegmentTable)
    settings: Mapping[str, str | int] = field(repr=False, default_factory=dict)

    def to_html(self, sources: Sequence[Source] = ()) -> str:
        """A page that shows every segment's score and the key context: one file that asks no network for anything.

        Args:
            sources: Names of the document's parts, such as its files, as (name, start, end) in characters; passages are
                then cited by them.

        Raises:
            MissingExtraError: The extra `report` is not installed.
        """
        from xl3m_integrations.report.page import render

        return render(self, sources)

    def _repr_html_(self) -> str | None:
        from xl3m_integrations.report import framed

        return framed(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw every segment's score along the document, kept ones marked.

        Args:
            ax: Where to draw; None makes a new figure.

        Raises:
            MissingExtraError: The extra `report` is not installed.
        """
        from xl3m_integrations.report.plot import draw

        return draw(self, ax)

    @property
    def read(self) -> int:
        """How many segments the model read: all, or those that a prefilter kept."""
        return sum(score != -math.inf for score in self.scores)

    @property
    def certainty(self) -> Certainty | None:
        """The key context's."""
        return self.key_context.certainty

    @property
    def found(self) -> bool | None:
        """Whether the text holds the answer, by `Certainty.found`; None where it is not known."""
        return None if self.certainty is None else self.certainty.found


@dataclass(frozen=True, slots=True)
class Answer:
    """What the reader answered, from which key context.

    Attributes:
        text: The answer, surrounding whitespace removed.
        question: The question.
        key_context: The context it was read from, with spans and scores.
        prompt_tokens: Tokens of the reader's prompt.
        selection: The selection behind the key context; None where the text fitted the window and none was made.
    """

    text: str
    question: str
    key_context: KeyContext
    prompt_tokens: int = 0
    selection: Selection | None = field(repr=False, default=None)

    @property
    def certainty(self) -> Certainty | None:
        """How sure the model is that the text holds the answer; None where the measure takes one look only."""
        return self.key_context.certainty

    @property
    def found(self) -> bool | None:
        """Whether the text holds the answer, by `Certainty.found`; None where it is not known."""
        return None if self.certainty is None else self.certainty.found

    def to_html(self, sources: Sequence[Source] = ()) -> str:
        """The selection's page with the answer, which is marked where it stands; see `Selection.to_html`."""
        from xl3m_integrations.report.page import render

        return render(self, sources)

    def _repr_html_(self) -> str | None:
        from xl3m_integrations.report import framed

        return framed(self)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scoring pass is.

    Attributes:
        characters: Characters of the document scored so far.
        total: Characters of the whole document; None while it is still streaming in.
        segments: Segments scored so far.
        tokens: Tokens that the model has read so far, question and template included.
        seconds: Time since the pass began.
    """

    characters: int
    total: int | None
    segments: int
    tokens: int
    seconds: float
