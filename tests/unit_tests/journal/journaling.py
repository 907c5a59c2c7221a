"""Scorers that tell what they were asked, and an engine whose texts are many segments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from models import QUESTION, shared_model, shared_tokenizer, text_of

from xl3m_integrations import XL3M, ScoringError, Segment
from xl3m_integrations.backends.base import Evidence, Reused
from xl3m_integrations.backends.journal import JournaledScorer
from xl3m_integrations.certainty import Entropy, Measure

TEXT = text_of(6_000, seed=4)


@dataclass
class LoggingScorer:
    """Takes `ahead` segments at a time and says of each a number that tells its tokens and when it was asked."""

    ahead: int = 3
    fails_at: int | None = None
    fingerprint: str = "model a"
    window: int = 4096
    tokenizer: Any = None
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        source = iter(segments)
        while group := list(islice(source, self.ahead)):
            for segment in group:
                self.asked.append(tuple(segment.ids))
            for segment in group:
                if segment.index == self.fails_at:
                    raise ScoringError(f"segment {segment.index}")
                yield segment, tuple(sum(segment.ids) / 7 + column for column in range(len(measure.columns)))

    def overhead(self, question: str) -> int:
        return 5


def segments_of(ids: Iterable[int]) -> list[Segment]:
    return [Segment(index, index, index + 1, "x", [number, number + 1]) for index, number in enumerate(ids)]


def scored(scorer: JournaledScorer, segments: list[Segment], measure: Measure | None = None, question: str = QUESTION):
    return list(scorer.evidence(segments, question, measure or Entropy()))


def reused(found: list[tuple[Segment, Evidence]]) -> int:
    return sum(isinstance(evidence, Reused) for _, evidence in found)


def engine(model: Any = None, tokenizer: Any = None, **options: Any) -> XL3M:
    loaded = {"model": model or shared_model(), "tokenizer": tokenizer or shared_tokenizer()}
    return XL3M.from_pretrained(**loaded, segment_tokens=24, overlap_tokens=4, **options)
