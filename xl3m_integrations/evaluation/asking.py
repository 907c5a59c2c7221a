"""A question put to a method, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from xl3m_integrations.documents import Document
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import XL3MError
from xl3m_integrations.evaluation.examples import Example
from xl3m_integrations.types import Segment, Span


class NotApplicable(XL3MError):
    """A method has nothing to say of an example: the text does not fit the window of a reader that wants it whole."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on a document that is cut into segments.

    Attributes:
        xl3m: The engine, whose reader answers.
        example: The question and the text.
        document: The text, prepared.
        segments: Its segments.
        segmenting: Seconds that cutting them took.
        top_k: As many segments as `xl3m` is told to keep; None leaves it the choice.
        budget: Tokens of the document that the others may keep, overlaps counted once.
        max_new_tokens: Length limit of the answer; None takes the engine's.
        seed: Of methods that draw.
    """

    xl3m: XL3M
    example: Example
    document: Document
    segments: Sequence[Segment]
    segmenting: float
    top_k: int | None
    budget: int
    max_new_tokens: int | None
    seed: int

    @classmethod
    def of(cls, xl3m: XL3M, example: Example, top_k: int | None, max_new_tokens: int | None, seed: int) -> Asked:
        """Cut the example's text."""
        began = time.monotonic()
        document = xl3m.prepare([example.text])[0]
        segments = list(document.prepared.segments(document)) if document.prepared else []
        budget = (top_k or xl3m.most_kept) * xl3m.segmenter.segment_tokens
        cutting = time.monotonic() - began
        return cls(xl3m, example, document, segments, cutting, top_k, budget, max_new_tokens, seed)

    @property
    def tokens(self) -> int:
        """Length of the document in tokens."""
        return self.segments[-1].token + len(self.segments[-1].ids)

    def count(self, text: str) -> int:
        """Length of a text in the reader's tokens."""
        return self.xl3m.reader.count(text) if self.xl3m.reader else self.xl3m.scorer.tokenizer.count(text)

    @property
    def room(self) -> int:
        """Tokens of context that the reader has room for beside question and answer."""
        reader = self.xl3m.reader
        if reader is None:
            return self.budget
        limit = self.max_new_tokens or self.xl3m.max_new_tokens
        return reader.window - limit - reader.overhead(self.example.question)

    def read(self, context: str) -> str | None:
        """What the reader answers from a context that fits its window; None where there is no reader."""
        reader = self.xl3m.reader
        if reader is None:
            return None
        limit = self.max_new_tokens or self.xl3m.max_new_tokens
        return "".join(reader.stream(context, self.example.question, max_new_tokens=limit)).strip()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method made of a question.

    Attributes:
        ranked: Numbers of the segments, best first; empty where the method ranks nothing.
        kept: (start, end) of what the reader read.
        answer: The answer; None where there is no reader.
        kept_tokens: Length of what the reader read, in its tokens.
        seconds: From the text to the answer.
        certainty: How sure the method is that the text holds the answer, from 0 to 1; None where it does not say.
        found: Whether it says that the text holds the answer; None where it does not say.
    """

    ranked: tuple[int, ...]
    kept: tuple[Span, ...]
    answer: str | None
    kept_tokens: int
    seconds: float
    certainty: float | None = None
    found: bool | None = None


class Method(Protocol):
    """A way to answer a question about a text that is longer than the window."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""

    def check(self) -> None:
        """Raise `MissingExtraError` where what the method needs is not installed."""

    def run(self, asked: Asked) -> Outcome:
        """Answer one question.

        Raises:
            NotApplicable: The method cannot be used on this example; it is left out of the method's n.
            XL3MError: The method failed.
        """


def order_of(scores: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the segments by score, the highest first; of equals the earlier first."""
    return tuple(sorted(range(len(scores)), key=lambda number: -scores[number]))
