"""The second look: the best segments' sentences are read by themselves, the best of these up to the answer's end.

A look says what it wants read and is told what the model saw (a generator), so that the looks of several questions go
in step: what all of them want next is read in common batches.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from xl3m_integrations.backends.base import Scorer, evidence_each
from xl3m_integrations.certainty import Measure, SecondLook
from xl3m_integrations.segmentation import sentences
from xl3m_integrations.types import Certainty, Segment

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a look wants read.

    Attributes:
        question: The question.
        segments: N segments that it is put to.
        measure: What to note, in C columns.
    """

    question: str
    segments: Sequence[Segment]
    measure: Measure


Look = Generator[Wanted, Tensor, T]  # is sent [N, C] evidence in float64 of what it wants, and returns T


def in_step(scorer: Scorer, looks: Sequence[Look[T]]) -> list[T]:
    """What each of some looks returns, once the scorer has read what they want."""
    ended: dict[int, T] = {}
    seen: dict[int, Tensor | None] = dict.fromkeys(range(len(looks)))
    while seen:
        wanted: dict[Measure, dict[int, Wanted]] = {}
        for number, evidence in seen.items():
            try:
                want = looks[number].send(evidence)  # type: ignore[arg-type]  # None is what starts a generator
            except StopIteration as end:
                ended[number] = end.value
            else:
                wanted.setdefault(want.measure, {})[number] = want
        seen = {}
        for measure, wants in wanted.items():
            found = evidence_each(scorer, [(want.question, want.segments) for want in wants.values()], measure)
            seen |= {n: torch.tensor(own, dtype=torch.float64) for n, own in zip(wants, found, strict=True)}
    return [ended[number] for number in range(len(looks))]


@dataclass(frozen=True, slots=True)
class SeenAgain:
    """What a second look saw of N segments.

    Attributes:
        scores: [N] in float64; those whose answer was looked at are above the others.
        figures: Of each segment what its score was made from, by name, in nats.
        certainty: How certain it is that the best segment holds the answer.
    """

    scores: Tensor
    figures: list[dict[str, float]]
    certainty: Certainty


def look_again(
    look: SecondLook, scorer: Scorer, question: str, segments: Sequence[Segment], first: Tensor
) -> Look[SeenAgain | None]:
    """Read the segments' sentences, then the best segments with as much of the answer as the window has room for.

    Args:
        look: How to look.
        scorer: Its window and tokenizer count; it is not asked here.
        question: The question.
        segments: N segments.
        first: [N] scores of the first look.

    Returns:
        None where there are no segments, or no room for any of the answer.
    """
    room = scorer.window - scorer.overhead(question) - max((len(segment.ids) for segment in segments), default=0)
    if room <= 0 or not segments:
        return None
    look = replace(look, answer_tokens=min(room, look.answer_tokens))
    parts = [_sentences(segment, scorer, look.most_sentences) for segment in segments]
    owners = torch.tensor([place for place, own in enumerate(parts) for _ in own])
    every = [sentence for own in parts for sentence in own]
    # Of equals one is read: neighbours share some, and texts repeat themselves.
    once = {tuple(sentence.ids): sentence for sentence in every}
    row_of = {ids: row for row, ids in enumerate(once)}
    of_once = yield Wanted(question, list(once.values()), look.sentences)
    seen = of_once[[row_of[tuple(sentence.ids)] for sentence in every]]
    regret = look.sentences.regret(seen)
    doubt = look.sentences.doubt(seen)
    best = _least(doubt, owners, len(segments))  # [N], the sentence of least doubt of each segment
    scores = look.by_sentence(first, doubt[best])
    top = scores.sort(descending=True, stable=True).indices[: look.answers]
    evidence = yield Wanted(question, [segments[place] for place in top.tolist()], look)
    combined = look.combined(first[top], doubt[best][top], evidence)
    scores[top] = above_the_others(combined, scores, top)
    figures = [
        {"sentence_entropy": entropy, "regret": own}
        for entropy, own in zip(seen[best, 0].tolist(), regret[best].tolist(), strict=True)
    ]
    for place, own in zip(top.tolist(), evidence[:, 0].tolist(), strict=True):
        figures[place]["answer_entropy"] = own
    winner = int(combined.argmax())
    certainty = look.certainty(float(evidence[winner, 0]), figures[int(top[winner])]["regret"])
    return SeenAgain(scores, figures, certainty)


def above_the_others(again: Tensor, scores: Tensor, places: Tensor) -> Tensor:
    """The scores of a later look at these places, raised so that all are above those that it did not look at."""
    others = torch.ones(len(scores), dtype=torch.bool)
    others[places] = False
    return again - again.min() + (scores[others].max() + 1e-6 if others.any() else 0.0)


def _least(doubt: Tensor, owners: Tensor, segments: int) -> Tensor:
    """[N], the number of each segment's sentence of least doubt, the first of equals."""
    least = torch.full((segments,), torch.inf, dtype=doubt.dtype).scatter_reduce(0, owners, doubt, "amin")
    reached = (doubt == least[owners]).nonzero()[:, 0]
    number = torch.full((segments,), len(doubt))
    return number.scatter_reduce(0, owners[reached], reached, "amin")


def _sentences(segment: Segment, scorer: Scorer, most: int) -> list[Segment]:
    spans = sentences(segment.text, most) or [(0, len(segment.text))]
    texts = [segment.text[start:end] for start, end in spans]
    return [
        replace(segment, start=segment.start + start, end=segment.start + end, text=text, ids=encoded.ids)
        for (start, end), text, encoded in zip(spans, texts, scorer.tokenizer.encode(texts), strict=True)
    ]
