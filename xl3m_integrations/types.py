"""What flows from stage to stage: frozen values. Offsets are characters (code points) of the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Span = tuple[int, int]


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


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The kept segments spliced in document order.

    Attributes:
        text: What the reader reads: the spans' texts, joined by blank lines.
        spans: (start, end) of each excerpt in the document; overlapping and touching segments are merged.
        segments: The segments in it, in document order. Empty where the whole text was taken without scoring.
        dropped: Kept segments that did not fit the token budget, in document order.
    """

    text: str
    spans: tuple[Span, ...]
    segments: tuple[ScoredSegment, ...] = field(repr=False, default=())
    dropped: tuple[ScoredSegment, ...] = field(repr=False, default=())


@dataclass(frozen=True, slots=True)
class Selection:
    """Which segments of a document were kept for a question.

    Attributes:
        question: The question.
        measure: Name of the measure that scored.
        segments: The kept segments, in document order.
        key_context: The same, spliced.
        scores: Every segment's score, by segment index.
        tokens: Tokens of the document, in the scoring model's tokens; overlaps counted once.
        characters: Characters of the document.
        seconds: Time that selection took.
        reused: Segments whose evidence came from a journal, not from the model.
    """

    question: str
    measure: str
    segments: tuple[ScoredSegment, ...]
    key_context: KeyContext
    scores: tuple[float, ...] = field(repr=False, default=())
    tokens: int = 0
    characters: int = 0
    seconds: float = 0.0
    reused: int = 0


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
